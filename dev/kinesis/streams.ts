import { randomUUID } from 'node:crypto';
import { ACCOUNT, inUse, invalid, KinesisError } from './errors.ts';
import { readListToken, writeListToken } from './iterator.ts';
import type { Request } from './requests.ts';
import { describeShard, visibleShards } from './shard-list.ts';
import { hashRanges, isOpen } from './shards.ts';
import type { Stream } from './store.ts';
import { activeStreamOf, type Deps, encryptionOf, statusOf, streamOf } from './stream-of.ts';

const DEFAULT_RETENTION_HOURS = 24;
const DEFAULT_MAX_RECORD_KIB = 1024;
const MAX_TAGS = 50;

const refuseTooManyTags = (tags: ReadonlyMap<string, string>): void => {
  if (tags.size > MAX_TAGS) throw invalid(`Failed to add tags to stream: a stream may have at most ${MAX_TAGS} tags.`);
};

/** `region` comes from the signature of the request and goes into the ARN. */
export const createStream = async (d: Deps, request: Request<'CreateStream'>, region: string): Promise<object> => {
  const mode = request.StreamModeDetails?.StreamMode ?? 'PROVISIONED';
  if (mode === 'PROVISIONED' && request.ShardCount == null) throw invalid('ShardCount must be given for a stream in PROVISIONED mode.');
  if (mode === 'ON_DEMAND' && request.ShardCount != null) throw invalid('ShardCount must not be given for a stream in ON_DEMAND mode.');
  if (request.RecordDistributionStrategy === 'AUTO')
    throw invalid('The emulator knows no RecordDistributionStrategy but USER_PARTITION_KEY.');
  if (request.WarmThroughputMiBps != null) throw invalid('The emulator knows no WarmThroughputMiBps.');
  if (d.store.byName(request.StreamName)) throw inUse(`Stream ${request.StreamName} under account ${ACCOUNT} already exists.`);
  const count = request.ShardCount ?? d.onDemandShards;
  if (d.store.openShards() + count > d.limits.maxShards)
    throw new KinesisError(
      'LimitExceededException',
      `This request would exceed the shard limit for the account ${ACCOUNT}. Current shard count for the account: ${d.store.openShards()}. Limit: ${d.limits.maxShards}. Number of additional shards that would have resulted from this request: ${count}.`,
    );
  const tags = new Map(Object.entries(request.Tags ?? {}));
  refuseTooManyTags(tags);
  const now = d.clock();
  await d.store.record({
    kind: 'create',
    stream: {
      id: randomUUID(),
      name: request.StreamName,
      region,
      mode,
      createdMs: now,
      activeAt: now + d.limits.createMs,
      retentionHours: DEFAULT_RETENTION_HOURS,
      maxRecordKiB: request.MaxRecordSizeInKiB ?? DEFAULT_MAX_RECORD_KIB,
      tags: [...tags],
      nextShard: count,
      shards: hashRanges(count).map(({ start, end }, number) => ({
        number,
        createdMs: now,
        start: String(start),
        end: String(end),
        parents: [],
        fromIndex: 1,
      })),
    },
  });
  return {};
};

export const deleteStream = async (d: Deps, request: Request<'DeleteStream'>): Promise<object> => {
  const stream = streamOf(d, request);
  if (stream.consumers.size > 0 && !request.EnforceConsumerDeletion)
    throw inUse(`Stream ${stream.name} under account ${ACCOUNT} has consumers registered; set EnforceConsumerDeletion.`);
  await d.store.record({ kind: 'delete', id: stream.id });
  return {};
};

const describeCommon = (d: Deps, stream: Stream): object => ({
  StreamName: stream.name,
  StreamARN: stream.arn,
  StreamStatus: statusOf(d, stream),
  StreamModeDetails: { StreamMode: stream.mode },
  RetentionPeriodHours: stream.retentionHours,
  StreamCreationTimestamp: stream.createdMs / 1000,
  EnhancedMonitoring: [{ ShardLevelMetrics: stream.monitoring }],
  EncryptionType: encryptionOf(stream),
  ...(stream.keyId !== null && { KeyId: stream.keyId }),
});

export const describeStream = (d: Deps, request: Request<'DescribeStream'>): object => {
  const stream = streamOf(d, request);
  const after = request.ExclusiveStartShardId ?? '';
  const rest = visibleShards(d, stream).filter((shard) => shard.id > after);
  const page = rest.slice(0, request.Limit ?? 100);
  return {
    StreamDescription: { ...describeCommon(d, stream), Shards: page.map(describeShard), HasMoreShards: rest.length > page.length },
  };
};

export const describeStreamSummary = (d: Deps, request: Request<'DescribeStreamSummary'>): object => {
  const stream = streamOf(d, request);
  return {
    StreamDescriptionSummary: {
      ...describeCommon(d, stream),
      OpenShardCount: visibleShards(d, stream).filter(isOpen).length,
      ConsumerCount: stream.consumers.size,
      MaxRecordSizeInKiB: stream.maxRecordKiB,
    },
  };
};

export const listStreams = (d: Deps, request: Request<'ListStreams'>): object => {
  const token = request.NextToken;
  const after = token
    ? (readListToken('streams', token, d.clock(), d.limits.iteratorMs) as { after: string }).after
    : (request.ExclusiveStartStreamName ?? '');
  const rest = [...d.store.streams()].filter((stream) => stream.name > after).sort((a, b) => (a.name < b.name ? -1 : 1));
  const page = rest.slice(0, request.Limit ?? 100);
  const more = rest.length > page.length;
  return {
    StreamNames: page.map((stream) => stream.name),
    HasMoreStreams: more,
    ...(more && { NextToken: writeListToken('streams', { after: page.at(-1)!.name }, d.clock()) }),
    StreamSummaries: page.map((stream) => ({
      StreamName: stream.name,
      StreamARN: stream.arn,
      StreamStatus: statusOf(d, stream),
      StreamModeDetails: { StreamMode: stream.mode },
      StreamCreationTimestamp: stream.createdMs / 1000,
    })),
  };
};

export const increaseRetention = async (d: Deps, request: Request<'IncreaseStreamRetentionPeriod'>): Promise<object> => {
  const stream = activeStreamOf(d, request);
  const hours = request.RetentionPeriodHours;
  if (hours < 24) throw invalid('Minimum allowed retention period is 24 hours. Requested retention period is too short.');
  if (hours < stream.retentionHours)
    throw invalid(
      `Requested retention period (${hours} hours) for stream ${stream.name} can not be shorter than existing retention period (${stream.retentionHours} hours). Use DecreaseRetentionPeriod API.`,
    );
  await d.store.record({ kind: 'retention', id: stream.id, hours });
  return {};
};

export const decreaseRetention = async (d: Deps, request: Request<'DecreaseStreamRetentionPeriod'>): Promise<object> => {
  const stream = activeStreamOf(d, request);
  const hours = request.RetentionPeriodHours;
  if (hours < 24) throw invalid('Minimum allowed retention period is 24 hours. Requested retention period is too short.');
  if (hours > stream.retentionHours)
    throw invalid(
      `Requested retention period (${hours} hours) for stream ${stream.name} can not be longer than existing retention period (${stream.retentionHours} hours). Use IncreaseRetentionPeriod API.`,
    );
  await d.store.record({ kind: 'retention', id: stream.id, hours });
  return {};
};

export const addTags = async (d: Deps, request: Request<'AddTagsToStream'>): Promise<object> => {
  const stream = streamOf(d, request);
  const tags = new Map([...stream.tags, ...Object.entries(request.Tags)]);
  refuseTooManyTags(tags);
  await d.store.record({ kind: 'tags', id: stream.id, tags: [...tags] });
  return {};
};

export const removeTags = async (d: Deps, request: Request<'RemoveTagsFromStream'>): Promise<object> => {
  const stream = streamOf(d, request);
  await d.store.record({ kind: 'tags', id: stream.id, tags: [...stream.tags].filter(([key]) => !request.TagKeys.includes(key)) });
  return {};
};

export const listTags = (d: Deps, request: Request<'ListTagsForStream'>): object => {
  const stream = streamOf(d, request);
  const after = request.ExclusiveStartTagKey ?? '';
  const rest = [...stream.tags].filter(([key]) => key > after).sort(([a], [b]) => (a < b ? -1 : 1));
  const page = rest.slice(0, request.Limit ?? MAX_TAGS);
  return { Tags: page.map(([Key, Value]) => ({ Key, Value })), HasMoreTags: rest.length > page.length };
};
