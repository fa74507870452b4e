import { randomUUID } from 'node:crypto';

export type Order = {
  readonly id: number;
  readonly userId: string;
  readonly items: readonly { productId: number; quantity: number; price: number }[];
  readonly total: number;
  readonly status: string;
  readonly createdAt: string;
  readonly cancelledAt: string | null;
};

type Answer<T> = { readonly status: number; readonly body: T; readonly route: string | null };

/** One user of the shop, through whatever stands at `url`. */
export const shopUser = (url: string | (() => string), userId: string) => {
  const base = typeof url === 'string' ? () => url : url;
  const ask = async <T>(method: string, path: string, body?: unknown, headers: Record<string, string> = {}): Promise<Answer<T>> => {
    const response = await fetch(`${base()}${path}`, {
      method,
      headers: { 'x-user-id': userId, ...(body === undefined ? {} : { 'content-type': 'application/json' }), ...headers },
      ...(body === undefined ? {} : { body: JSON.stringify(body) }),
      signal: AbortSignal.timeout(60_000),
    });
    const text = await response.text();
    return { status: response.status, body: (text === '' ? null : JSON.parse(text)) as T, route: response.headers.get('banyan-route') };
  };
  return {
    ask,
    place: (key: string = randomUUID(), items = [{ productId: 1, quantity: 2 }]) =>
      ask<Order>('POST', '/api/orders', { userId, items }, { 'idempotency-key': key }),
    order: (id: number) => ask<Order>('GET', `/api/orders/${id}`),
    cancel: (id: number) => ask<Order>('POST', `/api/orders/${id}/cancel`, {}, { 'idempotency-key': randomUUID() }),
  };
};

/** Extracted or legacy, as the debug header says. */
export const sideOf = (route: string | null): string | undefined => /upstream=(\w+)/.exec(route ?? '')?.[1];
