import type { Envelope } from '@banyan/contracts/envelope.ts';
import { type Monolith, startMonolith } from '@banyan/dev-monolith/monolith.ts';
import { requestReplay } from '@banyan/kit/consumer.ts';
import { type Service, startService } from '@banyan/kit/service.ts';
import { inventoryService } from '@banyan/service-inventory/compose.ts';
import { afterAll, beforeAll, expect, it } from '@jest/globals';
import type { Knex } from 'knex';
import { type FreshDatabase, freshDatabase } from '../harness/database.ts';
import { until } from '../harness/wait.ts';
import { configFor, type FactOptions, fact, openStore, publish, silent, startStream } from './kit-fixtures.ts';

let store: FreshDatabase;
let shopDatabase: FreshDatabase;
let db: Knex;
let stream: Awaited<ReturnType<typeof startStream>>;
let shop: Monolith;
let service: Service;
let published = 0;

beforeAll(async () => {
  [store, shopDatabase, stream] = await Promise.all([freshDatabase('store'), freshDatabase('empty'), startStream(4)]);
  db = openStore(store.url);
  shop = await startMonolith({ databaseUrl: shopDatabase.url, port: 0 });
  service = await startService(inventoryService, configFor(store.url, stream), { log: silent });
});
afterAll(async () => {
  await service?.stop();
  await shop?.stop();
  await stream?.stop();
  await db?.destroy();
  await Promise.all([store.drop(), shopDatabase.drop()]);
});

const send = async (facts: readonly Envelope[]): Promise<void> => {
  await publish(stream, facts);
  published += facts.length;
  await until(async () => Number((await db('svc_inventory.inbox').count<[{ count: string }]>())[0]!.count) === published, {
    describe: 'the inventory service to catch up',
  });
};
const get = async (base: string, path: string) => {
  const response = await fetch(base + path, { headers: { connection: 'close' } });
  return {
    status: response.status,
    headers: [...response.headers].filter(([name]) => !/^(date)$/.test(name)),
    body: await response.text(),
  };
};
const product = (id: number, stock: number, options: FactOptions = {}, type = 'inventory.changed.v1') =>
  fact(type, String(id), { id, name: `Product ${id}`, price: 12.5, currency: 'EUR', stock, active: true }, options);
const placed = (id: number, items: { productId: number; quantity: number }[], options: FactOptions) =>
  fact('order.placed.v1', String(id), { id, userId: 'user-1', items }, options);
const stockOf = async (id: number): Promise<number> =>
  (JSON.parse((await get(service.url, `/api/products/${id}`)).body) as { stock: number }).stock;
const at = (second: number): string => new Date(Date.UTC(2026, 0, 1, 0, 0, second)).toISOString();

it('answers as the monolith does', async () => {
  const products = JSON.parse((await get(shop.url, '/api/products')).body) as { id: number }[];
  await send([
    ...products.map((each) => fact('inventory.imported.v1', String(each.id), { ...each, active: true })),
    fact('inventory.imported.v1', '50', { id: 50, name: 'Gone', price: 1, currency: 'EUR', stock: 1, active: false }),
  ]);
  for (const path of [
    '/api/products',
    '/api/products/1',
    '/api/products/50',
    '/api/products/99',
    '/api/products/x',
    '/api/products/1/x',
    '/api/products/%E0%A4%A',
  ])
    expect(await get(service.url, path)).toEqual(await get(shop.url, path));
  const sum = JSON.parse((await get(service.url, '/_banyan/checksum')).body) as { count: number };
  expect(sum.count).toBe(products.length + 1);
});

it('takes stock for orders of the extracted side only, and gives it back', async () => {
  await send([product(100, 10, { time: at(0) })]);
  await send([
    placed(
      1,
      [
        { productId: 100, quantity: 2 },
        { productId: 100, quantity: 1 },
      ],
      { origin: 'extracted', time: at(1) },
    ),
    placed(2, [{ productId: 100, quantity: 5 }], { origin: 'legacy', time: at(1) }),
  ]);
  expect(await stockOf(100)).toBe(7);
  await send([
    fact('order.cancelled.v1', '1', { id: 1 }, { origin: 'extracted', sequence: 2, time: at(2) }),
    fact('order.cancelled.v1', '2', { id: 2 }, { origin: 'extracted', time: at(2) }),
  ]);
  expect(await stockOf(100)).toBe(15);
});

it('moves by what legacy changed, whether or not its stock contains the orders of the extracted side yet, and whatever arrives first', async () => {
  for (const [id, absolute, ordersFirst] of [
    [111, 15, false],
    [112, 12, false],
    [113, 15, true],
    [114, 12, true],
  ] as const) {
    const change = fact(
      'inventory.changed.v1',
      String(id),
      { id, name: 'Seeds', price: 1, currency: 'EUR', stock: absolute, stockDelta: 5, active: true },
      { sequence: 2, time: at(2) },
    );
    const order = placed(id, [{ productId: id, quantity: 3 }], { origin: 'extracted', time: at(1) });
    await send([product(id, 10, { time: at(0) }, 'inventory.imported.v1')]);
    await send([ordersFirst ? order : change]);
    await send([ordersFirst ? change : order]);
    expect([id, await stockOf(id)]).toEqual([id, 12]);
  }
});

it('does not move again in a replay', async () => {
  const before = await get(service.url, '/api/products');
  await service.stop();
  await requestReplay(db, 'svc_inventory', 'inventory');
  service = await startService(inventoryService, configFor(store.url, stream), { log: silent });
  await until(
    async () => {
      const { shards, lagMs } = await service.consumer.position();
      const { rows } = await db.raw<{ rows: [{ behind: boolean }] }>(
        `select bool_or(replay_until is not null and (sequence_number is null or sequence_number::numeric < replay_until::numeric)) as behind
         from svc_inventory.checkpoint`,
      );
      return shards.length === 4 && lagMs < 5000 && !rows[0].behind;
    },
    { describe: 'the replay' },
  );
  expect(await get(service.url, '/api/products')).toEqual(before);
});

it('does not count an order twice that a later state of legacy contains, whichever arrives first', async () => {
  const early = placed(11, [{ productId: 101, quantity: 3 }], { origin: 'extracted', time: at(1) });
  const late = placed(12, [{ productId: 101, quantity: 4 }], { origin: 'extracted', time: at(3) });
  const states = [product(101, 10, { time: at(0), sequence: 1 }), product(101, 7, { time: at(2), sequence: 2 })];
  await send([states[0]!, early]);
  expect(await stockOf(101)).toBe(7);
  await send([states[1]!, late]);
  expect(await stockOf(101)).toBe(3);

  // the same story of another product, orders first
  const twin = (each: Envelope, order: number): Envelope => ({
    ...each,
    id: `${each.id}-twin`,
    subject: each.subject === '101' ? '102' : String(order),
    partitionkey: each.subject === '101' ? '102' : String(order),
    data:
      each.subject === '101'
        ? { ...each.data, id: 102 }
        : { ...each.data, id: order, items: [{ productId: 102, quantity: order === 21 ? 3 : 4 }] },
  });
  await send([twin(late, 22)]);
  await send([twin(early, 21)]);
  await send(states.map((each) => twin(each, 0)));
  expect(await stockOf(102)).toBe(3);
});

it('forgets a product that is deleted, and an order that comes after', async () => {
  await send([product(103, 5, { time: at(0) }), fact('inventory.deleted.v1', '103', { id: 103 }, { sequence: 2, time: at(1) })]);
  await send([placed(31, [{ productId: 103, quantity: 1 }], { origin: 'extracted', time: at(2) })]);
  expect((await get(service.url, '/api/products/103')).status).toBe(404);
});
