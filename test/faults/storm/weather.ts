import { setTimeout as pause } from 'node:timers/promises';
import {
  GetRecordsCommand,
  GetShardIteratorCommand,
  KinesisClient,
  ListShardsCommand,
  UpdateShardCountCommand,
} from '@aws-sdk/client-kinesis';
import { deaggregate } from '@banyan/contracts/kpl.ts';
import { NodeHttpHandler } from '@smithy/node-http-handler';

/** `flaky`: a tenth of the records refused, a hundredth of the requests stored and answered 500. `reshard`: 2, 4, 2, … shards. `outage`: away for a third of the time. */
export const WEATHERS = ['calm', 'flaky', 'reshard', 'outage'] as const;
export type Weather = (typeof WEATHERS)[number];

const STREAM = 'domain-events';
const clientOf = (endpoint: string): KinesisClient =>
  new KinesisClient({
    endpoint,
    region: 'eu-west-1',
    credentials: { accessKeyId: 'test', secretAccessKey: 'test' },
    requestHandler: new NodeHttpHandler(),
    maxAttempts: 10,
  });

/** Faults of the emulator, in its own words (dev/kinesis/faults.ts). */
export const setFaults = async (endpoint: string, rules: readonly object[]): Promise<void> => {
  const response = await fetch(`${endpoint}/_emulator/faults`, {
    method: 'PUT',
    headers: { 'content-type': 'application/json', connection: 'close' },
    body: JSON.stringify(rules),
  });
  if (!response.ok) throw new Error(`the emulator takes no faults: ${response.status} ${await response.text()}`);
};

/** Between two changes of the number of shards, and between two outages, ms. */
const CHANGE_MS = 3_000;

export const startWeather = (endpoint: string, weather: Weather): { stop: () => Promise<void> } => {
  let stopped = false;
  const resharding = async (): Promise<void> => {
    const client = clientOf(endpoint);
    for (let count = 2; !stopped; count = count === 2 ? 4 : 2) {
      await client
        .send(new UpdateShardCountCommand({ StreamName: STREAM, TargetShardCount: count, ScalingType: 'UNIFORM_SCALING' }))
        .catch(() => undefined);
      await pause(CHANGE_MS);
    }
    client.destroy();
  };
  const outages = async (): Promise<void> => {
    while (!stopped) {
      await setFaults(endpoint, [{ kind: 'outage', forMs: CHANGE_MS / 3 }]);
      await pause(CHANGE_MS);
    }
  };
  const flaky = async (): Promise<void> =>
    setFaults(endpoint, [
      { kind: 'error-after', operations: ['PutRecords'], share: 0.01 },
      { kind: 'fail-records', operations: ['PutRecords'], share: 0.1 },
    ]);
  const running =
    weather === 'reshard' ? resharding() : weather === 'outage' ? outages() : weather === 'flaky' ? flaky() : Promise.resolve();
  return {
    stop: async () => {
      stopped = true;
      await running;
      if (weather !== 'calm') await setFaults(endpoint, []);
    },
  };
};

/** Members of aggregated records that do not belong to the shard that has their record. */
export const outsideShards = async (endpoint: string): Promise<number> => {
  const client = clientOf(endpoint);
  let outside = 0;
  try {
    const { Shards = [] } = await client.send(new ListShardsCommand({ StreamName: STREAM }));
    for (const { ShardId, HashKeyRange } of Shards) {
      const [from, to] = [BigInt(HashKeyRange!.StartingHashKey!), BigInt(HashKeyRange!.EndingHashKey!)];
      let { ShardIterator } = await client.send(
        new GetShardIteratorCommand({ StreamName: STREAM, ShardId, ShardIteratorType: 'TRIM_HORIZON' }),
      );
      while (ShardIterator) {
        const page = await client.send(new GetRecordsCommand({ ShardIterator }));
        for (const record of page.Records ?? [])
          for (const { explicitHashKey } of deaggregate(record.Data ?? new Uint8Array()) ?? [])
            if (explicitHashKey !== undefined && (BigInt(explicitHashKey) < from || BigInt(explicitHashKey) > to)) outside += 1;
        if ((page.Records ?? []).length === 0 && (page.MillisBehindLatest ?? 0) === 0) break;
        ShardIterator = page.NextShardIterator;
      }
    }
    return outside;
  } finally {
    client.destroy();
  }
};
