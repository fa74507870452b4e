import { ACCOUNT, inUse, invalid, KinesisError, notFound } from './errors.ts';
import { readListToken, writeListToken } from './iterator.ts';
import type { Request } from './requests.ts';
import type { Stream, StreamConsumer } from './store.ts';
import { activeStreamOf, type Deps, streamOf } from './stream-of.ts';

/** Registered consumers of one stream (docs.aws.amazon.com/streams/latest/dev/service-sizes-and-limits.html). */
const MAX_CONSUMERS = 20;

const CONSUMER_ARN = /^(arn:aws[a-z-]*:kinesis:[a-z0-9-]*:\d{12}:stream\/[a-zA-Z0-9_.-]{1,128})\/consumer\/([a-zA-Z0-9_.-]{1,128}):(\d+)$/;

const describe = (consumer: StreamConsumer): object => ({
  ConsumerName: consumer.name,
  ConsumerARN: consumer.arn,
  ConsumerStatus: 'ACTIVE',
  ConsumerCreationTimestamp: consumer.createdMs / 1000,
});

const unknownConsumer = (name: string): KinesisError => notFound(`Consumer ${name} under account ${ACCOUNT} not found.`);

/** @throws KinesisError when the ARN is none, or the stream or the consumer is unknown */
export const consumerOf = (d: Deps, arn: string): { stream: Stream; consumer: StreamConsumer } => {
  const [, streamArn, name] = CONSUMER_ARN.exec(arn) ?? [];
  if (streamArn === undefined || name === undefined) throw invalid(`ConsumerARN ${arn} is not the ARN of a consumer.`);
  const stream = activeStreamOf(d, { StreamARN: streamArn });
  const consumer = stream.consumers.get(name);
  if (consumer?.arn !== arn) throw unknownConsumer(name);
  return { stream, consumer };
};

type Named = Request<'DescribeStreamConsumer'>;
const named = (d: Deps, request: Named): { stream: Stream; consumer: StreamConsumer } => {
  if (request.ConsumerARN != null) return consumerOf(d, request.ConsumerARN);
  if (request.StreamARN == null || request.ConsumerName == null)
    throw invalid('Either ConsumerARN, or StreamARN and ConsumerName must be given.');
  const stream = streamOf(d, { StreamARN: request.StreamARN });
  const consumer = stream.consumers.get(request.ConsumerName);
  if (!consumer) throw unknownConsumer(request.ConsumerName);
  return { stream, consumer };
};

const save = (d: Deps, stream: Stream, consumers: readonly StreamConsumer[]): Promise<void> =>
  d.store.record({ kind: 'consumers', id: stream.id, consumers });

/** A consumer is ACTIVE at once: AWS takes seconds. */
export const registerConsumer = async (d: Deps, request: Request<'RegisterStreamConsumer'>): Promise<object> => {
  const stream = activeStreamOf(d, { StreamARN: request.StreamARN });
  const name = request.ConsumerName;
  if (stream.consumers.has(name)) throw inUse(`Consumer ${name} under account ${ACCOUNT} already exists.`);
  if (stream.consumers.size >= MAX_CONSUMERS)
    throw new KinesisError('LimitExceededException', `The stream ${stream.name} has ${MAX_CONSUMERS} consumers already.`);
  const createdMs = d.clock();
  const consumer = { name, arn: `${stream.arn}/consumer/${name}:${Math.floor(createdMs / 1000)}`, createdMs };
  await save(d, stream, [...stream.consumers.values(), consumer]);
  return { Consumer: describe(consumer) };
};

export const deregisterConsumer = async (d: Deps, request: Request<'DeregisterStreamConsumer'>): Promise<object> => {
  const { stream, consumer } = named(d, request);
  d.subscriptions.end(consumer.arn);
  await save(
    d,
    stream,
    [...stream.consumers.values()].filter((each) => each !== consumer),
  );
  return {};
};

export const describeConsumer = (d: Deps, request: Request<'DescribeStreamConsumer'>): object => {
  const { stream, consumer } = named(d, request);
  return { ConsumerDescription: { ...describe(consumer), StreamARN: stream.arn } };
};

export const listConsumers = (d: Deps, request: Request<'ListStreamConsumers'>): object => {
  const stream = streamOf(d, { StreamARN: request.StreamARN });
  if (request.StreamCreationTimestamp != null && Math.floor(request.StreamCreationTimestamp) !== Math.floor(stream.createdMs / 1000))
    throw notFound(`Stream ${stream.name} under account ${ACCOUNT} with creation time ${request.StreamCreationTimestamp} not found.`);
  const after = request.NextToken == null ? '' : (readListToken('consumers', request.NextToken, d.clock(), d.limits.iteratorMs) as string);
  const rest = [...stream.consumers.values()].filter((each) => each.name > after).sort((a, b) => (a.name < b.name ? -1 : 1));
  const page = rest.slice(0, request.MaxResults ?? 100);
  return {
    Consumers: page.map(describe),
    ...(rest.length > page.length && { NextToken: writeListToken('consumers', page.at(-1)!.name as never, d.clock()) }),
  };
};
