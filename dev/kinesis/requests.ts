import { z } from 'zod';
import { KinesisError, validation } from './errors.ts';

/**
 * The shapes of the requests. Constraint texts follow AWS ("Member must …"), which answers them with ValidationException. Members that we
 * do not know are ignored as AWS does; null counts as absent.
 */
const atLeast = (length: number): string => `Member must have length greater than or equal to ${length}`;
const atMost = (length: number): string => `Member must have length less than or equal to ${length}`;
const pattern = (source: string): string => `Member must satisfy regular expression pattern: ${source}`;

const text = (min: number, max: number): z.ZodString => z.string().min(min, atLeast(min)).max(max, atMost(max));
const matching = (min: number, max: number, source: string): z.ZodString =>
  text(min, max).regex(new RegExp(`^(?:${source})$`), pattern(source));
const whole = (min: number, max: number): z.ZodInt =>
  z
    .int()
    .min(min, `Member must have value greater than or equal to ${min}`)
    .max(max, `Member must have value less than or equal to ${max}`);
const oneOf = <const T extends readonly string[]>(values: T) =>
  z.enum(values, { error: `Member must satisfy enum value set: [${values.join(', ')}]` });

const name = matching(1, 128, '[a-zA-Z0-9_.-]+');
const arn = text(1, 2048);
const shardIdText = matching(1, 128, '[a-zA-Z0-9_.-]+');
const hashKey = matching(1, 39, '0|([1-9]\\d{0,38})');
const sequence = matching(1, 128, '0|([1-9]\\d{0,128})');
const partitionKey = text(1, 256);
/** Seconds since the epoch, with a fraction. */
const timestamp = z.number();
const token = text(1, 1_048_576);

/** Not a pattern of zod's: on 10 MiB its message would quote nothing useful, and base64 that does not parse is a SerializationException. */
const blob = z.string().max(13_981_016, atMost(10_485_760));

const byStream = { StreamName: name.nullish(), StreamARN: arn.nullish() };
const dryRun = { DryRun: z.boolean().nullish() };
/** zod leaves a member named `__proto__` out of a record; a tag must not be lost without a word. */
const tags = z
  .unknown()
  .refine((value) => !Object.hasOwn(Object(value), '__proto__'), 'Member must not be named __proto__')
  .pipe(z.record(text(1, 128), text(0, 256)));

const byConsumer = { StreamARN: arn.nullish(), ConsumerName: name.nullish(), ConsumerARN: arn.nullish() };
const metrics = z
  .array(
    oneOf([
      'IncomingBytes',
      'IncomingRecords',
      'OutgoingBytes',
      'OutgoingRecords',
      'WriteProvisionedThroughputExceeded',
      'ReadProvisionedThroughputExceeded',
      'IteratorAgeMilliseconds',
      'ALL',
    ]),
  )
  .min(1, atLeast(1))
  .max(7, atMost(7));

export const REQUESTS = {
  CreateStream: z.object({
    StreamName: name,
    ShardCount: whole(1, 100_000).nullish(),
    StreamModeDetails: z.object({ StreamMode: oneOf(['PROVISIONED', 'ON_DEMAND']) }).nullish(),
    MaxRecordSizeInKiB: whole(1024, 10_240).nullish(),
    Tags: tags.nullish(),
    WarmThroughputMiBps: whole(0, 1_000_000).nullish(),
    RecordDistributionStrategy: oneOf(['AUTO', 'USER_PARTITION_KEY']).nullish(),
  }),
  DeleteStream: z.object({ ...byStream, EnforceConsumerDeletion: z.boolean().nullish() }),
  DescribeStream: z.object({ ...byStream, Limit: whole(1, 10_000).nullish(), ExclusiveStartShardId: shardIdText.nullish() }),
  DescribeStreamSummary: z.object(byStream),
  ListStreams: z.object({ Limit: whole(1, 10_000).nullish(), ExclusiveStartStreamName: name.nullish(), NextToken: token.nullish() }),
  ListShards: z.object({
    ...byStream,
    NextToken: token.nullish(),
    ExclusiveStartShardId: shardIdText.nullish(),
    MaxResults: whole(1, 10_000).nullish(),
    StreamCreationTimestamp: timestamp.nullish(),
    ShardFilter: z
      .object({
        Type: oneOf(['AFTER_SHARD_ID', 'AT_TRIM_HORIZON', 'FROM_TRIM_HORIZON', 'AT_LATEST', 'AT_TIMESTAMP', 'FROM_TIMESTAMP']),
        ShardId: shardIdText.nullish(),
        Timestamp: timestamp.nullish(),
      })
      .nullish(),
  }),
  IncreaseStreamRetentionPeriod: z.object({ ...byStream, RetentionPeriodHours: whole(1, 8760) }),
  DecreaseStreamRetentionPeriod: z.object({ ...byStream, RetentionPeriodHours: whole(1, 8760) }),
  AddTagsToStream: z.object({ ...byStream, Tags: tags }),
  RemoveTagsFromStream: z.object({ ...byStream, TagKeys: z.array(text(1, 128)).min(1, atLeast(1)).max(50, atMost(50)) }),
  ListTagsForStream: z.object({ ...byStream, ExclusiveStartTagKey: text(1, 128).nullish(), Limit: whole(1, 50).nullish() }),
  SplitShard: z.object({ ...byStream, ShardToSplit: shardIdText, NewStartingHashKey: hashKey }),
  MergeShards: z.object({ ...byStream, ShardToMerge: shardIdText, AdjacentShardToMerge: shardIdText }),
  PutRecord: z.object({
    ...byStream,
    ...dryRun,
    Data: blob,
    PartitionKey: partitionKey,
    ExplicitHashKey: hashKey.nullish(),
    SequenceNumberForOrdering: sequence.nullish(),
  }),
  PutRecords: z.object({
    ...byStream,
    ...dryRun,
    Records: z
      .array(z.object({ Data: blob, PartitionKey: partitionKey, ExplicitHashKey: hashKey.nullish() }))
      .min(1, atLeast(1))
      .max(500, atMost(500)),
  }),
  GetShardIterator: z.object({
    ...byStream,
    ...dryRun,
    ShardId: shardIdText,
    ShardIteratorType: oneOf(['AT_SEQUENCE_NUMBER', 'AFTER_SEQUENCE_NUMBER', 'TRIM_HORIZON', 'LATEST', 'AT_TIMESTAMP']),
    StartingSequenceNumber: sequence.nullish(),
    Timestamp: timestamp.nullish(),
  }),
  UpdateShardCount: z.object({ ...byStream, TargetShardCount: whole(1, 100_000), ScalingType: oneOf(['UNIFORM_SCALING']) }),
  UpdateStreamMode: z.object({
    StreamARN: arn,
    StreamModeDetails: z.object({ StreamMode: oneOf(['PROVISIONED', 'ON_DEMAND']) }),
    WarmThroughputMiBps: whole(0, 1_000_000).nullish(),
  }),
  UpdateMaxRecordSize: z.object({ StreamARN: arn, MaxRecordSizeInKiB: whole(1024, 10_240) }),
  StartStreamEncryption: z.object({ ...byStream, EncryptionType: oneOf(['KMS']), KeyId: text(1, 2048) }),
  StopStreamEncryption: z.object({ ...byStream, EncryptionType: oneOf(['KMS']), KeyId: text(1, 2048) }),
  EnableEnhancedMonitoring: z.object({ ...byStream, ShardLevelMetrics: metrics }),
  DisableEnhancedMonitoring: z.object({ ...byStream, ShardLevelMetrics: metrics }),
  DescribeLimits: z.object({}),
  RegisterStreamConsumer: z.object({ StreamARN: arn, ConsumerName: name, Tags: tags.nullish() }),
  DeregisterStreamConsumer: z.object(byConsumer),
  DescribeStreamConsumer: z.object(byConsumer),
  ListStreamConsumers: z.object({
    StreamARN: arn,
    NextToken: token.nullish(),
    MaxResults: whole(1, 10_000).nullish(),
    StreamCreationTimestamp: timestamp.nullish(),
  }),
  SubscribeToShard: z.object({
    ConsumerARN: arn,
    ShardId: shardIdText,
    StartingPosition: z.object({
      Type: oneOf(['AT_SEQUENCE_NUMBER', 'AFTER_SEQUENCE_NUMBER', 'TRIM_HORIZON', 'LATEST', 'AT_TIMESTAMP']),
      SequenceNumber: sequence.nullish(),
      Timestamp: timestamp.nullish(),
    }),
  }),
  GetRecords: z.object({ ...dryRun, ShardIterator: text(1, 512), Limit: whole(1, 10_000).nullish(), StreamARN: arn.nullish() }),
};

export type Operation = keyof typeof REQUESTS;
export type Request<O extends Operation> = z.infer<(typeof REQUESTS)[O]>;

const at = (body: unknown, path: readonly PropertyKey[]): unknown =>
  path.reduce<unknown>((value, key) => (typeof value === 'object' && value !== null ? Reflect.get(value, key) : undefined), body);

/** `Records`, 2, `PartitionKey` as AWS writes it: `records.3.member.partitionKey`. */
const nameOf = (path: readonly PropertyKey[]): string =>
  path.map((key) => (typeof key === 'number' ? `${key + 1}.member` : String(key).replace(/^./, (first) => first.toLowerCase()))).join('.');

const wrongType = (path: readonly PropertyKey[], expected: string): KinesisError =>
  new KinesisError('SerializationException', `${path.length > 0 ? path.join('.') : 'the request'} must be of type ${expected}`);

/**
 * Reads a request of operation `operation`.
 * @throws KinesisError SerializationException for a wrong JSON type, ValidationException listing every other fault (at most 10).
 */
export const parseRequest = <O extends Operation>(operation: O, body: unknown): Request<O> => {
  const result = REQUESTS[operation].safeParse(body);
  if (result.success) return result.data as Request<O>;
  const failures: string[] = [];
  for (const issue of result.error.issues) {
    const absent = at(body, issue.path) == null && issue.path.length > 0;
    if (issue.code === 'invalid_type' && !absent) throw wrongType(issue.path, issue.expected);
    const why = absent ? 'Member must not be null' : issue.message;
    failures.push(`Value at '${nameOf(issue.path)}' failed to satisfy constraint: ${why}`);
  }
  throw validation(failures.slice(0, 10));
};
