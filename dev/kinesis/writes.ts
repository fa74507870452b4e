import type { Row } from './entries.ts';
import { invalid, KinesisError, rateExceeded, refuseDryRun, throttled, validation } from './errors.ts';
import type { Faults } from './faults.ts';
import { MAX_PUT_BYTES } from './limits.ts';
import type { Request } from './requests.ts';
import { parseSequence } from './sequence.ts';
import { covers, decodedLength, hashKeyOf, isOpen, type Shard } from './shards.ts';
import type { Stream } from './store.ts';
import { activeStreamOf, encryptionOf, type Deps as StreamDeps } from './stream-of.ts';
import type { Throttle } from './throttle.ts';

type Deps = StreamDeps & { readonly throttle: Throttle; readonly faults: Faults };
type Item = { Data: string; PartitionKey: string; ExplicitHashKey?: string | null | undefined };

const SPACE = 2n ** 128n;
const BASE64 = /^[A-Za-z0-9+/]*={0,2}$/;

const refuseBadBase64 = (data: string): void => {
  if (data.length % 4 !== 0 || !BASE64.test(data)) throw new KinesisError('SerializationException', 'Data must be base64');
};

const hashKeyFor = (item: Item): bigint => {
  if (item.ExplicitHashKey == null) return hashKeyOf(item.PartitionKey);
  const explicit = BigInt(item.ExplicitHashKey);
  if (explicit >= SPACE)
    throw invalid(
      `Invalid ExplicitHashKey. ExplicitHashKey must be in the range: [0, 2^128-1]. Specified value was ${item.ExplicitHashKey}`,
    );
  return explicit;
};

const shardFor = (stream: Stream, hashKey: bigint): Shard => {
  const shard = stream.shards.find((candidate) => isOpen(candidate) && covers(candidate, hashKey));
  if (!shard) throw new Error(`no open shard of ${stream.name} covers ${hashKey}`);
  return shard;
};

/** Size that counts against limits. @throws KinesisError ValidationException when a record exceeds what the stream allows. */
const sizeOf = (stream: Stream, item: Item, path: string): number => {
  refuseBadBase64(item.Data);
  const size = decodedLength(item.Data) + Buffer.byteLength(item.PartitionKey);
  const limit = stream.maxRecordKiB * 1024;
  // Data and key count together (client-kinesis, PutRecordsCommand).
  if (size > limit)
    throw validation([`Value at '${path}' failed to satisfy constraint: Member must have length less than or equal to ${limit}`]);
  return size;
};

/** Gives the record its place in the shard. Arrival never goes back within a shard, so that AT_TIMESTAMP finds it. */
const place = (shard: Shard, item: Item, now: number): Row => {
  const at = Math.max(now, shard.lastAt);
  shard.lastAt = at;
  return [shard.number, shard.nextIndex++, at, item.PartitionKey, item.Data];
};

export const putRecord = async (d: Deps, request: Request<'PutRecord'>): Promise<object> => {
  const stream = activeStreamOf(d, request);
  const size = sizeOf(stream, request, 'data');
  const shard = shardFor(stream, hashKeyFor(request));
  if (request.SequenceNumberForOrdering != null && request.SequenceNumberForOrdering !== '0') {
    const after = parseSequence(request.SequenceNumberForOrdering);
    // Numbers only grow within a shard, so any number that was given out is respected without doing anything.
    if (!after || (after.shard === shard.number && after.index >= shard.nextIndex))
      throw invalid(
        `ExclusiveMinimumSequenceNumber ${request.SequenceNumberForOrdering} used in PutRecord on stream ${stream.name} is invalid.`,
      );
  }
  refuseDryRun(request);
  if (!d.throttle.admitWrite(shard, size)) throw throttled(shard.id, stream.name);
  const row = place(shard, request, d.clock());
  await d.store.record({ kind: 'put', id: stream.id, rows: [row] });
  return { ShardId: shard.id, SequenceNumber: shard.sequence(row[1], row[2]), EncryptionType: encryptionOf(stream) };
};

/** Each record stands for itself: those of a shard that is over its rate fail, the others are stored. */
export const putRecords = async (d: Deps, request: Request<'PutRecords'>): Promise<object> => {
  const stream = activeStreamOf(d, request);
  const items = request.Records;
  const sizes = items.map((item, i) => sizeOf(stream, item, `records.${i + 1}.member.data`));
  const total = sizes.reduce((sum, size) => sum + size, 0);
  if (total > MAX_PUT_BYTES) throw invalid(`Records size exceeds ${MAX_PUT_BYTES} bytes: the request holds ${total}.`);
  const shards = items.map((item) => shardFor(stream, hashKeyFor(item)));
  refuseDryRun(request);
  const now = d.clock();
  const rows: Row[] = [];
  let failed = 0;
  const results = items.map((item, i) => {
    const shard = shards[i]!;
    if (d.faults.failsRecord()) {
      failed += 1;
      return { ErrorCode: 'InternalFailure', ErrorMessage: 'Internal service failure.' };
    }
    if (!d.throttle.admitWrite(shard, sizes[i]!)) {
      failed += 1;
      return { ErrorCode: 'ProvisionedThroughputExceededException', ErrorMessage: rateExceeded(shard.id, stream.name) };
    }
    const row = place(shard, item, now);
    rows.push(row);
    return { SequenceNumber: shard.sequence(row[1], row[2]), ShardId: shard.id };
  });
  if (rows.length > 0) await d.store.record({ kind: 'put', id: stream.id, rows });
  return { EncryptionType: encryptionOf(stream), FailedRecordCount: failed, Records: results };
};
