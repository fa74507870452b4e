import { describe, expect, it } from '@jest/globals';
import fc from 'fast-check';
import { type Booking, bookingsOf, counts, idOf, moveOf } from './domain.ts';

const at = (ms: number): string => new Date(Date.UTC(2026, 0, 1) + ms).toISOString();

type Fact = { kind: 'state'; stock: number; at: string } | { kind: 'booking'; id: number; booking: Booking };

/** The service in little: keeps the youngest state and the bookings that count on it. */
const stockAfter = (facts: readonly Fact[]): number | null => {
  let state: { stock: number; at: string } | null = null;
  const bookings = new Map<number, Booking>();
  for (const fact of facts) {
    if (fact.kind === 'booking') bookings.set(fact.id, fact.booking);
    else if (state === null || Date.parse(fact.at) >= Date.parse(state.at)) state = fact;
  }
  if (state === null) return null;
  const { at: stateAt } = state;
  return [...bookings.values()].filter((booking) => counts(booking, stateAt)).reduce((sum, booking) => sum + booking.delta, state.stock);
};

describe('the stock', () => {
  it('counts an order on top of an older state only', () => {
    const booking = bookingsOf([{ productId: 1, quantity: 3 }], -1, at(10))[0]!;
    expect(counts(booking, at(9))).toBe(true);
    expect(counts(booking, at(10))).toBe(false);
    expect(counts(booking, at(11))).toBe(false);
  });

  it('books a product once per order, however many lines name it', () => {
    const lines = [
      { productId: 1, quantity: 2 },
      { productId: 2, quantity: 1 },
      { productId: 1, quantity: 3 },
    ];
    expect(bookingsOf(lines, -1, at(0)).map(({ productId, delta }) => [productId, delta])).toEqual([
      [1, -5],
      [2, -1],
    ]);
    expect(bookingsOf(lines, 1, at(0)).map(({ delta }) => delta)).toEqual([5, 1]);
  });

  it('moves by what legacy says it moved, once the product is known', () => {
    const state = { id: 1, name: '', price: 1, currency: 'EUR', stock: 12, active: true };
    expect(moveOf({ ...state, stockDelta: -2 }, true)).toEqual({ kind: 'add', pieces: -2 });
    expect(moveOf({ ...state, stockDelta: -2 }, false)).toEqual({ kind: 'set', pieces: 12 });
    expect(moveOf(state, true)).toEqual({ kind: 'set', pieces: 12 });
  });

  it('is the same for any order and repetition of deliveries', () => {
    const story = fc.array(fc.record({ state: fc.boolean(), amount: fc.integer({ min: 1, max: 9 }) }), { minLength: 1, maxLength: 12 });
    fc.assert(
      fc.property(story, fc.infiniteStream(fc.nat(1000)), (events, numbers) => {
        const next = (): number => numbers.next().value ?? 0;
        const facts = events.map(
          ({ state, amount }, index): Fact =>
            state
              ? { kind: 'state', stock: amount, at: at(index) }
              : { kind: 'booking', id: index, booking: { productId: 1, delta: -amount, at: at(index) } },
        );
        const delivered = [...facts, ...facts.filter(() => next() % 2 === 0)]
          .map((fact) => ({ fact, place: next() }))
          .sort((a, b) => a.place - b.place)
          .map(({ fact }) => fact);
        const lastState = facts.findLastIndex((fact) => fact.kind === 'state');
        const inOrder = facts.slice(lastState).reduce((sum, fact) => sum + (fact.kind === 'state' ? fact.stock : fact.booking.delta), 0);
        expect(stockAfter(delivered)).toBe(lastState < 0 ? null : inOrder);
      }),
    );
  });
});

describe('an id', () => {
  it.each([
    [7, 7],
    ['7', 7],
  ])('%p is %p', (given, id) => expect(idOf(given)).toBe(id));
  it.each(['seven', '', '1e3', -1, 1.5])('%p is none', (given) => expect(() => idOf(given)).toThrow('is no whole number'));
});
