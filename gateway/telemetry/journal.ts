import { AppError } from '@banyan/contracts/errors.ts';
import { type Logger, symbols } from 'pino';
import type { JournalEntry } from '../ports.ts';
import type { Metrics } from './metrics.ts';

export type Journal = {
  /** Never throws; written up within the turn of the event loop. */
  note(entry: JournalEntry): void;
};

const toHundredths = (ms: number): number => Math.round(ms * 100) / 100;

/** A client that leaves is no failure. */
const failed = (error: unknown): boolean => error !== undefined && !(error instanceof AppError && error.code === 'client-left');

const asItIs = (line: object): object => line;

/** What pino keeps of a logger, as it puts a line together from it (pino 10, `lib/tools.js`, asJson). */
type Parts = {
  readonly [symbols.lsCacheSym]: Readonly<Record<number, string>>;
  readonly [symbols.timeSym]: () => string;
  readonly [symbols.chindingsSym]: string;
  readonly [symbols.streamSym]: { write(line: string): void };
};
const NUMBERS = { info: 30, debug: 20 } as const;
/** Routes and contexts come from the configuration; more than this many are not kept over reloads. */
const MAX_QUOTED = 20_000;

/**
 * One log line and one set of metrics per request; `info` for what a context owns and for failures, `debug` for plain traffic.
 * Notes are written up together at the end of the event loop's turn, behind every answer of that turn: written up one by one between requests
 * they added 50 us of processor time to a proxied GET, together 5 to 25 (bench/proxy, Node 24, a busy 2-core machine).
 */
export const createJournal = (deps: {
  metrics: Pick<Metrics, 'request' | 'journalFailed'>;
  log: Logger;
  /** Sees every note too, behind the answers. */
  also?: ((entry: JournalEntry) => void) | undefined;
}): Journal => {
  const { metrics, log, also } = deps;
  // Without the walk for secrets: these fields are ours, and none of their values can hold one but the client's own request id, which is checked.
  const lines = log.child({}, { level: 'trace', formatters: { log: asItIs } });
  let pending: JournalEntry[] = [];

  const known = new Map<string, string>();
  const quoted = (text: string | null): string => {
    if (text === null) return 'null';
    let found = known.get(text);
    if (found === undefined) {
      found = JSON.stringify(text);
      if (known.size >= MAX_QUOTED) known.clear();
      known.set(text, found);
    }
    return found;
  };
  const placeOf = ({ context, route, memo }: JournalEntry): string => {
    if (memo === undefined) return `,"context":${quoted(context)},"route":${quoted(route)}`;
    memo.quoted ??= `,"context":${JSON.stringify(context)},"route":${JSON.stringify(route)}`;
    return memo.quoted;
  };
  /** The line of an ordinary request, put together here: pino's general way showed as a twentieth of a request's processor time (`--cpu-prof`, Node 24). */
  const writeRequest = (entry: JournalEntry, level: 'info' | 'debug'): void => {
    const parts = log as unknown as Parts;
    parts[symbols.streamSym].write(
      `${parts[symbols.lsCacheSym][NUMBERS[level]]}${parts[symbols.timeSym]()}${parts[symbols.chindingsSym]},"requestId":${JSON.stringify(entry.requestId)}` +
        `${entry.traceId === undefined ? '' : `,"traceId":${JSON.stringify(entry.traceId)}`}${placeOf(entry)}` +
        `,"method":${quoted(entry.method)},"operation":${quoted(entry.operation)},"reason":${quoted(entry.reason)},"upstream":${quoted(entry.upstream)}` +
        `,"stage":${quoted(entry.stage)},"status":${entry.status},"decision":${quoted(entry.decisionKind)}` +
        `,"processingTime":${toHundredths(entry.durationMs)},"msg":"request"}\n`,
    );
  };

  const write = (entry: JournalEntry): void => {
    metrics.request(entry);
    also?.(entry);
    const { error } = entry;
    const level = entry.context !== null || failed(error) ? 'info' : 'debug';
    // the line is not even built when nobody reads it
    if (!log.isLevelEnabled(level)) return;
    if (error === undefined && entry.tunnel === undefined) {
      writeRequest(entry, level);
      return;
    }
    const line = {
      requestId: entry.requestId,
      traceId: entry.traceId,
      context: entry.context,
      route: entry.route,
      method: entry.method,
      operation: entry.operation,
      reason: entry.reason,
      upstream: entry.upstream,
      stage: entry.stage,
      status: entry.status,
      decision: entry.decisionKind,
      processingTime: toHundredths(entry.durationMs),
    };
    if (entry.tunnel !== undefined) {
      lines[level]({ ...line, ...entry.tunnel }, 'tunnel');
      return;
    }
    log[level]({ ...line, error }, 'request');
  };

  const writeAll = (): void => {
    const entries = pending;
    pending = [];
    for (const entry of entries) {
      try {
        write(entry);
      } catch {
        metrics.journalFailed();
      }
    }
  };

  return {
    note(entry) {
      pending.push(entry);
      if (pending.length === 1) setImmediate(writeAll);
    },
  };
};
