import { afterAll, describe, expect, it } from '@jest/globals';
import type { Case, Mode } from './case.ts';
import { CASES } from './cases.ts';
import { type GatewayStand, openGateway } from './gateways.ts';
import { play } from './play.ts';

it('has cases enough, each with its own name and a source', () => {
  expect(CASES.length).toBeGreaterThanOrEqual(120);
  expect(new Set(CASES.map(({ id }) => id)).size).toBe(CASES.length);
  for (const { id, cite } of CASES) expect(`${id}: ${cite}`).toMatch(/RFC|CVE|CWE|#\d|DESIGN|HTML|smuggling|httpd/);
});

describe.each<Mode>(['plain', 'diverted', 'shadowed'])('a %s gateway', (mode) => {
  const stands = new Map<NonNullable<Case['setup']>, Promise<GatewayStand>>();
  const standFor = (setup: NonNullable<Case['setup']>): Promise<GatewayStand> => {
    const known = stands.get(setup) ?? openGateway(mode, setup);
    stands.set(setup, known);
    return known;
  };
  afterAll(async () => {
    for (const stand of stands.values()) await (await stand).stop();
  });

  it.each(CASES.filter((one) => one.not?.mode !== mode).map((one) => [one.id, one.it, one] as const))('%s: %s', async (_id, _it, one) => {
    const { faults } = await play(one, await standFor(one.setup ?? 'usual'));
    expect(faults).toEqual([]);
  });
});
