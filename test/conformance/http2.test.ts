import { afterAll, describe, expect, it } from '@jest/globals';
import { rawHttp2, request } from '../harness/raw-http2.ts';
import { type Case, type Mode, OK } from './case.ts';
import { HEAD_CASES, MALFORMED } from './cases/http2-heads.ts';
import { CASES } from './cases.ts';
import { type GatewayStand, openGateway } from './gateways.ts';
import { http2Client } from './http2-client.ts';
import { overHttp2, whyNot } from './over-http2.ts';
import { play } from './play.ts';
import { createSignals } from './signals.ts';

const SPOKEN = CASES.filter((one) => whyNot(one) === null);

it('finds most cases that are not about bytes of HTTP/1.1', () => {
  expect(SPOKEN.length).toBeGreaterThanOrEqual(120);
});

describe.each<Mode>(['plain', 'diverted', 'shadowed'])('a %s gateway, by HTTP/2', (mode) => {
  const stands = new Map<NonNullable<Case['setup']>, Promise<GatewayStand>>();
  const standFor = (setup: NonNullable<Case['setup']>): Promise<GatewayStand> => {
    const known = stands.get(setup) ?? openGateway(mode, setup);
    stands.set(setup, known);
    return known;
  };
  afterAll(async () => {
    for (const stand of stands.values()) await (await stand).stop();
  });

  it.each(SPOKEN.filter((one) => one.not?.mode !== mode).map((one) => [one.id, one.it, one] as const))('%s: %s', async (_id, _it, one) => {
    const { faults } = await play(overHttp2(one), { ...(await standFor(one.setup ?? 'usual')), dial: http2Client, strict: false });
    expect(faults).toEqual([]);
  });

  it.each(HEAD_CASES.map((one) => [one.id, one.it, one] as const))('%s: %s', async (_id, _it, one) => {
    const stand = await standFor('usual');
    const lists = stand.upstreams.map((upstream) =>
      upstream.begin({ script: [['body', OK]], signals: createSignals(), arrived: 0, violations: [] }),
    );
    const client = (await rawHttp2(stand.port)).greet();
    client.headers(1, one.fields);
    const { status, reset } = await client.outcome(1);
    expect(one.statuses.includes(status ?? 0) || (status === null && reset === MALFORMED)).toBe(true);
    expect(lists.flat()).toEqual([]);
    // The connection and its other streams live on.
    client.headers(3, request('/after'));
    expect(await client.outcome(3)).toMatchObject({ status: 200, body: 'ok', ended: true });
    client.destroy();
  });
});
