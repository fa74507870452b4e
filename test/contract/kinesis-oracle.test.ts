import { once } from 'node:events';
import { createRequire } from 'node:module';
import type { AddressInfo, Server } from 'node:net';
import {
  DescribeStreamCommand,
  GetRecordsCommand,
  IncreaseStreamRetentionPeriodCommand,
  type KinesisClient,
  ListShardsCommand,
  MergeShardsCommand,
  PutRecordCommand,
  PutRecordsCommand,
  SplitShardCommand,
} from '@aws-sdk/client-kinesis';
import { afterEach, describe, expect, it } from '@jest/globals';
import {
  bytes,
  clientOf,
  create,
  endAll,
  entries,
  failure,
  get,
  HOUR,
  iterator,
  MIB,
  onEnd,
  put,
  SHARD_0,
  start,
} from '../harness/kinesis-client.ts';

afterEach(endAll);

describe('kinesalite as an independent oracle', () => {
  type Kinesalite = (options: { createStreamMs: number; deleteStreamMs: number; updateStreamMs: number; shardLimit: number }) => Server;
  const kinesalite = createRequire(import.meta.url)('kinesalite') as Kinesalite;

  const oracle = async (): Promise<KinesisClient> => {
    const server = kinesalite({ createStreamMs: 0, deleteStreamMs: 0, updateStreamMs: 0, shardLimit: 100 });
    server.listen(0, '127.0.0.1');
    await once(server, 'listening');
    onEnd(() => new Promise((resolve) => server.close(resolve)));
    return clientOf(`http://127.0.0.1:${(server.address() as AddressInfo).port}`);
  };

  /** Waits until the stream shows ACTIVE: kinesalite changes it in a timer. */
  const active = async (client: KinesisClient, StreamName: string): Promise<void> => {
    for (let tries = 0; tries < 200; tries++) {
      const { StreamDescription } = await client.send(new DescribeStreamCommand({ StreamName }));
      if (StreamDescription!.StreamStatus === 'ACTIVE') return;
    }
    throw new Error(`${StreamName} never became ACTIVE`);
  };

  // Known differences, where AWS is with us: kinesalite needs ShardCount (no ON_DEMAND), knows no StreamARN, filters, MaxResults or tokens of
  // ListShards, never throttles, always says MillisBehindLatest 0, sends no ChildShards, counts a record's data without its key, and takes an
  // ExplicitHashKey of `01` (its pattern is anchored on one alternative only).
  it.each([1, 2, 3, 5, 7])('cuts %i shards at the same hash keys and finds the same shard for a key', async (count) => {
    const theirs = await oracle();
    const { client: ours } = await start();
    const facts = async (client: KinesisClient) => {
      await create(client, 's', count);
      await active(client, 's');
      const { Shards } = await client.send(new ListShardsCommand({ StreamName: 's' }));
      const keys = ['1007', '42', 'abc', 'ü', '😀', '__proto__', 'x'.repeat(256)];
      const sent = await client.send(
        new PutRecordsCommand({ StreamName: 's', Records: keys.map((PartitionKey) => ({ PartitionKey, Data: bytes('x') })) }),
      );
      return [Shards!.map(({ ShardId, HashKeyRange }) => ({ ShardId, HashKeyRange })), sent.Records!.map((record) => record.ShardId)];
    };
    expect(await facts(ours)).toEqual(await facts(theirs));
  });

  it('refuses with the same error types and, where it has one, the same constraint', async () => {
    const theirs = await oracle();
    const { client: ours } = await start();
    for (const client of [theirs, ours]) {
      await create(client, 's', 2);
      await active(client, 's');
    }
    const calls: ((client: KinesisClient) => Promise<unknown>)[] = [
      (client) => put(client, 'none', 'x'),
      (client) => create(client, 's', 1),
      (client) => create(client, 'sp ace', 1),
      (client) => client.send(new PutRecordsCommand({ StreamName: 's', Records: entries(501) })),
      (client) => client.send(new PutRecordsCommand({ StreamName: 's', Records: [] })),
      (client) => client.send(new PutRecordCommand({ StreamName: 's', PartitionKey: 'k', Data: Buffer.alloc(MIB + 1) })),
      (client) =>
        client.send(new PutRecordCommand({ StreamName: 's', PartitionKey: 'k', Data: bytes('x'), ExplicitHashKey: String(2n ** 128n) })),
      (client) => put(client, 's', 'x', ''),
      (client) => iterator(client, 's', { ShardId: 'shardId-000000000009' }),
      (client) => iterator(client, 's', { ShardIteratorType: 'AT_SEQUENCE_NUMBER' }),
      (client) => iterator(client, 's', { ShardIteratorType: 'AT_TIMESTAMP', Timestamp: new Date(Date.now() + HOUR) }),
      (client) => get(client, 'bm90aGluZw=='),
      (client) => client.send(new GetRecordsCommand({ ShardIterator: 'bm90aGluZw==', Limit: 10_001 })),
      (client) => client.send(new IncreaseStreamRetentionPeriodCommand({ StreamName: 's', RetentionPeriodHours: 23 })),
      (client) => client.send(new SplitShardCommand({ StreamName: 's', ShardToSplit: SHARD_0, NewStartingHashKey: '1' })),
      (client) => client.send(new MergeShardsCommand({ StreamName: 's', ShardToMerge: SHARD_0, AdjacentShardToMerge: SHARD_0 })),
    ];
    const facts = async (client: KinesisClient) => {
      const seen: unknown[] = [];
      for (const call of calls) {
        const { name, message, status } = await failure(call(client));
        seen.push({ name, status, constraint: /constraint: (.*)/.exec(message)?.[1] });
      }
      return seen;
    };
    expect(await facts(ours)).toEqual(await facts(theirs));
  });
});
