import { createServer, request, type Server } from 'node:http';
import type { AddressInfo } from 'node:net';
import { CreateStreamCommand } from '@aws-sdk/client-kinesis';
import { fold } from '@banyan/contracts/checksum.ts';
import { envelopeSchema } from '@banyan/contracts/envelope.ts';
import { checkEventData } from '@banyan/contracts/events/index.ts';
import { type Monolith, startMonolith } from '@banyan/dev-monolith/monolith.ts';
import { type Service, startService } from '@banyan/kit/service.ts';
import { orderService } from '@banyan/service-order/compose.ts';
import { afterAll, beforeAll, describe, expect, it } from '@jest/globals';
import type { Knex } from 'knex';
import { compareObservations } from '../../gateway/core/parity/compare.ts';
import { excuseDryRun } from '../../gateway/core/parity/dry-run.ts';
import type { Observation } from '../../gateway/core/parity/observation.ts';
import { compileRules } from '../../gateway/core/parity/rules.ts';
import { type FreshDatabase, freshDatabase } from '../harness/database.ts';
import { until } from '../harness/wait.ts';
import { configFor, fact, openStore, publish, silent, startStream } from './kit-fixtures.ts';

const COMMANDS = 'wishes';
const TOKEN = 'token-of-the-services';

type Answer = { status: number; headers: [string, string][]; body: string };
type Shown = {
  id: number;
  userId: string;
  items: unknown[];
  total: number;
  currency: string;
  createdAt: string;
  cancelledAt: string | null;
};

/** As it came over the wire, but for what names the moment or the process that answered. */
const ask = (base: string, method: string, path: string, headers: Record<string, string> = {}, body?: string): Promise<Answer> =>
  new Promise((resolve, reject) => {
    const outgoing = request(base + path, { method, headers, agent: false }, (response) => {
      const chunks: Buffer[] = [];
      response.on('data', (chunk: Buffer) => chunks.push(chunk));
      response.on('end', () => {
        const found: [string, string][] = [];
        for (let i = 0; i < response.rawHeaders.length; i += 2) {
          const name = response.rawHeaders[i]!;
          if (!/^(date)$/i.test(name)) found.push([name, response.rawHeaders[i + 1]!]);
        }
        resolve({ status: response.statusCode!, headers: found.sort(), body: Buffer.concat(chunks).toString() });
      });
    });
    outgoing.on('error', reject);
    outgoing.end(body);
  });
const json = { 'content-type': 'application/json' };
const wish = (over: object = {}) =>
  JSON.stringify({
    userId: 'user-9',
    items: [
      { productId: 1, quantity: 2 },
      { productId: 2, quantity: 1 },
    ],
    ...over,
  });

let store: FreshDatabase;
let shopDatabase: FreshDatabase;
let db: Knex;
let shopDb: Knex;
let stream: Awaited<ReturnType<typeof startStream>>;
let shop: Monolith;
let service: Service;
let adapter: Server;
let blocks = 0;
let imported: Shown[];

const own = (owner: 'legacy' | 'extracted', epoch: number) =>
  db.raw(
    `insert into banyan.context (name, stage, owner, epoch) values ('order', ?, ?, ?)
     on conflict (name) do update set stage = excluded.stage, owner = excluded.owner, epoch = excluded.epoch, frozen_by = null`,
    [owner === 'legacy' ? 'shadow' : 'cutover', owner, epoch],
  );

beforeAll(async () => {
  [store, shopDatabase, stream] = await Promise.all([freshDatabase('store'), freshDatabase('empty'), startStream()]);
  db = openStore(store.url);
  shopDb = openStore(shopDatabase.url);
  shop = await startMonolith({ databaseUrl: shopDatabase.url, port: 0 });
  adapter = createServer((incoming, answer) => {
    incoming.resume();
    const from = 10_000 + 100 * blocks;
    blocks += 1;
    answer.setHeader('content-type', 'application/json');
    answer.end(JSON.stringify({ ids: Array.from({ length: 100 }, (_, index) => from + index) }));
  }).listen(0, '127.0.0.1');
  await new Promise((resolve) => adapter.once('listening', resolve));
  const adapterUrl = `http://127.0.0.1:${(adapter.address() as AddressInfo).port}`;

  // legacy's orders: some were there, some are placed, one of them with a quote and an emoji, one is cancelled
  for (const [key, userId] of [
    ['k-1', 'user-1'],
    ['k-2', 'O\'Neill "x" 😀'],
  ] as const)
    await ask(shop.url, 'POST', '/api/orders', { ...json, 'idempotency-key': key }, wish({ userId }));
  await ask(shop.url, 'POST', '/api/orders', json, wish());
  imported = JSON.parse((await ask(shop.url, 'GET', '/api/orders?limit=1000')).body) as Shown[];
  const refs = new Map(
    (await shopDb.raw<{ rows: { ord_no: string; idem_key: string | null }[] }>('select ord_no, idem_key from shop.t_order')).rows.map(
      (row) => [Number(row.ord_no), row.idem_key],
    ),
  );
  const products = JSON.parse((await ask(shop.url, 'GET', '/api/products')).body) as { id: number }[];
  const cancelled = imported[0]!;
  await publish(stream, [
    ...products.map((product) => fact('inventory.imported.v1', String(product.id), { ...product, active: true })),
    ...imported.map((order) => fact('order.imported.v1', String(order.id), { ...order, ref: refs.get(order.id) ?? null })),
  ]);
  const answer = JSON.parse((await ask(shop.url, 'POST', `/api/orders/${cancelled.id}/cancel`)).body) as Shown;
  // the demo's mapping takes the id from the path, so it is a text
  await publish(stream, [
    fact('order.cancelled.v1', String(cancelled.id), { id: String(cancelled.id), cancelledAt: answer.cancelledAt }, { sequence: 2 }),
  ]);
  await own('legacy', 1);
  await stream.kinesis.send(new CreateStreamCommand({ StreamName: COMMANDS, ShardCount: 2 }));
  const env = { ADAPTER_URL: adapterUrl, BANYAN_COMMANDS: COMMANDS, BANYAN_SERVICE_TOKEN: TOKEN };
  service = await startService(orderService, configFor(store.url, stream, env), { log: silent });
  await until(
    async () => {
      const { rows } = await db.raw<{ rows: [{ n: string }] }>('select count(*) as n from svc_order.inbox');
      return Number(rows[0].n) === products.length + imported.length + 1;
    },
    { describe: 'the order service to catch up' },
  );
}, 180_000);

afterAll(async () => {
  await service?.stop();
  await shop?.stop();
  adapter?.close();
  await stream?.stop();
  await Promise.all([db?.destroy(), shopDb?.destroy()]);
  await Promise.all([store.drop(), shopDatabase.drop()]);
});

const bothAnswer = async (method: string, path: string, headers?: Record<string, string>, body?: string): Promise<Answer> => {
  const [legacy, extracted] = await Promise.all([
    ask(shop.url, method, path, headers, body),
    ask(service.url, method, path, headers, body),
  ]);
  expect(extracted).toEqual(legacy);
  return extracted;
};

describe('dry runs, while legacy owns the orders', () => {
  /** Everything that a command could change. */
  const all = async (): Promise<string[]> =>
    Promise.all(
      [
        'svc_order.orders',
        'svc_order.order_item',
        'svc_order.product',
        'svc_order.early_cancellation',
        'banyan.outbox',
        'banyan.back_sync',
      ].map(async (table) => {
        const { rows } = await db.raw<{ rows: { sum: string }[] }>(
          `select count(*) || ' ' || coalesce(md5(string_agg(t::text, '|' order by t::text)), '') as sum from ${table} t`,
        );
        return `${table} ${rows[0]!.sum}`;
      }),
    );
  const dry = (path: string, body?: string, headers: Record<string, string> = {}): Promise<Answer> =>
    ask(service.url, 'POST', path, { ...json, 'banyan-dry-run': '1', ...headers }, body);

  it('answer as the service would, and change nothing', async () => {
    const [before, drawn] = [await all(), blocks];
    const placed = await dry('/api/orders', wish(), { 'idempotency-key': 'dry-1' });
    expect(placed.status).toBe(201);
    expect(placed.headers.find(([name]) => name.toLowerCase() === 'banyan-dry-run')?.[1]).toBe('1');
    expect(JSON.parse(placed.body)).toMatchObject({
      userId: 'user-9',
      status: 'placed',
      items: [{ productId: 1, quantity: 2 }, { productId: 2 }],
    });
    // the same number and key again: nothing of the first is there
    expect((await dry('/api/orders', wish({ userId: 'user-8' }), { 'idempotency-key': 'dry-1' })).status).toBe(201);
    const open = imported.find(({ id, cancelledAt }) => cancelledAt === null && id !== imported[0]!.id)!;
    expect(JSON.parse((await dry(`/api/orders/${open.id}/cancel`)).body)).toMatchObject({ id: open.id, status: 'cancelled' });
    expect((await dry('/api/orders/9999/cancel')).status).toBe(404);
    expect((await dry('/api/orders', wish({ items: [{ productId: 1, quantity: 1_000_000 }] }))).status).toBeGreaterThanOrEqual(400);
    expect((await dry('/api/orders', '{"userId":')).status).toBe(400);
    await Promise.all(Array.from({ length: 100 }, (_, i) => dry('/api/orders', wish(), { 'idempotency-key': `dry-many-${i}` })));
    expect([await all(), blocks]).toEqual([before, drawn]);
    expect((await ask(service.url, 'GET', '/api/orders?ref=dry-1')).body).toBe('[]');
    // without the header the service does not own the orders
    expect((await ask(service.url, 'POST', '/api/orders', json, wish())).status).toBe(503);
  });
});

describe('queries', () => {
  it.each([
    '/api/orders',
    '/api/orders?limit=2',
    '/api/orders?userId=user-1',
    '/api/orders?userId=nobody',
    `/api/orders?userId=${encodeURIComponent('O\'Neill "x" 😀')}`,
    '/api/orders?ref=k-1',
    '/api/orders?ref=before-3',
    '/api/orders?ref=none',
    '/api/orders?limit=0',
    '/api/orders?limit=x',
    '/api/orders?limit=1001',
    '/api/orders?userId=',
    '/api/orders?userId=a&userId=b',
    '/api/orders?ref=%00',
    ...[1001, 1002, 1003, 1004, 1005, 1006, 1007, 1008, 9999].map((id) => `/api/orders/${id}`),
    '/api/orders/0',
    '/api/orders/abc',
    '/api/orders/99999999999999999',
    '/api/orders/1001/nothing',
    '/api/orders/%E0%A4%A',
  ])('GET %s is answered as the monolith does', async (path) => {
    await bothAnswer('GET', path);
  });

  it('HEAD and 304 too', async () => {
    await bothAnswer('HEAD', '/api/orders');
    const etag = (await bothAnswer('GET', '/api/orders/1001')).headers.find(([name]) => name === 'ETag')![1];
    expect(etag).toMatch(/^W\//);
    expect((await bothAnswer('GET', '/api/orders/1001', { 'if-none-match': etag })).status).toBe(304);
  });

  it('prints numbers as the monolith does', async () => {
    const { body } = await bothAnswer('GET', '/api/orders/1005');
    expect(body).toContain('"price":12.5');
  });

  it('has the checksum of the states', async () => {
    const answer = JSON.parse((await ask(service.url, 'GET', '/_banyan/checksum')).body) as unknown;
    const refs = await shopDb('shop.t_order').select<{ ord_no: string; idem_key: string | null }[]>('ord_no', 'idem_key');
    const orders = JSON.parse((await ask(shop.url, 'GET', '/api/orders?limit=1000')).body) as Shown[];
    expect(answer).toEqual(fold(orders.map((order) => ({ ...order, ref: refs.find((row) => Number(row.ord_no) === order.id)!.idem_key }))));
  });

  it('accepts a fact that says little more than who and what', async () => {
    const time = '2026-03-01T10:00:00.250Z';
    await publish(stream, [
      fact(
        'order.placed.v1',
        '5000',
        {
          id: 5000,
          userId: 'user-5',
          items: [
            { productId: 1, quantity: 3 },
            { productId: 2, quantity: 1 },
          ],
        },
        { time },
      ),
    ]);
    const answer = await until(
      async () => {
        const found = await ask(service.url, 'GET', '/api/orders/5000');
        return found.status === 200 && found;
      },
      { describe: 'the order' },
    );
    expect(JSON.parse(answer.body)).toEqual({
      id: 5000,
      userId: 'user-5',
      items: [
        { productId: 1, quantity: 3, price: 12.5 },
        { productId: 2, quantity: 1, price: 7.99 },
      ],
      total: 45.49,
      currency: 'EUR',
      status: 'placed',
      createdAt: time,
      cancelledAt: null,
    });
    await publish(stream, [fact('order.deleted.v1', '5000', { id: 5000 }, { sequence: 2 })]);
    await until(async () => (await ask(service.url, 'GET', '/api/orders/5000')).status === 404, { describe: 'its deletion' });
  });

  it('keeps a cancellation that came before the snapshot told of the order', async () => {
    const state = {
      id: 5001,
      userId: 'user-5',
      items: [{ productId: 1, quantity: 1, price: 12.5 }],
      total: 12.5,
      currency: 'EUR',
      status: 'placed',
    };
    const cancelledAt = '2026-03-01T11:00:00.000Z';
    await publish(stream, [
      fact('order.cancelled.v1', '5001', { id: 5001, cancelledAt }),
      fact('order.imported.v1', '5001', { ...state, createdAt: '2026-03-01T10:00:00.000Z', cancelledAt: null }, { sequence: 2 }),
    ]);
    const answer = await until(
      async () => {
        const found = await ask(service.url, 'GET', '/api/orders/5001');
        return found.status === 200 && found;
      },
      { describe: 'the order' },
    );
    expect(JSON.parse(answer.body)).toMatchObject({ id: 5001, status: 'cancelled', cancelledAt });
    await publish(stream, [fact('order.deleted.v1', '5001', { id: 5001 }, { sequence: 3 })]);
    await until(async () => (await ask(service.url, 'GET', '/api/orders/5001')).status === 404, { describe: 'its deletion' });
  });
});

const facts = async () =>
  (
    await db.raw<{ rows: { envelope: string; ledger_id: string | null }[] }>('select envelope from banyan.outbox order by position')
  ).rows.map((row) => envelopeSchema.parse(JSON.parse(row.envelope)));
const post = (path: string, headers: Record<string, string> = {}, body?: string) =>
  ask(service.url, 'POST', path, body === undefined ? headers : { ...json, ...headers }, body);

describe('commands', () => {
  it('are refused while legacy owns the context', async () => {
    const answer = await post('/api/orders', { 'idempotency-key': 'early', 'banyan-epoch': '1' }, wish());
    expect(answer.status).toBe(503);
    expect(answer.headers).toContainEqual(['Retry-After', '1']);
    expect(answer.headers).toContainEqual(['Content-Type', 'application/problem+json; charset=utf-8']);
    expect(JSON.parse(answer.body)).toMatchObject({
      code: 'context-unavailable',
      detail: 'context order is owned by legacy, not by extracted',
    });
    expect((await post('/api/orders/1004/cancel')).status).toBe(503);
    expect(await facts()).toEqual([]);
    expect((await ask(service.url, 'GET', '/api/orders?ref=early')).body).toBe('[]');
  });

  it('place an order as the monolith does, with its fact', async () => {
    await own('extracted', 2);
    const headers = { 'idempotency-key': 'new-1', 'banyan-epoch': '2', 'banyan-write': '01890000-0000-7000-8000-000000000001' };
    const [legacy, extracted] = [
      await ask(shop.url, 'POST', '/api/orders', { ...json, ...headers }, wish()),
      await post('/api/orders', headers, wish()),
    ];
    const [old, made] = [JSON.parse(legacy.body) as Shown, JSON.parse(extracted.body) as Shown];
    expect(extracted.status).toBe(201);
    expect(extracted.headers).toContainEqual(['Location', `/api/orders/${made.id}`]);
    expect(Object.keys(made)).toEqual(Object.keys(old));
    expect({ ...made, id: 0, createdAt: '' }).toEqual({ ...old, id: 0, createdAt: '' });
    expect(made.createdAt).toMatch(/^\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z$/);
    expect(made.id).toBeGreaterThanOrEqual(10_000);
    expect((await ask(service.url, 'GET', `/api/orders/${made.id}`)).body).toBe(extracted.body);
    const published = await facts();
    expect(published).toHaveLength(1);
    expect(published[0]).toMatchObject({
      source: '/banyan/order/extracted',
      type: 'order.placed.v1',
      subject: String(made.id),
      origin: 'extracted',
      epoch: 2,
      causationid: headers['banyan-write'],
      data: { ...made, ref: 'new-1' },
    });
    checkEventData('order.placed.v1', published[0]!.data);
  });

  it('give one order and one answer to a key, also to many at once', async () => {
    const before = (await facts()).length;
    const answers = await Promise.all(Array.from({ length: 20 }, () => post('/api/orders', { 'idempotency-key': 'many' }, wish())));
    expect(new Set(answers.map((answer) => `${answer.status} ${answer.body}`)).size).toBe(1);
    expect(answers[0]!.status).toBe(201);
    expect(await facts()).toHaveLength(before + 1);
    expect(JSON.parse((await ask(service.url, 'GET', '/api/orders?ref=many')).body)).toHaveLength(1);
  });

  it('know the keys that legacy answered before the flip', async () => {
    const answer = await post('/api/orders', { 'idempotency-key': 'k-1' }, wish({ userId: 'user-1' }));
    expect(answer.status).toBe(201);
    expect(JSON.parse(answer.body)).toMatchObject({ id: imported.find((order) => order.userId === 'user-1' && order.id > 1005)!.id });
  });

  it.each([
    ['a key used for another order', { 'idempotency-key': 'k-1' }, wish()],
    ['an unknown product', {}, wish({ items: [{ productId: 77, quantity: 1 }] })],
    ['a body that is no JSON', {}, '{"userId":'],
    ['a body that is no object', {}, '[]'],
    ['no items', {}, wish({ items: [] })],
    ['a quantity of 0', {}, wish({ items: [{ productId: 1, quantity: 0 }] })],
    ['a user that is no text', {}, wish({ userId: 7 })],
    ['an empty key', { 'idempotency-key': '' }, wish()],
    ['another charset', { 'content-type': 'application/json; charset=latin1' }, wish()],
    ['more than is allowed', {}, wish({ userId: 'x'.repeat(300_000) })],
  ] as const)('refuse %s in the words of the monolith', async (_what, headers, body) => {
    const before = (await facts()).length;
    const answer = await bothAnswer('POST', '/api/orders', { ...json, ...headers }, body);
    expect(answer.status).toBeGreaterThanOrEqual(400);
    expect(await facts()).toHaveLength(before);
  });

  it('refuse more than is in stock, as far as is known', async () => {
    const items = Array.from({ length: 50 }, () => ({ productId: 3, quantity: 1000 }));
    for (const base of [shop.url, service.url]) {
      await ask(base, 'POST', '/api/orders', json, wish({ items }));
      await ask(base, 'POST', '/api/orders', json, wish({ items }));
    }
    expect((await bothAnswer('POST', '/api/orders', json, wish({ items }))).status).toBe(409);
  });

  it('know of stock that legacy got in, beside what was sold here', async () => {
    const change = { id: 3, name: 'Pruning shears', price: 24.9, currency: 'EUR', stock: 100_000 + 700, stockDelta: 700, active: true };
    await publish(stream, [fact('inventory.changed.v1', '3', change, { sequence: 2 })]);
    const sell = (quantity: number) => post('/api/orders', {}, wish({ items: [{ productId: 3, quantity }] }));
    await until(async () => (await sell(600)).status === 201, { describe: 'the new stock' });
    expect((await sell(101)).status).toBe(409);
    expect((await sell(100)).status).toBe(201);
  });

  it('cancel once, and answer the same again', async () => {
    const before = (await facts()).length;
    const first = await post('/api/orders/1004/cancel', { 'idempotency-key': 'c-1', 'banyan-epoch': '2' });
    expect(first.status).toBe(200);
    expect(JSON.parse(first.body)).toMatchObject({ id: 1004, status: 'cancelled' });
    expect(await post('/api/orders/1004/cancel', { 'idempotency-key': 'c-2' })).toEqual(first);
    const published = (await facts()).slice(before);
    expect(published.map((each) => [each.type, each.subject])).toEqual([['order.cancelled.v1', '1004']]);
    checkEventData('order.cancelled.v1', published[0]!.data);
    await bothAnswer('POST', '/api/orders/1001/cancel');
    await bothAnswer('POST', '/api/orders/9999/cancel');
    await bothAnswer('POST', '/api/orders/x/cancel');
  });

  it('are refused under another epoch, and while a flip holds the context', async () => {
    expect(JSON.parse((await post('/api/orders', { 'banyan-epoch': '1' }, wish())).body)).toMatchObject({ code: 'context-unavailable' });
    await db.raw(`update banyan.context set frozen_by = '01890000-0000-7000-8000-000000000002' where name = 'order'`);
    const answer = await post('/api/orders', { 'idempotency-key': 'frozen' }, wish());
    expect([answer.status, JSON.parse(answer.body)]).toMatchObject([503, { detail: expect.stringContaining('frozen') }]);
    expect((await ask(service.url, 'GET', '/api/orders?ref=frozen')).body).toBe('[]');
    await own('extracted', 2);
    expect((await post('/api/orders', { 'idempotency-key': 'frozen' }, wish())).status).toBe(201);
  });
});

it('answers a dry run as the monolith answers the command itself, but for number and moment', async () => {
  const observed = ({ status, headers, body }: Answer): Observation => ({ status, headers, body: Buffer.from(body), complete: true });
  const rules = compileRules({}, 0);
  for (const [path, body] of [
    ['/api/orders', wish({ items: [{ productId: 2, quantity: 1 }] })],
    ['/api/orders', wish({ userId: '' })],
    ['/api/orders', wish({ items: [{ productId: 1, quantity: 1_000_000 }] })],
    ['/api/orders/9999/cancel', ''],
  ] as const) {
    const [done, dry] = await Promise.all([
      ask(shop.url, 'POST', path, { ...json, 'idempotency-key': `real-${path}` }, body),
      ask(service.url, 'POST', path, { ...json, 'idempotency-key': `real-${path}`, 'banyan-dry-run': '1' }, body),
    ]);
    const pair = [
      observed(done),
      observed({ ...dry, headers: dry.headers.filter(([name]) => name.toLowerCase() !== 'banyan-dry-run') }),
    ] as const;
    const verdict = excuseDryRun(path, ...pair, compareObservations(...pair, rules));
    expect([path, done.status, verdict.kind === 'mismatch' ? verdict.differences : []]).toEqual([path, dry.status, []]);
  }
});

describe('commands of the stream', () => {
  const send = (...commands: readonly { id: string; type: string; data: object }[]) =>
    publish(
      { kinesis: stream.kinesis, stream: COMMANDS },
      commands.map((command) => JSON.stringify({ specversion: '1.0', source: '/shop/batch', ...command })),
    );
  const placing = (id: string, data: object = JSON.parse(wish()) as object) => ({ id, type: 'order.place.v1', data });
  type Outcome = { outcome: string; status: number; orderId: number | null; detail: string | null };
  const outcome = async (id: string): Promise<Outcome | null> => {
    const answer = await ask(service.url, 'GET', `/_banyan/commands/${id}`, { authorization: `Bearer ${TOKEN}` });
    return answer.status === 200 ? (JSON.parse(answer.body) as Outcome) : null;
  };
  const ended = (id: string) => until(() => outcome(id), { describe: `command ${id} to end`, timeoutMs: 30_000 });
  const placed = async (): Promise<number> => (await facts()).filter((each) => each.type === 'order.placed.v1').length;
  const byRef = async (ref: string) => JSON.parse((await ask(service.url, 'GET', `/api/orders?ref=${ref}`)).body) as Shown[];

  it('wait while legacy owns the context, then are done, once, however often they come', async () => {
    const before = await placed();
    await own('legacy', 3);
    await send(placing('s-1'), placing('s-1'));
    await until(
      async () =>
        Number((await db('svc_order.lease').where({ consumer: 'order-commands' }).whereNotNull('owner').count('* as n').first())!.n) > 0,
      { describe: 'the commands to be read' },
    );
    expect([await outcome('s-1'), await byRef('s-1'), (await ask(service.url, 'GET', '/readyz')).status]).toEqual([null, [], 200]);
    await own('extracted', 4);
    const { orderId, ...how } = await ended('s-1');
    expect(how).toMatchObject({ outcome: 'done', status: 200, detail: null });
    await send(placing('s-1'), placing('s-2'));
    await ended('s-2');
    expect((await byRef('s-1')).map(({ id }) => id)).toEqual([orderId]);
    expect(await placed()).toBe(before + 2);
  });

  it('are the same commands as those over HTTP under the same key', async () => {
    const before = await placed();
    const first = await post('/api/orders', { 'idempotency-key': 'both-1' }, wish());
    await send(placing('both-1'), placing('both-2'));
    expect((await ended('both-1')).orderId).toBe((JSON.parse(first.body) as Shown).id);
    const { orderId } = await ended('both-2');
    const again = await post('/api/orders', { 'idempotency-key': 'both-2' }, wish());
    expect([again.status, (JSON.parse(again.body) as Shown).id]).toEqual([201, orderId]);
    await send({ id: 'both-3', type: 'order.cancel.v1', data: { id: orderId } });
    await ended('both-3');
    expect((await post(`/api/orders/${orderId}/cancel`, { 'idempotency-key': 'both-3' })).status).toBe(200);
    expect((await facts()).filter((each) => each.type === 'order.cancelled.v1' && each.subject === String(orderId))).toHaveLength(1);
    expect(await placed()).toBe(before + 2);
  });

  it('that are refused say why, and keep nobody waiting; what is no command is a dead letter', async () => {
    await send(
      placing('bad-1', { userId: 'u', items: [] }),
      placing('bad-2', {
        userId: 'u',
        items: [{ productId: 3, quantity: 1000 }, ...Array.from({ length: 49 }, () => ({ productId: 3, quantity: 1000 }))],
      }),
      { id: 'bad-3', type: 'order.cancel.v1', data: { id: 'x' } },
      placing('both-1', { userId: 'somebody-else', items: [{ productId: 1, quantity: 9 }] }),
      { id: '', type: 'order.place.v1', data: {} },
      placing('good-1'),
    );
    await ended('good-1');
    expect(await outcome('bad-1')).toMatchObject({ outcome: 'refused', status: 400, detail: expect.stringContaining('items') });
    expect(await outcome('bad-2')).toMatchObject({ outcome: 'refused', status: 409 });
    expect(await outcome('bad-3')).toMatchObject({ outcome: 'refused', status: 404 });
    expect(await byRef('bad-2')).toEqual([]);
    const letters = await ask(service.url, 'GET', '/_banyan/dlq', { authorization: `Bearer ${TOKEN}` });
    expect((JSON.parse(letters.body) as { items: object[] }).items).toMatchObject([{ key: null, source: 'malformed' }]);
    expect((await ask(service.url, 'GET', '/_banyan/commands/good-1')).status).toBe(401);
  });
});

it('tells how it is', async () => {
  expect((await ask(service.url, 'GET', '/livez')).status).toBe(200);
  expect((await ask(service.url, 'GET', '/readyz')).status).toBe(200);
  expect((await ask(service.url, 'GET', '/metrics')).body).toMatch(/banyan_consumer_facts_total\{[^}]*outcome="applied"[^}]*\} \d+/);
  const position = JSON.parse((await ask(service.url, 'GET', '/_banyan/consumer')).body) as { shards: unknown[] };
  expect(position).toMatchObject({ consumer: 'order', quarantined: 0 });
  expect(position.shards).toHaveLength(2);
  const missing = await ask(service.url, 'GET', '/nothing');
  expect([missing.status, JSON.parse(missing.body)]).toMatchObject([404, { code: 'not-found' }]);
});
