import { setTimeout as pause } from 'node:timers/promises';
import type { Knex } from 'knex';
import { tableSql } from './legacy-rows.ts';
import type { Aggregate } from './ports.ts';
import { tablesOf } from './ports.ts';

const LOOK_MS = 20;

/** Looks until `passed` says yes; false when `deadline` (`performance.now()` milliseconds) comes first or `signal` is aborted. */
const untilPassed = async (passed: () => Promise<boolean>, deadline: number, signal: AbortSignal): Promise<boolean> => {
  while (!signal.aborted) {
    if (await passed()) return true;
    if (performance.now() >= deadline) return false;
    await pause(LOOK_MS);
  }
  return false;
};

const exists = async (db: Knex, sql: string, bindings: Knex.RawBinding[]): Promise<boolean> => {
  const { rows } = await db.raw<{ rows: { found: boolean }[] }>(`select exists (${sql}) as found`, bindings);
  return rows[0]!.found;
};

/**
 * True once every change of the aggregate's tables that was committed, or was being made, at the call is settled; false after `timeoutMs`.
 * Transactions that had touched the tables are waited for first (found by their locks: waiting for all older transaction ids would make one idle
 * session of anybody stop every flip), then the highest change id is the mark.
 */
export const captureWatermark = async (legacy: Knex, aggregate: Aggregate, timeoutMs: number, signal: AbortSignal): Promise<boolean> => {
  const deadline = performance.now() + timeoutMs;
  const { rows: writers } = await legacy.raw<{ rows: { transaction: string }[] }>(
    `select distinct virtualtransaction as transaction from pg_locks
     where locktype = 'relation' and database = (select oid from pg_database where datname = current_database()) and pid <> pg_backend_pid()
       and mode in ('RowShareLock', 'RowExclusiveLock', 'ShareRowExclusiveLock', 'ExclusiveLock', 'AccessExclusiveLock') and granted and relation = any(array(select to_regclass(t)::oid from unnest(?::text[]) t))`,
    [tablesOf(aggregate).map(tableSql)],
  );
  const open = writers.map(({ transaction }) => transaction);
  const writing = (): Promise<boolean> =>
    exists(legacy, `select from pg_locks where locktype = 'virtualxid' and virtualtransaction = any(?::text[])`, [open]);
  if (open.length > 0 && !(await untilPassed(async () => !(await writing()), deadline, signal))) return false;
  const { rows } = await legacy.raw<{ rows: { mark: string | null }[] }>(
    'select max(id)::text as mark from banyan_capture.change where context = ?',
    [aggregate.context],
  );
  const mark = rows[0]!.mark;
  if (mark === null) return true;
  const waiting = (): Promise<boolean> =>
    exists(legacy, 'select from banyan_capture.change where context = ? and id <= ?', [aggregate.context, mark]);
  return untilPassed(async () => !(await waiting()), deadline, signal);
};

/** True once every row of `banyan.back_sync` of the context that existed at the call is applied; false after `timeoutMs`. */
export const backSyncWatermark = async (store: Knex, context: string, timeoutMs: number, signal: AbortSignal): Promise<boolean> => {
  const deadline = performance.now() + timeoutMs;
  const { rows } = await store.raw<{ rows: { mark: string | null }[] }>(
    'select max(position)::text as mark from banyan.back_sync where context = ?',
    [context],
  );
  const mark = rows[0]!.mark;
  if (mark === null) return true;
  const waiting = (): Promise<boolean> =>
    exists(store, 'select from banyan.back_sync where context = ? and position <= ?', [context, mark]);
  return untilPassed(async () => !(await waiting()), deadline, signal);
};
