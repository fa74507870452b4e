import { AppError } from '@banyan/contracts/errors.ts';
import type { Upstream } from '@banyan/contracts/vocabulary.ts';
import type { Knex } from 'knex';
import type { Logger } from 'pino';
import { z } from 'zod';
import type { Flags } from './flags/flags.ts';
import type { LiveParts } from './live.ts';

/** What a service says of its consumer (docs/interfaces.md). */
const positionSchema = z.looseObject({
  lagMs: z.number().min(0).nullable(),
  shards: z.array(z.looseObject({ shardId: z.string(), sequenceNumber: z.string().nullable(), ended: z.boolean() })).max(100_000),
});
type Position = z.output<typeof positionSchema>;

export type LagWatchDeps = {
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
const LOOK_AGAIN_MS = 30;
const pause = (ms: number): Promise<void> => new Promise((resolve) => setTimeout(resolve, ms));

/** Watches how far the extracted services are behind, and tells when they have come level. */
export const createLagWatch = (deps: LagWatchDeps): LagWatch => {
  const behind = new Set<string>();
  let timer: NodeJS.Timeout | null = null;
  let stopped = false;

  const ask = async (context: string, timeoutMs: number): Promise<Position> => {
    const url = deps.live().config.contexts[context]?.extracted?.url;
    if (!url) throw new AppError('not-configured', `${context} has no extracted service`);
    const response = await fetch(new URL('/_banyan/consumer', url), { signal: AbortSignal.timeout(Math.max(1, timeoutMs)) });
    if (!response.ok)
      throw new AppError('upstream-protocol', `the service of ${context} answered ${response.status} when asked how far it is`);
    return positionSchema.parse(await response.json());
  };

  const look = async (context: string, pinMs: number): Promise<void> => {
    let lagMs = 0;
    try {
      const [position, unpublished] = await Promise.all([ask(context, ASK_MS), deps.unpublishedMs(context)]);
      lagMs = Math.max(position.lagMs ?? 0, unpublished);
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
    const watched = [...live.contexts.values()].filter(
      (context) => context.dual && context.extracted && deps.flags.current(context.name)?.stage === 'canary',
    );
    await Promise.all(watched.map((context) => look(context.name, context.pinMs)));
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

  /** Where the context's facts end on each shard; null while some are not on the stream yet. */
  const published = async (db: Knex, context: string): Promise<Map<string, bigint> | null> => {
    const { rows } = await db.raw<{ rows: { open: string; shard: string | null; last: string | null }[] }>(
      `select count(*) filter (where published_at is null) as open, shard, max(sequence_number::numeric)::text as last
       from banyan.outbox where context = ? group by shard`,
      [context],
    );
    if (rows.some((row) => Number(row.open) > 0)) return null;
    return new Map(rows.flatMap((row) => (row.shard && row.last ? [[row.shard, BigInt(row.last)] as const] : [])));
  };

  const applied = (position: Position, ends: ReadonlyMap<string, bigint>): boolean =>
    [...ends].every(([shard, last]) => {
      const at = position.shards.find((one) => one.shardId === shard);
      return at !== undefined && (at.ended || (at.sequenceNumber !== null && BigInt(at.sequenceNumber) >= last));
    });

  return {
    start: schedule,
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
      let why = 'facts still wait for the stream';
      while (performance.now() < deadline) {
        const ends = await published(request.db, request.context);
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
