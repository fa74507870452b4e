import {
  AddTagsToStreamCommand,
  CreateStreamCommand,
  DecreaseStreamRetentionPeriodCommand,
  DeleteStreamCommand,
  DescribeStreamCommand,
  DescribeStreamSummaryCommand,
  GetRecordsCommand,
  type GetShardIteratorCommandInput,
  IncreaseStreamRetentionPeriodCommand,
  type KinesisClient,
  ListShardsCommand,
  type ListShardsCommandInput,
  ListStreamsCommand,
  ListTagsForStreamCommand,
  MergeShardsCommand,
  PutRecordCommand,
  PutRecordsCommand,
  type PutRecordsCommandOutput,
  PutResourcePolicyCommand,
  SplitShardCommand,
} from '@aws-sdk/client-kinesis';
import { afterEach, describe, expect, it } from '@jest/globals';
import {
  bytes,
  clientOf,
  create,
  endAll,
  entries,
  FIRST_OF_TWO,
  failure,
  fakeClock,
  get,
  HOUR,
  iterator,
  MIB,
  put,
  read,
  readAll,
  SECOND_OF_TWO,
  SHARD_0,
  SHARD_1,
  start,
  texts,
} from '../harness/kinesis-client.ts';

afterEach(endAll);

describe('the SDK talks to the Kinesis emulator', () => {
  it.each(['http/1.1', 'default'] as const)('over its %s handler: puts, gets and errors', async (handler) => {
    const { url } = await start();
    const client = clientOf(url, handler);
    await create(client, 'orders', 2);
    const one = await put(client, 'orders', 'héllo');
    expect(one.SequenceNumber).toMatch(/^49\d{54}$/);
    const many = await client.send(new PutRecordsCommand({ StreamName: 'orders', Records: entries(500) }));
    expect(many.FailedRecordCount).toBe(0);
    expect(many.Records).toHaveLength(500);
    const answer = await get(client, await iterator(client, 'orders', { ShardId: one.ShardId! }));
    expect(texts(answer)).toEqual(['héllo', ...entries(500).map(({ Data }) => Data.toString())]);
    expect(answer.Records![0]).toMatchObject({ PartitionKey: 'k', SequenceNumber: one.SequenceNumber });
    expect(Math.abs(answer.Records![0]!.ApproximateArrivalTimestamp!.getTime() - Date.now())).toBeLessThan(60_000);
    expect(await failure(put(client, 'none', 'x'))).toEqual({
      name: 'ResourceNotFoundException',
      message: 'Stream none under account 000000000000 not found.',
      status: 400,
    });
  });

  it('takes a body of several MiB over both handlers', async () => {
    const { url } = await start({ limits: { throttle: false } });
    await create(clientOf(url), 'large');
    for (const handler of ['http/1.1', 'default'] as const) {
      const client = clientOf(url, handler);
      const sent = await client.send(new PutRecordsCommand({ StreamName: 'large', Records: entries(9, 'k', MIB - 1) }));
      expect(sent.FailedRecordCount).toBe(0);
      const answer = await get(client, await iterator(client, 'large'));
      expect(answer.Records!.map((record) => record.Data!.length)).toEqual(
        Array(9)
          .fill(MIB - 1)
          .concat(handler === 'default' ? [MIB - 1] : []),
      );
    }
  });

  it('names the error in body and header, and refuses what is not a Kinesis call', async () => {
    const { url } = await start();
    const call = (target: string, body: string, type = 'application/x-amz-json-1.1') =>
      fetch(url, { method: 'POST', body, headers: { 'content-type': type, 'x-amz-target': target } });
    const missing = await call('Kinesis_20131202.DescribeStream', '{"StreamName":"x"}');
    expect(missing.status).toBe(400);
    expect(missing.headers.get('x-amzn-errortype')).toBe('ResourceNotFoundException');
    expect(missing.headers.get('x-amzn-requestid')).toMatch(/^[0-9a-f-]{36}$/);
    expect(missing.headers.get('content-type')).toBe('application/x-amz-json-1.1');
    expect(await missing.json()).toEqual({
      __type: 'ResourceNotFoundException',
      message: 'Stream x under account 000000000000 not found.',
    });
    const type = async (answer: Promise<Response>): Promise<string> => ((await (await answer).json()) as { __type: string }).__type;
    expect(await type(call('Kinesis_20131202.Fly', '{}'))).toBe('UnknownOperationException');
    expect(await type(call('Kinesis_20131202.toString', '{}'))).toBe('UnknownOperationException');
    expect(await type(call('Kinesis_20131202.ListStreams', '{'))).toBe('SerializationException');
    expect(await type(call('Kinesis_20131202.ListStreams', '[]'))).toBe('SerializationException');
    expect(await type(call('Kinesis_20131202.ListStreams', '{"Limit":"9"}'))).toBe('SerializationException');
    expect(await type(call('Kinesis_20131202.CreateStream', '{"StreamName":"s","ShardCount":1,"Tags":{"__proto__":"x"}}'))).toBe(
      'ValidationException',
    );
    expect(await type(call('Kinesis_20131202.PutRecord', '{"StreamName":"s","PartitionKey":"k","Data":"a"}'))).toBe(
      'ResourceNotFoundException',
    );
    expect(await type(call('Kinesis_20131202.ListStreams', '{}', 'text/plain'))).toBe('UnknownOperationException');
    expect((await fetch(url)).status).toBe(404);
    expect((await call('Kinesis_20131202.ListStreams', ' '.repeat(17 * MIB))).status).toBe(413);
    expect(await (await call('Kinesis_20131202.ListStreams', '{}')).json()).toMatchObject({ StreamNames: [] });
  });

  it('says so when it does not know an operation', async () => {
    const { client } = await start();
    const command = new PutResourcePolicyCommand({ ResourceARN: 'arn:aws:kinesis:eu-west-1:000000000000:stream/s', Policy: '{}' });
    expect((await failure(client.send(command))).name).toBe('UnknownOperationException');
  });
});

describe('streams', () => {
  it('are created, described by name and by ARN, listed and deleted', async () => {
    const { client } = await start();
    await create(client, 'b', 2);
    await client.send(new CreateStreamCommand({ StreamName: 'a', StreamModeDetails: { StreamMode: 'ON_DEMAND' }, Tags: { team: 'x' } }));
    const { StreamDescription } = await client.send(new DescribeStreamCommand({ StreamName: 'b' }));
    const StreamARN = 'arn:aws:kinesis:eu-west-1:000000000000:stream/b';
    expect(StreamDescription).toMatchObject({ StreamARN, StreamStatus: 'ACTIVE', RetentionPeriodHours: 24, HasMoreShards: false });
    expect(StreamDescription!.Shards!.map((shard) => shard.HashKeyRange)).toEqual([FIRST_OF_TWO, SECOND_OF_TWO]);
    const page = await client.send(new DescribeStreamCommand({ StreamARN, Limit: 1 }));
    expect([page.StreamDescription!.HasMoreShards, page.StreamDescription!.Shards!.length]).toEqual([true, 1]);
    const summary = await client.send(new DescribeStreamSummaryCommand({ StreamName: 'a' }));
    expect(summary.StreamDescriptionSummary).toMatchObject({ OpenShardCount: 4, StreamModeDetails: { StreamMode: 'ON_DEMAND' } });
    const listed = await client.send(new ListStreamsCommand({ Limit: 1 }));
    expect(listed).toMatchObject({ StreamNames: ['a'], HasMoreStreams: true });
    expect(await client.send(new ListStreamsCommand({ NextToken: listed.NextToken! }))).toMatchObject({
      StreamNames: ['b'],
      HasMoreStreams: false,
    });
    await client.send(new DeleteStreamCommand({ StreamARN }));
    expect((await client.send(new ListStreamsCommand({}))).StreamNames).toEqual(['a']);
  });

  it('refuse what AWS refuses', async () => {
    const { client } = await start({ limits: { maxShards: 5 } });
    await create(client, 's', 2);
    expect((await failure(create(client, 's', 1))).name).toBe('ResourceInUseException');
    expect((await failure(create(client, 't', 4))).name).toBe('LimitExceededException');
    expect((await failure(client.send(new CreateStreamCommand({ StreamName: 't' })))).name).toBe('InvalidArgumentException');
    expect(await failure(create(client, 'sp ace', 1))).toMatchObject({
      name: 'ValidationException',
      message:
        "1 validation error detected: Value at 'streamName' failed to satisfy constraint: Member must satisfy regular expression pattern: [a-zA-Z0-9_.-]+",
    });
    const both = new DescribeStreamCommand({ StreamName: 's', StreamARN: 'arn:aws:kinesis:eu-west-1:000000000000:stream/t' });
    expect((await failure(client.send(both))).name).toBe('InvalidArgumentException');
    expect((await failure(client.send(new DescribeStreamCommand({})))).name).toBe('InvalidArgumentException');
    expect((await failure(client.send(new DescribeStreamCommand({ StreamARN: 'arn:nothing' })))).name).toBe('InvalidArgumentException');
  });

  it('are CREATING for as long as they are told to be', async () => {
    const { clock, advance } = fakeClock();
    const { client } = await start({ clock, limits: { createMs: 500 } });
    await create(client, 's');
    expect((await failure(put(client, 's', 'x'))).name).toBe('ResourceInUseException');
    const status = async () =>
      (await client.send(new DescribeStreamSummaryCommand({ StreamName: 's' }))).StreamDescriptionSummary!.StreamStatus;
    expect(await status()).toBe('CREATING');
    advance(500);
    expect(await status()).toBe('ACTIVE');
    await put(client, 's', 'x');
  });

  it('list their shards in pages and by filter', async () => {
    const { client } = await start();
    await create(client, 's', 3);
    const ids = async (input: ListShardsCommandInput) =>
      (await client.send(new ListShardsCommand(input))).Shards!.map((shard) => Number(shard.ShardId!.slice(-1)));
    const first = await client.send(new ListShardsCommand({ StreamName: 's', MaxResults: 2 }));
    expect(first.Shards).toHaveLength(2);
    expect(await ids({ NextToken: first.NextToken! })).toEqual([2]);
    expect(await ids({ StreamName: 's', ExclusiveStartShardId: SHARD_0 })).toEqual([1, 2]);
    await client.send(new SplitShardCommand({ StreamName: 's', ShardToSplit: SHARD_0, NewStartingHashKey: '1000' }));
    expect(await ids({ StreamName: 's' })).toEqual([0, 1, 2, 3, 4]);
    expect(await ids({ StreamName: 's', ShardFilter: { Type: 'AT_LATEST' } })).toEqual([1, 2, 3, 4]);
    expect(await ids({ StreamName: 's', ShardFilter: { Type: 'AFTER_SHARD_ID', ShardId: SHARD_1 } })).toEqual([2, 3, 4]);
    expect((await failure(ids({ StreamName: 's', NextToken: first.NextToken! }))).name).toBe('InvalidArgumentException');
    expect((await failure(ids({ NextToken: 'bogus' }))).name).toBe('InvalidArgumentException');
  });

  it('keep tags and a retention that only moves the right way', async () => {
    const { client } = await start();
    await create(client, 's');
    await client.send(new AddTagsToStreamCommand({ StreamName: 's', Tags: { b: '2', a: '1' } }));
    expect(await client.send(new ListTagsForStreamCommand({ StreamName: 's', Limit: 1 }))).toMatchObject({
      Tags: [{ Key: 'a', Value: '1' }],
      HasMoreTags: true,
    });
    const retention = (
      Command: typeof IncreaseStreamRetentionPeriodCommand | typeof DecreaseStreamRetentionPeriodCommand,
      RetentionPeriodHours: number,
    ) => client.send(new Command({ StreamName: 's', RetentionPeriodHours }) as IncreaseStreamRetentionPeriodCommand);
    await retention(IncreaseStreamRetentionPeriodCommand, 48);
    expect((await failure(retention(IncreaseStreamRetentionPeriodCommand, 30))).name).toBe('InvalidArgumentException');
    expect((await failure(retention(DecreaseStreamRetentionPeriodCommand, 23))).name).toBe('InvalidArgumentException');
    await retention(DecreaseStreamRetentionPeriodCommand, 24);
  });
});

describe('writes', () => {
  it('go to the shard that owns the MD5 of the key, or the explicit hash key, in growing sequence numbers', async () => {
    const { client } = await start();
    await create(client, 's', 2);
    // md5('a') = 0cc1…, md5('c') = 4a8a…, md5('b') = 92eb…, md5('d') = 8277…
    const sent = await client.send(
      new PutRecordsCommand({
        StreamName: 's',
        Records: [
          { PartitionKey: 'a', Data: bytes('1') },
          { PartitionKey: 'b', Data: bytes('2') },
          { PartitionKey: 'c', Data: bytes('3') },
          { PartitionKey: 'd', Data: bytes('4') },
          { PartitionKey: 'a', Data: bytes('5'), ExplicitHashKey: SECOND_OF_TWO.StartingHashKey },
          { PartitionKey: 'b', Data: bytes('6'), ExplicitHashKey: FIRST_OF_TWO.EndingHashKey },
        ],
      }),
    );
    expect(sent.Records!.map((record) => Number(record.ShardId!.slice(-1)))).toEqual([0, 1, 0, 1, 1, 0]);
    const numbers = [0, 2, 5].map((i) => BigInt(sent.Records![i]!.SequenceNumber!));
    expect(numbers[0]! < numbers[1]! && numbers[1]! < numbers[2]!).toBe(true);
    const after = await client.send(
      new PutRecordCommand({ StreamName: 's', PartitionKey: 'a', Data: bytes('7'), SequenceNumberForOrdering: String(numbers[2]) }),
    );
    expect(BigInt(after.SequenceNumber!) > numbers[2]!).toBe(true);
    const beyond = new PutRecordCommand({ StreamName: 's', PartitionKey: 'a', Data: bytes('8'), ExplicitHashKey: String(2n ** 128n) });
    expect((await failure(client.send(beyond))).name).toBe('InvalidArgumentException');
  });

  it('are bounded: 500 records, 1 MiB a record with its key, 10 MiB a request', async () => {
    const { client } = await start({ limits: { throttle: false } });
    await create(client, 's');
    const send = (Records: ReturnType<typeof entries>) => client.send(new PutRecordsCommand({ StreamName: 's', Records }));
    expect(await failure(send(entries(501)))).toMatchObject({
      name: 'ValidationException',
      message:
        "1 validation error detected: Value at 'records' failed to satisfy constraint: Member must have length less than or equal to 500",
    });
    expect((await failure(send(entries(1, 'k', MIB)))).name).toBe('ValidationException');
    expect((await failure(send(entries(11, 'k', MIB - 1)))).name).toBe('InvalidArgumentException');
    expect((await failure(put(client, 's', 'x', ''))).message).toContain("Value at 'partitionKey'");
    expect((await failure(put(client, 's', 'x', 'k'.repeat(257)))).name).toBe('ValidationException');
    expect(await readAll(client, 's')).toEqual([]);
    expect((await send(entries(1, 'k', MIB - 1))).FailedRecordCount).toBe(0);
    await client.send(new CreateStreamCommand({ StreamName: 'wide', ShardCount: 1, MaxRecordSizeInKiB: 10_240 }));
    await client.send(new PutRecordCommand({ StreamName: 'wide', PartitionKey: 'k', Data: Buffer.alloc(10 * MIB - 1) }));
    expect(await readAll(client, 'wide')).toHaveLength(1);
  });

  it('fail record by record over 1,000 records/s of a shard, and only in that shard', async () => {
    const { clock, advance } = fakeClock();
    const { client } = await start({ clock });
    await create(client, 's', 2);
    const send = (key: string) => client.send(new PutRecordsCommand({ StreamName: 's', Records: entries(400, key) }));
    expect((await send('a')).FailedRecordCount).toBe(0);
    expect((await send('a')).FailedRecordCount).toBe(0);
    const third: PutRecordsCommandOutput = await send('a');
    expect(third.FailedRecordCount).toBe(200);
    expect(third.Records!.slice(0, 200).every((record) => record.SequenceNumber !== undefined)).toBe(true);
    expect(third.Records![399]).toEqual({
      ErrorCode: 'ProvisionedThroughputExceededException',
      ErrorMessage: `Rate exceeded for shard ${SHARD_0} in stream s under account 000000000000.`,
    });
    expect((await send('b')).FailedRecordCount).toBe(0);
    expect((await failure(put(client, 's', 'x', 'a'))).name).toBe('ProvisionedThroughputExceededException');
    expect(await readAll(client, 's')).toHaveLength(1000);
    advance(100);
    expect((await send('a')).FailedRecordCount).toBe(300);
  });

  it('fail over 1 MiB/s of a shard, unless throttling is off', async () => {
    const { clock, advance } = fakeClock();
    const throttled = await start({ clock });
    const free = await start({ clock, limits: { throttle: false } });
    for (const { client } of [throttled, free]) await create(client, 's');
    const send = (client: KinesisClient) => client.send(new PutRecordsCommand({ StreamName: 's', Records: entries(3, 'k', 500 * 1024) }));
    expect((await send(throttled.client)).FailedRecordCount).toBe(1);
    expect((await send(free.client)).FailedRecordCount).toBe(0);
    advance(1000);
    expect((await send(throttled.client)).FailedRecordCount).toBe(1);
  });

  it('store nothing on a dry run', async () => {
    const { client } = await start();
    await create(client, 's');
    const dry = new PutRecordCommand({ StreamName: 's', PartitionKey: 'k', Data: bytes('x'), DryRun: true });
    expect((await failure(client.send(dry))).name).toBe('DryRunOperationException');
    expect(await read(client, 's')).toEqual([]);
  });
});

describe('reads', () => {
  it('start where the iterator type says', async () => {
    const { clock, advance } = fakeClock();
    const { client } = await start({ clock, limits: { throttle: false } });
    await create(client, 's', 2);
    const sent: string[] = [];
    const times: number[] = [];
    for (const text of ['1', '2', '3']) {
      times.push(clock());
      sent.push((await put(client, 's', text, 'a')).SequenceNumber!);
      advance(1500);
    }
    const latest = await iterator(client, 's', { ShardIteratorType: 'LATEST' });
    await put(client, 's', '4', 'a');
    expect(texts(await get(client, latest))).toEqual(['4']);
    expect(await read(client, 's')).toEqual(['1', '2', '3', '4']);
    expect(await read(client, 's', { ShardIteratorType: 'AT_SEQUENCE_NUMBER', StartingSequenceNumber: sent[1]! })).toEqual(['2', '3', '4']);
    expect(await read(client, 's', { ShardIteratorType: 'AFTER_SEQUENCE_NUMBER', StartingSequenceNumber: sent[1]! })).toEqual(['3', '4']);
    expect(await read(client, 's', { ShardIteratorType: 'AT_TIMESTAMP', Timestamp: new Date(times[1]!) })).toEqual(['2', '3', '4']);
    expect(await read(client, 's', { ShardIteratorType: 'AT_TIMESTAMP', Timestamp: new Date(times[1]! + 1) })).toEqual(['3', '4']);
    expect(await read(client, 's', { ShardIteratorType: 'AT_TIMESTAMP', Timestamp: new Date(0) })).toEqual(['1', '2', '3', '4']);

    const refused = (from: Partial<GetShardIteratorCommandInput>) => failure(iterator(client, 's', from)).then(({ name }) => name);
    expect(await refused({ ShardIteratorType: 'AT_TIMESTAMP', Timestamp: new Date(clock() + 1000) })).toBe('InvalidArgumentException');
    expect(await refused({ ShardIteratorType: 'LATEST', StartingSequenceNumber: sent[0]! })).toBe('InvalidArgumentException');
    expect(await refused({ ShardIteratorType: 'AT_SEQUENCE_NUMBER' })).toBe('InvalidArgumentException');
    expect(await refused({ ShardIteratorType: 'AT_SEQUENCE_NUMBER', StartingSequenceNumber: '12' })).toBe('InvalidArgumentException');
    expect(await refused({ ShardId: SHARD_1, ShardIteratorType: 'AT_SEQUENCE_NUMBER', StartingSequenceNumber: sent[0]! })).toBe(
      'InvalidArgumentException',
    );
    expect(await refused({ ShardId: 'shardId-000000000007' })).toBe('ResourceNotFoundException');
    expect((await failure(get(client, 'bm90aGluZw=='))).name).toBe('InvalidArgumentException');
  });

  it('page by Limit, say how far behind they are, and expire after 5 minutes', async () => {
    const { clock, advance } = fakeClock();
    const { client } = await start({ clock });
    await create(client, 's');
    await put(client, 's', '1');
    advance(4000);
    await put(client, 's', '2');
    advance(1000);
    const begin = await iterator(client, 's');
    const one = await get(client, begin, 1);
    expect([texts(one), one.MillisBehindLatest]).toEqual([['1'], 1000]);
    const two = await get(client, one.NextShardIterator!, 1);
    expect([texts(two), two.MillisBehindLatest]).toEqual([['2'], 0]);
    expect(texts(await get(client, two.NextShardIterator!))).toEqual([]);
    advance(300_000);
    expect((await get(client, begin)).Records).toHaveLength(2);
    advance(1);
    expect((await failure(get(client, begin))).name).toBe('ExpiredIteratorException');
    expect((await failure(client.send(new GetRecordsCommand({ ShardIterator: begin, Limit: 10_001 })))).name).toBe('ValidationException');
  });

  it('are limited to 5 calls and 2 MiB a second for each shard, and to 10 MiB a call', async () => {
    const { clock, advance } = fakeClock();
    const { client } = await start({ clock, limits: { writeBytesPerSecond: 100 * MIB } });
    await create(client, 's', 2);
    const [zero, other] = [await iterator(client, 's'), await iterator(client, 's', { ShardId: SHARD_1 })];
    for (let call = 0; call < 5; call++) await get(client, zero);
    expect((await failure(get(client, zero))).name).toBe('ProvisionedThroughputExceededException');
    await get(client, other);
    for (let i = 0; i < 2; i++) await client.send(new PutRecordsCommand({ StreamName: 's', Records: entries(6, 'a', MIB - 1) }));
    advance(1000);
    const full = await get(client, zero);
    expect(full.Records).toHaveLength(10);
    expect(full.MillisBehindLatest).toBeGreaterThan(0);
    advance(3999);
    expect((await failure(get(client, full.NextShardIterator!))).name).toBe('ProvisionedThroughputExceededException');
    advance(2);
    expect((await get(client, full.NextShardIterator!)).Records).toHaveLength(2);
  });

  it('end a closed shard with its children: after a split and after a merge', async () => {
    const { client } = await start({ limits: { throttle: false } });
    await create(client, 's');
    await put(client, 's', 'parent');
    const middle = SECOND_OF_TWO.StartingHashKey;
    await client.send(new SplitShardCommand({ StreamName: 's', ShardToSplit: SHARD_0, NewStartingHashKey: middle }));
    await put(client, 's', 'low', 'a');
    await put(client, 's', 'high', 'b');
    const parent = await get(client, await iterator(client, 's'));
    expect(texts(parent)).toEqual(['parent']);
    expect(parent.NextShardIterator ?? null).toBeNull();
    expect(parent.ChildShards).toEqual([
      { ShardId: SHARD_1, ParentShards: [SHARD_0], HashKeyRange: FIRST_OF_TWO },
      { ShardId: 'shardId-000000000002', ParentShards: [SHARD_0], HashKeyRange: SECOND_OF_TWO },
    ]);
    expect(await read(client, 's', { ShardId: SHARD_1 })).toEqual(['low']);
    await client.send(new MergeShardsCommand({ StreamName: 's', ShardToMerge: SHARD_1, AdjacentShardToMerge: 'shardId-000000000002' }));
    const { Shards } = await client.send(new ListShardsCommand({ StreamName: 's' }));
    expect(Shards![0]!.SequenceNumberRange!.EndingSequenceNumber).toMatch(/^49\d{54}$/);
    expect(Shards![3]).toMatchObject({ ParentShardId: SHARD_1, AdjacentParentShardId: 'shardId-000000000002' });
    await put(client, 's', 'merged');
    expect(await read(client, 's', { ShardId: 'shardId-000000000003' })).toEqual(['merged']);
    const again = new MergeShardsCommand({ StreamName: 's', ShardToMerge: SHARD_1, AdjacentShardToMerge: SHARD_0 });
    expect((await failure(client.send(again))).name).toBe('InvalidArgumentException');
  });

  it('forget what is older than the retention, and the oldest when memory is full', async () => {
    const { clock, advance } = fakeClock();
    const warnings: string[] = [];
    const { client } = await start({ clock, warn: (line) => warnings.push(line), limits: { throttle: false, memoryBytes: 4 * MIB } });
    await create(client, 's');
    const old = await put(client, 's', 'old');
    advance(24 * HOUR);
    await put(client, 's', 'new');
    expect(await read(client, 's')).toEqual(['old', 'new']);
    advance(1);
    expect(await read(client, 's')).toEqual(['new']);
    expect(await read(client, 's', { ShardIteratorType: 'AT_SEQUENCE_NUMBER', StartingSequenceNumber: old.SequenceNumber! })).toEqual([
      'new',
    ]);
    for (let i = 0; i < 3; i++) await client.send(new PutRecordsCommand({ StreamName: 's', Records: entries(9, 'k', 200 * 1024) }));
    const kept = await readAll(client, 's');
    expect(kept.length).toBeLessThan(20);
    expect(kept.map((text) => Number.parseInt(text, 10)).slice(-9)).toEqual([0, 1, 2, 3, 4, 5, 6, 7, 8]);
    expect(warnings).toHaveLength(1);
  });
});
