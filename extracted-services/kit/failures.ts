import { setTimeout as pause } from 'node:timers/promises';
import { AppError } from '@banyan/contracts/errors.ts';

/** PostgreSQL classes that heal themselves: connection, transaction roll-back, resources, operator intervention, lock not available, system error. */
const TRANSIENT_SQL = /^(08|25P03|40|53|55|57|58)/;
const TRANSIENT_CODES = new Set(['ECONNREFUSED', 'ECONNRESET', 'EPIPE', 'ETIMEDOUT', 'ENOTFOUND', 'EAI_AGAIN', 'EHOSTUNREACH']);

const codeOf = (error: unknown): string => {
  const code = error instanceof Error && 'code' in error ? error.code : undefined;
  return typeof code === 'string' ? code : '';
};

/** Another process holds the shard now: what this one still has in its hands must not be written. */
export class Fenced extends Error {
  constructor(shardId: string) {
    super(`the lease of ${shardId} is held by another instance`);
    this.name = 'Fenced';
  }
}

/** May the same fact be applied later without a change? Everything else is poison: it fails again however often it is tried. */
export const isTransient = (error: unknown): boolean => {
  if (error instanceof AppError) return error.retryable;
  if (!(error instanceof Error)) return false;
  if (error instanceof AggregateError) return error.errors.some(isTransient);
  const code = codeOf(error);
  if (/^[0-9A-Z]{5}$/.test(code) && !TRANSIENT_CODES.has(code)) return TRANSIENT_SQL.test(code);
  return (
    TRANSIENT_CODES.has(code) ||
    error.name === 'KnexTimeoutError' ||
    // pg has no code for a connection that ended in the middle of a query
    /Connection terminated|Connection ended|Client has encountered a connection error|Unable to acquire a connection/i.test(error.message)
  );
};

/** Waits before attempt `attempt` (from 0) again: 100 ms doubling to 10 s, anywhere in the upper half so that instances do not march in step. */
export const backoffMs = (attempt: number, random: () => number = Math.random): number =>
  Math.min(100 * 2 ** Math.min(attempt, 10), 10_000) * (0.5 + random() / 2);

/** Sleeps; a stop ends the sleep early and quietly. */
export const sleep = async (ms: number, signal: AbortSignal): Promise<void> => {
  await pause(Math.max(ms, 0), undefined, { signal }).catch(() => undefined);
};

/** First line of an error for logs and for the `error` columns; at most 500 characters. Some drivers put several errors into one without a message. */
export const reasonOf = (error: unknown): string => {
  const first = error instanceof AggregateError && error.errors.length > 0 ? (error.errors[0] as unknown) : error;
  const text = first instanceof Error ? first.message || first.name : String(first);
  return (text.split('\n')[0] ?? '').replaceAll('\0', '').slice(0, 500);
};
