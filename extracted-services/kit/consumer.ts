import { randomUUID } from 'node:crypto';
import type { KinesisClient } from '@aws-sdk/client-kinesis';
import type { Knex } from 'knex';
import type { Logger } from 'pino';
import { applyPage, type Counts } from './apply-page.ts';
import { type Entry, entriesOf } from './entries.ts';
import { backoffMs, Fenced, reasonOf, sleep } from './failures.ts';
import type { Handler } from './handlers.ts';
import { createInbox, type Hold } from './inbox.ts';
import { createLeases } from './leases.ts';
import { identifier } from './schema.ts';
import { iteratorAfter, listShards, readable, readRecords, type ShardInfo } from './shards.ts';

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
  /** How long a dead instance keeps its shards. Default 5,000. */
  readonly leaseMs?: number;
  /** Default 10,000 ms. */
  readonly discoverMs?: number;
  /** Facts held or quarantined at once before reading stops. Default 10,000. */
  readonly heldLimit?: number;
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

type Worker = {
  readonly hold: Hold;
  readonly abort: AbortController;
  done: Promise<void>;
  behindMs: number | null;
  seenAt: number;
  trouble: string | null;
};

/** Facts per transaction; whole stream records, so one of many facts may exceed it. */
const CHUNK_FACTS = 2000;
const PAGE_RECORDS = 1000;
/** A shard allows 5 reads per second, all consumers together. */
const READ_SPACING_MS = 210;
const TICK_MS = 1000;
/** Longer than the longest retention of a fact's duplicates: 7 days on the stream and one on the way. */
const INBOX_DAYS = 8;
const PRUNE_MS = 3_600_000;
/** A position older than this counts as lag. Above the time between two notes of it. */
const STALE_MS = 3 * TICK_MS;

const chunksOf = (records: readonly Entry[][]): Entry[][] => {
  const chunks: Entry[][] = [[]];
  for (const entries of records) {
    if (chunks.at(-1)!.length + entries.length > CHUNK_FACTS && chunks.at(-1)!.length > 0) chunks.push([]);
    chunks.at(-1)!.push(...entries);
  }
  return chunks;
};

const nameOf = (error: unknown): string => (error instanceof Error ? error.name : '');

/**
 * Reads every shard of a stream, from the oldest record or its checkpoint, and applies each fact once (DESIGN.md sections 6.5 and 9). Any number of
 * instances may run: a shard is read by the one that holds its lease, and a lease that was lost makes the transaction of its former holder fail.
 */
export const startConsumer = (options: ConsumerOptions): Consumer => {
  const { kinesis, stream, consumer, db, handlers, own, log } = options;
  const schema = identifier(options.schema);
  const { pollMs = 700, leaseMs = 5000, discoverMs = 10_000, heldLimit = 10_000 } = options;
  const inbox = createInbox({ schema, consumer, leaseMs });
  const leases = createLeases({ db, schema, consumer, owner: randomUUID(), leaseMs });
  const stopping = new AbortController();
  const workers = new Map<string, Worker>();
  let nudge = new AbortController();
  let trouble: string | null = 'the shards of the stream are not known yet';

  const applyRecords = async (worker: Worker, entries: Entry[][], ended: boolean, replayUntil: bigint | null): Promise<void> => {
    if (entries.length === 0 && !ended) return;
    const chunks = chunksOf(entries);
    for (const [index, chunk] of chunks.entries()) {
      if (worker.abort.signal.aborted) return;
      const last = index === chunks.length - 1;
      const counts = await applyPage(
        { db, inbox, handlers, own, heldLimit },
        { hold: worker.hold, entries: chunk, ended: ended && last, replayUntil },
      );
      options.onCounts?.(counts);
      if (counts.held + counts.quarantined + counts.malformed > 0)
        log.warn({ shard: worker.hold.shardId, ...counts }, 'facts that could not be applied');
    }
  };

  const follow = async (worker: Worker): Promise<void> => {
    const { shardId } = worker.hold;
    const { signal } = worker.abort;
    let iterator: string | undefined;
    let replayUntil: bigint | null = null;
    let attempt = 0;
    while (!signal.aborted) {
      try {
        if (iterator === undefined) {
          const from = await leases.start(shardId);
          replayUntil = from.replayUntil;
          iterator = await iteratorAfter(kinesis, stream, shardId, from.after, signal);
        }
        const startedAt = performance.now();
        const answer = await readRecords(kinesis, iterator!, PAGE_RECORDS, signal);
        const readAt = performance.now();
        const oldest = answer.Records?.[0]?.ApproximateArrivalTimestamp;
        worker.behindMs = Math.max(answer.MillisBehindLatest ?? 0, oldest ? Date.now() - oldest.getTime() : 0);
        worker.seenAt = readAt;
        const ended = answer.NextShardIterator === undefined || answer.NextShardIterator === null;
        await applyRecords(worker, (answer.Records ?? []).map(entriesOf), ended, replayUntil);
        // a stop in the middle of a page leaves its rest unapplied; the checkpoint knows
        if (signal.aborted) return;
        iterator = answer.NextShardIterator;
        worker.behindMs = ended ? 0 : (answer.MillisBehindLatest ?? 0);
        worker.trouble = null;
        attempt = 0;
        if (ended) {
          log.info({ shard: shardId }, 'read to the end of a closed shard');
          return;
        }
        await sleep((worker.behindMs > 0 ? READ_SPACING_MS : pollMs) - (performance.now() - startedAt), signal);
      } catch (error) {
        if (signal.aborted) return;
        if (error instanceof Fenced) {
          log.warn({ shard: shardId }, error.message);
          return;
        }
        iterator = undefined;
        if (nameOf(error) === 'ExpiredIteratorException' && attempt === 0) continue;
        const throttled = nameOf(error) === 'ProvisionedThroughputExceededException';
        // throttling is how shards share their reads; only when it lasts is it news
        if (!throttled || attempt > 5) {
          worker.trouble = `${shardId}: ${reasonOf(error)}`;
          if ((attempt & (attempt - 1)) === 0) log.warn({ shard: shardId, attempt, error: reasonOf(error) }, 'reading again later');
        }
        await sleep(backoffMs(attempt, Math.random), signal);
        attempt += 1;
      }
    }
  };

  const begin = (hold: Hold): void => {
    const worker: Worker = {
      hold,
      abort: new AbortController(),
      done: Promise.resolve(),
      behindMs: null,
      seenAt: performance.now(),
      trouble: null,
    };
    workers.set(hold.shardId, worker);
    worker.done = follow(worker)
      .catch((error: unknown) => log.error({ shard: hold.shardId, error: reasonOf(error) }, 'a shard is no longer read'))
      .then(async () => {
        workers.delete(hold.shardId);
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
        const due = readable(shards, await leases.ended()).filter((shardId) => !workers.has(shardId));
        for (const hold of await leases.take(due)) begin(hold);
        trouble = null;
        attempt = 0;
        await sleep(TICK_MS, AbortSignal.any([stopping.signal, nudge.signal]));
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
        return Number(row.behind_ms) + (age > STALE_MS + pollMs ? age : 0);
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
 * Asks for the whole stream to be read again from its oldest record, by whichever instance runs next. Projections see every fact again, nobody reacts
 * up to where the consumer was. What other instances have in their hands is fenced off.
 */
export const requestReplay = (db: Knex, schemaName: string, consumer: string): Promise<void> =>
  db.transaction(async (trx) => {
    const schema = identifier(schemaName);
    await trx.raw(`update ${schema}.lease set owner = null, until = 'epoch', token = token + 1 where consumer = ?`, [consumer]);
    await trx.raw(
      `update ${schema}.checkpoint set sequence_number = null, subsequence = 0, ended = false,
         replay_until = nullif(greatest(coalesce(replay_until, '0')::numeric, coalesce(sequence_number, '0')::numeric), 0)::text
       where consumer = ?`,
      [consumer],
    );
    await trx.raw(`delete from ${schema}.inbox_head where consumer = ?`, [consumer]);
  });
