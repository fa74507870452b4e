import {
  GetRecordsCommand,
  type GetRecordsCommandOutput,
  GetShardIteratorCommand,
  type KinesisClient,
  ListShardsCommand,
  type Shard,
} from '@aws-sdk/client-kinesis';
import type { HashRange } from './hash-range.ts';

/** A shard, its part of the ring, and those it was split or merged from. */
export type ShardInfo = { readonly shardId: string; readonly parents: readonly string[]; readonly range: HashRange };

/** Every shard of the stream, closed ones too. */
export const listShards = async (kinesis: KinesisClient, stream: string, signal: AbortSignal): Promise<ShardInfo[]> => {
  const shards: Shard[] = [];
  let token: string | undefined;
  do {
    const page = await kinesis.send(new ListShardsCommand(token === undefined ? { StreamName: stream } : { NextToken: token }), {
      abortSignal: signal,
    });
    shards.push(...(page.Shards ?? []));
    token = page.NextToken;
  } while (token !== undefined);
  return shards.map((shard) => ({
    shardId: shard.ShardId!,
    range: { start: BigInt(shard.HashKeyRange!.StartingHashKey!), end: BigInt(shard.HashKeyRange!.EndingHashKey!) },
    parents: [shard.ParentShardId, shard.AdjacentParentShardId].filter((id) => id !== undefined),
  }));
};

/**
 * The shards that may be read now: not read to their end, and no parent that still is to be read; so facts of a key keep their order over a split
 * or a merge. A parent that the stream no longer lists has been trimmed and holds nothing. Pure.
 */
export const readable = (shards: readonly Pick<ShardInfo, 'shardId' | 'parents'>[], ended: ReadonlySet<string>): string[] => {
  const listed = new Set(shards.map((shard) => shard.shardId));
  return shards
    .filter((shard) => !ended.has(shard.shardId) && shard.parents.every((parent) => !listed.has(parent) || ended.has(parent)))
    .map((shard) => shard.shardId);
};

/** @param after the last record already applied; null starts at `from`, or at the oldest */
export const iteratorAfter = async (
  kinesis: KinesisClient,
  stream: string,
  shardId: string,
  after: string | null,
  from: Date | null,
  signal: AbortSignal,
): Promise<string | undefined> => {
  const answer = await kinesis.send(
    new GetShardIteratorCommand({
      StreamName: stream,
      ShardId: shardId,
      ...(after !== null
        ? { ShardIteratorType: 'AFTER_SEQUENCE_NUMBER', StartingSequenceNumber: after }
        : from !== null
          ? { ShardIteratorType: 'AT_TIMESTAMP', Timestamp: from }
          : { ShardIteratorType: 'TRIM_HORIZON' }),
    }),
    { abortSignal: signal },
  );
  return answer.ShardIterator;
};

export const readRecords = (
  kinesis: KinesisClient,
  iterator: string,
  limit: number,
  signal: AbortSignal,
): Promise<GetRecordsCommandOutput> =>
  kinesis.send(new GetRecordsCommand({ ShardIterator: iterator, Limit: limit }), { abortSignal: signal });
