import { once } from 'node:events';
import { join } from 'node:path';
import {
  DeregisterStreamConsumerCommand,
  DescribeLimitsCommand,
  DescribeStreamConsumerCommand,
  DescribeStreamSummaryCommand,
  DisableEnhancedMonitoringCommand,
  EnableEnhancedMonitoringCommand,
  type KinesisClient,
  ListShardsCommand,
  ListStreamConsumersCommand,
  PutRecordsCommand,
  RegisterStreamConsumerCommand,
  SplitShardCommand,
  StartStreamEncryptionCommand,
  StopStreamEncryptionCommand,
  SubscribeToShardCommand,
  type SubscribeToShardCommandInput,
  type SubscribeToShardEvent,
  UpdateMaxRecordSizeCommand,
  UpdateShardCountCommand,
  UpdateStreamModeCommand,
} from '@aws-sdk/client-kinesis';
import { afterEach, describe, expect, it } from '@jest/globals';
import {
  clientOf,
  create,
  endAll,
  entries,
  failure,
  folder,
  MIB,
  put,
  read,
  readAll,
  SHARD_0,
  start,
  textOf,
} from '../harness/kinesis-client.ts';

afterEach(endAll);

const arnOf = (name: string): string => `arn:aws:kinesis:eu-west-1:000000000000:stream/${name}`;
const register = async (client: KinesisClient, stream = 's', ConsumerName = 'reader'): Promise<string> =>
  (await client.send(new RegisterStreamConsumerCommand({ StreamARN: arnOf(stream), ConsumerName }))).Consumer!.ConsumerARN!;

type Feed = AsyncIterator<SubscribeToShardEvent>;
const subscribe = async (
  client: KinesisClient,
  ConsumerARN: string,
  from: SubscribeToShardCommandInput['StartingPosition'] = { Type: 'TRIM_HORIZON' },
  ShardId = SHARD_0,
): Promise<Feed> => {
  const { EventStream } = await client.send(new SubscribeToShardCommand({ ConsumerARN, ShardId, StartingPosition: from }));
  const events = EventStream![Symbol.asyncIterator]();
  return {
    next: async () => {
      const { value, done } = await events.next();
      return done
        ? { value: undefined, done: true }
        : { value: (value as { SubscribeToShardEvent: SubscribeToShardEvent }).SubscribeToShardEvent };
    },
    return: async () => {
      await events.return?.(undefined);
      return { value: undefined, done: true };
    },
  };
};
/** Events until `count` records have come, or the end. */
const collect = async (
  feed: Feed,
  count: number,
): Promise<{ texts: string[]; last: SubscribeToShardEvent | undefined; ended: boolean }> => {
  const texts: string[] = [];
  let last: SubscribeToShardEvent | undefined;
  while (texts.length < count) {
    const { value, done } = await feed.next();
    if (done) return { texts, last, ended: true };
    last = value;
    texts.push(...(value.Records ?? []).map((record) => textOf(record.Data)));
  }
  return { texts, last, ended: false };
};

describe('consumers of a stream', () => {
  it('are registered, described by name and by ARN, listed, and gone after that; a restart keeps them', async () => {
    const dataFile = join(folder(), 'data');
    const first = await start({ dataFile });
    await create(first.client, 's');
    const arn = await register(first.client);
    expect(arn).toMatch(/^arn:aws:kinesis:eu-west-1:000000000000:stream\/s\/consumer\/reader:\d+$/);
    expect((await failure(register(first.client))).name).toBe('ResourceInUseException');
    for (const name of ['b', 'c']) await register(first.client, 's', name);
    await first.stop();

    const { client } = await start({ dataFile });
    const byName = await client.send(new DescribeStreamConsumerCommand({ StreamARN: arnOf('s'), ConsumerName: 'reader' }));
    expect(byName.ConsumerDescription).toMatchObject({ ConsumerARN: arn, ConsumerStatus: 'ACTIVE', StreamARN: arnOf('s') });
    expect((await client.send(new DescribeStreamConsumerCommand({ ConsumerARN: arn }))).ConsumerDescription?.ConsumerName).toBe('reader');
    const page = await client.send(new ListStreamConsumersCommand({ StreamARN: arnOf('s'), MaxResults: 2 }));
    const rest = await client.send(new ListStreamConsumersCommand({ StreamARN: arnOf('s'), NextToken: page.NextToken! }));
    expect([...page.Consumers!, ...rest.Consumers!].map((each) => each.ConsumerName)).toEqual(['b', 'c', 'reader']);
    expect((await client.send(new DescribeStreamSummaryCommand({ StreamName: 's' }))).StreamDescriptionSummary?.ConsumerCount).toBe(3);
    await client.send(new DeregisterStreamConsumerCommand({ ConsumerARN: arn }));
    expect((await failure(client.send(new DescribeStreamConsumerCommand({ ConsumerARN: arn })))).name).toBe('ResourceNotFoundException');
  });

  it('are at most 20', async () => {
    const { client } = await start();
    await create(client, 's');
    for (let i = 0; i < 20; i += 1) await register(client, 's', `c${i}`);
    expect((await failure(register(client, 's', 'one-more'))).name).toBe('LimitExceededException');
  });
});

describe.each(['default', 'http/1.1'] as const)('a subscription over the SDK’s %s handler', (handler) => {
  it('gets what lies there and then what comes, and says where to go on', async () => {
    const { url } = await start({ limits: { takeoverMs: 0 } });
    const client = clientOf(url, handler);
    await create(client, 's');
    await put(client, 's', 'one');
    const arn = await register(client);
    const feed = await subscribe(client, arn);
    expect((await collect(feed, 1)).texts).toEqual(['one']);
    await put(client, 's', 'two');
    const { texts, last } = await collect(feed, 1);
    expect(texts).toEqual(['two']);
    expect(last).toMatchObject({ MillisBehindLatest: 0, ContinuationSequenceNumber: last!.Records![0]!.SequenceNumber });
    await feed.return?.();
    await put(client, 's', 'three');
    const again = await subscribe(client, arn, { Type: 'AFTER_SEQUENCE_NUMBER', SequenceNumber: last!.ContinuationSequenceNumber });
    expect((await collect(again, 1)).texts).toEqual(['three']);
    await again.return?.();
  });

  it('ends at the end of a closed shard, with its children', async () => {
    const { url } = await start();
    const client = clientOf(url, handler);
    await create(client, 's');
    await put(client, 's', 'one');
    const feed = await subscribe(client, await register(client));
    await collect(feed, 1);
    await client.send(new SplitShardCommand({ StreamName: 's', ShardToSplit: SHARD_0, NewStartingHashKey: String(2n ** 127n) }));
    const { last, ended } = await collect(feed, 1);
    expect(ended).toBe(true);
    expect(last?.ContinuationSequenceNumber).toBeUndefined();
    expect(last?.ChildShards?.map((child) => child.ShardId)).toEqual(['shardId-000000000001', 'shardId-000000000002']);
  });
});

describe('a subscription', () => {
  it('expires without an error, may not be doubled within the take-over time, and is taken over after it', async () => {
    const { client } = await start({ limits: { subscriptionMs: 400, takeoverMs: 100, heartbeatMs: 50 } });
    await create(client, 's');
    const arn = await register(client);
    const feed = await subscribe(client, arn);
    await feed.next();
    expect((await failure(subscribe(client, arn))).name).toBe('ResourceInUseException');
    let second: Feed | undefined;
    while (!second) second = await subscribe(client, arn).catch(() => undefined);
    await expect(collect(feed, 1)).rejects.toMatchObject({ name: 'ResourceInUseException' });
    expect((await collect(second, 1)).ended).toBe(true);
  });

  it('ends with its consumer and with the emulator', async () => {
    const { client, stop } = await start();
    await create(client, 's');
    const first = await subscribe(client, await register(client, 's', 'a'));
    const second = await subscribe(client, await register(client, 's', 'b'));
    await client.send(new DeregisterStreamConsumerCommand({ StreamARN: arnOf('s'), ConsumerName: 'a' }));
    expect((await collect(first, 1)).ended).toBe(true);
    const [end] = await Promise.all([collect(second, 1), stop()]);
    expect(end.ended).toBe(true);
  });

  it('refuses what is no position or no consumer', async () => {
    const { client } = await start();
    await create(client, 's');
    const arn = await register(client);
    expect((await failure(subscribe(client, `${arn}1`))).name).toBe('ResourceNotFoundException');
    expect((await failure(subscribe(client, 'nobody'))).name).toBe('InvalidArgumentException');
    expect((await failure(subscribe(client, arn, { Type: 'AT_SEQUENCE_NUMBER' }))).name).toBe('InvalidArgumentException');
    expect((await failure(subscribe(client, arn, undefined, 'shardId-000000000007'))).name).toBe('ResourceNotFoundException');
  });
});

describe('a stream’s settings', () => {
  it('change mode, record size, encryption and monitoring, and outlive a restart', async () => {
    const dataFile = join(folder(), 'data');
    const first = await start({ dataFile });
    const { client } = first;
    await create(client, 's');
    await client.send(new UpdateMaxRecordSizeCommand({ StreamARN: arnOf('s'), MaxRecordSizeInKiB: 2048 }));
    await client.send(new UpdateStreamModeCommand({ StreamARN: arnOf('s'), StreamModeDetails: { StreamMode: 'ON_DEMAND' } }));
    await client.send(new StartStreamEncryptionCommand({ StreamName: 's', EncryptionType: 'KMS', KeyId: 'k' }));
    const monitored = await client.send(new EnableEnhancedMonitoringCommand({ StreamName: 's', ShardLevelMetrics: ['ALL'] }));
    expect(monitored).toMatchObject({ CurrentShardLevelMetrics: [], DesiredShardLevelMetrics: expect.arrayContaining(['IncomingBytes']) });
    await client.send(new DisableEnhancedMonitoringCommand({ StreamName: 's', ShardLevelMetrics: ['IncomingBytes'] }));
    expect((await put(client, 's', 'x'.repeat(1.5 * MIB))).EncryptionType).toBe('KMS');
    await first.stop();

    const second = await start({ dataFile });
    const { StreamDescriptionSummary: found } = await second.client.send(new DescribeStreamSummaryCommand({ StreamName: 's' }));
    expect(found).toMatchObject({
      MaxRecordSizeInKiB: 2048,
      EncryptionType: 'KMS',
      KeyId: 'k',
      StreamModeDetails: { StreamMode: 'ON_DEMAND' },
    });
    expect(found!.EnhancedMonitoring![0]!.ShardLevelMetrics).toHaveLength(6);
    expect(await second.client.send(new DescribeLimitsCommand({}))).toMatchObject({
      ShardLimit: 1000,
      OpenShardCount: 1,
      OnDemandStreamCount: 1,
    });
    await second.client.send(new StopStreamEncryptionCommand({ StreamName: 's', EncryptionType: 'KMS', KeyId: 'k' }));
    expect((await put(second.client, 's', 'y')).EncryptionType).toBe('NONE');
  });

  it.each([
    [2, 4],
    [4, 3],
    [3, 5],
    [5, 3],
    [4, 2],
  ])('UpdateShardCount %i -> %i cuts evenly, gives every shard its parents, and loses nothing', async (from, to) => {
    const { client } = await start({ limits: { throttle: false } });
    await create(client, 's', from);
    const keyed = Array.from({ length: 200 }, (_, i) => ({ PartitionKey: `k${i}`, Data: Buffer.from(`${i}`) }));
    await client.send(new PutRecordsCommand({ StreamName: 's', Records: keyed }));
    const answer = await client.send(
      new UpdateShardCountCommand({ StreamName: 's', TargetShardCount: to, ScalingType: 'UNIFORM_SCALING' }),
    );
    expect(answer).toMatchObject({ CurrentShardCount: from, TargetShardCount: to });
    await client.send(new PutRecordsCommand({ StreamName: 's', Records: keyed }));
    const { Shards = [] } = await client.send(new ListShardsCommand({ StreamName: 's' }));
    const open = Shards.filter((shard) => shard.SequenceNumberRange?.EndingSequenceNumber === undefined);
    const width = 2n ** 128n / BigInt(to);
    expect(open.map((shard) => BigInt(shard.HashKeyRange!.StartingHashKey!)).sort((a, b) => (a < b ? -1 : 1))).toEqual(
      Array.from({ length: to }, (_, i) => width * BigInt(i)),
    );
    expect(Shards.slice(from).every((shard) => shard.ParentShardId !== undefined)).toBe(true);
    const all: string[] = [];
    for (const shard of Shards) all.push(...(await readAll(client, 's', shard.ShardId)));
    expect(all.sort()).toEqual([...keyed, ...keyed].map(({ Data }) => Data.toString()).sort());
  });

  it('UpdateShardCount refuses more than double, less than half, and a stream that AWS scales', async () => {
    const { client } = await start();
    await create(client, 's', 4);
    const to = (TargetShardCount: number) =>
      failure(client.send(new UpdateShardCountCommand({ StreamName: 's', TargetShardCount, ScalingType: 'UNIFORM_SCALING' })));
    expect((await to(9)).name).toBe('InvalidArgumentException');
    expect((await to(1)).name).toBe('InvalidArgumentException');
    await client.send(new UpdateStreamModeCommand({ StreamARN: arnOf('s'), StreamModeDetails: { StreamMode: 'ON_DEMAND' } }));
    expect((await to(8)).name).toBe('InvalidArgumentException');
  });
});

describe('scripted faults', () => {
  it('refuse before, fail after, lose answers and fail single records, as often as they are told', async () => {
    const { client, faults } = await start();
    await create(client, 's');
    faults.set([{ kind: 'throttle', operations: ['PutRecord'], times: 1 }]);
    expect((await failure(put(client, 's', 'refused'))).name).toBe('ProvisionedThroughputExceededException');
    faults.set([{ kind: 'error-after', operations: ['PutRecord'], times: 1 }]);
    expect(await failure(put(client, 's', 'stored'))).toMatchObject({ name: 'InternalFailure', status: 500 });
    faults.set([{ kind: 'lost', operations: ['PutRecord'], times: 1 }]);
    await failure(put(client, 's', 'stored too'));
    faults.set([{ kind: 'outage', times: 1 }]);
    await failure(put(client, 's', 'never arrived'));
    faults.set([{ kind: 'fail-records', times: 2 }]);
    const answer = await client.send(new PutRecordsCommand({ StreamName: 's', Records: entries(3) }));
    expect(answer.FailedRecordCount).toBe(2);
    faults.set([{ kind: 'delay', ms: 1, times: 1 }]);
    await put(client, 's', 'late');
    expect(await read(client, 's')).toEqual(['stored', 'stored too', entries(3)[2]!.Data.toString(), 'late']);
  });

  it('freeze a subscription half-open, until they are over', async () => {
    const { client, faults } = await start({ limits: { heartbeatMs: 20 } });
    await create(client, 's');
    const feed = await subscribe(client, await register(client));
    await feed.next();
    faults.set([{ kind: 'hang', operations: ['SubscribeToShard'], share: 0.999 }]);
    await put(client, 's', 'x');
    let came = false;
    const next = collect(feed, 1).then((found) => {
      came = true;
      return found;
    });
    await put(client, 's', 'y');
    expect(came).toBe(false);
    faults.set([]);
    expect((await next).texts).toEqual(['x', 'y']);
  });

  it('are scripted over HTTP too, and a bad rule changes nothing', async () => {
    const { url, client } = await start();
    await create(client, 's');
    const script = (rules: unknown) => fetch(`${url}/_emulator/faults`, { method: 'PUT', body: JSON.stringify(rules) });
    expect((await script([{ kind: 'throttle' }])).status).toBe(200);
    const refused = await script([{ kind: 'fire' }]);
    expect([refused.status, ((await refused.json()) as { __type: string }).__type]).toEqual([400, 'ValidationException']);
    expect((await failure(put(client, 's', 'x'))).name).toBe('ProvisionedThroughputExceededException');
    await script([]);
    await put(client, 's', 'x');
    expect(await read(client, 's')).toEqual(['x']);
  });

  it('hang a call until its client leaves', async () => {
    const { url, faults } = await start();
    faults.set([{ kind: 'hang', operations: ['ListStreams'] }]);
    const leaving = new AbortController();
    const call = fetch(url, {
      method: 'POST',
      headers: { 'content-type': 'application/x-amz-json-1.1', 'x-amz-target': 'Kinesis_20131202.ListStreams' },
      body: '{}',
      signal: leaving.signal,
    });
    const refusal = expect(call).rejects.toMatchObject({ name: 'AbortError' });
    const aborted = once(leaving.signal, 'abort');
    leaving.abort();
    await aborted;
    await refusal;
  });
});
