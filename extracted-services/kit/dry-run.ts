import { AsyncLocalStorage } from 'node:async_hooks';
import { subscribe, unsubscribe } from 'node:diagnostics_channel';
import type { ClientRequest } from 'node:http';
import { AppError } from '@banyan/contracts/errors.ts';
import { HEADERS } from '@banyan/contracts/vocabulary.ts';
import express, { type NextFunction, type Request, type RequestHandler, type Response, type Router } from 'express';
import type { Knex } from 'knex';

/** What a service says of its dry runs. */
export type DryRunSpec = {
  /** `stable` = a thing has the id later that a dry run answered, e.g. one made from the idempotency key; `transient` = it has not. */
  readonly ids: 'stable' | 'transient';
};

/** The transaction of the dry run that the current work belongs to. */
const scope = new AsyncLocalStorage<Knex.Transaction>();

/** Does the current work belong to a dry run? Then no fact is due, nobody owns anything, and no number may be drawn. */
export const isDryRun = (): boolean => scope.getStore() !== undefined;

/** For effects that the kit cannot see, such as a socket of one's own: called before them. @throws AppError `not-configured` in a dry run */
export const forbidInDryRun = (effect: string): void => {
  if (isDryRun()) throw new AppError('not-configured', `a dry run must not ${effect}`);
};

/** The database as a service gets it: inside a dry run every way into it leads into the transaction that is rolled back. */
export const dryRunDb = (db: Knex): Knex =>
  new Proxy(db, {
    apply: (target, _self, args: Parameters<Knex>) => (scope.getStore() ?? target)(...args),
    get: (target, name) => {
      const handle = scope.getStore() ?? target;
      const value: unknown = Reflect.get(handle, name, handle);
      return typeof value === 'function' ? value.bind(handle) : value;
    },
  });

/** Locks must not hold up the service's own work, nor a statement that waits for them the answer. */
const LIMITS = `set local lock_timeout = '1s'; set local statement_timeout = '5s'; set local idle_in_transaction_session_timeout = '15s'`;
const ROLL_BACK = new Error('the end of a dry run');

const isCommand = ({ method }: Request): boolean => method !== 'GET' && method !== 'HEAD' && method !== 'OPTIONS';

const ended = (res: Response): Promise<void> =>
  new Promise((resolve) => {
    res.once('finish', resolve);
    res.once('close', resolve);
  });

/**
 * Takes commands with `banyan-dry-run` out of the way of all others: whatever the routes behind do to the database is rolled back, whoever they would ask
 * by HTTP is not asked. A service that does not declare dry runs refuses them. The declaration is `GET /_banyan/dry-run`.
 */
export const dryRunRoutes = (db: Knex, spec: DryRunSpec | undefined): Router => {
  const dryRun = async (res: Response, next: NextFunction): Promise<void> => {
    res.set(HEADERS.dryRun, '1');
    if (!spec) return next(new AppError('not-configured', 'this service makes no dry runs'));
    try {
      await db.transaction(async (trx) => {
        await trx.raw(LIMITS);
        const over = ended(res);
        scope.run(trx, () => next());
        await over;
        throw ROLL_BACK;
      });
    } catch (error) {
      if (error !== ROLL_BACK && !res.headersSent) next(error);
    }
  };
  const declare: RequestHandler = (_req, res, next) => {
    if (spec) res.set('cache-control', 'no-store').json({ dryRun: true, ids: spec.ids });
    else next(new AppError('not-found', 'this service makes no dry runs'));
  };
  return express
    .Router()
    .get('/_banyan/dry-run', declare)
    .use((req, res, next) => {
      if (req.headers[HEADERS.dryRun] === undefined || !isCommand(req)) next();
      else void dryRun(res, next);
    });
};

const refusal = (): AppError => new AppError('not-configured', 'a dry run must not ask anybody by HTTP');
const guard = (message: unknown): void => {
  if (isDryRun()) (message as { readonly request: ClientRequest }).request.destroy(refusal());
};
/** Services of this process that make dry runs. */
let guarded = 0;
let realFetch: typeof fetch | undefined;

/** Lets no request leave a dry run, by `fetch` or by `node:http`. Gives what undoes it. */
export const guardHttp = (): (() => void) => {
  if (guarded++ === 0) {
    const original = globalThis.fetch;
    realFetch = original;
    globalThis.fetch = (...args) => (isDryRun() ? Promise.reject(refusal()) : original(...args));
    subscribe('http.client.request.created', guard);
  }
  return () => {
    if (--guarded > 0 || realFetch === undefined) return;
    globalThis.fetch = realFetch;
    unsubscribe('http.client.request.created', guard);
  };
};
