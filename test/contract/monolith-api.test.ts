import type { Monolith } from '@banyan/dev-monolith/monolith.ts';
import { startMonolith } from '@banyan/dev-monolith/monolith.ts';
import { afterAll, beforeAll, expect, it } from '@jest/globals';
import pg from 'pg';
import request from 'supertest';
import type { FreshDatabase } from '../harness/database.ts';
import { freshDatabase } from '../harness/database.ts';
import { describeShopApi } from '../harness/shop-api-suite.ts';

let database: FreshDatabase;
let shop: Monolith;
let sql: pg.Client;

beforeAll(async () => {
  database = await freshDatabase('empty');
  // Two at once: the schema is made by one and found by the other.
  const [first, second] = await Promise.all([1, 2].map(() => startMonolith({ databaseUrl: database.url, port: 0 })));
  await second!.stop();
  shop = first!;
  sql = new pg.Client({ connectionString: database.url });
  await sql.connect();
});
afterAll(async () => {
  await sql.end();
  await shop.stop();
  await database.drop();
});

const place = (body: unknown, headers: Record<string, string> = {}) =>
  request(shop.url)
    .post('/api/orders')
    .set(headers)
    .send(body as object);
const wish = (quantity = 1, productId = 1) => ({ userId: 'user-7', items: [{ productId, quantity }] });
const one = async (statement: string, bindings: unknown[] = []): Promise<unknown> => {
  const { rows } = await sql.query<Record<string, unknown>>(statement, bindings);
  return Object.values(rows[0] ?? {})[0];
};
const stockOf = (product: number) => one('select qty_on_hand from shop.t_stock where art_no = $1', [product]);

describeShopApi(() => ({ url: shop.url, ledgered: false }));

it('hides what is not sold any more', async () => {
  await sql.query(`insert into shop.t_article (art_no, art_nm, unit_amt_ct, actv_flg) values (99, 'Old', 1, 'N')`);
  expect((await request(shop.url).get('/api/products/99')).status).toBe(404);
  expect((await request(shop.url).get('/api/products')).body).toHaveLength(8);
  expect((await place(wish(1, 99))).status).toBe(422);
});

it('sells the last piece once: 409 for the rest, and no goods lost or made', async () => {
  await sql.query('update shop.t_stock set qty_on_hand = 7 where art_no in (7, 8)');
  const answers = await Promise.all(
    // Both orders of the two articles, so that a wrong order of locks would dead-lock.
    Array.from({ length: 20 }, (_, i) => {
      const items = [8, 7].map((productId) => ({ productId, quantity: 1 }));
      return place({ userId: 'u', items: i % 2 === 0 ? items : items.reverse() });
    }),
  );
  expect(answers.map((answer) => answer.status).sort()).toEqual([...Array(7).fill(201), ...Array(13).fill(409)]);
  expect([await stockOf(8), await stockOf(7)]).toEqual([0, 0]);
});

it('keeps the key of an order and of its cancellation', async () => {
  const { body } = await place(wish(), { 'Idempotency-Key': 'placed-with' });
  await request(shop.url).post(`/api/orders/${body.id}/cancel`).set('Idempotency-Key', 'cancelled-with').expect(200);
  await request(shop.url).post(`/api/orders/${body.id}/cancel`).set('Idempotency-Key', 'too-late').expect(200);
  const { rows } = await sql.query('select idem_key, xcl_idem_key from shop.t_order where ord_no = $1', [body.id]);
  expect(rows).toEqual([{ idem_key: 'placed-with', xcl_idem_key: 'cancelled-with' }]);
});

it('neither makes nor loses goods over a mixed load', async () => {
  const goods = () =>
    one(`select (select sum(qty_on_hand) from shop.t_stock where art_no in (1, 2, 3)) + coalesce((select sum(p.qty) from shop.t_order_pos p
      join shop.t_order o using (ord_no) where o.stat_cd = 'N' and p.art_no in (1, 2, 3)), 0)`);
  const before = await goods();
  await Promise.all(
    Array.from({ length: 40 }, async (_, i) => {
      const { body } = await place({
        userId: 'mix',
        items: [1 + (i % 3), 1 + ((i + 1) % 3)].map((productId) => ({ productId, quantity: 1 + (i % 5) })),
      });
      if (i % 2 === 0) await request(shop.url).post(`/api/orders/${body.id}/cancel`).expect(200);
    }),
  );
  expect(await goods()).toBe(before);
});

it('keeps its rows over a restart', async () => {
  const rows = await one('select count(*)::int from shop.t_order');
  const again = await startMonolith({ databaseUrl: database.url, port: 0 });
  try {
    expect(await one('select count(*)::int from shop.t_order')).toBe(rows);
  } finally {
    await again.stop();
  }
});
