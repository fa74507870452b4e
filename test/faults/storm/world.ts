import { readFileSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { setTimeout as pause } from 'node:timers/promises';
import { CreateStreamCommand, DescribeStreamSummaryCommand, KinesisClient } from '@aws-sdk/client-kinesis';
import { NodeHttpHandler } from '@smithy/node-http-handler';
import { freePort, type Workshop } from '../../../bench/processes.ts';
import { type Kept, keep } from './kept.ts';
import { query } from './query.ts';

export const TYPES = { order: 'storm.ordered.v1', entry: 'storm.entered.v1', note: 'storm.noted.v1', rush: 'storm.rushed.v1' } as const;
const GATEWAYS = 2;

const event = (when: string, type: string, aggregate: string, mode: 'ledger' | 'tentative') => ({
  when,
  type,
  aggregate,
  data: mode === 'tentative' ? { ref: 'header:idempotency-key' } : { ref: 'header:idempotency-key', n: '$.response.body.n' },
  mode,
});

const configOf = (legacy: string, store: string, kinesis: string, publisher: 'ledger' | 'capture', keyless: boolean): object => {
  const writes = {
    idempotency: keyless ? 'none' : 'key',
    settle: '2s',
    deadline: '4s',
    // an opaque monolith cannot be asked either
    resolve: keyless ? null : { get: '/find?ref={key}', applied: '$[0].id', body: '$[0]', status: 201 },
  };
  // their answer names no aggregate: the event cannot be built
  const rushes = {
    resolve: { get: '/find?ref={key}', applied: '$[0].ref', body: '$[0]', status: 201 },
    compensate: 'DELETE /api/rushes/{key}',
  };
  return {
    version: 1,
    drain: '1s',
    legacy: { url: legacy, timeouts: { response: '1s' } },
    store,
    streams: { endpoint: kinesis, region: 'eu-west-1' },
    contexts: {
      order: {
        else: 'legacy',
        publisher,
        match: [
          { path: '/api/orders', methods: ['POST'], writes },
          { path: '/api/accounts/:id/entries', methods: ['POST'], writes },
          { path: '/api/notes/:id', methods: ['PUT'], writes },
          ...(publisher === 'ledger' && !keyless ? [{ path: '/api/rushes', methods: ['POST'], writes: { ...writes, ...rushes } }] : []),
        ],
        events: [
          event('POST /api/orders 2xx', TYPES.order, '$.response.body.id', 'ledger'),
          ...(publisher === 'ledger' && !keyless ? [event('POST /api/rushes 2xx', TYPES.rush, '$.response.body.id', 'ledger')] : []),
          event('POST /api/accounts/:id/entries 2xx', TYPES.entry, '$.params.id', 'ledger'),
          event('PUT /api/notes/:id 2xx', TYPES.note, '$.params.id', publisher === 'ledger' ? 'tentative' : 'ledger'),
        ],
      },
    },
  };
};

export const createStream = async (endpoint: string, shards = 4): Promise<void> => {
  const client = new KinesisClient({
    endpoint,
    region: 'eu-west-1',
    credentials: { accessKeyId: 'test', secretAccessKey: 'test' },
    requestHandler: new NodeHttpHandler(),
  });
  await client.send(new CreateStreamCommand({ StreamName: 'domain-events', ShardCount: shards }));
  for (let tries = 0; tries < 100; tries++) {
    const { StreamDescriptionSummary } = await client.send(new DescribeStreamSummaryCommand({ StreamName: 'domain-events' }));
    if (StreamDescriptionSummary?.StreamStatus === 'ACTIVE') break;
    await pause(50);
  }
  client.destroy();
};

export type World = {
  readonly urls: readonly string[];
  readonly gateways: readonly Kept[];
  readonly store: string | null;
  readonly stop: () => Promise<void>;
  readonly postmaster: () => number | null;
};

export const startBanyan = async (
  shop: Workshop,
  legacy: string,
  kinesis: string,
  publisher: 'ledger' | 'capture',
  keyless: boolean,
): Promise<World> => {
  const port = await freePort();
  const data = join(shop.folder, 'postgres');
  const postgres = keep(() => shop.startNode('dev/postgres/main.ts', ['--data-dir', data, '--port', String(port)]));
  const store = `postgres://postgres@127.0.0.1:${port}/postgres`;
  for (let tries = 0; ; tries++) {
    try {
      await query(store, 'select 1');
      break;
    } catch (error) {
      if (tries > 300) throw error;
      await pause(100);
    }
  }
  const [{ directory }] = (await query<{ directory: string }>(
    store,
    "select setting as directory from pg_settings where name = 'data_directory'",
  )) as [{ directory: string }];
  const file = join(shop.folder, 'banyan.yaml');
  writeFileSync(file, JSON.stringify(configOf(legacy, store, kinesis, publisher, keyless)));
  const ports = await Promise.all(Array.from({ length: GATEWAYS }, freePort));
  const gateways = ports.map((own) =>
    keep(() =>
      shop.startNode('gateway/cli/main.ts', ['run', '--config', file, '--listen', `127.0.0.1:${own}`, '--admin-listen', '127.0.0.1:0']),
    ),
  );
  return {
    urls: ports.map((own) => `http://127.0.0.1:${own}`),
    gateways,
    store,
    postmaster: () => {
      try {
        return Number(readFileSync(join(directory, 'postmaster.pid'), 'utf8').split('\n')[0]) || null;
      } catch {
        return null;
      }
    },
    stop: async () => {
      await Promise.all(gateways.map((one) => one.stop()));
      await postgres.stop();
    },
  };
};

export const startNaive = async (shop: Workshop, legacy: string, kinesis: string): Promise<World> => {
  const ports = await Promise.all(Array.from({ length: GATEWAYS }, freePort));
  const gateways = ports.map((own) => keep(() => shop.startNode('bench/naive-dual-write/main.ts', [String(own), legacy, kinesis])));
  return {
    urls: ports.map((own) => `http://127.0.0.1:${own}`),
    gateways,
    store: null,
    postmaster: () => null,
    stop: async () => void (await Promise.all(gateways.map((one) => one.stop()))),
  };
};

export const answering = async (urls: readonly string[]): Promise<void> => {
  for (const url of urls)
    for (let tries = 0; ; tries++) {
      try {
        await fetch(`${url}/find?ref=none`);
        break;
      } catch (error) {
        if (tries > 600) throw error;
        await pause(50);
      }
    }
};
