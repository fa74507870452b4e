import type { NextFunction, Request, Response, Router } from 'express';
import express from 'express';
import type { Knex } from 'knex';
import { findProduct, listProducts } from './catalog.ts';
import type { Order, OrderRequest } from './orders.ts';
import { cancelOrder, findOrder, listOrders, OrderRefused, placeOrder } from './orders.ts';
import { statusOf } from './status.ts';

/** What the JSON API needs. `placed` hears of every new order, once. */
export type ApiDeps = { db: Knex; placed(order: Order): void };

const MAX_INT = 2 ** 31 - 1;
const MAX_LIST = 1000;

class BadRequest extends Error {
  readonly status = 400;
}

/** A text the database can hold, 1..`max` characters. @throws BadRequest */
const text = (value: unknown, name: string, max: number): string => {
  if (typeof value !== 'string' || value.length === 0 || value.length > max || value.includes('\0'))
    throw new BadRequest(`${name} must be a text of 1 to ${max} characters`);
  return value;
};

const isRecord = (value: unknown): value is Record<string, unknown> => typeof value === 'object' && value !== null && !Array.isArray(value);

const integer = (value: unknown, name: string, min: number, max: number): number => {
  if (typeof value !== 'number' || !Number.isInteger(value) || value < min || value > max)
    throw new BadRequest(`${name} must be a whole number from ${min} to ${max}`);
  return value;
};

/** Reads `{userId, items: [{productId, quantity}]}`. @throws BadRequest naming the first field that is wrong */
export const readOrderRequest = (body: unknown): OrderRequest => {
  if (!isRecord(body)) throw new BadRequest('the body must be a JSON object {userId, items: [{productId, quantity}]}');
  const { items } = body;
  if (!Array.isArray(items) || items.length < 1 || items.length > 50) throw new BadRequest('items must be a list of 1 to 50 entries');
  return {
    userId: text(body.userId, 'userId', 100),
    items: items.map((item: unknown, index) => {
      if (!isRecord(item)) throw new BadRequest(`items[${index}] must be an object {productId, quantity}`);
      return {
        productId: integer(item.productId, `items[${index}].productId`, 0, MAX_INT),
        quantity: integer(item.quantity, `items[${index}].quantity`, 1, 1000),
      };
    }),
  };
};

const idempotencyKey = (req: Request): string | null => {
  const value = req.headers['idempotency-key'];
  return value === undefined ? null : text(value, 'Idempotency-Key', 255);
};

const param = (value: unknown): string => (typeof value === 'string' ? value : '');
/** The number that a path segment names, or null when it cannot name any row. */
const idOf = (value: unknown, max: number): number | null => {
  const id = /^[1-9]\d{0,15}$/.test(param(value)) ? Number(value) : Number.NaN;
  return id <= max ? id : null;
};

const limitOf = (value: unknown): number => {
  if (value === undefined) return 50;
  const limit = /^\d{1,6}$/.test(param(value)) ? Number(value) : 0;
  return integer(limit, 'limit', 1, MAX_LIST);
};

/** Answers errors as `{error}`: those with a 4xx `status` say their message, the rest say nothing about themselves. */
const answerError = (error: unknown, _req: Request, res: Response, next: NextFunction): void => {
  if (res.headersSent) {
    next(error);
    return;
  }
  const status = statusOf(error);
  if (status >= 500) console.error('shop: api request failed:', error);
  res.status(status).json({ error: status >= 500 ? 'internal error' : (error as Error).message });
};

/** The routes below `/api`. */
export const apiRouter = ({ db, placed }: ApiDeps): Router => {
  const api = express.Router();
  api.use((_req, res, next) => {
    res.set({ 'cache-control': 'no-cache' });
    next();
  });
  api.use(express.json({ limit: '256kb' }));

  api.get('/products', async (_req, res) => {
    res.json(await listProducts(db));
  });
  api.get('/products/:id', async (req, res) => {
    const id = idOf(req.params.id, MAX_INT);
    const product = id === null ? null : await findProduct(db, id);
    if (product) res.json(product);
    else res.status(404).json({ error: 'product not found' });
  });

  api.get('/orders', async (req, res) => {
    const { userId, ref, limit } = req.query;
    res.json(
      await listOrders(db, {
        ...(userId === undefined ? {} : { userId: text(userId, 'userId', 100) }),
        ...(ref === undefined ? {} : { ref: text(ref, 'ref', 255) }),
        limit: limitOf(limit),
      }),
    );
  });
  api.post('/orders', async (req, res) => {
    const key = idempotencyKey(req);
    const { order, repeated } = await placeOrder(db, readOrderRequest(req.body), key);
    if (!repeated) placed(order);
    res.status(201).location(`/api/orders/${order.id}`).json(order);
  });
  api.get('/orders/:id', async (req, res) => {
    const id = idOf(req.params.id, Number.MAX_SAFE_INTEGER);
    const order = id === null ? null : await findOrder(db, id);
    if (order) res.json(order);
    else res.status(404).json({ error: 'order not found' });
  });
  api.post('/orders/:id/cancel', async (req, res) => {
    const key = idempotencyKey(req);
    const id = idOf(req.params.id, Number.MAX_SAFE_INTEGER);
    if (id === null) throw new OrderRefused(404, 'order not found');
    res.json(await cancelOrder(db, id, key));
  });

  api.use((_req, res) => {
    res.status(404).json({ error: 'not found' });
  });
  api.use(answerError);
  return api;
};
