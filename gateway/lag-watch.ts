import { AppError } from '@banyan/contracts/errors.ts';
import type { Upstream } from '@banyan/contracts/vocabulary.ts';
import type { Knex } from 'knex';
import type { Logger } from 'pino';
import { z } from 'zod';
import type { Flags } from './flags/flags.ts';
import type { LiveParts } from './live.ts';
import { askUpstream } from './proxy/ask.ts';

/** What a service says of its consumer (docs/interfaces.md). */
const positionSchema = z.looseObject({
  lagMs: z.number().min(0).nullable(),
  shards: z.array(z.looseObject({ shardId: z.string(), sequenceNumber: z.string().nullable(), ended: z.boolean() })).max(100_000),
});
type Position = z.output<typeof positionSchema>;

export type LagWatchDeps = {
  /** null = no store, nothing to watch. */
  readonly db: Knex | null;
  /** Everything that legacy committed for this context before `at` is on the extracted side: clients pinned until then are free. */
  readonly release: (context: string, at: number) => void;
  readonly now: () => number;
  readonly live: () => LiveParts;
  readonly flags: Flags;
  /** Age of the oldest fact of a context that is not on the stream yet, ms. */
  readonly unpublishedMs: (context: string) => Promise<number>;
  readonly log: Logger;
  readonly intervalMs?: number;
};

export type WatermarkRequest = {
  readonly context: string;
  readonly into: Upstream;
  readonly timeoutMs: number;
  readonly db: Knex;
  readonly adapterUrl: string;
  readonly adapterToken: string | null;
};

export type LagWatch = {
  start(): void;
  stop(): void;
  /** Memory only: does the extracted side lag by more than a pin covers? */
  stale(context: string): boolean;
  /** Everything that was committed on the giving side has reached the side that takes over. @throws AppError `conflict` on time-out */
  watermark(request: WatermarkRequest): Promise<void>;
};

const ASK_MS = 3000;
const POSITION_BYTES = 16 * 1_048_576;
const LOOK_AGAIN_MS = 30;
const pause = (ms: number): Promise<void> => new Promise((resolve) => setTimeout(resolve, ms));

/** Watches how far the extracted services are behind, and tells when they have come level. */
export const createLagWatch = (deps: LagWatchDeps): LagWatch => {
  const behind = new Set<string>();
  let timer: NodeJS.Timeout | null = null;
  let stopped = false;

  const ask = async (context: string, timeoutMs: number): Promise<Position> => {
    const upstream = deps.live().contexts.get(context)?.extracted?.upstream;
    if (!upstream) throw new AppError('not-configured', `${context} has no extracted service`);
    const { status, body } = await askUpstream(upstream, {
      path: '/_banyan/consumer',
      limitBytes: POSITION_BYTES,
      timeoutMs: Math.max(1, Math.ceil(timeoutMs)),
    });
    if (status < 200 || status > 299)
      throw new AppError('upstream-protocol', `the service of ${context} answered ${status} when asked how far it is`);
    return positionSchema.parse(JSON.parse(body.toString()));
  };

  const look = async (db: Knex, context: string, pinMs: number): Promise<void> => {
    let lagMs = 0;
    try {
      const at = deps.now();
      const mark = await lastFact(db, context);
      const [position, unpublished] = await Promise.all([ask(context, ASK_MS), deps.unpublishedMs(context)]);
      lagMs = Math.max(position.lagMs ?? 0, unpublished);
      const level = mark === null || (!(await waiting(db, context, mark)) && applied(position, await endsOf(db, context, mark)));
      // under `capture` the fact follows its commit by the adapter's pace: only time frees those clients
      if (level && deps.live().config.contexts[context]?.publisher === 'ledger') deps.release(context, at);
    } catch (error) {
      // a service that cannot say how far it is, is the breaker's business; the store's backlog alone cannot be judged
      deps.log.debug({ err: error, context }, 'the lag is not known');
    }
    const was = behind.has(context);
    if (lagMs > pinMs === was) return;
    if (was) behind.delete(context);
    else behind.add(context);
    deps.log.warn({ context, lagMs }, was ? 'the extracted side has caught up' : 'the extracted side lags: canary queries go to legacy');
  };

  const round = async (): Promise<void> => {
    const live = deps.live();
    const { db } = deps;
    if (!db) return;
    const watched = [...live.contexts.values()].filter(
      (context) => context.dual && context.extracted && deps.flags.current(context.name)?.stage === 'canary',
    );
    await Promise.all(watched.map((context) => look(db, context.name, context.pinMs)));
  };
  const schedule = (): void => {
    if (stopped) return;
    timer = setTimeout(() => void round().finally(schedule), deps.intervalMs ?? 1000);
  };

  const adapter = async (request: WatermarkRequest, path: string, deadline: number): Promise<void> => {
    const timeoutMs = Math.max(100, Math.round(deadline - performance.now()));
    let response: Response;
    try {
      response = await fetch(new URL(path, request.adapterUrl), {
        method: 'POST',
        headers: {
          'content-type': 'application/json',
          ...(request.adapterToken ? { authorization: `Bearer ${request.adapterToken}` } : {}),
        },
        body: JSON.stringify({ timeoutMs }),
        signal: AbortSignal.timeout(timeoutMs + 1000),
      });
    } catch (error) {
      throw new AppError('conflict', `the adapter does not answer at ${request.adapterUrl}`, { cause: error });
    }
    if (!response.ok) throw new AppError('conflict', `the adapter has not come level: ${(await response.text()).slice(0, 300)}`);
  };

  /** Where a context's facts end on each shard, up to a position of the outbox below which no transaction can still be open. */
  const settled = new Map<string, { upTo: string; ends: ReadonlyMap<string, bigint> }>();

  /** The context's last fact at this moment, by its place in the outbox; null before the first one. */
  const lastFact = async (db: Knex, context: string): Promise<string | null> => {
    const { rows } = await db.raw<{ rows: { mark: string | null }[] }>(
      'select max(position)::text as mark from banyan.outbox where context = ? and position > ?',
      [context, settled.get(context)?.upTo ?? '0'],
    );
    return rows[0]!.mark ?? settled.get(context)?.upTo ?? null;
  };

  const waiting = async (db: Knex, context: string, mark: string): Promise<boolean> => {
    const { rows } = await db.raw<{ rows: { found: boolean }[] }>(
      'select exists (select from banyan.outbox where context = ? and published_at is null and position <= ?) as found',
      [context, mark],
    );
    return rows[0]!.found;
  };

  /**
   * Where the facts up to `mark` end on each shard. Positions are given before their transactions commit, so only what is old enough is remembered;
   * the rest is read again each time.
   */
  const endsOf = async (db: Knex, context: string, mark: string): Promise<Map<string, bigint>> => {
    const before = settled.get(context) ?? { upTo: '0', ends: new Map<string, bigint>() };
    const { rows } = await db.raw<{ rows: { shard: string | null; last: string | null; old: boolean; place: string }[] }>(
      `select shard, max(sequence_number::numeric)::text as last, created_at < now() - interval '5 minutes' as old, max(position)::text as place
       from banyan.outbox where context = ? and position > ? and position <= ? group by shard, old`,
      [context, before.upTo, mark],
    );
    const merge = (into: Map<string, bigint>, of: typeof rows): Map<string, bigint> => {
      for (const { shard, last } of of) if (shard && last && BigInt(last) > (into.get(shard) ?? 0n)) into.set(shard, BigInt(last));
      return into;
    };
    const old = rows.filter((row) => row.old);
    if (old.length > 0) {
      let upTo = 0n;
      for (const { place } of old) if (BigInt(place) > upTo) upTo = BigInt(place);
      // younger facts may lie below an old one's place: they must be read again, so nothing is remembered past the first of them
      const young = await db.raw<{ rows: { first: string | null }[] }>(
        `select min(position)::text as first from banyan.outbox where context = ? and position > ? and created_at >= now() - interval '5 minutes'`,
        [context, before.upTo],
      );
      const first = young.rows[0]!.first;
      if (first === null || BigInt(first) > upTo) settled.set(context, { upTo: String(upTo), ends: merge(new Map(before.ends), old) });
    }
    return merge(new Map(before.ends), rows);
  };

  const applied = (position: Position, ends: ReadonlyMap<string, bigint>): boolean =>
    [...ends].every(([shard, last]) => {
      const at = position.shards.find((one) => one.shardId === shard);
      return at !== undefined && (at.ended || (at.sequenceNumber !== null && BigInt(at.sequenceNumber) >= last));
    });

  return {
    start() {
      if (!timer) schedule();
    },
    stop() {
      stopped = true;
      if (timer) clearTimeout(timer);
    },
    stale: (context) => behind.has(context),
    async watermark(request) {
      const deadline = performance.now() + request.timeoutMs;
      const base = `/v1/contexts/${encodeURIComponent(request.context)}`;
      if (request.into === 'legacy') return adapter(request, `${base}/back-sync/watermark`, deadline);
      await adapter(request, `${base}/watermark`, deadline);
      // The mark is taken once: under load the end moves on for ever, and what comes after it is the freeze's business.
      const mark = await lastFact(request.db, request.context);
      if (mark === null) return;
      let why = 'facts still wait for the stream';
      let ends: Map<string, bigint> | null = null;
      while (performance.now() < deadline) {
        if (ends === null && !(await waiting(request.db, request.context, mark))) ends = await endsOf(request.db, request.context, mark);
        if (ends) {
          why = 'the extracted service has not applied every fact';
          try {
            if (applied(await ask(request.context, Math.min(ASK_MS, deadline - performance.now())), ends)) return;
          } catch (error) {
            why = error instanceof Error ? error.message : String(error);
          }
        }
        await pause(LOOK_AGAIN_MS);
      }
      throw new AppError('conflict', `timed out: ${why}`);
    },
  };
};
