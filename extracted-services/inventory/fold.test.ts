import { describe, expect, it } from '@jest/globals';
import fc from 'fast-check';
import type { Line } from './domain.ts';
import { cancelledIn, foldOrders, foldProducts, type Kept } from './fold.ts';

const time = fc.integer({ min: 0, max: 9 }).map((n) => `2026-01-02T03:04:0${n}.000Z`);
const productFact = fc.record({
  type: fc.constantFrom('inventory.imported.v1', 'inventory.changed.v1', 'inventory.deleted.v1'),
  time,
  epoch: fc.constantFrom(1, 2),
  sequence: fc.integer({ min: 1, max: 6 }).map((n) => String(n).padStart(18, '0')),
  data: fc.record({
    id: fc.constantFrom(1, 2),
    name: fc.constant('x'),
    price: fc.constant(5),
    currency: fc.constant('EUR'),
    stock: fc.nat(100),
    active: fc.boolean(),
    stockDelta: fc.option(fc.integer({ min: -5, max: 5 }), { nil: undefined }),
  }),
});
const orderFact = fc.record({
  id: fc.uuid(),
  type: fc.constantFrom('order.placed.v1', 'order.imported.v1', 'order.changed.v1', 'order.cancelled.v1', 'order.deleted.v1'),
  origin: fc.constantFrom('legacy' as const, 'extracted' as const),
  time,
  data: fc.record({
    id: fc.constantFrom(1, '2'),
    userId: fc.constant('ann'),
    items: fc.array(fc.record({ productId: fc.nat(2), quantity: fc.integer({ min: 1, max: 3 }) }), { maxLength: 3 }),
  }),
});
const pages = <T>(facts: readonly T[], size: number): T[][] =>
  Array.from({ length: Math.ceil(facts.length / size) }, (_, n) => facts.slice(n * size, (n + 1) * size));

describe('facts folded a page at a time', () => {
  it('leave the products that they would leave one by one', () => {
    fc.assert(
      fc.property(fc.array(productFact, { maxLength: 20 }), fc.integer({ min: 1, max: 8 }), (facts, size) => {
        const run = (page: number) => {
          const products = new Map<number, Kept>();
          const set = new Set<number>();
          for (const some of pages(facts, page)) {
            const changes = foldProducts(some, products);
            for (const product of changes.put) products.set(product.id, product);
            for (const id of changes.set) set.add(id);
          }
          return { products: new Map([...products].sort()), set: [...set].sort() };
        };
        expect(run(size)).toEqual(run(1));
      }),
    );
  });

  it('leave the lines and bookings that they would leave one by one, and fail where one by one does', () => {
    fc.assert(
      fc.property(fc.array(orderFact, { maxLength: 20 }), fc.integer({ min: 1, max: 8 }), (facts, size) => {
        const run = (page: number) => {
          const lines = new Map<number, readonly Line[]>();
          const bookings: object[] = [];
          try {
            for (const some of pages(facts, page)) {
              const known = new Map(cancelledIn(some).flatMap((id) => (lines.has(id) ? [[id, lines.get(id)!] as const] : [])));
              const changes = foldOrders(some, known);
              for (const id of changes.deleted) lines.delete(id);
              for (const [id, each] of changes.put) lines.set(id, each);
              bookings.push(...changes.bookings);
            }
          } catch (error) {
            return (error as Error).message;
          }
          return { lines: new Map([...lines].sort()), bookings };
        };
        expect(run(size)).toEqual(run(1));
      }),
    );
  });

  it('book what the extracted side sold and gave back, and nothing of legacy', () => {
    const data = {
      id: 7,
      userId: 'ann',
      items: [
        { productId: 1, quantity: 2 },
        { productId: 1, quantity: 1 },
      ],
    };
    const at = '2026-01-02T03:04:05.000Z';
    const told = (id: string, type: string, origin: 'legacy' | 'extracted') => ({ id, type, origin, time: at, data });
    const { bookings } = foldOrders(
      [
        told('a', 'order.placed.v1', 'legacy'),
        told('b', 'order.placed.v1', 'extracted'),
        told('c', 'order.changed.v1', 'extracted'),
        told('d', 'order.cancelled.v1', 'extracted'),
        told('e', 'order.cancelled.v1', 'legacy'),
      ],
      new Map(),
    );
    expect(bookings.map(({ factId, delta }) => [factId, delta])).toEqual([
      ['b', -3],
      ['d', 3],
    ]);
  });
});
