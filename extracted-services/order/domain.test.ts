import { checkEventData } from '@banyan/contracts/events/index.ts';
import { describe, expect, it } from '@jest/globals';
import fc from 'fast-check';
import {
  cancel,
  fromFact,
  idOf,
  type KnownProduct,
  type Order,
  OrderRefused,
  place,
  readOrderRequest,
  repeat,
  stateOf,
  totalOf,
  view,
} from './domain.ts';

const products = new Map<number, KnownProduct>([
  [1, { price: 12.5, stock: 10, active: true }],
  [2, { price: 7.99, stock: 10, active: true }],
  [3, { price: 1, stock: 10, active: false }],
]);
const made = { id: 1006, ref: 'key', createdAt: '2026-01-02T03:04:05.006Z' };
const wish = (...items: [number, number][]) => ({
  userId: 'user-1',
  items: items.map(([productId, quantity]) => ({ productId, quantity })),
});
const refusal = (act: () => unknown): [number, string] => {
  try {
    act();
  } catch (error) {
    if (error instanceof OrderRefused) return [error.status, error.message];
    throw error;
  }
  throw new Error('nothing was refused');
};

describe('placing', () => {
  it('prices the lines and adds them up', () => {
    expect(view(place(wish([1, 3], [2, 1]), products, made))).toEqual({
      id: 1006,
      userId: 'user-1',
      items: [
        { productId: 1, quantity: 3, price: 12.5 },
        { productId: 2, quantity: 1, price: 7.99 },
      ],
      total: 45.49,
      currency: 'EUR',
      status: 'placed',
      createdAt: made.createdAt,
      cancelledAt: null,
    });
  });
  it.each([
    ['an unknown product', wish([1, 1], [9, 1]), [422, 'unknown product 9']],
    ['one that is not sold', wish([3, 1]), [422, 'unknown product 3']],
    ['more than there is, over all lines', wish([1, 6], [1, 5]), [409, 'product 1 is out of stock']],
  ] as const)('refuses %s', (_what, request, expected) => expect(refusal(() => place(request, products, made))).toEqual(expected));

  it('gives what the contract takes, and what a fact gives back is the same order', () => {
    const line = fc.tuple(fc.constantFrom(1, 2), fc.integer({ min: 1, max: 3 }));
    fc.assert(
      fc.property(fc.array(line, { minLength: 1, maxLength: 3 }), fc.boolean(), (lines, cancelled) => {
        const placed = place(wish(...lines), products, made);
        const order: Order = cancelled ? cancel(placed, '2026-02-03T00:00:00.000Z')! : placed;
        const data = checkEventData('order.placed.v1', JSON.parse(JSON.stringify(stateOf(order))));
        expect(fromFact(data as ReturnType<typeof stateOf>, '2030-01-01T00:00:00Z', new Map())).toEqual(order);
      }),
    );
  });
});

describe('a total', () => {
  it('is counted in hundredths', () => {
    const items = [0.1, 0.2].map((price) => ({ productId: 1, quantity: 1, price }));
    expect(totalOf(items)).toBe(0.3);
  });
  it('is unknown while a price is', () => expect(totalOf([{ productId: 1, quantity: 1, price: null }])).toBeNull());
});

describe('cancelling', () => {
  const order = place(wish([1, 1]), products, made);
  const at = '2026-02-03T00:00:00.000Z';
  it('happens once', () => {
    const cancelled = cancel(order, at)!;
    expect([cancelled.status, cancelled.cancelledAt]).toEqual(['cancelled', at]);
    expect(cancel(cancelled, at)).toBeNull();
  });
  it('is too late for a shipped order', () =>
    expect(refusal(() => cancel({ ...order, status: 'shipped' }, at))).toEqual([409, 'a shipped order cannot be cancelled']));
});

describe('a key that is used again', () => {
  const order = place(wish([1, 1], [2, 2]), products, made);
  it('gives the first answer, even after a cancellation', () =>
    expect(repeat(cancel(order, '2026-02-03T00:00:00.000Z')!, wish([1, 1], [2, 2]))).toEqual(order));
  it.each([wish([1, 1]), wish([2, 2], [1, 1]), wish([1, 1], [2, 3]), { ...wish([1, 1], [2, 2]), userId: 'user-2' }])(
    'is refused for %j',
    (other) => expect(refusal(() => repeat(order, other))[0]).toBe(422),
  );
});

describe('a fact of a thin mapping', () => {
  it('is priced by the products, and dated by the fact', () => {
    const order = fromFact(
      { id: '7', userId: 'u', items: [{ productId: '1', quantity: 2 }] },
      '2026-01-01T01:00:00+01:00',
      new Map([[1, 12.5]]),
    );
    expect(order).toMatchObject({
      id: 7,
      items: [{ productId: 1, price: 12.5 }],
      total: 25,
      createdAt: '2026-01-01T00:00:00.000Z',
      status: 'placed',
    });
  });
  it('waits for a price that nobody has told', () => {
    const order = fromFact({ id: 7, userId: 'u', items: [{ productId: 5, quantity: 2 }] }, '2026-01-01T00:00:00Z', new Map());
    expect([order.total, order.items[0]!.price]).toEqual([null, null]);
  });
  it.each(['', 'seven', '1.5', -1])('has an id that is a number, unlike %p', (id) => expect(refusal(() => idOf(id))[0]).toBe(422));
});

it('writes text as the monolith keeps it', () => {
  expect(readOrderRequest({ userId: 'half \ud800', items: [{ productId: 1, quantity: 1 }] }).userId).toBe('half \ufffd');
});
