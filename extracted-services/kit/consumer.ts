import { randomUUID } from 'node:crypto';
import type { KinesisClient } from '@aws-sdk/client-kinesis';
import type { Knex } from 'knex';
import type { Logger } from 'pino';
import type { Counts } from './apply-page.ts';
import { parseCommand, parseFact } from './entries.ts';
import { backoffMs, reasonOf, sleep } from './failures.ts';
import { registerFanOut } from './fan-out.ts';
import { type FollowDeps, followShard, type Reading } from './follow.ts';
import type { Handler } from './handlers.ts';
import { belongsTo, type HashRange } from './hash-range.ts';
import { createInbox, type Hold } from './inbox.ts';
import { createLeases } from './leases.ts';
import { identifier } from './schema.ts';
import { listShards, readable, type ShardInfo } from './shards.ts';
import { createSlots } from './slots.ts';

export type ConsumerOptions = {
  readonly kinesis: KinesisClient;
  readonly stream: string;
  /** Names the reader in its tables; one per service. */
  readonly consumer: string;
  readonly db: Knex;
  /** Where `migrateSchema` made the tables. */
  readonly schema: string;
  readonly handlers: readonly Handler[];
  /** The source under which the service itself publishes; its projections leave these facts out. */
  readonly own?: string | undefined;
  readonly log: Logger;
  /** Told of every page whose effects are committed. */
  readonly onCounts?: (counts: Counts) => void;
  /** A shard that has nothing new is asked again after so long. Default 700 ms: three consumers stay below a shard's 5 reads per second. */
  readonly pollMs?: number;
  /** A client that speaks HTTP/2, for enhanced fan-out; absent = the shards are polled. */
  readonly fanOut?: KinesisClient;
  /** Default `banyan-` and the consumer's name. */
  readonly fanOutName?: string;
  /** A subscription that says nothing for so long is given up. Default 15,000: three missed heartbeats. */
  readonly quietMs?: number;
  /** How long a shard is polled after its subscription failed. Default 10,000. */
  readonly pollInsteadMs?: number;
  /** Told how each delivery came. */
  readonly onDelivery?: (way: 'push' | 'poll') => void;
  /** How long a dead instance keeps its shards. Default 5,000. */
  readonly leaseMs?: number;
  /** Default 10,000 ms. */
  readonly discoverMs?: number;
  /** Facts held or quarantined at once before reading stops. Default 10,000. */
  readonly heldLimit?: number;
  /** What it reads are commands: run one by one, without an order between them, each once under its id. */
  readonly commands?: true;
  /** Pages applied at once. Below the size of the pool of `db`, so that leases are renewed however many shards there are. Default 4. */
  readonly pagesAtOnce?: number;
};

/** How far the stream has been applied, by all instances together. */
export type Position = {
  readonly consumer: string;
  /** Age of the oldest fact that is not applied; counts from 1970 while a shard was never read, so that unknown never looks fresh. */
  readonly lagMs: number;
  readonly shards: readonly { shardId: string; sequenceNumber: string | null; ended: boolean }[];
  /** Facts in the dead letter queue, those included that wait behind a poisoned one. */
  readonly quarantined: number;
  /** Facts whose predecessor has not come. */
  readonly held: number;
};

export type Consumer = {
  position(): Promise<Position>;
  lagMs(): Promise<number>;
  /** What keeps it from reading at the moment, for a person; null when nothing does. */
  trouble(): string | null;
  /** Finishes the running page and hands the shards over. */
  stop(): Promise<void>;
};

type Worker = Reading & { readonly abort: AbortController; done: Promise<void> };

const TICK_MS = 1000;
/** Per transaction. */
const PAGE_FACTS = 2000;
/** Longer than the longest retention of a fact's duplicates: 7 days on the stream and one on the way. */
const INBOX_DAYS = 8;
const PRUNE_MS = 3_600_000;
/** A position older than this counts as lag. Above the time between two notes of it. */
const STALE_MS = 3 * TICK_MS;

/**
 * Reads every shard of a stream, from the oldest record or its checkpoint, and applies each fact once (DESIGN.md sections 6.5 and 9). Any number of
 * instances may run: a shard is read by the one that holds its lease, and a lease that was lost makes the transaction of its former holder fail.
 */
export const startConsumer = (options: ConsumerOptions): Consumer => {
  const { kinesis, stream, consumer, db, handlers, own, log } = options;
  const schema = identifier(options.schema);
  const { pollMs = 700, leaseMs = 5000, discoverMs = 10_000, heldLimit = 10_000, quietMs = 15_000 } = options;
  const inbox = createInbox({ schema, consumer, leaseMs });
  const leases = createLeases({ db, schema, consumer, owner: randomUUID(), leaseMs });
  const stopping = new AbortController();
  const workers = new Map<string, Worker>();
  let nudge = new AbortController();
  const tickMs = Math.min(TICK_MS, Math.ceil(leaseMs / 3));
  let arn: string | null = null;
  let saidNoFanOut = false;
  let trouble: string | null = 'the shards of the stream are not known yet';

  const followDeps: FollowDeps = {
    kinesis,
    stream,
    db,
    inbox,
    handlers,
    own,
    heldLimit,
    ordered: options.commands !== true,
    parse: options.commands ? parseCommand(consumer) : parseFact,
    pageFacts: options.commands ? 1 : PAGE_FACTS,
    leases,
    log,
    pollMs,
    quietMs,
    pollInsteadMs: options.pollInsteadMs ?? 10_000,
    pages: createSlots(options.pagesAtOnce ?? 4),
    fanOut: () => (options.fanOut !== undefined && arn !== null ? { kinesis: options.fanOut, arn } : null),
    onCounts: (counts) => options.onCounts?.(counts),
    onDelivery: (way) => options.onDelivery?.(way),
  };

  const begin = (hold: Hold, range: HashRange): void => {
    const abort = new AbortController();
    const worker: Worker = {
      hold,
      abort,
      signal: abort.signal,
      belongs: belongsTo(range),
      done: Promise.resolve(),
      behindMs: null,
      seenAt: performance.now(),
      trouble: null,
    };
    // its own lease had run out, e.g. because this process stood still: what the former one still has in its hands is fenced
    workers.get(hold.shardId)?.abort.abort();
    workers.set(hold.shardId, worker);
    worker.done = followShard(followDeps, worker)
      .catch((error: unknown) => log.error({ shard: hold.shardId, error: reasonOf(error) }, 'a shard is no longer read'))
      .then(async () => {
        if (workers.get(hold.shardId) === worker) workers.delete(hold.shardId);
        await leases.release([hold]).catch(() => undefined); // it runs out by itself
        nudge.abort(); // children may be due
      });
  };

  const renew = async (): Promise<void> => {
    const held = [...workers.values()];
    const now = performance.now();
    const ours = await leases.renew(held.map(({ hold, behindMs, seenAt }) => ({ hold, behindMs, seenAgoMs: now - seenAt })));
    for (const worker of held) {
      if (ours.has(worker.hold.shardId) || workers.get(worker.hold.shardId) !== worker) continue;
      log.warn({ shard: worker.hold.shardId }, 'another instance has taken this shard');
      worker.abort.abort();
    }
  };

  /** Without it the shards are polled; it is tried again with the next round. */
  const register = async (): Promise<void> => {
    try {
      arn = await registerFanOut(kinesis, stream, options.fanOutName ?? `banyan-${consumer}`, stopping.signal);
    } catch (error) {
      if (stopping.signal.aborted) return;
      if (!saidNoFanOut) log.warn({ error: reasonOf(error) }, 'no enhanced fan-out for the moment: polling');
      saidNoFanOut = true;
    }
  };

  const coordinate = async (): Promise<void> => {
    let shards: ShardInfo[] = [];
    let discoveredAt = Number.NEGATIVE_INFINITY;
    let prunedAt = Number.NEGATIVE_INFINITY;
    let attempt = 0;
    while (!stopping.signal.aborted) {
      nudge = new AbortController();
      try {
        const nowMs = performance.now();
        const before = shards.length;
        if (nowMs - discoveredAt >= discoverMs) {
          shards = await listShards(kinesis, stream, stopping.signal);
          await leases.know(shards.map((shard) => shard.shardId));
          discoveredAt = nowMs;
          if (before === 0) log.info({ stream, shards: shards.length }, 'reading the stream');
        }
        if (nowMs - prunedAt >= PRUNE_MS) {
          await db.raw(`delete from ${schema}.inbox where consumer = ? and at < now() - ? * interval '1 day'`, [consumer, INBOX_DAYS]);
          prunedAt = nowMs;
        }
        await renew();
        if (options.fanOut !== undefined && arn === null) await register();
        const due = readable(shards, await leases.ended());
        const mine = workers.size;
        for (const hold of await leases.acquire(due, mine)) begin(hold, shards.find(({ shardId }) => shardId === hold.shardId)!.range);
        trouble = null;
        attempt = 0;
        await sleep(tickMs, AbortSignal.any([stopping.signal, nudge.signal]));
        // a shard that has ended has children, which a list made before may not name
        if (nudge.signal.aborted) discoveredAt = Number.NEGATIVE_INFINITY;
      } catch (error) {
        if (stopping.signal.aborted) break;
        trouble = reasonOf(error);
        if ((attempt & (attempt - 1)) === 0) log.warn({ attempt, error: trouble }, 'the consumer cannot coordinate; trying again');
        await sleep(backoffMs(attempt), stopping.signal);
        attempt += 1;
      }
    }
  };

  const coordinating = coordinate();

  // a subscription with nothing to say is heard every 5 s only
  const quiet = options.fanOut === undefined ? pollMs : quietMs;

  const position = async (): Promise<Position> => {
    const rows = await leases.shards();
    const { rows: counted } = await db.raw<{ rows: [{ quarantined: string; held: string }] }>(
      `select (select count(*) from ${schema}.dlq where consumer = ?) as quarantined, (select count(*) from ${schema}.held where consumer = ?) as held`,
      [consumer, consumer],
    );
    const lags = rows
      .filter((row) => !row.ended)
      .map((row) => {
        if (row.behind_ms === null || row.seen_ms === null) return Date.now();
        const age = Number(row.seen_ms);
        return Number(row.behind_ms) + (age > STALE_MS + quiet ? age : 0);
      });
    return {
      consumer,
      lagMs: rows.length === 0 ? Date.now() : Math.max(0, ...lags),
      shards: rows.map((row) => ({ shardId: row.shard_id, sequenceNumber: row.sequence_number, ended: row.ended })),
      quarantined: Number(counted[0].quarantined),
      held: Number(counted[0].held),
    };
  };

  const close = async (): Promise<void> => {
    stopping.abort();
    await coordinating;
    for (const worker of workers.values()) worker.abort.abort();
    await Promise.all([...workers.values()].map((worker) => worker.done));
  };
  let stopped: Promise<void> | undefined;
  return {
    position,
    lagMs: async () => (await position()).lagMs,
    trouble: () => trouble ?? [...workers.values()].find((worker) => worker.trouble !== null)?.trouble ?? null,
    stop: () => {
      stopped ??= close();
      return stopped;
    },
  };
};

/**
 * Asks for the stream to be read again from its oldest record, or from what arrived at `from`, by whichever instance runs next. Projections see every fact
 * again, nobody reacts up to where the consumer was. What other instances have in their hands is fenced off.
 */
export const requestReplay = (db: Knex, schemaName: string, consumer: string, from: Date | null = null): Promise<void> =>
  db.transaction(async (trx) => {
    const schema = identifier(schemaName);
    // how far it was behind before says nothing of how far it is behind now
    await trx.raw(
      `update ${schema}.lease set owner = null, until = 'epoch', token = token + 1, behind_ms = null, seen_at = null where consumer = ?`,
      [consumer],
    );
    await trx.raw(
      `update ${schema}.checkpoint set sequence_number = null, subsequence = 0, ended = false, replay_from = ?,
         replay_until = nullif(greatest(coalesce(replay_until, '0')::numeric, coalesce(sequence_number, '0')::numeric), 0)::text
       where consumer = ?`,
      [from, consumer],
    );
    await trx.raw(`delete from ${schema}.inbox_head where consumer = ?`, [consumer]);
  });
