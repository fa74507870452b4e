import { request } from 'node:http';
import { afterEach, describe, expect, it } from '@jest/globals';
import { bucketOf } from '../../gateway/core/bucket.ts';
import { prepare } from '../../gateway/proxy/call.ts';
import type { ClientRequest } from '../../gateway/proxy/client.ts';
import { ID_COOKIE, stickyOf } from '../../gateway/sticky.ts';
import { type Got, get, type Listening, listenOn, openTwoSides, routeOf, type TwoSides } from '../harness/two-sides.ts';

/** `BANYAN_CLIENTS=1000 npm test -- contract/anonymous` sends a hundred requests for each of so many clients (a few minutes). */
const CLIENTS = Number(process.env.BANYAN_CLIENTS ?? 50);
const REQUESTS = process.env.BANYAN_CLIENTS === undefined ? 6 : 100;

let sides: TwoSides | null = null;
let cache: Listening | null = null;
afterEach(async () => {
  await cache?.stop();
  await sides?.stop();
  sides = null;
  cache = null;
});

const idOf = (got: Got): string | undefined =>
  got.headers['set-cookie']?.map((line) => new RegExp(`^${ID_COOKIE}=([^;]+)`).exec(line)?.[1]).find((id) => id !== undefined);

/** A client that keeps the cookie it is given. */
const browser = (url: string) => {
  let cookie: string | undefined;
  return async (path = '/api/orders/1', headers: Record<string, string> = {}): Promise<Got> => {
    const got = await get(`${url}${path}`, {
      ...headers,
      ...(cookie === undefined ? {} : { cookie: `theme=dark; ${ID_COOKIE}=${cookie}` }),
    });
    cookie = idOf(got) ?? cookie;
    return got;
  };
};

/** The key that the pipeline finds for a client with this cookie, and the cookie that it would have afterwards. */
const visit = (cookie: string | null): { key: string; cookie: string } => {
  const rawHeaders = ['Host', 'shop', ...(cookie === null ? [] : ['Cookie', `${ID_COOKIE}=${cookie}`])];
  const req = {
    rawHeaders,
    headers: {},
    url: '/',
    method: 'GET',
    httpVersionMajor: 1,
    httpVersionMinor: 1,
    socket: { remoteAddress: '127.0.0.1' },
  } as unknown as ClientRequest;
  const call = prepare(req, null, { trusted: () => false, requestId: () => 'r' });
  const { key, issued } = stickyOf({ call, params: {}, claims: null }, [], true);
  return { key: key!, cookie: issued ?? cookie! };
};

describe('clients that nothing tells apart', () => {
  it('do not drift: at 10 % the same tenth is there at the first request and at the hundredth', () => {
    const clients = 2_000;
    let members = 0;
    let moved = 0;
    for (let n = 0; n < clients; n++) {
      let { key, cookie } = visit(null);
      const first = bucketOf('order', key) < 1_000;
      for (let again = 1; again < 100; again++) {
        ({ key, cookie } = visit(cookie));
        if (bucketOf('order', key) < 1_000 !== first) moved++;
      }
      if (first) members++;
    }
    expect(moved).toBe(0);
    // ids are random, and CI runs often: 3 sigma would fail once in 370 runs, 4.5 once in 150,000
    expect(Math.abs(members - clients / 10)).toBeLessThan(4.5 * Math.sqrt(clients * 0.1 * 0.9));
  });

  it('stay on one side through the gateway, from the answer on that brings the cookie', async () => {
    sides = await openTwoSides({ stage: 'canary', share: '50%' });
    const seen = new Set<string>();
    for (let n = 0; n < 20; n++) {
      const visitor = browser(sides.url);
      const first = await visitor();
      const id = idOf(first)!;
      const upstream = bucketOf('order', id) < 5_000 ? 'extracted' : 'legacy';
      seen.add(upstream);
      expect(routeOf(first)).toEqual({ upstream, reason: 'SPLIT' });
      for (let again = 0; again < 5; again++) {
        const next = await visitor();
        expect([next.headers['x-side'], next.headers['set-cookie']]).toEqual([upstream, undefined]);
      }
    }
    expect(seen.size).toBe(2);
  });

  it(`keep their share of 10 % through the gateway: ${CLIENTS} clients, ${REQUESTS} requests each`, async () => {
    sides = await openTwoSides({ stage: 'canary', share: '10%' });
    const { url } = sides;
    let members = 0;
    let moved = 0;
    let next = 0;
    const visitors = async (): Promise<void> => {
      while (next++ < CLIENTS) {
        const visitor = browser(url);
        const first = (await visitor()).headers['x-side'];
        for (let again = 1; again < REQUESTS; again++) if ((await visitor()).headers['x-side'] !== first) moved++;
        if (first === 'extracted') members++;
      }
    };
    await Promise.all(Array.from({ length: 8 }, visitors));
    expect(moved).toBe(0);
    expect(Math.abs(members - CLIENTS / 10)).toBeLessThan(4.5 * Math.sqrt(CLIENTS * 0.1 * 0.9));
  }, 600_000);

  it('get a cookie in canary only, and only where a context owns the path', async () => {
    sides = await openTwoSides({ stage: 'canary', share: '10%' });
    const got = await get(`${sides.url}/api/orders/1`);
    expect(got.headers['set-cookie']).toEqual([
      expect.stringMatching(/^banyan-id=[0-9a-f-]{36}; Path=\/; HttpOnly; SameSite=Lax; Max-Age=31536000$/),
    ]);
    expect(got.headers['cache-control']).toBe('private');
    expect((await get(`${sides.url}/elsewhere`)).headers['set-cookie']).toBeUndefined();
    await sides.stop();
    for (const stage of ['legacy', 'shadow'] as const) {
      sides = await openTwoSides({ stage });
      expect((await get(`${sides.url}/api/orders/1`)).headers['set-cookie']).toBeUndefined();
      await sides.stop();
    }
    sides = null;
  });
});

type Stored = { got: Got; until: number };

/** A shared cache in the words of RFC 9111, with the targeted fields of RFC 9213: stores what it may, serves it while fresh, revalidates by ETag. */
const sharedCache = async (origin: string): Promise<Listening & { hits(): number; revalidated(): number }> => {
  const stored = new Map<string, Stored>();
  let hits = 0;
  let revalidated = 0;
  const directivesOf = ({ headers }: Got): string => String(headers['cdn-cache-control'] ?? headers['cache-control'] ?? '');
  const ask = (path: string, headers: Record<string, string | string[]>): Promise<Got> =>
    new Promise((resolve, reject) => {
      const req = request(`${origin}${path}`, { headers }, (res) => {
        let body = '';
        res.on('data', (chunk) => (body += chunk));
        res.on('end', () => resolve({ status: res.statusCode ?? 0, headers: res.headers, body }));
      });
      req.on('error', reject).end();
    });
  const listening = await listenOn(async (req, res) => {
    const path = req.url ?? '/';
    const forwarded: Record<string, string> = req.headers.cookie === undefined ? {} : { cookie: req.headers.cookie };
    const reply = ({ status, headers, body }: Got): void => void res.writeHead(status, headers).end(body);
    const known = stored.get(path);
    if (known && known.until > Date.now()) {
      hits++;
      return reply(known.got);
    }
    const etag = known?.got.headers.etag;
    const got = await ask(path, etag === undefined ? forwarded : { ...forwarded, 'if-none-match': etag });
    if (got.status === 304 && known) {
      revalidated++;
      // 3.2: the fields of a 304 replace the stored ones
      known.got = { ...known.got, headers: { ...known.got.headers, ...got.headers } };
      return reply(known.got);
    }
    const directives = directivesOf(got);
    if (got.status === 200 && !/private|no-store/.test(directives) && /public|max-age/.test(directives)) {
      const seconds = Number(/max-age=(\d+)/.exec(directives)?.[1] ?? 0);
      stored.set(path, { got, until: Date.now() + seconds * 1000 });
    }
    reply(got);
  });
  return { ...listening, hits: () => hits, revalidated: () => revalidated };
};

describe('a shared cache in front', () => {
  it.each([
    ['for a while', 'public, max-age=60'],
    ['for as long as it asks again', 'public, max-age=0'],
  ])("keeps what all may see %s, and never hands one client's cookie to another", async (_how, cacheControl) => {
    sides = await openTwoSides({ stage: 'canary', share: '50%' });
    for (const side of [sides.legacy, sides.extracted])
      side.answer = (req, res) => {
        res.setHeader('Cache-Control', cacheControl).setHeader('CDN-Cache-Control', cacheControl).setHeader('ETag', '"1"');
        if (req.headers['if-none-match'] === '"1"') res.writeHead(304).end();
        else res.end('same for all');
        return true;
      };
    const shared = await sharedCache(sides.url);
    cache = shared;
    const given: string[] = [];
    const visitors = Array.from({ length: 12 }, () => browser(shared.url));
    for (let round = 0; round < 4; round++)
      for (const visitor of visitors) {
        const got = await visitor();
        expect([got.status, got.body]).toEqual([200, 'same for all']);
        const id = idOf(got);
        if (id !== undefined) given.push(id);
      }
    expect(given.length).toBeGreaterThan(0);
    expect(new Set(given).size).toBe(given.length);
    // the cache did its work, so that the test means something
    expect(shared.hits() + shared.revalidated()).toBeGreaterThan(10);
    // whoever comes after gets what is stored, without anybody's cookie
    for (let n = 0; n < 5; n++) expect(idOf(await get(`${shared.url}/api/orders/1`))).toBeUndefined();
  });
});
