import { once } from 'node:events';
import type { IncomingMessage, ServerResponse } from 'node:http';
import { afterEach, describe, expect, it } from '@jest/globals';
import { WebSocket } from 'ws';
import { createIdentityVerifier } from '../../extracted-services/kit/identity.ts';
import { identityKey, publicPem } from '../../gateway/identity/keys.ts';
import { rawConnect, statusOf } from '../harness/raw-http.ts';
import { get, openTwoSides, type TwoSides } from '../harness/two-sides.ts';
import { until } from '../harness/wait.ts';

const SEAL = 'a-seal-key-for-tests';
const PEM = publicPem(identityKey(null, SEAL))!;
const verify = createIdentityVerifier({ key: PEM, context: 'order' });

let sides: TwoSides | null = null;
let asked: IncomingMessage[] = [];
afterEach(async () => {
  await sides?.stop();
  sides = null;
});

type Whoami = (req: IncomingMessage, res: ServerResponse) => void;

const open = async (whoami: Whoami, more: { cache?: string; timeout?: string; stage?: 'canary' | 'shadow' } = {}): Promise<TwoSides> => {
  const { stage = 'canary', ...settings } = more;
  asked = [];
  sides = await openTwoSides(
    { stage, ...(stage === 'canary' ? { share: '100%' } : {}), stickyKey: ['header:x-user-id'] },
    { seal: { key: SEAL }, identity: { from: 'GET /whoami?full=1 on legacy', as: 'header x-banyan-identity (signed JWT)', ...settings } },
  );
  sides.legacy.answer = (req, res) => {
    if (req.url !== '/whoami?full=1') return false;
    asked.push(req);
    whoami(req, res);
    return true;
  };
  return sides;
};
const json = (res: ServerResponse, value: unknown, status = 200): void =>
  void res.writeHead(status, { 'content-type': 'application/json' }).end(typeof value === 'string' ? value : JSON.stringify(value));
const alice = { cookie: 'session=a1', 'x-user-id': 'u1' };
const at = (of: TwoSides, headers: Record<string, string> = alice, path = '/api/orders/1') => get(`${of.url}${path}`, headers);
const outcomes = async (of: TwoSides): Promise<string> => {
  const { default: request } = await import('supertest');
  return (await request(of.banyan.admin).get('/metrics').set('host', 'localhost')).text;
};

describe('identity', () => {
  it('tells the service who is logged in at legacy, signed, and asks once for many requests', async () => {
    const it = await open((_req, res) => json(res, '{"id":9007199254740993,"role":"admin","exp":1,"iss":"me","tags":["a"]}'));
    await Promise.all(Array.from({ length: 10 }, () => at(it)));
    await at(it);
    expect(asked).toHaveLength(1);
    expect([asked[0]!.headers.cookie, asked[0]!.headers.authorization, asked[0]!.headers['x-user-id']]).toEqual([
      'session=a1',
      undefined,
      undefined,
    ]);
    expect(it.extracted.seen).toHaveLength(11);
    const claims = await verify(it.extracted.seen.at(-1)!.headers);
    expect(claims).toMatchObject({ sub: '9007199254740993', role: 'admin', tags: ['a'], iss: 'banyan', aud: 'order' });
    expect(claims!.exp! - claims!.iat!).toBe(60);
  });

  it('believes no token of another context, another key, or an earlier minute', async () => {
    const it = await open((_req, res) => json(res, { sub: 'alice' }));
    await at(it);
    const { headers } = it.extracted.seen[0]!;
    expect((await verify(headers))?.sub).toBe('alice');
    expect(await createIdentityVerifier({ key: PEM, context: 'inventory' })(headers)).toBeNull();
    expect(await createIdentityVerifier({ key: publicPem(identityKey(null, 'another seal key'))!, context: 'order' })(headers)).toBeNull();
    expect(await createIdentityVerifier({ key: PEM, context: 'order', now: () => Date.now() + 66_000 })(headers)).toBeNull();
  });

  it("strips a client's own copy on the way to both sides, in any spelling", async () => {
    const it = await open((_req, res) => json(res, { error: 'nobody' }, 401));
    const forged = { 'x-banyan-identity': 'a.b.c', X_Banyan_Identity: 'a.b.c' };
    await at(it, { ...alice, ...forged });
    await at(it, { ...alice, ...forged }, '/elsewhere');
    for (const { raw } of [...it.extracted.seen, ...it.legacy.seen]) expect(raw.join(' ')).not.toContain('a.b.c');
    expect([it.extracted.seen.length, it.legacy.seen.filter(({ url }) => url === '/elsewhere').length]).toEqual([1, 1]);
  });

  it('strips it from trailers too', async () => {
    const it = await open((_req, res) => json(res, {}, 401));
    const seen: (readonly string[])[] = [];
    it.legacy.answer = (req, res) => {
      req.on('end', () => {
        seen.push(req.rawTrailers);
        res.end();
      });
      return true;
    };
    const connection = await rawConnect(Number(new URL(it.url).port));
    connection.write(
      'POST /upload HTTP/1.1\r\nHost: shop\r\nTransfer-Encoding: chunked\r\n\r\n1\r\na\r\n0\r\nX-Banyan_Identity: a.b.c\r\nX-Sum: 1\r\n\r\n',
    );
    expect(statusOf(await connection.answer())).toBe(200);
    connection.destroy();
    expect(seen).toEqual([['X-Sum', '1']]);
  });

  it('keeps people apart by their credentials, and remembers that somebody is nobody', async () => {
    const it = await open((req, res) => (req.headers.authorization === 'Bearer b' ? json(res, { id: 'bob' }) : json(res, {}, 401)));
    for (let n = 0; n < 2; n++) {
      await at(it, { authorization: 'Bearer b', 'x-user-id': 'b' });
      await at(it, { authorization: 'Bearer x', 'x-user-id': 'x' });
    }
    await at(it, { 'x-user-id': 'without credentials' });
    const who = await Promise.all(it.extracted.seen.map(async ({ headers }) => (await verify(headers))?.sub ?? null));
    expect(who).toEqual(['bob', null, 'bob', null, null]);
    expect(asked).toHaveLength(2);
  });

  it.each([
    ['fails', (_req, res) => json(res, { error: 'down' }, 503)],
    ['answers no JSON', (_req, res) => json(res, '<html>')],
    ['answers too much', (_req, res) => json(res, { id: 'a', note: 'x'.repeat(20_000) })],
    ['answers nothing', () => undefined],
    ['breaks off', (_req, res) => void res.destroy()],
  ] as [string, Whoami][])('goes without where legacy %s, and says so in the metrics', async (_how, whoami) => {
    const it = await open(whoami, { timeout: '100ms' });
    expect((await at(it)).headers['x-side']).toBe('extracted');
    expect(it.extracted.seen[0]!.headers['x-banyan-identity']).toBeUndefined();
    expect(await outcomes(it)).toMatch(/banyan_identity_total\{outcome="failed"\} 1/);
  });

  it('is told to copies and to upgrades too, never to legacy', async () => {
    const it = await open((_req, res) => json(res, { id: 'carol' }), { stage: 'shadow' });
    await it.stop();
    sides = await openTwoSides(
      { stage: 'shadow', parity: { sample: '100%', probe: '100%' } },
      { seal: { key: SEAL }, identity: { from: 'GET /whoami' } },
    );
    sides.legacy.answer = (req, res) => {
      if (req.url === '/whoami') json(res, { id: 'carol' });
      return req.url === '/whoami';
    };
    await at(sides);
    const copies = sides.extracted.seen;
    await until(() => copies.length > 0, { describe: 'the copy' });
    expect((await verify(copies[0]!.headers))?.sub).toBe('carol');
    for (const { headers } of sides.legacy.seen) expect(headers['x-banyan-identity']).toBeUndefined();
    await sides.stop();

    sides = await openTwoSides(
      { stage: 'canary', share: '100%', stickyKey: ['header:x-user-id'] },
      { seal: { key: SEAL }, identity: { from: 'GET /whoami' } },
    );
    sides.legacy.answer = (_req, res) => {
      json(res, { id: 'carol' });
      return true;
    };
    const upgraded = once(sides.extracted.server, 'upgrade') as Promise<[IncomingMessage, import('node:net').Socket]>;
    const socket = new WebSocket(`${sides.url.replace('http', 'ws')}/api/orders/1`, { headers: alice });
    socket.on('error', () => undefined);
    const [req, raw] = await upgraded;
    expect((await verify(req.headers))?.sub).toBe('carol');
    raw.destroy();
    await new Promise((resolve) => socket.once('close', resolve));
  });
});
