import { AppError } from '@banyan/contracts/errors.ts';
import { HEADERS } from '@banyan/contracts/vocabulary.ts';
import type { NextFunction, Request, Response, Router } from 'express';
import express from 'express';
import type { Knex } from 'knex';
import type { CommandContext, Commands } from './commands.ts';
import { integer, OrderRefused, readOrderRequest, text, view } from './domain.ts';
import { findOrder, listOrders } from './store.ts';

export type ApiDeps = { readonly db: Knex; readonly commands: Commands; readonly unexpected: (error: unknown) => void };

const MAX_LIST = 1000;

const header = (req: Request, name: string): string | null => {
  const value = req.headers[name];
  return typeof value === 'string' ? value : null;
};

/** @throws OrderRefused 400 for a key that no row can hold, AppError `bad-request` for an epoch that is no number */
const contextOf = (req: Request): CommandContext => {
  const key = header(req, HEADERS.idempotencyKey);
  const epoch = header(req, HEADERS.epoch);
  if (epoch !== null && !/^\d{1,9}$/.test(epoch))
    throw new AppError('bad-request', `${HEADERS.epoch} must be a whole number, not "${epoch}"`);
  const write = header(req, HEADERS.write);
  const traceparent = header(req, 'traceparent');
  return {
    key: key === null ? null : text(key, 'Idempotency-Key', 255),
    epoch: epoch === null ? null : Number(epoch),
    causation: write !== null && /^[\w-]{1,64}$/.test(write) ? write : null,
    traceparent: traceparent !== null && /^[0-9a-f]{2}-[0-9a-f]{32}-[0-9a-f]{16}-[0-9a-f]{2}$/.test(traceparent) ? traceparent : null,
  };
};

const param = (value: unknown): string => (typeof value === 'string' ? value : '');
/** The number that a path segment names, or null when it cannot name any order. */
const idOf = (value: unknown): number | null => {
  const id = /^[1-9]\d{0,15}$/.test(param(value)) ? Number(value) : Number.NaN;
  return id <= Number.MAX_SAFE_INTEGER ? id : null;
};

const limitOf = (value: unknown): number => {
  if (value === undefined) return 50;
  return integer(/^\d{1,6}$/.test(param(value)) ? Number(value) : 0, 'limit', 1, MAX_LIST);
};

/** Errors of the shop's own kind are answered in the monolith's words, `{error}`; Banyan's (`AppError`) go on and become problem+json. */
const answerError =
  (unexpected: (error: unknown) => void) =>
  (error: unknown, _req: Request, res: Response, next: NextFunction): void => {
    if (res.headersSent || error instanceof AppError) {
      next(error);
      return;
    }
    const status = error instanceof Error && 'status' in error && typeof error.status === 'number' ? error.status : 500;
    if (status >= 500) unexpected(error);
    res.status(status).json({ error: status >= 500 ? 'internal error' : (error as Error).message });
  };

/** The routes of the context, byte for byte as the monolith answers them. */
export const orderRoutes = ({ db, commands, unexpected }: ApiDeps): Router => {
  const api = express.Router();
  api.use((_req, res, next) => {
    res.set({ 'cache-control': 'no-cache' });
    next();
  });
  api.use(express.json({ limit: '256kb' }));

  api.get('/orders', async (req, res) => {
    const { userId, ref, limit } = req.query;
    const orders = await listOrders(db, {
      ...(userId === undefined ? {} : { userId: text(userId, 'userId', 100) }),
      ...(ref === undefined ? {} : { ref: text(ref, 'ref', 255) }),
      limit: limitOf(limit),
    });
    res.json(orders.map(view));
  });
  api.post('/orders', async (req, res) => {
    const context = contextOf(req);
    const order = await commands.place(readOrderRequest(req.body), context);
    res.status(201).location(`/api/orders/${order.id}`).json(view(order));
  });
  api.get('/orders/:id', async (req, res) => {
    const id = idOf(req.params.id);
    const order = id === null ? null : await findOrder(db, id);
    if (order) res.json(view(order));
    else res.status(404).json({ error: 'order not found' });
  });
  api.post('/orders/:id/cancel', async (req, res) => {
    const context = contextOf(req);
    const id = idOf(req.params.id);
    if (id === null) throw new OrderRefused(404, 'order not found');
    res.json(view(await commands.cancel(id, context)));
  });

  api.use((_req, res) => {
    res.status(404).json({ error: 'not found' });
  });
  api.use(answerError(unexpected));
  return express.Router().use('/api', api);
};
