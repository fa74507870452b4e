import { AppError } from '@banyan/contracts/errors.ts';
import type { NextFunction, Request, Response, Router } from 'express';
import express from 'express';
import type { Knex } from 'knex';
import { view } from './domain.ts';
import { findProduct, listProducts } from './store.ts';

export type ApiDeps = { readonly db: Knex; readonly unexpected: (error: unknown) => void };

const MAX_INT = 2 ** 31 - 1;

/** The number that a path segment names, or null when it cannot name any product. */
const idOf = (value: string): number | null => {
  const id = /^[1-9]\d{0,15}$/.test(value) ? Number(value) : Number.NaN;
  return id <= MAX_INT ? id : null;
};

/** The routes of the context, byte for byte as the monolith answers them. */
export const inventoryRoutes = ({ db, unexpected }: ApiDeps): Router => {
  const api = express.Router();
  api.use((_req, res, next) => {
    res.set({ 'cache-control': 'no-cache' });
    next();
  });
  // nobody reads these bodies, but the monolith refuses one that is broken
  api.use(express.json({ limit: '256kb' }));
  api.get('/products', async (_req, res) => {
    res.json((await listProducts(db)).map(view));
  });
  api.get('/products/:id', async (req, res) => {
    const id = idOf(req.params.id);
    const product = id === null ? null : await findProduct(db, id);
    if (product) res.json(view(product));
    else res.status(404).json({ error: 'product not found' });
  });
  api.use((_req, res) => {
    res.status(404).json({ error: 'not found' });
  });
  api.use((error: unknown, _req: Request, res: Response, next: NextFunction) => {
    if (res.headersSent || error instanceof AppError) {
      next(error);
      return;
    }
    // a path that cannot be decoded is the client's mistake, and the monolith says so in these words
    const status = error instanceof Error && 'status' in error && typeof error.status === 'number' ? error.status : 500;
    if (status >= 500) unexpected(error);
    res.status(status).json({ error: status >= 500 ? 'internal error' : (error as Error).message });
  });
  return express.Router().use('/api', api);
};
