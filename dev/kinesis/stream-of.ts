import { ACCOUNT, inUse, invalid, notFound } from './errors.ts';
import type { Clock, Limits } from './limits.ts';
import type { Store, Stream } from './store.ts';
import type { Subscriptions } from './subscriptions.ts';

/** What the operations work on. `onDemandShards` = shards of a new ON_DEMAND stream. */
export type Deps = {
  readonly store: Store;
  readonly limits: Limits;
  readonly clock: Clock;
  readonly onDemandShards: number;
  readonly subscriptions: Subscriptions;
};

export const encryptionOf = (stream: Stream): 'KMS' | 'NONE' => (stream.keyId === null ? 'NONE' : 'KMS');

type ByStream = { StreamName?: string | null | undefined; StreamARN?: string | null | undefined };

/** @throws KinesisError InvalidArgumentException when the ARN is not a stream's. */
export const nameInArn = (arn: string): string => {
  const name = /^arn:aws[a-z-]*:kinesis:[a-z0-9-]*:\d{12}:stream\/([a-zA-Z0-9_.-]{1,128})$/.exec(arn)?.[1];
  if (!name) throw invalid(`StreamARN ${arn} is not the ARN of a stream (arn:aws:kinesis:REGION:ACCOUNT:stream/NAME).`);
  return name;
};

/** The stream that a request names by StreamName, StreamARN or both. @throws KinesisError when neither, contradictory or unknown. */
export const streamOf = (d: Deps, request: ByStream): Stream => {
  const named = request.StreamName ?? undefined;
  const fromArn = request.StreamARN == null ? undefined : nameInArn(request.StreamARN);
  if (named !== undefined && fromArn !== undefined && named !== fromArn) throw invalid('StreamName and StreamARN name different streams.');
  const name = named ?? fromArn;
  if (name === undefined) throw invalid('Either StreamName or StreamARN must be given.');
  const stream = d.store.byName(name);
  if (!stream) throw notFound(`Stream ${name} under account ${ACCOUNT} not found.`);
  d.store.expire(stream);
  return stream;
};

export const statusOf = (d: Deps, stream: Stream): 'CREATING' | 'ACTIVE' => (d.clock() < stream.activeAt ? 'CREATING' : 'ACTIVE');

/** @throws KinesisError ResourceInUseException while the stream is being created. */
export const activeStreamOf = (d: Deps, request: ByStream): Stream => {
  const stream = streamOf(d, request);
  const status = statusOf(d, stream);
  if (status !== 'ACTIVE') throw inUse(`Stream ${stream.name} under account ${ACCOUNT} not ACTIVE, instead in state ${status}`);
  return stream;
};
