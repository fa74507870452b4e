import type { OrderState } from '@banyan/contracts/events/order.ts';

/** An order as this service keeps it: the contract's state, nothing left open but prices that no product has told yet (null). */
export type Order = {
  readonly id: number;
  readonly userId: string;
  readonly items: readonly Item[];
  /** Major units; null while a price is missing. */
  readonly total: number | null;
  readonly currency: string;
  readonly status: 'placed' | 'shipped' | 'cancelled';
  /** ISO 8601 in UTC with milliseconds. */
  readonly createdAt: string;
  readonly cancelledAt: string | null;
  /** The Idempotency-Key that it was placed with. */
  readonly ref: string | null;
};
export type Item = { readonly productId: number; readonly quantity: number; readonly price: number | null };

/** What a customer asks for: 1..50 lines, each quantity 1..1000. */
export type OrderRequest = { readonly userId: string; readonly items: readonly { productId: number; quantity: number }[] };

/** What the order side knows of a product, by way of inventory's facts. */
export type KnownProduct = { readonly price: number; readonly stock: number; readonly active: boolean };

/** A wish that is not granted, in the monolith's words; `status` is the HTTP status that says so. */
export class OrderRefused extends Error {
  readonly status: 400 | 404 | 409 | 422;
  constructor(status: 400 | 404 | 409 | 422, message: string) {
    super(message);
    this.status = status;
  }
}

const MAX_INT = 2 ** 31 - 1;

/** A text the monolith's database can hold, 1..`max` characters. @throws OrderRefused 400 */
export const text = (value: unknown, name: string, max: number): string => {
  if (typeof value !== 'string' || value.length === 0 || value.length > max || value.includes('\0'))
    throw new OrderRefused(400, `${name} must be a text of 1 to ${max} characters`);
  // half a surrogate pair cannot be written in UTF-8; the monolith keeps U+FFFD too
  return value.toWellFormed();
};

export const integer = (value: unknown, name: string, min: number, max: number): number => {
  if (typeof value !== 'number' || !Number.isInteger(value) || value < min || value > max)
    throw new OrderRefused(400, `${name} must be a whole number from ${min} to ${max}`);
  return value;
};

const isRecord = (value: unknown): value is Record<string, unknown> => typeof value === 'object' && value !== null && !Array.isArray(value);

/** Reads `{userId, items: [{productId, quantity}]}`. @throws OrderRefused 400 naming the first field that is wrong */
export const readOrderRequest = (body: unknown): OrderRequest => {
  if (!isRecord(body)) throw new OrderRefused(400, 'the body must be a JSON object {userId, items: [{productId, quantity}]}');
  const { items } = body;
  if (!Array.isArray(items) || items.length < 1 || items.length > 50)
    throw new OrderRefused(400, 'items must be a list of 1 to 50 entries');
  return {
    userId: text(body.userId, 'userId', 100),
    items: items.map((item: unknown, index) => {
      if (!isRecord(item)) throw new OrderRefused(400, `items[${index}] must be an object {productId, quantity}`);
      return {
        productId: integer(item.productId, `items[${index}].productId`, 0, MAX_INT),
        quantity: integer(item.quantity, `items[${index}].quantity`, 1, 1000),
      };
    }),
  };
};

/** Pieces wanted of each product, over all lines. */
export const wanted = (items: readonly { productId: number; quantity: number }[]): Map<number, number> => {
  const sums = new Map<number, number>();
  for (const { productId, quantity } of items) sums.set(productId, (sums.get(productId) ?? 0) + quantity);
  return sums;
};

/** Sum of the lines in major units, counted in hundredths so that 0.1 + 0.2 is 0.3; null while a price is missing. */
export const totalOf = (items: readonly Item[]): number | null => {
  let hundredths = 0;
  for (const { price, quantity } of items) {
    if (price === null) return null;
    hundredths += Math.round(price * 100) * quantity;
  }
  return hundredths / 100;
};

/** @throws OrderRefused 422 unknown product, 409 out of stock as far as is known here */
export const place = (
  wish: OrderRequest,
  products: ReadonlyMap<number, KnownProduct>,
  made: { id: number; ref: string | null; createdAt: string },
): Order => {
  const items = wish.items.map(({ productId, quantity }) => {
    const product = products.get(productId);
    if (!product?.active) throw new OrderRefused(422, `unknown product ${productId}`);
    return { productId, quantity, price: product.price };
  });
  for (const [productId, quantity] of wanted(items))
    if (products.get(productId)!.stock < quantity) throw new OrderRefused(409, `product ${productId} is out of stock`);
  return { ...made, userId: wish.userId, items, total: totalOf(items), currency: 'EUR', status: 'placed', cancelledAt: null };
};

/** Null when it is cancelled already: nothing happens, nothing is published. @throws OrderRefused 409 for a shipped order */
export const cancel = (order: Order, at: string): Order | null => {
  if (order.status === 'shipped') throw new OrderRefused(409, 'a shipped order cannot be cancelled');
  return order.status === 'cancelled' ? null : { ...order, status: 'cancelled', cancelledAt: at };
};

/** The stored order as its first answer showed it. @throws OrderRefused 422 when the key was used for another wish */
export const repeat = (stored: Order, wish: OrderRequest): Order => {
  const same =
    stored.userId === wish.userId &&
    stored.items.length === wish.items.length &&
    stored.items.every((line, index) => line.productId === wish.items[index]!.productId && line.quantity === wish.items[index]!.quantity);
  if (!same) throw new OrderRefused(422, 'this Idempotency-Key was used for another order');
  return { ...stored, status: 'placed', cancelledAt: null };
};

/** What the JSON API shows; the order of keys is the monolith's. */
export const view = ({ id, userId, items, total, currency, status, createdAt, cancelledAt }: Order) => ({
  id,
  userId,
  items: items.map(({ productId, quantity, price }) => ({ productId, quantity, price })),
  total,
  currency,
  status,
  createdAt,
  cancelledAt,
});

/** The contract's shape: what a fact carries and what checksums compare. Keys without a value are left out. */
export const stateOf = (order: Order): OrderState => ({
  ...view(order),
  items: order.items.map(({ productId, quantity, price }) => ({ productId, quantity, ...(price === null ? {} : { price }) })),
  total: order.total ?? undefined,
  ref: order.ref,
});

const numberOf = (value: number | string, what: string): number => {
  const id = typeof value === 'number' ? value : /^\d{1,16}$/.test(value) ? Number(value) : Number.NaN;
  if (!Number.isSafeInteger(id) || id < 0) throw new OrderRefused(422, `${what} ${value} is no whole number`);
  return id;
};

/** Number of an order or a product in a fact; a mapping may give the digits of a path as text. @throws OrderRefused for anything else */
export const idOf = (value: number | string): number => numberOf(value, 'id');

/**
 * The order that a fact describes. A mapping may give little more than `{id, userId, items}`: then it is new, priced by `prices` where a line has no
 * price of its own, and created when the fact says.
 */
export const fromFact = (data: OrderState, factTime: string, prices: ReadonlyMap<number, number>): Order => {
  const items = data.items.map((item) => {
    const productId = numberOf(item.productId, 'productId');
    return { productId, quantity: item.quantity, price: item.price ?? prices.get(productId) ?? null };
  });
  const utc = (time: string): string => new Date(time).toISOString();
  return {
    id: idOf(data.id),
    userId: data.userId,
    items,
    total: data.total ?? totalOf(items),
    currency: data.currency ?? 'EUR',
    status: data.status ?? 'placed',
    createdAt: utc(data.createdAt ?? factTime),
    cancelledAt: data.cancelledAt ? utc(data.cancelledAt) : null,
    ref: data.ref ?? null,
  };
};
