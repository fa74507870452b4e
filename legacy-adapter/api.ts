import { createHash, timingSafeEqual } from 'node:crypto';
import { AppError, problemOf } from '@banyan/contracts/errors.ts';
import { type ChecksumAnswer, type ChecksumQuestion, readChecksumQuestion } from '@banyan/contracts/side-checksum.ts';
import type { Express, NextFunction, Request, Response } from 'express';
import express from 'express';
import type { Logger } from 'pino';
import { z } from 'zod';
import type { SnapshotState } from './capture/snapshot.ts';

/** What `GET /v1/capture` shows. Ages in milliseconds; lists hold at most 50 entries, oldest first. */
export type CaptureState = {
  readonly mode: 'trigger';
  readonly installed: boolean;
  readonly tables: readonly string[];
  /** Changes that are not settled yet. */
  readonly pending: number;
  readonly oldestAgeMs: number | null;
  /** Aggregates whose oldest change has to wait. */
  readonly held: number;
  readonly heldSubjects: readonly { context: string; subject: string; heldMs: number; error: string | null }[];
  /** Changes that could not be kept because the trigger failed; 0 unless somebody tampered with `banyan_capture`. */
  readonly lost: number;
  readonly snapshots: readonly SnapshotState[];
  readonly backSync: {
    readonly pending: number;
    readonly oldestAgeMs: number | null;
    readonly failing: readonly { context: string; subject: string; error: string }[];
  };
};

/** `missing` is empty when the adapter does all of its work. */
export type Readiness = { readonly missing: readonly string[]; readonly lagMs: number; readonly pending: number };

export type ApiDeps = {
  readonly log: Logger;
  readonly token: string | null;
  readonly stopping: AbortSignal;
  readonly readiness: () => Promise<Readiness>;
  readonly capture: {
    readonly state: () => Promise<CaptureState>;
    readonly install: () => Promise<void>;
    readonly remove: () => Promise<void>;
    readonly snapshot: () => Promise<void>;
  };
  /** All throw AppError `not-found` for a context that is not configured. */
  readonly takeIds: (context: string, count: number) => Promise<number[]>;
  readonly captureWatermark: (context: string, timeoutMs: number, signal: AbortSignal) => Promise<boolean>;
  readonly backSyncWatermark: (context: string, timeoutMs: number, signal: AbortSignal) => Promise<boolean>;
  /** Throws AppError `unprocessable` for what cannot be taken back. */
  readonly compensate: (context: string, aggregate: string, key: string) => Promise<'done' | 'repeated'>;
  readonly checksum: (context: string, question: ChecksumQuestion) => Promise<ChecksumAnswer>;
};

const MAX_WATERMARK_MS = 300_000;
const idsBody = z.strictObject({ count: z.number().int().min(1).max(1000) });
const compensateBody = z.strictObject({ key: z.string().min(1).max(255), aggregate: z.string().min(1).max(256) });
const watermarkBody = z.strictObject({ timeoutMs: z.number().int().min(0).max(MAX_WATERMARK_MS) });

const read = <T>(schema: z.ZodType<T>, body: unknown): T => {
  const result = schema.safeParse(body ?? {});
  if (result.success) return result.data;
  throw new AppError('bad-request', result.error.issues.map((issue) => `${issue.path.join('.') || 'body'}: ${issue.message}`).join('; '));
};

const digest = (text: string): Buffer => createHash('sha256').update(text).digest();

const authorize =
  (token: string) =>
  (req: Request, res: Response, next: NextFunction): void => {
    const [scheme, given] = (req.headers.authorization ?? '').split(' ', 2);
    if (scheme?.toLowerCase() === 'bearer' && timingSafeEqual(digest(given ?? ''), digest(token))) {
      next();
      return;
    }
    res.set('WWW-Authenticate', 'Bearer');
    next(new AppError('unauthorized', 'a bearer token is needed'));
  };

/** Body parser errors carry a status and a message of their own. */
const known = (error: unknown): unknown => {
  if (
    !(error instanceof Error) ||
    error instanceof AppError ||
    !('status' in error) ||
    typeof error.status !== 'number' ||
    error.status >= 500
  )
    return error;
  const code = ({ 413: 'payload-too-large', 415: 'unsupported-media-type' } as const)[error.status as 413 | 415] ?? 'bad-request';
  return new AppError(code, error.message, { cause: error });
};

const answerError =
  (log: Logger) =>
  (error: unknown, req: Request, res: Response, next: NextFunction): void => {
    if (res.headersSent) {
      next(error);
      return;
    }
    const shown = known(error);
    const problem = problemOf(shown);
    if (problem.status >= 500 && !(shown instanceof AppError)) log.error({ err: error, path: req.path }, 'a request failed');
    if (problem.code === 'internal') Object.assign(problem, { detail: 'Something went wrong inside the adapter' });
    res.status(problem.status).type('application/problem+json').send(JSON.stringify(problem));
  };

/** Aborted when the client leaves or the adapter stops. */
const leaving = (res: Response, stopping: AbortSignal): AbortSignal => {
  const gone = new AbortController();
  res.once('close', () => gone.abort());
  return AbortSignal.any([gone.signal, stopping]);
};

const text = (value: unknown): string => (typeof value === 'string' ? value : '');

/** The adapter's HTTP interface (docs/interfaces.md). */
export const adapterApi = (deps: ApiDeps): Express => {
  const app = express();
  app.disable('x-powered-by');
  app.get('/livez', (_req, res) => void res.json({ status: 'ok' }));
  app.get('/readyz', async (_req, res) => {
    const { missing, ...lag } = await deps.readiness();
    res.status(missing.length === 0 ? 200 : 503).json({ status: missing.length === 0 ? 'ok' : 'not ready', missing, ...lag });
  });

  const v1 = express.Router();
  if (deps.token !== null) v1.use(authorize(deps.token));
  v1.use(express.json({ limit: '16kb', strict: true }));
  v1.post('/contexts/:context/ids', async (req, res) => {
    const { count } = read(idsBody, req.body);
    res.json({ ids: await deps.takeIds(text(req.params.context), count) });
  });
  const watermark = (pass: ApiDeps['captureWatermark'], what: string) => async (req: Request, res: Response) => {
    const { timeoutMs } = read(watermarkBody, req.body);
    const signal = leaving(res, deps.stopping);
    if (await pass(text(req.params.context), timeoutMs, signal)) return void res.json({ passed: true });
    if (deps.stopping.aborted) throw new AppError('draining', 'the adapter is stopping', { retryable: true });
    const { held, heldSubjects, backSync } = await deps.capture.state();
    throw new AppError('upstream-timeout', `${what} within ${timeoutMs} ms`, {
      retryable: true,
      details: { passed: false, held, heldSubjects, failing: backSync.failing },
    });
  };
  v1.post('/contexts/:context/watermark', watermark(deps.captureWatermark, 'not every legacy change was settled'));
  v1.post(
    '/contexts/:context/back-sync/watermark',
    watermark(deps.backSyncWatermark, 'not every extracted fact was written into the legacy tables'),
  );
  v1.post('/contexts/:context/compensate', async (req, res) => {
    const { key, aggregate } = read(compensateBody, req.body);
    res.json({ compensated: await deps.compensate(text(req.params.context), aggregate, key) });
  });
  v1.get('/contexts/:context/checksum', async (req, res) => {
    res.json(await deps.checksum(text(req.params.context), readChecksumQuestion(req.query)));
  });

  v1.get('/capture', async (_req, res) => void res.json(await deps.capture.state()));
  for (const action of ['install', 'remove', 'snapshot'] as const)
    v1.post(`/capture/${action}`, async (_req, res) => {
      await deps.capture[action]();
      res.json(await deps.capture.state());
    });
  app.use('/v1', v1);
  app.use((req, _res, next) => next(new AppError('not-found', `there is no ${req.method} ${req.path}`)));
  app.use(answerError(deps.log));
  return app;
};
