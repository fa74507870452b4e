import type { Upstream } from '@banyan/contracts/vocabulary.ts';
import type { Knex } from 'knex';
import type { Logger } from 'pino';
import { bucketOfMs } from '../core/ramp/histogram.ts';
import type { JournalEntry } from '../ports.ts';
import { addSamples, type Example, forgetSamples, type SampleRow } from './sample-store.ts';

export type SamplesDeps = {
  readonly db: Knex;
  readonly flag: (context: string) => { readonly stage: string; readonly since: Date } | undefined;
  /** Contexts whose breaker is open in this process now. */
  readonly openBreakers: () => readonly string[];
  readonly log: Logger;
  /** Default 1000. */
  readonly flushMs?: number;
};

export type Samples = {
  /** Counts a query of a canary. Never throws, never waits. */
  note(entry: JournalEntry): void;
  flush(): Promise<void>;
  /** Counts thrown away because the store was down or the buffer full. */
  lost(): number;
  start(): void;
  /** Writes what is left, at most 2 s. */
  stop(): Promise<void>;
};

/** Bounds between two flushes. */
const MAX_KEYS = 20_000;
const MAX_EXAMPLES = 3;
const STOP_MS = 2_000;

export const FAILED_BUCKET = -1;
export const BREAKER_BUCKET = -2;

type Adding = { -readonly [Key in keyof SampleRow]: SampleRow[Key] };

/**
 * What this process sees of both sides while a context is in canary, gathered and added to the store about once a second. Only queries that the split
 * sent to their side count: pins and overrides choose their clients, the split does not.
 */
export const createSamples = (deps: SamplesDeps): Samples => {
  let rows = new Map<string, Adding>();
  let examples = new Map<string, Example[]>();
  let slowest = new Map<string, Example>();
  const steps = new Map<string, number>();
  let lost = 0;
  let failing = false;
  let timer: NodeJS.Timeout | null = null;
  let running: Promise<void> | null = null;

  const add = (context: string, since: Date, upstream: Upstream, bucket: number): void => {
    const key = `${context} ${since.getTime()} ${upstream} ${bucket}`;
    const known = rows.get(key);
    if (known) known.n++;
    else if (rows.size >= MAX_KEYS) lost++;
    else rows.set(key, { context, since, upstream, bucket, n: 1 });
  };

  const example = (kind: Example['kind'], entry: JournalEntry, since: Date): Example => ({
    context: entry.context!,
    since,
    kind,
    requestId: entry.requestId,
    route: entry.route ?? '',
    ms: entry.durationMs,
  });

  const failed = (entry: JournalEntry, since: Date): void => {
    add(entry.context!, since, 'extracted', FAILED_BUCKET);
    const known = examples.get(entry.context!) ?? [];
    if (known.length < MAX_EXAMPLES) examples.set(entry.context!, [...known, example('failed', entry, since)]);
  };

  const note = (entry: JournalEntry): void => {
    if (entry.context === null || entry.operation !== 'query' || entry.stage !== 'canary') return;
    const flag = deps.flag(entry.context);
    if (flag?.stage !== 'canary') return;
    if (entry.decided !== 'SPLIT') return;
    if (entry.extractedFailed === true) {
      failed(entry, flag.since);
      return;
    }
    // a client that left says nothing about the side that was asked, and a breaker that is open asks nobody
    if (entry.reason !== 'SPLIT' || entry.upstream === null || entry.status === 499) return;
    if (entry.status < 500 && entry.error === undefined) {
      add(entry.context, flag.since, entry.upstream, bucketOfMs(entry.durationMs));
      const slow = slowest.get(entry.context);
      if (entry.upstream === 'extracted' && (slow === undefined || slow.ms < entry.durationMs))
        slowest.set(entry.context, example('slow', entry, flag.since));
    } else if (entry.upstream === 'extracted') failed(entry, flag.since);
    else add(entry.context, flag.since, 'legacy', FAILED_BUCKET);
  };

  /** Counters of steps that are over; each process tidies up once for each step that it sees. */
  const forgetEarlier = async (added: readonly SampleRow[]): Promise<void> => {
    for (const { context, since } of added) {
      if ((steps.get(context) ?? 0) >= since.getTime()) continue;
      await forgetSamples(deps.db, context, since);
      steps.set(context, since.getTime());
    }
  };

  const write = async (): Promise<void> => {
    for (const context of deps.openBreakers()) {
      const flag = deps.flag(context);
      if (flag?.stage === 'canary') add(context, flag.since, 'extracted', BREAKER_BUCKET);
    }
    if (rows.size === 0) return;
    const batch = { rows: [...rows.values()], examples: [...[...examples.values()].flat(), ...slowest.values()] };
    [rows, examples, slowest] = [new Map(), new Map(), new Map()];
    try {
      await addSamples(deps.db, batch);
      await forgetEarlier(batch.rows).catch((error) => deps.log.debug({ err: error }, 'samples of earlier steps stay for now'));
      if (failing) deps.log.info('samples of the ramp are stored again');
      failing = false;
    } catch (error) {
      // not tried again: whether it was committed is unknown, and counting twice would be worse than losing a second
      lost += batch.rows.reduce((sum, { n }) => sum + n, 0);
      if (!failing) deps.log.warn({ err: error }, 'samples of the ramp cannot be stored; they are counted as lost');
      failing = true;
    }
  };
  const flush = async (): Promise<void> => {
    while (running) await running;
    running = write().finally(() => {
      running = null;
    });
    await running;
  };

  return {
    note,
    flush,
    lost: () => lost,
    start() {
      timer ??= setInterval(() => {
        if (!running) void flush();
      }, deps.flushMs ?? 1_000);
      timer.unref();
    },
    async stop() {
      if (timer) clearInterval(timer);
      let giveUp: NodeJS.Timeout | undefined;
      await Promise.race([
        flush(),
        new Promise<void>((resolve) => {
          giveUp = setTimeout(resolve, STOP_MS);
        }),
      ]);
      clearTimeout(giveUp);
    },
  };
};
