import { AppError } from '@banyan/contracts/errors.ts';
import type { Router } from 'express';
import express from 'express';
import type { Knex } from 'knex';
import { listMails } from './store.ts';

/** `GET /api/mails?orderId=`: the mails that were sent. */
export const notificationRoutes = ({ db }: { readonly db: Knex }): Router => {
  const router = express.Router();
  router.get('/api/mails', async (req, res) => {
    const { orderId } = req.query;
    if (orderId !== undefined && (typeof orderId !== 'string' || orderId.includes('\0')))
      throw new AppError('bad-request', 'orderId must be given once, as a text');
    res.set('cache-control', 'no-store').json(await listMails(db, orderId));
  });
  return router;
};
