import type { ProductState } from '@banyan/contracts/events/inventory.ts';

/*
 * Two kinds of facts move a stock. Legacy's are states: the whole stock as it stood in the legacy table when the change was captured. The order
 * service's are deltas: an order that it placed takes pieces, a cancellation gives them back. They travel under different subjects, on different
 * shards, so either may arrive first; and back-sync books a delta into the legacy table too, unseen by capture, so a later state contains it already.
 *
 * The rule: a delta counts on top of a state exactly when its fact is younger. Both times come from one clock, the store's (`append_fact`).
 *
 * What holds: the stock depends on the set of facts only, never on the order or the number of their deliveries; a delta that legacy's state contains is
 * not counted twice, one that it cannot contain is not lost; seeing facts again (a replay) changes nothing.
 *
 * What can be off: the delta of an order that was placed before a state was captured, but booked into the legacy table after that change was
 * made. The state is younger than the order and does not contain it, so the stock is too high by its pieces (for a cancellation too low), until the next change of that product is captured or
 * drift repair sets it right. The window is the way of one order through back-sync plus the way of one change through capture, well under a second
 * each when neither is behind. No order is sold twice by it: whoever owns the orders checks the stock it knows, and legacy's table stays the judge
 * of legacy's stock.
 */

/** A product with the stock of its youngest state. */
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
