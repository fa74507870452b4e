import type { Monolith } from '@banyan/dev-monolith/monolith.ts';
import { startMonolith } from '@banyan/dev-monolith/monolith.ts';
import { afterAll, beforeAll, describe, expect, it } from '@jest/globals';
import pg from 'pg';
import request from 'supertest';
import type { FreshDatabase } from '../harness/database.ts';
import { freshDatabase } from '../harness/database.ts';

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
const wish = (quantity = 1, productId = 1, userId = 'user-7') => ({ userId, items: [{ productId, quantity }] });
const one = async (statement: string, bindings: unknown[] = []): Promise<unknown> => {
  const { rows } = await sql.query<Record<string, unknown>>(statement, bindings);
  return Object.values(rows[0] ?? {})[0];
};
const stockOf = (product: number) => one('select qty_on_hand from shop.t_stock where art_no = $1', [product]);

describe('products', () => {
  it('are listed by id with decimal prices, on answers that say who served them', async () => {
    const answer = await request(shop.url).get('/api/products');
    expect(answer.status).toBe(200);
    expect(answer.body).toHaveLength(8);
    expect(answer.text.startsWith('[{"id":1,"name":"Watering can","price":12.5,"currency":"EUR","stock":')).toBe(true);
    expect(answer.headers).toMatchObject({ 'x-served-by': `monolith-${process.pid}`, 'cache-control': 'no-cache' });
    expect(answer.headers.etag).toMatch(/^W\/"/);
  });

  it('hide what is not sold any more', async () => {
    await sql.query(`insert into shop.t_article (art_no, art_nm, unit_amt_ct, actv_flg) values (99, 'Old', 1, 'N')`);
    expect((await request(shop.url).get('/api/products/99')).status).toBe(404);
    expect((await request(shop.url).get('/api/products')).body).toHaveLength(8);
    expect((await place(wish(1, 99))).status).toBe(422);
  });

  it.each([
    '/api/products/x',
    '/api/products/0',
    '/api/products/99999999999',
    '/api/orders/abc',
    '/api/orders/0',
    '/api/orders/999999999999999999',
    '/api/nothing',
  ])('answer 404 as JSON for %s', async (path) => {
    const answer = await request(shop.url).get(path);
    expect([answer.status, typeof answer.body.error]).toEqual([404, 'string']);
  });

  it('answer 304 to a client that has them, and only a head to HEAD', async () => {
    const { headers } = await request(shop.url).get('/api/products/8');
    const again = await request(shop.url).get('/api/products/8').set('If-None-Match', headers.etag!);
    expect([again.status, again.text]).toEqual([304, '']);
    const head = await request(shop.url).head('/api/products/8');
    expect([head.status, head.headers.etag, head.headers['content-length']]).toEqual([200, headers.etag, headers['content-length']]);
  });
});

describe('orders from before', () => {
  it('read in UTC whatever the season, from Berlin wall time', async () => {
    const { body } = await request(shop.url).get('/api/orders/1003');
    expect(JSON.stringify(body)).toBe(
      '{"id":1003,"userId":"user-3","items":[{"productId":4,"quantity":12,"price":6.2},{"productId":5,"quantity":3,"price":11.99},' +
        '{"productId":6,"quantity":1,"price":49}],"total":159.37,"currency":"EUR","status":"shipped","createdAt":"2025-07-02T21:59:59.999Z","cancelledAt":null}',
    );
    const { body: winter } = await request(shop.url).get('/api/orders/1001');
    expect(winter.createdAt).toBe('2025-01-14T08:12:07.031Z');
    const { body: change } = await request(shop.url).get('/api/orders/1002');
    expect([change.status, change.createdAt, change.cancelledAt]).toEqual([
      'cancelled',
      '2025-03-30T01:00:00.000Z',
      '2025-03-30T16:45:10.250Z',
    ]);
  });

  it('are listed newest first, by customer, by key and up to a limit', async () => {
    const ids = async (query: string) =>
      ((await request(shop.url).get(`/api/orders?${query}`)).body as { id: number }[]).map((order) => order.id);
    expect(await ids('userId=user-1')).toEqual([1004, 1001]);
    expect(await ids('ref=before-5')).toEqual([1005]);
    expect(await ids('ref=nobody')).toEqual([]);
    expect(await ids('userId=user-2&ref=before-5')).toEqual([]);
    expect(await ids('userId=user-1&limit=1')).toEqual([1004]);
  });

  it.each(['limit=0', 'limit=x', 'limit=1001', 'ref=', 'ref=a&ref=b', 'userId=%00'])('refuse the query %s', async (query) => {
    expect((await request(shop.url).get(`/api/orders?${query}`)).status).toBe(400);
  });
});

describe('placing an order', () => {
  it('answers 201 with the order and where it is, and takes the goods', async () => {
    const before = Number(await stockOf(2));
    const answer = await place({
      userId: 'user-9',
      items: [
        { productId: 2, quantity: 3 },
        { productId: 1, quantity: 1 },
        { productId: 2, quantity: 1 },
      ],
    });
    expect(answer.status).toBe(201);
    expect(answer.headers.location).toBe(`/api/orders/${answer.body.id}`);
    expect(answer.body).toMatchObject({ userId: 'user-9', total: 44.46, currency: 'EUR', status: 'placed', cancelledAt: null });
    expect(answer.body.items).toEqual([
      { productId: 2, quantity: 3, price: 7.99 },
      { productId: 1, quantity: 1, price: 12.5 },
      { productId: 2, quantity: 1, price: 7.99 },
    ]);
    expect(Math.abs(Date.now() - Date.parse(answer.body.createdAt))).toBeLessThan(60_000);
    expect((await request(shop.url).get(answer.headers.location!)).text).toBe(answer.text);
    expect(await stockOf(2)).toBe(before - 4);
  });

  it.each([
    ['no object', []],
    ['no items', { userId: 'u' }],
    ['an empty list', { userId: 'u', items: [] }],
    ['51 items', { userId: 'u', items: Array.from({ length: 51 }, () => ({ productId: 1, quantity: 1 })) }],
    ['quantity 0', wish(0)],
    ['quantity 1001', wish(1001)],
    ['quantity 1.5', wish(1.5)],
    ['a text as product', { userId: 'u', items: [{ productId: '1', quantity: 1 }] }],
    ['no user', { items: [{ productId: 1, quantity: 1 }] }],
    ['a NUL in the user', wish(1, 1, 'a\0b')],
  ])('refuses %s with 400', async (_name, body) => {
    const answer = await place(body);
    expect([answer.status, typeof answer.body.error]).toEqual([400, 'string']);
  });

  it('refuses broken JSON, another content type and a key of 256 characters with 400', async () => {
    const post = () => request(shop.url).post('/api/orders');
    expect((await post().set('Content-Type', 'application/json').send('{"userId":')).status).toBe(400);
    expect((await post().set('Content-Type', 'text/plain').send(JSON.stringify(wish()))).status).toBe(400);
    expect((await place(wish(), { 'Idempotency-Key': 'k'.repeat(256) })).status).toBe(400);
    expect((await place(wish(), { 'Idempotency-Key': 'k'.repeat(255) })).status).toBe(201);
  });

  it('answers 422 to an unknown product and changes nothing', async () => {
    const orders = await one('select count(*)::int from shop.t_order');
    const before = await stockOf(1);
    const answer = await place({
      userId: 'u',
      items: [
        { productId: 1, quantity: 1 },
        { productId: 12345, quantity: 1 },
      ],
    });
    expect([answer.status, answer.body.error]).toEqual([422, 'unknown product 12345']);
    expect([await one('select count(*)::int from shop.t_order'), await stockOf(1)]).toEqual([orders, before]);
  });

  it('sells the last piece once: 409 for the rest, and no goods lost or made', async () => {
    await sql.query('update shop.t_stock set qty_on_hand = 7 where art_no = 8');
    const answers = await Promise.all(
      // Both orders of the two articles, so that a wrong order of locks would dead-lock.
      Array.from({ length: 20 }, (_, i) => {
        const items = [8, 7].map((productId) => ({ productId, quantity: 1 }));
        return place({ userId: 'u', items: i % 2 === 0 ? items : items.reverse() });
      }),
    );
    expect(answers.map((answer) => answer.status).sort()).toEqual([...Array(7).fill(201), ...Array(13).fill(409)]);
    expect([await stockOf(8), await stockOf(7)]).toEqual([0, 99_993]);
  });
});

describe('an Idempotency-Key', () => {
  it('makes one order of 50 requests at once, all with the same answer', async () => {
    const before = Number(await stockOf(4));
    const answers = await Promise.all(Array.from({ length: 50 }, () => place(wish(2, 4), { 'Idempotency-Key': 'fifty' })));
    expect(new Set(answers.map((answer) => answer.status))).toEqual(new Set([201]));
    expect(new Set(answers.map((answer) => answer.text)).size).toBe(1);
    expect(new Set(answers.map((answer) => answer.headers.location)).size).toBe(1);
    expect(await one(`select count(*)::int from shop.t_order where idem_key = 'fifty'`)).toBe(1);
    expect(await stockOf(4)).toBe(before - 2);
  });

  it('repeats the first answer even when the order was cancelled since', async () => {
    const first = await place(wish(), { 'Idempotency-Key': 'later-cancelled' });
    await request(shop.url).post(`${first.headers.location}/cancel`).expect(200);
    const again = await place(wish(), { 'Idempotency-Key': 'later-cancelled' });
    expect([again.status, again.text]).toEqual([201, first.text]);
  });

  it('is refused with 422 for another body, also when both arrive at once', async () => {
    const answers = await Promise.all([1, 2].map((quantity) => place(wish(quantity, 5), { 'Idempotency-Key': 'two-bodies' })));
    expect(answers.map((answer) => answer.status).sort()).toEqual([201, 422]);
    expect((await place(wish(1, 5, 'user-8'), { 'Idempotency-Key': 'two-bodies' })).status).toBe(422);
  });

  it('finds its order by ref', async () => {
    const { body } = await place(wish(), { 'Idempotency-Key': 'find me / ?&=' });
    const { body: found } = await request(shop.url).get('/api/orders').query({ ref: 'find me / ?&=' });
    expect(found).toEqual([body]);
  });
});

describe('cancelling', () => {
  it('puts the goods back once, however often it is asked, and keeps the key of the one that did it', async () => {
    const before = await stockOf(6);
    const { body } = await place(wish(10, 6));
    const answers = await Promise.all(
      Array.from({ length: 10 }, () => request(shop.url).post(`/api/orders/${body.id}/cancel`).set('Idempotency-Key', 'cancel-6')),
    );
    expect(new Set(answers.map((answer) => answer.status))).toEqual(new Set([200]));
    expect(new Set(answers.map((answer) => answer.text)).size).toBe(1);
    expect(answers[0]!.body).toEqual({
      ...body,
      status: 'cancelled',
      cancelledAt: expect.stringMatching(/^\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z$/),
    });
    expect(await stockOf(6)).toBe(before);
    expect(await one('select xcl_idem_key from shop.t_order where ord_no = $1', [body.id])).toBe('cancel-6');
  });

  it('is refused for what is shipped or unknown', async () => {
    expect((await request(shop.url).post('/api/orders/1001/cancel')).status).toBe(409);
    const missing = await request(shop.url).post('/api/orders/987654/cancel');
    expect([missing.status, missing.body]).toEqual([404, { error: 'order not found' }]);
  });
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
