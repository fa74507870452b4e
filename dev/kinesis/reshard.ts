import { ACCOUNT, invalid, KinesisError, notFound } from './errors.ts';
import type { Request } from './requests.ts';
import { hashRanges, isOpen, type Shard, type ShardState, shardNumber } from './shards.ts';
import type { Stream } from './store.ts';
import { activeStreamOf, type Deps } from './stream-of.ts';

const openShard = (stream: Stream, id: string): Shard => {
  const number = shardNumber(id);
  const shard = stream.shards.find((candidate) => candidate.number === number);
  if (!shard) throw notFound(`Could not find shard ${id} in stream ${stream.name} under account ${ACCOUNT}.`);
  if (!isOpen(shard))
    throw invalid(
      `Shard ${shard.id} in stream ${stream.name} under account ${ACCOUNT} has already been merged or split, and thus is not eligible for merging or splitting.`,
    );
  return shard;
};

/** Children begin after their parents in time too, so that no consumer that orders by arrival mixes them. */
const replace = async (
  d: Deps,
  stream: Stream,
  closing: readonly Shard[],
  ranges: readonly (readonly [bigint, bigint])[],
): Promise<object> => {
  const now = Math.max(d.clock(), ...closing.map((shard) => shard.lastAt));
  const open: ShardState[] = ranges.map(([start, end], i) => ({
    number: stream.nextShard + i,
    createdMs: now,
    start: String(start),
    end: String(end),
    parents: closing.map((shard) => shard.number),
    fromIndex: 1,
  }));
  const close = closing.map((shard) => ({ number: shard.number, index: shard.nextIndex, at: now }));
  await d.store.record({ kind: 'reshard', id: stream.id, close, open });
  return {};
};

/** Splits at once: AWS shows UPDATING for some seconds. */
export const splitShard = async (d: Deps, request: Request<'SplitShard'>): Promise<object> => {
  const stream = activeStreamOf(d, request);
  const shard = openShard(stream, request.ShardToSplit);
  const middle = BigInt(request.NewStartingHashKey);
  // The bounds are those of AWS (as kinesalite found them): neither child may be a single key at the edge.
  if (middle <= shard.startHash + 1n || middle >= shard.endHash)
    throw invalid(
      `NewStartingHashKey ${middle} used in SplitShard() on shard ${shard.id} in stream ${stream.name} under account ${ACCOUNT} is not both greater than one plus the shard's StartingHashKey ${shard.startHash} and less than the shard's EndingHashKey ${shard.endHash}.`,
    );
  if (d.store.openShards() + 1 > d.limits.maxShards)
    throw new KinesisError(
      'LimitExceededException',
      `This request would exceed the shard limit for the account ${ACCOUNT}. Limit: ${d.limits.maxShards}.`,
    );
  return replace(
    d,
    stream,
    [shard],
    [
      [shard.startHash, middle - 1n],
      [middle, shard.endHash],
    ],
  );
};

export const mergeShards = async (d: Deps, request: Request<'MergeShards'>): Promise<object> => {
  const stream = activeStreamOf(d, request);
  const one = openShard(stream, request.ShardToMerge);
  const other = openShard(stream, request.AdjacentShardToMerge);
  const [low, high] = one.startHash < other.startHash ? [one, other] : [other, one];
  if (low === high || low.endHash + 1n !== high.startHash)
    throw invalid(
      `Shards ${one.id} and ${other.id} in stream ${stream.name} under account ${ACCOUNT} are not an adjacent pair of shards eligible for merging`,
    );
  return replace(d, stream, [one, other], [[low.startHash, high.endHash]]);
};

const openShards = (stream: Stream): Shard[] =>
  stream.shards.filter(isOpen).sort((a, b) => (a.startHash < b.startHash ? -1 : a.startHash > b.startHash ? 1 : 0));

/**
 * Uniform scaling, in the steps that AWS takes too: shards are split where a new one shall begin, then neighbours are merged. So every shard has one or two
 * parents, and a reader that reads parents first keeps the order of keys.
 */
export const updateShardCount = async (d: Deps, request: Request<'UpdateShardCount'>): Promise<object> => {
  const stream = activeStreamOf(d, request);
  const before = openShards(stream).length;
  const target = request.TargetShardCount;
  if (stream.mode === 'ON_DEMAND') throw invalid(`The stream ${stream.name} is in ON_DEMAND mode: AWS scales it.`);
  if (target > before * 2 || target < before / 2)
    throw invalid(
      `UpdateShardCount cannot scale up over double your current open shard count, nor scale down below half of it. Current open shard count: ${before}. Target shard count: ${target}.`,
    );
  if (d.store.openShards() - before + target > d.limits.maxShards)
    throw new KinesisError(
      'LimitExceededException',
      `Target shard count or number of open shards exceed the limit of ${d.limits.maxShards}.`,
    );
  const ranges = hashRanges(target);
  for (const { start } of ranges) {
    const shard = openShards(stream).find((candidate) => candidate.startHash < start && start <= candidate.endHash);
    if (shard)
      await replace(
        d,
        stream,
        [shard],
        [
          [shard.startHash, start - 1n],
          [start, shard.endHash],
        ],
      );
  }
  for (const { start, end } of ranges)
    for (;;) {
      const [first, second] = openShards(stream).filter((shard) => shard.startHash >= start && shard.endHash <= end);
      if (!first || !second) break;
      await replace(d, stream, [first, second], [[first.startHash, second.endHash]]);
    }
  return { StreamName: stream.name, StreamARN: stream.arn, CurrentShardCount: before, TargetShardCount: target };
};
