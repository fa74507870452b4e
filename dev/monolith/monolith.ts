import { createHash } from 'node:crypto';
import { once } from 'node:events';
import { createServer } from 'node:http';
import type { AddressInfo } from 'node:net';
import { fileURLToPath } from 'node:url';
import type { Express, NextFunction, Request, Response } from 'express';
import express from 'express';
import type { Knex } from 'knex';
import knex from 'knex';
import { apiRouter } from './api.ts';
import { sendBytes } from './bytes.ts';
import { escapeHtml, page } from './html.ts';
import type { Live } from './live.ts';
import { startLive } from './live.ts';
import { pageRouter } from './pages.ts';
import { prepareSchema } from './schema.ts';
import { statusOf } from './status.ts';
import { uploadRouter } from './uploads.ts';

/** `port` 0 takes a free one; default 3000 on 127.0.0.1. `databaseUrl` is a postgres:// URL whose schema `shop` belongs to the shop. */
export type MonolithOptions = { databaseUrl: string; host?: string; port?: number };

/** A running shop. `stop` ends streams and sockets, lets running requests finish (at most 5 s) and may be called more than once. */
export type Monolith = { url: string; stop(): Promise<void> };

const SLOW_LIMIT_MS = 30_000;
const STOP_GRACE_MS = 5000;

/** 200,000 bytes that no compressor likes, the same in every process. */
const banner = createHash('shake256', { outputLength: 200_000 }).update('garden shop banner').digest();
const bannerEtag = `"${createHash('sha256').update(banner).digest('hex').slice(0, 32)}"`;

/** `/slow?ms=`: answers after 0..30000 ms (default 1000; more is cut to the limit), or at once with 503 when the shop stops. */
const slow =
  (stopping: AbortSignal) =>
  (req: Request, res: Response): void => {
    const wanted = req.query.ms === undefined ? 1000 : Number(req.query.ms);
    if (!(wanted >= 0)) {
      res.status(400).json({ error: 'ms must be a number from 0 to 30000' });
      return;
    }
    const ms = Math.min(wanted, SLOW_LIMIT_MS);
    const stop = (): void => {
      clearTimeout(timer);
      if (!res.headersSent && !res.destroyed) res.status(503).json({ error: 'shop is closing' });
    };
    const timer = setTimeout(() => res.json({ waitedMs: ms }), ms);
    stopping.addEventListener('abort', stop, { once: true });
    res.once('close', () => {
      clearTimeout(timer);
      stopping.removeEventListener('abort', stop);
    });
  };

const answerError = (error: unknown, req: Request, res: Response, next: NextFunction): void => {
  if (res.headersSent) {
    next(error);
    return;
  }
  const known = statusOf(error);
  // The client has gone in the middle of its body: nobody to answer, nothing to mend.
  if (req.destroyed && !req.complete) return;
  if (known >= 500) console.error('shop: request failed:', error);
  res.status(known).send(page('Sorry', `<p>${known >= 500 ? 'Something went wrong.' : escapeHtml((error as Error).message)}</p>`));
};

const shopApp = (db: Knex, live: Live, stopping: AbortSignal): Express => {
  const app = express();
  app.disable('x-powered-by');
  app.set('trust proxy', 'loopback');

  app.get('/healthz', async (_req, res) => {
    const alive = await db.raw('select 1').then(
      () => true,
      () => false,
    );
    res
      .status(alive ? 200 : 503)
      .set('Cache-Control', 'no-store')
      .json({ status: alive ? 'ok' : 'database unreachable' });
  });
  app.get('/slow', slow(stopping));
  app.get('/events', live.events);
  app.get('/assets/banner.bin', (req, res) =>
    sendBytes(req, res.set('Cache-Control', 'public, max-age=0'), {
      size: banner.length,
      etag: bannerEtag,
      lastModified: new Date('2025-01-01T00:00:00Z'),
      type: 'application/octet-stream',
      read: (start, end) => banner.subarray(start, end + 1),
    }),
  );
  app.use('/assets', express.static(fileURLToPath(new URL('./assets', import.meta.url)), { index: false, redirect: false }));
  app.use('/api', apiRouter({ db, placed: live.placed }));
  app.use(uploadRouter(db));
  app.use(pageRouter({ db, placed: live.placed }));
  app.use((_req, res) => {
    res.status(404).send(page('Not found', '<p>There is no such page.</p>'));
  });
  app.use(answerError);
  return app;
};

/**
 * Starts the shop: makes its tables if they are missing, then listens.
 * @throws when the database cannot be reached or the port is taken; nothing is left open then.
 */
export const startMonolith = async ({ databaseUrl, host = '127.0.0.1', port = 3000 }: MonolithOptions): Promise<Monolith> => {
  let started = false;
  const db = knex({
    client: 'pg',
    connection: { connectionString: databaseUrl, connectionTimeoutMillis: 5000, application_name: 'shop' },
    pool: { min: 0, max: 10 },
    acquireConnectionTimeout: 10_000,
    // Until the shop runs, whoever started it hears of a failure by the exception, once.
    log: { warn: (message: unknown) => started && console.error(`shop: database: ${String(message).split('\n')[0]}`) },
  });
  const stopping = new AbortController();
  const live = startLive();
  const server = createServer({ keepAliveTimeout: 65_000 }, shopApp(db, live, stopping.signal));
  server.on('upgrade', live.upgrade);
  try {
    await prepareSchema(db);
    server.listen(port, host);
    await once(server, 'listening');
  } catch (error) {
    live.stop();
    await db.destroy();
    throw error;
  }

  started = true;

  const close = async (): Promise<void> => {
    const closed = once(server, 'close');
    server.close();
    stopping.abort();
    live.stop();
    const impatient = setTimeout(() => server.closeAllConnections(), STOP_GRACE_MS);
    // `close` ends only what is idle at that moment; a connection whose last answer ends later would be kept alive.
    const sweep = setInterval(() => server.closeIdleConnections(), 20);
    await closed;
    clearInterval(sweep);
    clearTimeout(impatient);
    await db.destroy();
  };
  let stopped: Promise<void> | undefined;
  const { address, port: bound, family } = server.address() as AddressInfo;
  return {
    url: `http://${family === 'IPv6' ? `[${address}]` : address}:${bound}`,
    stop: () => {
      stopped ??= close();
      return stopped;
    },
  };
};
