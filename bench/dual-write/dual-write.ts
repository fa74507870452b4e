import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { openSync, writeFileSync } from 'node:fs';
import { createRequire } from 'node:module';
import { join } from 'node:path';
import { CreateStreamCommand, DescribeStreamSummaryCommand, KinesisClient } from '@aws-sdk/client-kinesis';
import { NodeHttpHandler } from '@smithy/node-http-handler';
import { openWorkshop, ROOT, type Workshop } from '../processes.ts';
import { cpuUs } from '../proxy/usage.ts';
import { type BenchOptions, machine, median, type Report, type Row, round } from '../report.ts';
import { measureCodec } from './codec.ts';
import { insertRate } from './inserts.ts';
import { fillOutbox, makeFacts } from './outbox.ts';

const CONNECTIONS = 64;
const INSERTERS = 8;

type Load = { requests: number; errors: number; seconds: number; p50Ms: number; p99Ms: number; statuses: Record<string, number> };
type Relayed = { facts: number; records: number; bytes: number; wallSeconds: number; cpuSeconds: number };
type Storm = {
  commands: number;
  kills: number;
  lost: number;
  phantom: number;
  doubled: number;
  acked_missing: number;
  out_of_order: number;
};

/** Created and ACTIVE. */
const createStream = async (endpoint: string, name: string, shards: number): Promise<void> => {
  const client = new KinesisClient({
    endpoint,
    region: 'eu-west-1',
    credentials: { accessKeyId: 'bench', secretAccessKey: 'bench' },
    requestHandler: new NodeHttpHandler(),
  });
  try {
    await client.send(new CreateStreamCommand({ StreamName: name, ShardCount: shards }));
    for (let tries = 0; tries < 200; tries++) {
      const { StreamDescriptionSummary } = await client.send(new DescribeStreamSummaryCommand({ StreamName: name }));
      if (StreamDescriptionSummary?.StreamStatus === 'ACTIVE') return;
      await new Promise((resolve) => setTimeout(resolve, 50));
    }
    throw new Error(`stream ${name} is not active after 10 s`);
  } finally {
    client.destroy();
  }
};

const startGateway = async (shop: Workshop, legacy: string, store: string, kinesis: string) => {
  const file = join(shop.folder, 'banyan.yaml');
  writeFileSync(
    file,
    JSON.stringify({
      version: 1,
      legacy: { url: legacy },
      store,
      streams: { endpoint: kinesis, region: 'eu-west-1' },
      contexts: {
        order: {
          else: 'legacy',
          match: [{ path: '/api/orders', methods: ['POST'], writes: { idempotency: 'key' } }],
          publisher: 'ledger',
          events: [
            {
              when: 'POST /api/orders 2xx',
              type: 'order.placed.v1',
              aggregate: '$.response.body.id',
              data: {
                id: '$.response.body.id',
                userId: '$.request.body.userId',
                items: '$.request.body.items',
                ref: 'header:idempotency-key',
              },
            },
          ],
        },
      },
    }),
  );
  const log = openSync(join(shop.folder, 'gateway.log'), 'w');
  return shop.startNode('gateway/cli/main.ts', ['run', '--config', file, '--listen', '127.0.0.1:0', '--admin-listen', '127.0.0.1:0'], {
    stdout: log,
  });
};

const load = async (
  shop: Workshop,
  url: string,
  seconds: number,
  warm: number,
  rate: number | null,
  connections = CONNECTIONS,
): Promise<Load> => {
  const flags = ['--seconds', String(seconds), '--warm', String(warm), '--connections', String(connections)];
  const output = await shop.run(
    process.execPath,
    [join(import.meta.dirname, 'client.ts'), url, ...flags, ...(rate === null ? [] : ['--rate', String(rate)])],
    { timeoutMs: (seconds + warm + 30) * 1000 },
  );
  return JSON.parse(output) as Load;
};

/** The storm is a program of the tests, run as a stranger would. */
const storm = async (minutes: number, say: (line: string) => void): Promise<Storm> => {
  const child = spawn(process.execPath, [join(ROOT, 'test/faults/run.ts'), '--seed', '1', '--minutes', String(minutes), '--json'], {
    stdio: ['ignore', 'pipe', 'pipe'],
  });
  let output = '';
  child.stdout.setEncoding('utf8').on('data', (text: string) => {
    output += text;
  });
  child.stderr.setEncoding('utf8').on('data', (text: string) => say(text.trimEnd()));
  await once(child, 'close');
  const last = output.trim().split('\n').at(-1) ?? '';
  try {
    return JSON.parse(last) as Storm;
  } catch {
    throw new Error(`the storm gave no report: ${last.slice(0, 300)}`);
  }
};

const versions = (): Record<string, string> => {
  const require = createRequire(import.meta.url);
  const of = (name: string): string => (require(`${name}/package.json`) as { version: string }).version;
  return { pg: of('pg'), knex: of('knex') };
};

/**
 * The dual write alone: `banyan run` in front of a monolith that costs nothing, embedded PostgreSQL with fsync, the Kinesis emulator. In the same run, on the
 * same server, single-row inserts show what the disk gives anybody.
 */
export const benchDualWrite = async ({ quick, say }: BenchOptions): Promise<Report> => {
  const seconds = quick ? 2 : 5;
  const rounds = quick ? 1 : 3;
  const about = machine();
  const table: Row[] = [];
  const missing: string[] = [];
  const figures: Record<string, number> = {};
  const shop = openWorkshop();
  try {
    say('codec');
    const codec = measureCodec(quick ? 1 : 5, quick ? 200 : 400);
    figures.codec_events_per_s = Math.min(codec.encode, codec.decode);
    table.push({ what: 'codec: encode, 200 B', per_s: codec.encode }, { what: 'codec: decode, 200 B', per_s: codec.decode });

    const postgres = await shop.startNode('dev/postgres/main.ts', ['--temporary', '--port', '0']);
    const store = postgres.urls.postgres!;
    const kinesis = await shop.startNode('dev/kinesis/main.ts', ['--port', '0', '--no-throttle', '--data', join(shop.folder, 'kinesis')]);
    await createStream(kinesis.urls.kinesis!, 'domain-events', 4);
    const stub = await shop.startNode('bench/dual-write/stub.ts', []);
    const gateway = await startGateway(shop, stub.urls.http!, store, kinesis.urls.kinesis!);
    const ledgered = `${gateway.urls.gateway}/api/orders`;
    const plain = `${gateway.urls.gateway}/plain`;

    await load(shop, ledgered, quick ? 1 : 3, 0.5, null);
    const closed: Load[] = [];
    const inserts: number[] = [];
    for (let i = 0; i < rounds; i++) {
      say(`inserts and commands as fast as they come, round ${i + 1} of ${rounds}`);
      inserts.push(await insertRate(store, INSERTERS, quick ? 1 : 3));
      const before = [gateway, postgres].map(({ pid }) => cpuUs(pid));
      const one = await load(shop, ledgered, seconds, 1, null);
      const after = [gateway, postgres].map(({ pid }) => cpuUs(pid));
      closed.push(one);
      const all = one.requests * ((seconds + 1) / seconds);
      table.push({
        what: `commands, closed loop, ${CONNECTIONS} connections`,
        per_s: Math.round(one.requests / one.seconds),
        p50_ms: one.p50Ms,
        p99_ms: one.p99Ms,
        errors: one.errors,
        gateway_us: Math.round((after[0]! - before[0]!) / all),
        postgres_us: Math.round((after[1]! - before[1]!) / all),
      });
    }
    figures.commands_per_s = Math.round(median(closed.map((one) => one.requests / one.seconds)));
    figures.inserts_per_s = Math.round(median(inserts));
    figures.commands_over_inserts = round(figures.commands_per_s / figures.inserts_per_s, 2);
    table.push({ what: `single-row inserts, ${INSERTERS} connections`, per_s: figures.inserts_per_s });

    const rate = Math.max(1, Math.floor(figures.commands_per_s / 4));
    const added: number[] = [];
    for (let i = 0; i < rounds; i++) {
      say(`an open loop at ${rate}/s, round ${i + 1} of ${rounds}`);
      const without = await load(shop, plain, seconds, 1, rate);
      const withLedger = await load(shop, ledgered, seconds, 1, rate);
      added.push(withLedger.p99Ms - without.p99Ms);
      for (const [what, one] of [
        [`plain proxying at ${rate}/s`, without],
        [`commands at ${rate}/s`, withLedger],
      ] as const)
        table.push({ what, per_s: Math.round(one.requests / one.seconds), p50_ms: one.p50Ms, p99_ms: one.p99Ms, errors: one.errors });
    }
    figures.p99_added_ms = round(median(added), 2);
    figures.command_errors = closed.reduce((sum, one) => sum + one.errors, 0);
    await gateway.stop();
    await stub.stop();

    const facts = quick ? 20_000 : 200_000;
    const relayed: Relayed[] = [];
    await makeFacts(store, 'order', facts, 5_000);
    for (let i = 0; i < rounds; i++) {
      say(`${facts} facts through the relay, round ${i + 1} of ${rounds}`);
      const stream = `relay-${i}`;
      await createStream(kinesis.urls.kinesis!, stream, 16);
      await fillOutbox(store);
      const output = await shop.run(
        process.execPath,
        [
          join(import.meta.dirname, 'relay.ts'),
          '--store',
          store,
          '--endpoint',
          kinesis.urls.kinesis!,
          '--stream',
          stream,
          '--facts',
          String(facts),
        ],
        { timeoutMs: 120_000 },
      );
      const one = JSON.parse(output) as Relayed;
      relayed.push(one);
      table.push({
        what: 'relay, outbox preloaded (per second of its processor time)',
        per_s: Math.round(one.facts / one.cpuSeconds),
        wall_per_s: Math.round(one.facts / one.wallSeconds),
        facts_per_put_unit: round(one.facts / one.records, 1),
        bytes_per_fact: Math.round(one.bytes / one.facts),
      });
    }
    figures.events_per_s = Math.round(median(relayed.map((one) => one.facts / one.cpuSeconds)));
    figures.put_unit_ratio = round(median(relayed.map((one) => one.facts / one.records)), 1);
    await kinesis.stop();
    await postgres.stop();
  } finally {
    await shop.close();
  }
  const minutes = quick ? 0.1 : 0.25;
  say(`a storm of ${minutes} minutes`);
  try {
    const { lost, phantom, doubled, acked_missing, out_of_order, commands, kills } = await storm(minutes, say);
    Object.assign(figures, { lost, phantom, doubled, acked_missing, out_of_order });
    table.push({ what: `storm: ${commands} commands, ${kills} kills`, errors: lost + phantom + doubled + acked_missing + out_of_order });
  } catch (error) {
    missing.push(`storm: ${error instanceof Error ? error.message : String(error)}`);
  }
  return { name: 'dual-write', machine: about, figures, table, missing, versions: versions() };
};
