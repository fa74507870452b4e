import type { ProductState } from '@banyan/contracts/events/inventory.ts';

/*
 * What moves a stock: legacy's changes, which say by how many pieces (`stockDelta`), and the orders of the extracted side, which take pieces or give
 * them back. Both are deltas, so their order does not matter; that is as well, since they travel under different subjects, on different shards.
 * Back-sync books an extracted order into the legacy table too, but marked, so that capture makes no fact of it: nothing is counted twice.
 *
 * Beside them there are states: the whole stock of a legacy row, when a snapshot reads it or when the product is new here. A state replaces all that
 * was before it, and an order counts on top of it exactly when its fact is younger. Both times come from one clock, the store's (`append_fact`).
 *
 * What holds: the stock depends on the set of facts only, never on the order of deliveries between shards nor on their number; seeing facts
 * again (a replay) changes nothing; once back-sync has applied what it has, the stock here equals legacy's.
 *
 * What can be off: while back-sync is behind, this stock is right and legacy's is too high by the orders still to be booked. And an order that was placed
 * before a snapshot read the row, but booked into it after, is in neither the state nor on top of it: too high by its pieces until drift repair. Snapshots are taken
 * before a context is extracted, so that needs a snapshot of an unknown product during cutover. Nothing here promises that a piece is not sold twice.
 */

/** A product and its stock. */
export type Product = {
  readonly id: number;
  readonly name: string;
  /** Major units of `currency`. */
  readonly price: number;
  readonly currency: string;
  readonly stock: number;
  readonly active: boolean;
};

/** Pieces that an extracted order took (negative) or gave back; `at` is the time of its fact, ISO 8601 in UTC with milliseconds. */
export type Booking = { readonly productId: number; readonly delta: number; readonly at: string };

export type Line = { readonly productId: number; readonly quantity: number };

/** How a fact about a product moves its stock: to a number or by a number. `known` = an earlier fact told of this product. */
export type Move = { readonly kind: 'set' | 'add'; readonly pieces: number };
export const moveOf = (state: ProductState & { readonly stockDelta?: number | undefined }, known: boolean): Move =>
  known && state.stockDelta !== undefined ? { kind: 'add', pieces: state.stockDelta } : { kind: 'set', pieces: state.stock };

/** Does a booking change a stock whose state is of `stateAt`? */
export const counts = (booking: Pick<Booking, 'at'>, stateAt: string): boolean => Date.parse(booking.at) > Date.parse(stateAt);

/** One booking per product of an order that was placed (`sign` -1) or cancelled (+1) at `at`. */
export const bookingsOf = (lines: readonly Line[], sign: 1 | -1, at: string): Booking[] => {
  const sums = new Map<number, number>();
  for (const { productId, quantity } of lines) sums.set(productId, (sums.get(productId) ?? 0) + quantity);
  return [...sums].map(([productId, quantity]) => ({ productId, delta: sign * quantity, at }));
};

/** What the JSON API shows; the order of keys is the monolith's. */
export const view = ({ id, name, price, currency, stock }: Product) => ({ id, name, price, currency, stock });

/** Number of a product or an order in a fact; a mapping may give digits as text. @throws TypeError for anything else */
export const idOf = (value: number | string): number => {
  const id = typeof value === 'number' ? value : /^\d{1,16}$/.test(value) ? Number(value) : Number.NaN;
  if (!Number.isSafeInteger(id) || id < 0) throw new TypeError(`id ${value} is no whole number`);
  return id;
};

export const productOf = (state: ProductState): Product => ({
  id: idOf(state.id),
  name: state.name,
  price: state.price,
  currency: state.currency,
  stock: state.stock,
  active: state.active,
});
