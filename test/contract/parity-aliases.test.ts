import { afterAll, beforeAll, describe, expect, it } from '@jest/globals';
import knex, { type Knex } from 'knex';
import { MAX_ALIASES } from '../../gateway/core/parity/aliases.ts';
import { createAliasBook } from '../../gateway/parity/aliases/book.ts';
import { createAliasStore } from '../../gateway/parity/aliases/store.ts';
import { type FreshDatabase, freshDatabase } from '../harness/database.ts';
import { get, openTwoSides, type TwoSides } from '../harness/two-sides.ts';
import { until } from '../harness/wait.ts';

let database: FreshDatabase;
let db: Knex;
beforeAll(async () => {
  database = await freshDatabase('store');
  db = knex({ client: 'pg', connection: database.url, pool: { min: 0, max: 4 } });
});
afterAll(async () => {
  await db.destroy();
  await database.drop();
});

describe('aliases in PostgreSQL', () => {
  const bookOf = () =>
    createAliasBook({
      store: createAliasStore(db),
      wanted: () => true,
      anyWanted: () => true,
      redacted: () => new Set(['card_number']),
      exchangeMs: 3_600_000,
    });
  const order = { word: 'order', legacy: '17', extracted: 'b-9' };

  it('reach other gateways, also those that start later, and the later of two stays', async () => {
    const [here, there] = [bookOf(), bookOf()];
    await there.exchange();
    here.learned('shop', [order]);
    await here.exchange();
    await there.exchange();
    expect(there.of('shop')!.target('/orders/17', 'extracted')).toBe('/orders/b-9');
    expect(there.of('inventory')!.target('/orders/17', 'extracted')).toBe('/orders/17');
    here.learned('shop', [{ ...order, extracted: 'b-10' }]);
    await here.exchange();
    await there.exchange();
    const later = bookOf();
    await later.exchange();
    for (const book of [there, later]) expect(book.of('shop')!.target('/orders/17', 'extracted')).toBe('/orders/b-10');
    await Promise.all([here.stop(), there.stop(), later.stop()]);
  });
  it('are never secrets', () => {
    const answer = (n: number) => ({
      status: 201,
      headers: [['content-type', 'application/json'] as const],
      body: Buffer.from(JSON.stringify({ id: `o-${n}`, apiKey: `k-${n}`, card_number: `4111-${n}`, sessionId: `eyJ${n}` })),
      complete: true,
    });
    expect(bookOf().of('shop')!.learn('/orders', answer(1), answer(2))).toEqual([{ word: 'order', legacy: 'o-1', extracted: 'o-2' }]);
  });
  it('are bounded per context', async () => {
    await db.raw(
      `insert into banyan.parity_alias select 'many', 'order', 'l-' || n, 'e-' || n, now() - interval '1 day' + n * interval '1 ms' from generate_series(1, ?::int) n`,
      [MAX_ALIASES + 50],
    );
    await createAliasStore(db).prune('many');
    const { rows } = await db.raw<{ rows: { n: string; least: string }[] }>(
      `select count(*) as n, min(substr(legacy, 3)::int) as least from banyan.parity_alias where context = 'many'`,
    );
    expect(rows[0]).toEqual({ n: String(MAX_ALIASES), least: 51 });
    await db.raw(`delete from banyan.parity_alias where context = 'many'`);
  });
});

describe('a service that gives orders numbers of its own (scenario 29)', () => {
  /** What the fact of an order has made of it in the service, by idempotency key. */
  const arrived = new Map<string, string>();
  let sides: TwoSides;
  const open = async (): Promise<TwoSides> => {
    const opened = await openTwoSides(
      {
        match: [
          {
            path: '/api/orders',
            methods: ['POST'],
            writes: { idempotency: 'key', resolve: { get: '/api/orders?ref={key}', applied: '$[0].id', body: '$[0]' } },
          },
          { path: '/api/orders/**', methods: ['GET'] },
        ],
        stage: 'shadow',
        publisher: 'capture',
        shadow: { maxPerSecond: 1_000 },
        parity: { sample: '100%', probe: '0%', aliases: true, ignore: [{ at: 'header:x-side', because: 'says who answers' }] },
      },
      { store: database.url, seal: { key: 'the same every time' }, jwt: null },
    );
    const json = (res: import('node:http').ServerResponse, status: number, body: unknown): true => {
      res.writeHead(status, { 'content-type': 'application/json' }).end(JSON.stringify(body));
      return true;
    };
    opened.legacy.answer = (req, res) => {
      if (req.method === 'POST') return json(res, 201, { id: 17, total: 5 });
      return req.url === '/api/orders/17' ? json(res, 200, { id: 17, total: 5, self: '/api/orders/17' }) : json(res, 404, {});
    };
    opened.extracted.answer = (req, res) => {
      const ref = /^\/api\/orders\?ref=(.*)$/.exec(req.url!)?.[1];
      if (ref !== undefined) return json(res, 200, arrived.has(ref) ? [{ id: arrived.get(ref), total: 5 }] : []);
      return req.url === '/api/orders/o-9' ? json(res, 200, { id: 'o-9', total: 5, self: '/api/orders/o-9' }) : json(res, 404, {});
    };
    return opened;
  };
  const counted = async (what: string): Promise<number> => {
    const { rows } = await db.raw<{ rows: { n: string }[] }>(
      `select coalesce(sum(n), 0) as n from banyan.parity_count where context = 'order' and what = ?`,
      [what],
    );
    return Number(rows[0]!.n);
  };
  beforeAll(async () => {
    sides = await open();
  });
  afterAll(() => sides.stop());

  it('is asked about its own once it has the order, and the numbers are noise', async () => {
    const placed = await get(`${sides.url}/api/orders`, { 'content-length': '0', 'idempotency-key': 'k-1', authorization: 'me' }, 'POST');
    expect(placed.status).toBe(201);
    await until(() => sides.extracted.seen.some(({ url }) => url === '/api/orders?ref=k-1'), {
      describe: 'the question what became of it',
    });
    arrived.set('k-1', 'o-9');
    await until(async () => (await db('banyan.parity_alias').where({ context: 'order' }).select('legacy', 'extracted'))[0], {
      describe: 'the alias in the store',
      timeoutMs: 60_000,
    });
    expect((await get(`${sides.url}/api/orders/17`)).status).toBe(200);
    await until(async () => (await counted('noise')) === 1, { describe: 'a judged pair', timeoutMs: 30_000 });
    expect(await counted('mismatch')).toBe(0);
    expect(sides.extracted.seen.at(-1)).toMatchObject({ method: 'GET', url: '/api/orders/o-9' });
    expect(sides.extracted.seen.filter(({ method }) => method !== 'GET')).toEqual([]);
    const { rows } = await db.raw<{ rows: object[] }>(
      `select field, rule from banyan.parity_field where context = 'order' and field like '$%' order by field`,
    );
    expect(rows).toEqual([
      { field: '$.id', rule: 'alias' },
      { field: '$.self', rule: 'alias' },
    ]);
  });
  it('is asked so after a restart too', async () => {
    await sides.stop();
    sides = await open();
    await until(
      async () => {
        await get(`${sides.url}/api/orders/17`);
        return sides.extracted.seen.some(({ url }) => url === '/api/orders/o-9');
      },
      { describe: 'a copy under the own id', timeoutMs: 30_000 },
    );
  });
});
