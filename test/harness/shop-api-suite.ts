import { describe, expect, it } from '@jest/globals';
import request from 'supertest';

/** The shop as a client meets it. */
export type ShopFront = {
  readonly url: string;
  /** Commands of `/api/orders` pass a ledger: it, not the shop, answers a key that comes back with another body. */
  readonly ledgered: boolean;
};

/** What a program meets of the shop: its JSON API over the orders of a database that was just made. The same whatever stands in front, but for what `ShopFront` says. */
export const describeShopApi = (front: () => ShopFront): void => {
  const shop = (): string => front().url;
  const place = (body: unknown, headers: Record<string, string> = {}) =>
    request(shop())
      .post('/api/orders')
      // whoever asks twice with one key must be known to be the same
      .set({ 'X-User-Id': 'user-7', ...headers })
      .send(body as object);
  const cancel = (id: number | string, key?: string) => {
    const asked = request(shop()).post(`/api/orders/${id}/cancel`).set('X-User-Id', 'user-7');
    return key === undefined ? asked : asked.set('Idempotency-Key', key);
  };
  const wish = (quantity = 1, productId = 1, userId = 'user-7') => ({ userId, items: [{ productId, quantity }] });
  const stockOf = async (product: number): Promise<number> =>
    ((await request(shop()).get(`/api/products/${product}`)).body as { stock: number }).stock;

  describe('products', () => {
    it('are listed by id with decimal prices', async () => {
      const answer = await request(shop()).get('/api/products');
      expect(answer.status).toBe(200);
      expect(answer.body).toHaveLength(8);
      expect(answer.text.startsWith('[{"id":1,"name":"Watering can","price":12.5,"currency":"EUR","stock":')).toBe(true);
      expect(answer.headers).toMatchObject({ 'cache-control': 'no-cache' });
      expect(answer.headers.etag).toMatch(/^W\/"/);
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
      const answer = await request(shop()).get(path);
      expect([answer.status, typeof answer.body.error]).toEqual([404, 'string']);
    });

    it('answer 304 to a client that has them, and only a head to HEAD', async () => {
      const { headers } = await request(shop()).get('/api/products/8');
      const again = await request(shop()).get('/api/products/8').set('If-None-Match', headers.etag!);
      expect([again.status, again.text]).toEqual([304, '']);
      const head = await request(shop()).head('/api/products/8');
      expect([head.status, head.headers.etag, head.headers['content-length']]).toEqual([200, headers.etag, headers['content-length']]);
    });
  });

  describe('orders from before', () => {
    it('read in UTC whatever the season, from Berlin wall time', async () => {
      const { body } = await request(shop()).get('/api/orders/1003');
      expect(JSON.stringify(body)).toBe(
        '{"id":1003,"userId":"user-3","items":[{"productId":4,"quantity":12,"price":6.2},{"productId":5,"quantity":3,"price":11.99},' +
          '{"productId":6,"quantity":1,"price":49}],"total":159.37,"currency":"EUR","status":"shipped","createdAt":"2025-07-02T21:59:59.999Z","cancelledAt":null}',
      );
      const { body: winter } = await request(shop()).get('/api/orders/1001');
      expect(winter.createdAt).toBe('2025-01-14T08:12:07.031Z');
      const { body: change } = await request(shop()).get('/api/orders/1002');
      expect([change.status, change.createdAt, change.cancelledAt]).toEqual([
        'cancelled',
        '2025-03-30T01:00:00.000Z',
        '2025-03-30T16:45:10.250Z',
      ]);
    });

    it('are listed newest first, by customer, by key and up to a limit', async () => {
      const ids = async (query: string) =>
        ((await request(shop()).get(`/api/orders?${query}`)).body as { id: number }[]).map((order) => order.id);
      expect(await ids('userId=user-1')).toEqual([1004, 1001]);
      expect(await ids('ref=before-5')).toEqual([1005]);
      expect(await ids('ref=nobody')).toEqual([]);
      expect(await ids('userId=user-2&ref=before-5')).toEqual([]);
      expect(await ids('userId=user-1&limit=1')).toEqual([1004]);
    });

    it.each(['limit=0', 'limit=x', 'limit=1001', 'ref=', 'ref=a&ref=b', 'userId=%00'])('refuse the query %s', async (query) => {
      expect((await request(shop()).get(`/api/orders?${query}`)).status).toBe(400);
    });
  });

  describe('placing an order', () => {
    it('answers 201 with the order and where it is, and takes the goods', async () => {
      const before = await stockOf(2);
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
      expect((await request(shop()).get(answer.headers.location!)).text).toBe(answer.text);
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
      const post = () => request(shop()).post('/api/orders');
      expect((await post().set('Content-Type', 'application/json').send('{"userId":')).status).toBe(400);
      expect((await post().set('Content-Type', 'text/plain').send(JSON.stringify(wish()))).status).toBe(400);
      expect((await place(wish(), { 'Idempotency-Key': 'k'.repeat(256) })).status).toBe(400);
      expect((await place(wish(), { 'Idempotency-Key': 'k'.repeat(255) })).status).toBe(201);
    });

    it('answers 422 to an unknown product and changes nothing', async () => {
      const newest = async () => (await request(shop()).get('/api/orders?limit=1')).text;
      const [last, before] = [await newest(), await stockOf(1)];
      const answer = await place({
        userId: 'u',
        items: [
          { productId: 1, quantity: 1 },
          { productId: 12345, quantity: 1 },
        ],
      });
      expect([answer.status, answer.body.error]).toEqual([422, 'unknown product 12345']);
      expect([await newest(), await stockOf(1)]).toEqual([last, before]);
    });
  });

  describe('an Idempotency-Key', () => {
    it('makes one order of 50 requests at once, all with the same answer', async () => {
      const before = await stockOf(4);
      const answers = await Promise.all(Array.from({ length: 50 }, () => place(wish(2, 4), { 'Idempotency-Key': 'fifty' })));
      expect(new Set(answers.map((answer) => answer.status))).toEqual(new Set([201]));
      expect(new Set(answers.map((answer) => answer.text)).size).toBe(1);
      expect(new Set(answers.map((answer) => answer.headers.location)).size).toBe(1);
      expect((await request(shop()).get('/api/orders?ref=fifty')).body).toHaveLength(1);
      expect(await stockOf(4)).toBe(before - 2);
    });

    it('repeats the first answer even when the order was cancelled since', async () => {
      const first = await place(wish(), { 'Idempotency-Key': 'later-cancelled' });
      expect((await cancel(first.body.id)).status).toBe(200);
      const again = await place(wish(), { 'Idempotency-Key': 'later-cancelled' });
      expect([again.status, again.text]).toEqual([201, first.text]);
    });

    it('is refused with 422 for another body, also when both arrive at once', async () => {
      const answers = await Promise.all([1, 2].map((quantity) => place(wish(quantity, 5), { 'Idempotency-Key': 'two-bodies' })));
      expect(answers.map((answer) => answer.status).sort()).toEqual([201, 422]);
      const third = await place(wish(1, 5, 'user-8'), { 'Idempotency-Key': 'two-bodies' });
      expect(third.status).toBe(422);
      if (front().ledgered) {
        expect(third.headers['content-type']).toBe('application/problem+json');
        expect(third.body).toMatchObject({ code: 'key-reused', status: 422 });
      } else expect(third.body).toEqual({ error: expect.any(String) });
    });

    it('finds its order by ref', async () => {
      const { body } = await place(wish(), { 'Idempotency-Key': 'find me / ?&=' });
      const { body: found } = await request(shop()).get('/api/orders').query({ ref: 'find me / ?&=' });
      expect(found).toEqual([body]);
    });
  });

  describe('cancelling', () => {
    it('puts the goods back once, however often it is asked', async () => {
      const before = await stockOf(6);
      const { body } = await place(wish(10, 6));
      const answers = await Promise.all(Array.from({ length: 10 }, () => cancel(body.id, 'cancel-6')));
      expect(new Set(answers.map((answer) => answer.status))).toEqual(new Set([200]));
      expect(new Set(answers.map((answer) => answer.text)).size).toBe(1);
      expect(answers[0]!.body).toEqual({
        ...body,
        status: 'cancelled',
        cancelledAt: expect.stringMatching(/^\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z$/),
      });
      expect(await stockOf(6)).toBe(before);
    });

    it('is refused for what is shipped or unknown', async () => {
      expect((await cancel(1001)).status).toBe(409);
      const missing = await cancel(987654);
      expect([missing.status, missing.body]).toEqual([404, { error: 'order not found' }]);
    });
  });
};
