import { AppError } from '@banyan/contracts/errors.ts';
import express, { type Router } from 'express';
import type { Knex } from 'knex';
import { z } from 'zod';
import { SAGA_STATES } from './domain.ts';
import { find, list, resolve } from './store.ts';

const querySchema = z.object({ state: z.enum(SAGA_STATES).optional(), limit: z.coerce.number().int().min(1).max(500).default(50) });
const resolveSchema = z.object({
  as: z.enum(['retry', 'compensate', 'done']),
  reason: z.string().min(1).max(1000),
  actor: z.string().min(1).max(200).default('unknown'),
});

const parse = <T>(schema: z.ZodType<T>, value: unknown): T => {
  const read = schema.safeParse(value);
  if (read.success) return read.data;
  const issue = read.error.issues[0]!;
  throw new AppError('bad-request', `${issue.path.join('.') || 'body'}: ${issue.message}`);
};

/** `GET /_banyan/sagas?state&limit`, `GET /_banyan/sagas/:id` with steps and timeline, `POST /_banyan/sagas/:id/resolve {as, reason, actor}`. */
export const sagaRoutes = ({ db, wake }: { readonly db: Knex; readonly wake: () => void }): Router => {
  const router = express.Router();
  router.use('/_banyan/sagas', express.json({ limit: '16kb' }), (_req, res, next) => {
    res.set('cache-control', 'no-store');
    next();
  });
  router.get('/_banyan/sagas', async (req, res) => {
    const { state, limit } = parse(querySchema, req.query);
    res.json({ items: await list(db, state ?? null, limit), next: null });
  });
  router.get('/_banyan/sagas/:id', async (req, res) => {
    const saga = await find(db, req.params.id);
    if (!saga) throw new AppError('not-found', `there is no saga ${req.params.id}`);
    res.json(saga);
  });
  router.post('/_banyan/sagas/:id/resolve', async (req, res) => {
    const { as, ...who } = parse(resolveSchema, req.body);
    const { id } = req.params;
    if (!(await find(db, id))) throw new AppError('not-found', `there is no saga ${id}`);
    if (!(await resolve(db, id, as, who))) throw new AppError('conflict', `saga ${id} is not parked`);
    wake();
    res.json(await find(db, id));
  });
  return router;
};
