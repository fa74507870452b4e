import { mkdtempSync, rmSync } from 'node:fs';
import { Agent } from 'node:http';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import {
  CreateStreamCommand,
  GetRecordsCommand,
  type GetRecordsCommandOutput,
  GetShardIteratorCommand,
  type GetShardIteratorCommandInput,
  KinesisClient,
  PutRecordCommand,
} from '@aws-sdk/client-kinesis';
import { type Kinesis, type KinesisOptions, startKinesis } from '@banyan/dev-kinesis/emulator.ts';
import { NodeHttpHandler } from '@smithy/node-http-handler';

export const MIB = 1024 * 1024;
export const HOUR = 3_600_000;
export const FIRST_OF_TWO = { StartingHashKey: '0', EndingHashKey: '170141183460469231731687303715884105727' };
export const SECOND_OF_TWO = {
  StartingHashKey: '170141183460469231731687303715884105728',
  EndingHashKey: '340282366920938463463374607431768211455',
};
export const SHARD_0 = 'shardId-000000000000';
export const SHARD_1 = 'shardId-000000000001';

const cleanups: (() => unknown)[] = [];
/** Runs after the test, last registered first. */
export const onEnd = (cleanup: () => unknown): void => void cleanups.push(cleanup);
/** For `afterEach`: ends whatever the test started. */
export const endAll = async (): Promise<void> => {
  for (const cleanup of cleanups.splice(0).reverse()) await cleanup();
};

export const clientOf = (endpoint: string, handler: 'http/1.1' | 'default' = 'http/1.1'): KinesisClient => {
  const client = new KinesisClient({
    endpoint,
    region: 'eu-west-1',
    credentials: { accessKeyId: 'test', secretAccessKey: 'test' },
    maxAttempts: 1,
    ...(handler === 'http/1.1' && { requestHandler: new NodeHttpHandler({ httpAgent: new Agent({ keepAlive: true }) }) }),
  });
  cleanups.push(() => client.destroy());
  return client;
};

export const start = async (
  options: KinesisOptions = {},
): Promise<{ url: string; client: KinesisClient; faults: Kinesis['faults']; stop: () => Promise<void> }> => {
  const kinesis = await startKinesis(options);
  let stopped: Promise<void> | undefined;
  const stop = (): Promise<void> => {
    stopped ??= kinesis.stop();
    return stopped;
  };
  cleanups.push(stop);
  return { url: kinesis.url, client: clientOf(kinesis.url), faults: kinesis.faults, stop };
};

export const folder = (): string => {
  const path = mkdtempSync(join(tmpdir(), 'banyan-kinesis-'));
  cleanups.push(() => rmSync(path, { recursive: true, force: true }));
  return path;
};

export const bytes = (text: string): Uint8Array => Buffer.from(text);
export const textOf = (data: Uint8Array | undefined): string => Buffer.from(data ?? []).toString();
export const texts = (answer: GetRecordsCommandOutput): string[] => (answer.Records ?? []).map((record) => textOf(record.Data));
export const entries = (count: number, key = 'k', size = 10) =>
  Array.from({ length: count }, (_, i) => ({ PartitionKey: key, Data: Buffer.from(String(i).padEnd(size, '.')) }));
export const create = (client: KinesisClient, StreamName: string, ShardCount = 1) =>
  client.send(new CreateStreamCommand({ StreamName, ShardCount }));
export const put = (client: KinesisClient, StreamName: string, text: string, PartitionKey = 'k') =>
  client.send(new PutRecordCommand({ StreamName, PartitionKey, Data: bytes(text) }));

export const iterator = async (
  client: KinesisClient,
  StreamName: string,
  from: Partial<GetShardIteratorCommandInput> = {},
): Promise<string> => {
  const answer = await client.send(
    new GetShardIteratorCommand({ StreamName, ShardId: SHARD_0, ShardIteratorType: 'TRIM_HORIZON', ...from }),
  );
  return answer.ShardIterator!;
};
export const get = (client: KinesisClient, ShardIterator: string, Limit?: number) =>
  client.send(new GetRecordsCommand({ ShardIterator, Limit }));
export const read = async (
  client: KinesisClient,
  StreamName: string,
  from: Partial<GetShardIteratorCommandInput> = {},
): Promise<string[]> => texts(await get(client, await iterator(client, StreamName, from)));

/** Every record of a shard, in order; needs an emulator without throttling. */
export const readAll = async (client: KinesisClient, StreamName: string, ShardId = SHARD_0): Promise<string[]> => {
  const all: string[] = [];
  let next: string | undefined = await iterator(client, StreamName, { ShardId });
  for (let behind = 1; next && behind > 0; ) {
    const answer = await get(client, next);
    all.push(...texts(answer));
    next = answer.NextShardIterator ?? undefined;
    behind = answer.MillisBehindLatest ?? 0;
  }
  return all;
};

export const failure = async (call: Promise<unknown>): Promise<{ name: string; message: string; status: number | undefined }> => {
  try {
    await call;
  } catch (error) {
    const { name, message, $metadata } = error as Error & { $metadata?: { httpStatusCode?: number } };
    return { name, message, status: $metadata?.httpStatusCode };
  }
  throw new Error('the call succeeded');
};

/** Time that only moves when told to. Starts at a whole second. */
export const fakeClock = (): { clock: () => number; advance: (ms: number) => void } => {
  let now = Date.UTC(2026, 0, 1);
  return {
    clock: () => now,
    advance: (ms) => {
      now += ms;
    },
  };
};
