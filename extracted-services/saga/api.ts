import { SAGA_RESOLUTIONS } from '@banyan/contracts/admin-api.ts';
import { AppError } from '@banyan/contracts/errors.ts';
import { SAGA_STATES } from '@banyan/contracts/vocabulary.ts';
import express, { type Router } from 'express';
import type { Knex } from 'knex';
import { z } from 'zod';
import { DEFINITIONS } from './definition.ts';
import { find, list, resolve } from './store.ts';

const NEXT = 'expected the `next` of the page before';
const querySchema = z.object({
  state: z.enum(SAGA_STATES).optional(),
  limit: z.coerce.number().int().min(1).max(500).default(50),
  cursor: z
    .string()
    .regex(/^\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z .{1,256}$/, NEXT)
    .refine((text) => !Number.isNaN(Date.parse(text.slice(0, 24))), NEXT)
    .optional(),
});
const resolveSchema = z.object({
  as: z.enum(SAGA_RESOLUTIONS),
  reason: z.string().min(1).max(1000),
  actor: z.string().min(1).max(200).default('unknown'),
});

const parse = <T>(schema: z.ZodType<T>, value: unknown): T => {
  const read = schema.safeParse(value);
  if (read.success) return read.data;
  const issue = read.error.issues[0]!;
  throw new AppError('bad-request', `${issue.path.join('.') || 'body'}: ${issue.message}`);
};

/** `GET /_banyan/sagas?state&limit&cursor`, `GET /_banyan/sagas/:id` with steps and timeline, `POST /_banyan/sagas/:id/resolve {as, reason, actor}`. */
export const sagaRoutes = ({ db, wake }: { readonly db: Knex; readonly wake: () => void }): Router => {
  const router = express.Router();
  router.use('/_banyan/sagas', express.json({ limit: '16kb' }), (_req, res, next) => {
    res.set('cache-control', 'no-store');
    next();
  });
  router.get('/_banyan/sagas', async (req, res) => {
    const { state, limit, cursor } = parse(querySchema, req.query);
    const after = cursor === undefined ? null : { at: cursor.slice(0, 24), id: cursor.slice(25) };
    const found = await list(db, state ?? null, limit + 1, after);
    const items = found.slice(0, limit);
    const last = items.at(-1);
    res.json({ items, next: found.length > limit && last ? `${last.createdAt} ${last.id}` : null });
  });
  router.get('/_banyan/sagas/:id', async (req, res) => {
    const saga = await find(db, req.params.id);
    if (!saga) throw new AppError('not-found', `there is no saga ${req.params.id}`);
    res.json(saga);
  });
  router.post('/_banyan/sagas/:id/resolve', async (req, res) => {
    const { as, ...who } = parse(resolveSchema, req.body);
    const { id } = req.params;
    const saga = await find(db, id);
    if (!saga) throw new AppError('not-found', `there is no saga ${id}`);
    // the time that it had from the beginning, once more
    const definition = DEFINITIONS.find(({ name, version }) => name === saga.definition && version === saga.version) ?? DEFINITIONS[0]!;
    if (!(await resolve(db, id, as, who, definition))) throw new AppError('conflict', `saga ${id} is not parked`);
    wake();
    res.json(await find(db, id));
  });
  return router;
};
