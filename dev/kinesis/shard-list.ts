import { ACCOUNT, invalid, notFound } from './errors.ts';
import { readListToken, writeListToken } from './iterator.ts';
import type { Request } from './requests.ts';
import { isOpen, type Shard, shardId } from './shards.ts';
import type { Stream } from './store.ts';
import { type Deps, statusOf, streamOf } from './stream-of.ts';

export const describeShard = (shard: Shard): object => ({
  ShardId: shard.id,
  ...(shard.parents[0] !== undefined && { ParentShardId: shardId(shard.parents[0]) }),
  ...(shard.parents[1] !== undefined && { AdjacentParentShardId: shardId(shard.parents[1]) }),
  HashKeyRange: { StartingHashKey: String(shard.startHash), EndingHashKey: String(shard.endHash) },
  SequenceNumberRange: {
    StartingSequenceNumber: shard.sequence(0, shard.createdMs),
    ...(shard.closed && { EndingSequenceNumber: shard.sequence(shard.closed.index, shard.closed.at) }),
  },
});

/** A stream that is being created shows no shards yet, as on AWS. */
export const visibleShards = (d: Deps, stream: Stream): readonly Shard[] => (statusOf(d, stream) === 'CREATING' ? [] : stream.shards);

type ShardListState = { id: string; after: string; filter: Request<'ListShards'>['ShardFilter'] };

const shardFilter = (d: Deps, stream: Stream, filter: Request<'ListShards'>['ShardFilter']): ((shard: Shard) => boolean) => {
  if (!filter) return () => true;
  const horizon = d.clock() - stream.retentionHours * 3_600_000;
  const needTime = (): number => {
    if (filter.Timestamp == null) throw invalid(`ShardFilter of type ${filter.Type} needs a Timestamp.`);
    return Math.max(horizon, filter.Timestamp * 1000);
  };
  const openAt = (ms: number) => (shard: Shard) => shard.createdMs <= ms && (shard.closed === undefined || shard.closed.at >= ms);
  switch (filter.Type) {
    case 'FROM_TRIM_HORIZON':
      return () => true;
    case 'AT_LATEST':
      return isOpen;
    case 'AT_TRIM_HORIZON':
      // A stream younger than its retention has its horizon at its own creation.
      return openAt(Math.max(horizon, stream.createdMs));
    case 'AT_TIMESTAMP':
      return openAt(Math.max(needTime(), stream.createdMs));
    case 'FROM_TIMESTAMP': {
      const from = needTime();
      return (shard) => shard.closed === undefined || shard.closed.at >= from;
    }
    case 'AFTER_SHARD_ID': {
      const after = filter.ShardId;
      if (after == null) throw invalid('ShardFilter of type AFTER_SHARD_ID needs a ShardId.');
      return (shard) => shard.id > after;
    }
  }
};

export const listShards = (d: Deps, request: Request<'ListShards'>): object => {
  let state: ShardListState;
  let stream: Stream | undefined;
  if (request.NextToken != null) {
    if (request.StreamName != null || request.ExclusiveStartShardId != null || request.StreamCreationTimestamp != null)
      throw invalid('NextToken and StreamName cannot be provided together.');
    state = readListToken('shards', request.NextToken, d.clock(), d.limits.iteratorMs) as ShardListState;
    stream = d.store.byId(state.id);
    if (!stream) throw notFound('The stream of this NextToken does not exist any more.');
  } else {
    if (request.StreamName == null && request.StreamARN == null) throw invalid('Either NextToken or StreamName should be provided.');
    stream = streamOf(d, request);
    const created = request.StreamCreationTimestamp;
    if (created != null && Math.floor(created) !== Math.floor(stream.createdMs / 1000))
      throw notFound(`Stream ${stream.name} under account ${ACCOUNT} with creation time ${created} not found.`);
    state = { id: stream.id, after: request.ExclusiveStartShardId ?? '', filter: request.ShardFilter };
  }
  const wanted = shardFilter(d, stream, state.filter);
  const rest = visibleShards(d, stream).filter((shard) => shard.id > state.after && wanted(shard));
  const page = rest.slice(0, Math.min(request.MaxResults ?? 1000, 1000));
  return {
    Shards: page.map(describeShard),
    ...(rest.length > page.length && { NextToken: writeListToken('shards', { ...state, after: page.at(-1)!.id }, d.clock()) }),
  };
};
