import type { _Record, KinesisClient } from '@aws-sdk/client-kinesis';
import type { Logger } from 'pino';
import { type ApplyDeps, applyPage, type Counts } from './apply-page.ts';
import { type Entry, entriesOf, type Parse } from './entries.ts';
import { backoffMs, Fenced, reasonOf, sleep } from './failures.ts';
import { subscription } from './fan-out.ts';
import type { Belongs } from './hash-range.ts';
import type { Hold } from './inbox.ts';
import type { Leases } from './leases.ts';
import { iteratorAfter, readRecords } from './shards.ts';
import type { Slots } from './slots.ts';

export type FollowDeps = ApplyDeps & {
  readonly kinesis: KinesisClient;
  readonly stream: string;
  readonly leases: Pick<Leases, 'start'>;
  /** How the records of this stream are read. */
  readonly parse: Parse;
  /** Facts per transaction; whole stream records, so one of many facts may exceed it. */
  readonly pageFacts: number;
  readonly log: Logger;
  /** Pages that may be applied at once, all shards of this instance together. */
  readonly pages: Slots;
  readonly onCounts: (counts: Counts) => void;
  readonly pollMs: number;
  /** Enhanced fan-out: its client and the consumer's ARN; null while there is none. */
  readonly fanOut: () => { readonly kinesis: KinesisClient; readonly arn: string } | null;
  /** Longest silence of a subscription. */
  readonly quietMs: number;
  /** How long a shard whose subscription failed is polled before the next try. */
  readonly pollInsteadMs: number;
  /** Told how each delivery came, for the metrics. */
  readonly onDelivery: (way: 'push' | 'poll') => void;
};

/** A shard that this instance reads. */
export type Reading = {
  readonly hold: Hold;
  readonly signal: AbortSignal;
  readonly belongs: Belongs;
  /** How far behind the newest record; null = not known yet. And when that was seen (`performance.now()`). */
  behindMs: number | null;
  seenAt: number;
  trouble: string | null;
};

const PAGE_RECORDS = 1000;
/** A shard allows 5 reads per second, all consumers together. */
const READ_SPACING_MS = 210;

const chunksOf = (records: readonly Entry[][], atMost: number): Entry[][] => {
  const chunks: Entry[][] = [[]];
  for (const entries of records) {
    if (chunks.at(-1)!.length + entries.length > atMost && chunks.at(-1)!.length > 0) chunks.push([]);
    chunks.at(-1)!.push(...entries);
  }
  return chunks;
};

const nameOf = (error: unknown): string => (error instanceof Error ? error.name : '');

/** Reads one shard and applies what it reads, until it ends, is another's, or `signal` says stop. Pushed records where there is fan-out, else polled ones. */
export const followShard = async (deps: FollowDeps, reading: Reading): Promise<void> => {
  const { kinesis, stream, leases, log } = deps;
  const { hold, signal } = reading;
  const { shardId } = hold;
  let replayUntil: bigint | null = null;
  let attempt = 0;
  let pollUntil = 0;

  const apply = async (records: readonly _Record[], behindMs: number, ended: boolean): Promise<void> => {
    const oldest = records[0]?.ApproximateArrivalTimestamp;
    reading.behindMs = Math.max(behindMs, oldest ? Date.now() - oldest.getTime() : 0);
    reading.seenAt = performance.now();
    if (records.length > 0 || ended) {
      const chunks = chunksOf(
        records.map((record) => entriesOf(record, deps.parse, reading.belongs)),
        deps.pageFacts,
      );
      for (const [index, chunk] of chunks.entries()) {
        if (signal.aborted) return;
        const last = index === chunks.length - 1;
        const counts = await deps.pages.run(() => applyPage(deps, { hold, entries: chunk, ended: ended && last, replayUntil }));
        deps.onCounts(counts);
        if (counts.held + counts.quarantined + counts.malformed + counts.foreign > 0)
          log.warn({ shard: shardId, ...counts }, 'facts that could not be applied');
      }
    }
    reading.behindMs = ended ? 0 : behindMs;
    reading.trouble = null;
    attempt = 0;
  };

  /** True at the end of the shard. */
  const push = async (fanOut: { kinesis: KinesisClient; arn: string }): Promise<boolean> => {
    const { after, from, replayUntil: until } = await leases.start(shardId);
    replayUntil = until;
    for await (const delivery of subscription(fanOut.kinesis, { arn: fanOut.arn, shardId, after, from, quietMs: deps.quietMs, signal })) {
      deps.onDelivery('push');
      await apply(delivery.records, delivery.behindMs, delivery.ended);
      if (delivery.ended && !signal.aborted) return true;
      if (signal.aborted) return false;
    }
    return false;
  };

  /** Polls until the shard ends (true), or until a subscription shall be tried. */
  const poll = async (): Promise<boolean> => {
    const { after, from, replayUntil: until } = await leases.start(shardId);
    replayUntil = until;
    let iterator = await iteratorAfter(kinesis, stream, shardId, after, from, signal);
    while (!signal.aborted) {
      const startedAt = performance.now();
      const answer = await readRecords(kinesis, iterator!, PAGE_RECORDS, signal);
      const ended = answer.NextShardIterator === undefined || answer.NextShardIterator === null;
      const behindMs = answer.MillisBehindLatest ?? 0;
      deps.onDelivery('poll');
      await apply(answer.Records ?? [], behindMs, ended);
      // a stop in the middle of a page leaves its rest unapplied; the checkpoint knows
      if (signal.aborted) return false;
      if (ended) return true;
      if (deps.fanOut() !== null && performance.now() >= pollUntil) return false;
      iterator = answer.NextShardIterator;
      await sleep((behindMs > 0 ? READ_SPACING_MS : deps.pollMs) - (performance.now() - startedAt), signal);
    }
    return false;
  };

  while (!signal.aborted) {
    const fanOut = performance.now() >= pollUntil ? deps.fanOut() : null;
    try {
      if (fanOut === null ? await poll() : await push(fanOut)) {
        log.info({ shard: shardId }, 'read to the end of a closed shard');
        return;
      }
    } catch (error) {
      if (signal.aborted) return;
      if (error instanceof Fenced) {
        log.warn({ shard: shardId }, error.message);
        return;
      }
      if (nameOf(error) === 'ExpiredIteratorException' && attempt === 0) continue;
      if (fanOut !== null) pollUntil = performance.now() + deps.pollInsteadMs;
      // throttling is how shards share their reads, and a subscription that another instance has just left is in use for 5 s; only when it lasts is it news
      const usual = ['ProvisionedThroughputExceededException', 'ResourceInUseException', 'Silent'].includes(nameOf(error));
      if (!usual || attempt > 5) {
        reading.trouble = `${shardId}: ${reasonOf(error)}`;
        if ((attempt & (attempt - 1)) === 0) log.warn({ shard: shardId, attempt, error: reasonOf(error) }, 'reading again later');
      }
      if (fanOut === null || !usual) await sleep(backoffMs(attempt), signal);
      attempt += 1;
    }
  }
};
