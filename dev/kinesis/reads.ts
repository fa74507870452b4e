import { ACCOUNT, invalid, notFound, refuseDryRun, throttled } from './errors.ts';
import { readIterator, writeIterator } from './iterator.ts';
import { MAX_GET_BYTES } from './limits.ts';
import type { Request } from './requests.ts';
import { parseSequence, saltOf } from './sequence.ts';
import { isOpen, type Shard, type StoredRecord, seek, shardId, shardNumber } from './shards.ts';
import type { Stream } from './store.ts';
import { activeStreamOf, encryptionOf, nameInArn, type Deps as StreamDeps } from './stream-of.ts';
import type { Throttle } from './throttle.ts';

type Deps = StreamDeps & { readonly throttle: Throttle };

export const shardOf = (stream: Stream, id: string): Shard => {
  const number = shardNumber(id);
  const shard = stream.shards.find((candidate) => candidate.number === number);
  if (!shard) throw notFound(`Shard ${id} in stream ${stream.name} under account ${ACCOUNT} does not exist`);
  return shard;
};

/** The index that a sequence number of this shard stands for. */
const indexIn = (stream: Stream, shard: Shard, text: string): number => {
  const position = parseSequence(text);
  const where = `StartingSequenceNumber ${text} used in GetShardIterator on shard ${shard.id} in stream ${stream.name} under account ${ACCOUNT} is invalid`;
  if (!position) throw invalid(`${where}.`);
  if (position.shard !== shard.number)
    throw invalid(
      `Invalid StartingSequenceNumber. It encodes ${shardId(position.shard)}, while it was used in a call to a shard with ${shard.id}`,
    );
  if (position.createdSeconds !== Math.floor(shard.createdMs / 1000) || position.salt !== saltOf(shard.createdMs))
    throw invalid(`${where} because it did not come from this stream.`);
  // A number that was never given out would skip records; only the end of a closed shard may be named.
  if (position.index > shard.nextIndex || (isOpen(shard) && position.index === shard.nextIndex)) throw invalid(`${where}.`);
  return position.index;
};

const firstIndex = (shard: Shard): number => shard.records[shard.head]?.index ?? shard.visibleIndex;

type Start = Pick<Request<'GetShardIterator'>, 'ShardIteratorType' | 'StartingSequenceNumber' | 'Timestamp'>;

export const startIndex = (d: StreamDeps, stream: Stream, shard: Shard, request: Start): number => {
  const type = request.ShardIteratorType;
  const sequence = request.StartingSequenceNumber;
  const bySequence = type === 'AT_SEQUENCE_NUMBER' || type === 'AFTER_SEQUENCE_NUMBER';
  if (bySequence !== (sequence != null) && type !== 'AT_TIMESTAMP')
    throw invalid(
      `Must either specify (1) AT_SEQUENCE_NUMBER or AFTER_SEQUENCE_NUMBER and StartingSequenceNumber or (2) TRIM_HORIZON or LATEST and no StartingSequenceNumber. Request specified ${type} and ${sequence == null ? 'no' : 'also a'} StartingSequenceNumber.`,
    );
  switch (type) {
    case 'TRIM_HORIZON':
      return firstIndex(shard);
    case 'LATEST':
      return shard.visibleIndex;
    case 'AT_SEQUENCE_NUMBER':
      return indexIn(stream, shard, sequence!);
    case 'AFTER_SEQUENCE_NUMBER':
      return indexIn(stream, shard, sequence!) + 1;
    case 'AT_TIMESTAMP': {
      if (request.Timestamp == null)
        throw invalid(
          'Must specify timestampInMillis parameter for iterator of type AT_TIMESTAMP. Current request has no timestamp parameter.',
        );
      const from = request.Timestamp * 1000;
      const now = d.clock();
      if (from > now)
        throw invalid(
          `The timestampInMillis parameter cannot be greater than the currentTimestampInMillis. timestampInMillis: ${from}, currentTimestampInMillis: ${now}`,
        );
      return shard.records[seek(shard, (record) => record.at >= from)]?.index ?? shard.visibleIndex;
    }
  }
};

export const getShardIterator = (d: Deps, request: Request<'GetShardIterator'>): object => {
  const stream = activeStreamOf(d, request);
  const shard = shardOf(stream, request.ShardId);
  const index = startIndex(d, stream, shard, request);
  refuseDryRun(request);
  return { ShardIterator: writeIterator({ stream: stream.id, shard: shard.number, index, issued: d.clock() }) };
};

/** The records from `index` on, as many as fit; the first always fits. `next` is the offset of the first one left out. */
export const take = (
  shard: Shard,
  index: number,
  limit: number,
  limitBytes: number,
): { page: StoredRecord[]; bytes: number; next: number } => {
  const from = seek(shard, (record) => record.index >= index);
  let bytes = 0;
  let next = from;
  while (next < shard.records.length && next - from < limit) {
    const { size } = shard.records[next]!;
    if (next > from && bytes + size > limitBytes) break;
    bytes += size;
    next += 1;
  }
  return { page: shard.records.slice(from, next), bytes, next };
};

export const childrenOf = (stream: Stream, parent: Shard): object[] =>
  stream.shards
    .filter((shard) => shard.parents.includes(parent.number))
    .map((shard) => ({
      ShardId: shard.id,
      ParentShards: shard.parents.map(shardId),
      HashKeyRange: { StartingHashKey: String(shard.startHash), EndingHashKey: String(shard.endHash) },
    }));

export const recordOf = (stream: Stream, shard: Shard, record: StoredRecord): object => ({
  SequenceNumber: shard.sequence(record.index, record.at),
  ApproximateArrivalTimestamp: record.at / 1000,
  Data: record.data,
  PartitionKey: record.key,
  EncryptionType: encryptionOf(stream),
});

export const getRecords = (d: Deps, request: Request<'GetRecords'>): object => {
  const now = d.clock();
  const it = readIterator(request.ShardIterator, now, d.limits.iteratorMs);
  const stream = d.store.byId(it.stream);
  if (!stream) throw notFound('The stream of this ShardIterator does not exist any more.');
  if (request.StreamARN != null && nameInArn(request.StreamARN) !== stream.name)
    throw invalid('StreamARN is not of the stream of the ShardIterator.');
  d.store.expire(stream);
  const shard = stream.shards.find((candidate) => candidate.number === it.shard);
  if (!shard) throw notFound(`Shard ${shardId(it.shard)} in stream ${stream.name} under account ${ACCOUNT} does not exist`);
  refuseDryRun(request);
  if (!d.throttle.admitRead(shard)) throw throttled(shard.id, stream.name);
  const { page, bytes, next } = take(shard, it.index, request.Limit ?? 10_000, MAX_GET_BYTES);
  d.throttle.chargeRead(shard, bytes);
  const unread = shard.records[next];
  // A closed shard is at its end only when the last record that it accepted has become durable too.
  const ended = shard.closed !== undefined && unread === undefined && shard.visibleIndex === shard.nextIndex;
  const last = page.at(-1);
  return {
    Records: page.map((record) => recordOf(stream, shard, record)),
    NextShardIterator: ended
      ? null
      : writeIterator({
          stream: stream.id,
          shard: shard.number,
          index: last ? last.index + 1 : Math.max(it.index, shard.visibleIndex),
          issued: now,
        }),
    // How long the oldest record that the reader has not got yet has been waiting.
    MillisBehindLatest: unread ? Math.max(1, now - unread.at) : 0,
    ...(ended && { ChildShards: childrenOf(stream, shard) }),
  };
};
