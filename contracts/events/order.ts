import { z } from 'zod';

/** Ids keep the legacy shape: a number from the legacy sequence; other shops may use strings. */
const id = z.union([z.number().int(), z.string().min(1).max(128)]);

const item = z.object({
  productId: id,
  quantity: z.number().int().min(1),
  /** Price of one unit in major units (12.5 = 12.50 EUR). */
  price: z.number().min(0).optional(),
});

const status = z.enum(['placed', 'shipped', 'cancelled']);

/** The whole of an order. Money in major units of `currency`, times as RFC 3339 UTC. */
const order = z.object({
  id,
  userId: z.string().min(1).max(256),
  items: z.array(item),
  total: z.number().min(0).optional(),
  currency: z.string().length(3).optional(),
  status: status.optional(),
  createdAt: z.string().datetime({ offset: true }).optional(),
  cancelledAt: z.string().datetime({ offset: true }).nullable().optional(),
  /** The Idempotency-Key under which it was placed, where known: lets `?ref=` be answered by either side. */
  ref: z.string().max(255).nullable().optional(),
});

/** Events of the context `order`, by type. Every publisher's `data` must satisfy its schema before anything is published. */
export const orderEvents = {
  /** A new order. */
  'order.placed.v1': order,
  /** An order was cancelled; what it had reserved is free again. */
  'order.cancelled.v1': z.object({ id, cancelledAt: z.string().datetime({ offset: true }).nullable().optional() }),
  /** An existing row read by the snapshot: state, not news; nobody may react to it. */
  'order.imported.v1': order,
  /** A change that no other type names (made around the gateway): the whole new state. */
  'order.changed.v1': order,
  /** The legacy row is gone. */
  'order.deleted.v1': z.object({ id }),
} as const;

export type OrderState = z.infer<typeof order>;
