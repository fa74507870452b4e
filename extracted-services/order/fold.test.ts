import { describe, expect, it } from '@jest/globals';
import fc from 'fast-check';
import type { Order } from './domain.ts';
import { foldOrders, foldProducts, type KnownOrders, namedBy, type StampedProduct } from './fold.ts';

const time = fc.integer({ min: 0, max: 9 }).map((n) => `2026-01-02T03:04:0${n}.000Z`);
const orderFact = fc.oneof(
  fc.record({
    type: fc.constantFrom('order.placed.v1', 'order.imported.v1', 'order.changed.v1'),
    time,
    data: fc.record({
      id: fc.constantFrom(1, 2, '3'),
      userId: fc.constantFrom('ann', 'bob'),
      items: fc.array(fc.record({ productId: fc.nat(2), quantity: fc.integer({ min: 1, max: 3 }) }), { maxLength: 2 }),
    }),
  }),
  fc.record({ type: fc.constantFrom('order.cancelled.v1', 'order.deleted.v1'), time, data: fc.record({ id: fc.constantFrom(1, 2, '3') }) }),
);

/** The tables in memory, as `store.ts` changes them. */
const tables = () => {
  const orders = new Map<number, Order>();
  const early = new Map<number, string>();
  const prices = new Map([[0, 5]]);
  const apply = (facts: Parameters<typeof foldOrders>[0]): void => {
    const { orders: ids, unpriced } = namedBy(facts);
    const known: KnownOrders = {
      there: new Set(ids.filter((id) => orders.has(id))),
      early: new Map([...early].filter(([id]) => ids.includes(id))),
      prices: new Map([...prices].filter(([id]) => unpriced.includes(id))),
    };
    const changes = foldOrders(facts, known);
    for (const id of changes.deleted) orders.delete(id);
    for (const order of changes.put) orders.set(order.id, order);
    for (const [id, cancelledAt] of changes.cancelled) orders.set(id, { ...orders.get(id)!, status: 'cancelled', cancelledAt });
    for (const [id, at] of changes.early) if (!early.has(id)) early.set(id, at);
  };
  return { apply, state: () => ({ orders: new Map([...orders].sort()), early: new Map([...early].sort()) }) };
};

describe('facts folded a page at a time', () => {
  it('leave the orders that they would leave one by one', () => {
    fc.assert(
      fc.property(fc.array(orderFact, { maxLength: 30 }), fc.integer({ min: 1, max: 10 }), (facts, size) => {
        const singly = tables();
        for (const fact of facts) singly.apply([fact]);
        const paged = tables();
        for (let at = 0; at < facts.length; at += size) paged.apply(facts.slice(at, at + size));
        expect(paged.state()).toEqual(singly.state());
      }),
    );
  });

  it('keep a cancellation that comes before the snapshot tells of its order, and apply it to the snapshot only', () => {
    const { apply, state } = tables();
    const at = '2026-01-02T03:04:05.000Z';
    const data = { id: 1, userId: 'ann', items: [] };
    apply([
      { type: 'order.cancelled.v1', time: at, data: { id: 1 } },
      { type: 'order.imported.v1', time: at, data },
    ]);
    expect(state().orders.get(1)).toMatchObject({ status: 'cancelled', cancelledAt: at });
    apply([{ type: 'order.changed.v1', time: at, data }]);
    expect(state().orders.get(1)).toMatchObject({ status: 'placed', cancelledAt: null });
  });

  const productFact = fc.record({
    type: fc.constantFrom('inventory.imported.v1', 'inventory.changed.v1', 'inventory.deleted.v1'),
    epoch: fc.constantFrom(1, 2),
    sequence: fc.integer({ min: 1, max: 6 }).map((n) => String(n).padStart(18, '0')),
    data: fc.record({
      id: fc.constantFrom(1, 2),
      name: fc.constant('x'),
      price: fc.integer({ min: 1, max: 9 }),
      currency: fc.constant('EUR'),
      stock: fc.nat(100),
      active: fc.boolean(),
      stockDelta: fc.option(fc.integer({ min: -5, max: 5 }), { nil: undefined }),
    }),
  });
  it('leave the products that they would leave one by one, also when they come again', () => {
    fc.assert(
      fc.property(fc.array(productFact, { maxLength: 20 }), fc.integer({ min: 1, max: 8 }), (facts, size) => {
        const run = (page: number): Map<number, StampedProduct> => {
          const products = new Map<number, StampedProduct>();
          for (let at = 0; at < facts.length; at += page) {
            const { put, deleted } = foldProducts(facts.slice(at, at + page), products);
            for (const id of deleted) products.delete(id);
            for (const [id, product] of put) products.set(id, product);
          }
          return new Map([...products].sort());
        };
        expect(run(size)).toEqual(run(1));
      }),
    );
  });

  it('move a stock by what changed, from where the orders placed here have left it', () => {
    const product = { price: 5, stock: 7, active: true, epoch: 1, sequence: 1n };
    const change = (sequence: number, stockDelta?: number) => ({
      type: 'inventory.changed.v1',
      epoch: 1,
      sequence: String(sequence).padStart(18, '0'),
      data: { id: 1, name: 'x', price: 6, currency: 'EUR', stock: 100, active: true, ...(stockDelta === undefined ? {} : { stockDelta }) },
    });
    const folded = (...facts: ReturnType<typeof change>[]) => foldProducts(facts, new Map([[1, product]])).put.get(1)?.stock;
    expect(folded(change(2, 10), change(3, -1))).toBe(16);
    expect(folded(change(1, 10))).toBeUndefined();
    expect(folded(change(2), change(3, -1))).toBe(99);
  });
});
