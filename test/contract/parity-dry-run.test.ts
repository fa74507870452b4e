import type { IncomingMessage, ServerResponse } from 'node:http';
import { afterEach, describe, expect, it } from '@jest/globals';
import knex, { type Knex } from 'knex';
import type { ConfigInput } from '../../gateway/config.ts';
import { type FreshDatabase, freshDatabase } from '../harness/database.ts';
import { get, openTwoSides, type Side, type TwoSides } from '../harness/two-sides.ts';
import { until } from '../harness/wait.ts';

type Answer = (req: IncomingMessage, res: ServerResponse) => boolean;
const json = (res: ServerResponse, status: number, body: unknown, headers: Readonly<Record<string, string>> = {}): true => {
  res.writeHead(status, { 'content-type': 'application/json', ...headers }).end(JSON.stringify(body));
  return true;
};
const MARK = { 'banyan-dry-run': '1' };

let opened: { sides: TwoSides; db: Knex; database: FreshDatabase } | undefined;
afterEach(async () => {
  await opened?.sides.stop();
  await opened?.db.destroy();
  await opened?.database.drop();
  opened = undefined;
});

type Rig = {
  readonly sides: TwoSides;
  /** Dry runs by what became of them. */
  readonly counted: () => Promise<Record<string, number>>;
  readonly place: (key: string) => ReturnType<typeof get>;
  /** Commands that a side has got. */
  readonly commands: (side: Side) => readonly { readonly url: string; readonly headers: IncomingMessage['headers'] }[];
};
/** Legacy makes orders 1, 2, 3, …; `service` answers commands at the extracted side. */
const open = async (
  ids: 'stable' | 'transient' | null,
  service: Answer,
  context: Partial<NonNullable<ConfigInput['contexts']>[string]> = {},
): Promise<Rig> => {
  const database = await freshDatabase('store');
  const db = knex({ client: 'pg', connection: database.url, pool: { min: 0, max: 2 } });
  const sides = await openTwoSides(
    {
      match: [
        { path: '/api/orders', methods: ['POST'], writes: { idempotency: 'key' } },
        { path: '/api/orders/**', methods: ['GET'] },
      ],
      stage: 'shadow',
      publisher: 'capture',
      pin: '1ms',
      shadow: { maxPerSecond: 1_000 },
      parity: { sample: '0%', dryRun: '100%', ignore: [{ at: 'header:x-side', because: 'says who answers' }] },
      ...context,
    },
    { store: database.url, seal: { key: 'of this test alone' } },
  );
  opened = { sides, db, database };
  let last = 0;
  sides.legacy.answer = (req, res) =>
    req.method === 'POST' &&
    json(res, 201, { id: ++last, total: 5, createdAt: new Date().toISOString() }, { location: `/api/orders/${last}` });
  sides.extracted.answer = (req, res) => {
    if (req.url === '/_banyan/dry-run') return ids === null ? json(res, 404, {}) : json(res, 200, { dryRun: true, ids });
    return req.method === 'POST' && service(req, res);
  };
  const rig: Rig = {
    sides,
    counted: async () => {
      const { rows } = await db.raw<{ rows: { why: string; n: string }[] }>(
        `select why, sum(n) as n from banyan.parity_count where what = 'dry-run' group by why`,
      );
      return Object.fromEntries(rows.map(({ why, n }) => [why, Number(n)]));
    },
    place: (key) => get(`${sides.url}/api/orders`, { 'content-length': '0', 'idempotency-key': key, cookie: 'a=b' }, 'POST'),
    commands: (side) => side.seen.filter(({ method }) => method === 'POST'),
  };
  // the first one only makes the gateway ask whether the service makes dry runs
  expect((await rig.place('first')).status).toBe(201);
  await until(() => sides.extracted.seen.some(({ url }) => url === '/_banyan/dry-run'), { describe: 'the question' });
  return rig;
};

describe('a command that legacy does', () => {
  it('is sent to the service once, marked, under the same key, and the answers are compared', async () => {
    let total = 5;
    const { sides, counted, place, commands } = await open('transient', (_req, res) =>
      json(res, 201, { id: 'o-1', total, createdAt: new Date().toISOString() }, { ...MARK, location: '/api/orders/o-1' }),
    );
    await until(
      async () => {
        await place(`warm-${Math.random()}`);
        return (await counted()).noise;
      },
      { describe: 'a compared dry run', timeoutMs: 30_000 },
    );
    const before = commands(sides.extracted).length;
    total = 6;
    expect((await place('k-1')).status).toBe(201);
    await until(async () => (await counted()).mismatch === 1, { describe: 'a mismatch', timeoutMs: 30_000 });
    const copies = commands(sides.extracted).slice(before);
    expect(copies).toMatchObject([{ url: '/api/orders', headers: { 'banyan-dry-run': '1', 'idempotency-key': 'k-1', cookie: 'a=b' } }]);
    expect(copies[0]!.headers).not.toHaveProperty('banyan-shadow');
    expect(commands(sides.legacy).every(({ headers }) => headers['banyan-dry-run'] === undefined)).toBe(true);
    const rows = await opened!.db('banyan.parity_field').where('rule', '').select('route', 'field', 'kind');
    expect(rows).toEqual([{ route: 'POST /api/orders', field: '$.total', kind: 'value' }]);
    // queries are counted apart
    expect(await opened!.db('banyan.parity_count').whereIn('what', ['match', 'noise', 'mismatch'])).toEqual([]);
  });

  it('is not sent to a service that does not declare dry runs', async () => {
    const { sides, counted, place, commands } = await open(null, (_req, res) => json(res, 201, { id: 1 }));
    for (let i = 0; i < 5; i++) await place(`k-${i}`);
    await until(async () => (await counted())['skipped:undeclared'] === 6, { describe: 'what was left out', timeoutMs: 30_000 });
    expect(commands(sides.extracted)).toEqual([]);
  });

  it('is not sent again once the service has answered without the mark', async () => {
    const { sides, counted, place, commands } = await open('transient', (_req, res) => json(res, 201, { id: 1 }));
    await until(
      async () => {
        await place(`k-${Math.random()}`);
        return (await counted())['skipped:not-honoured'];
      },
      { describe: 'the end of dry runs', timeoutMs: 30_000 },
    );
    expect((await counted())['incomparable:not-honoured']).toBe(commands(sides.extracted).length);
    const so = commands(sides.extracted).length;
    for (let i = 0; i < 5; i++) await place(`more-${i}`);
    expect(commands(sides.extracted)).toHaveLength(so);
  });

  it('is answered while its dry run hangs, which is never sent again', async () => {
    const { sides, counted, place, commands } = await open('transient', () => true);
    await until(
      async () => {
        await place(`k-${Math.random()}`);
        return commands(sides.extracted).length > 0;
      },
      { describe: 'a dry run', timeoutMs: 30_000 },
    );
    expect((await place('while it hangs')).status).toBe(201);
    sides.extracted.server.closeAllConnections();
    await until(async () => Object.keys(await counted()).some((why) => why.startsWith('incomparable:')), {
      describe: 'its end',
      timeoutMs: 30_000,
    });
    const keys = commands(sides.extracted).map(({ headers }) => headers['idempotency-key']);
    expect(new Set(keys).size).toBe(keys.length);
  });

  it('teaches ids where the service says that it will use those of its dry runs', async () => {
    const { place } = await open(
      'stable',
      (req, res) =>
        json(res, 201, { id: `o-${String(req.headers['idempotency-key'])}`, total: 5, createdAt: new Date().toISOString() }, MARK),
      { parity: { sample: '0%', dryRun: '100%', aliases: true } },
    );
    const found = await until(
      async () => {
        const placed = JSON.parse((await place(`k-${Math.random()}`)).body) as { id: number };
        const alias = await opened!
          .db('banyan.parity_alias')
          .orderBy('at', 'desc')
          .first<{ word: string; legacy: string; extracted: string } | undefined>();
        return alias && { ...alias, last: placed.id };
      },
      { describe: 'an alias', timeoutMs: 30_000, intervalMs: 200 },
    );
    expect(found).toMatchObject({ word: 'order', extracted: expect.stringMatching(/^o-k-/) });
    expect(Number(found.legacy)).toBeLessThanOrEqual(found.last);
  });

  it('has a dry run without a ledger too', async () => {
    const { sides, counted, place, commands } = await open(
      'transient',
      (_req, res) => json(res, 201, { id: 9, total: 5, createdAt: new Date().toISOString() }, { ...MARK, location: '/api/orders/9' }),
      { publisher: 'ledger' },
    );
    await until(
      async () => {
        await place(`k-${Math.random()}`);
        return (await counted()).noise;
      },
      { describe: 'a compared dry run', timeoutMs: 30_000 },
    );
    expect(commands(sides.extracted)[0]).toMatchObject({ headers: { 'banyan-dry-run': '1' } });
  });
});
