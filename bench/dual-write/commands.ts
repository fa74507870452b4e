import { openSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import type { Workshop } from '../processes.ts';
import { cpuUs } from '../proxy/usage.ts';
import { median, type Row, round } from '../report.ts';
import { insertRate } from './inserts.ts';

const CONNECTIONS = 64;
const INSERTERS = 8;

type Load = { requests: number; errors: number; seconds: number; p50Ms: number; p99Ms: number; statuses: Record<string, number> };

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

type Measured = { readonly figures: Record<string, number>; readonly table: readonly Row[] };

/**
 * `banyan run` in front of a monolith that costs nothing: commands as fast as they come, beside single-row inserts on the same server, then an open loop at a
 * quarter of that rate with and without the ledger.
 */
export const measureCommands = async (
  shop: Workshop,
  postgres: { readonly pid: number; readonly url: string },
  kinesis: string,
  { seconds, rounds, quick, say }: { seconds: number; rounds: number; quick: boolean; say: (line: string) => void },
): Promise<Measured> => {
  const figures: Record<string, number> = {};
  const table: Row[] = [];
  const stub = await shop.startNode('bench/dual-write/stub.ts', []);
  const gateway = await startGateway(shop, stub.urls.http!, postgres.url, kinesis);
  const ledgered = `${gateway.urls.gateway}/api/orders`;
  const plain = `${gateway.urls.gateway}/plain`;

  await load(shop, ledgered, quick ? 1 : 3, 0.5, null);
  const closed: Load[] = [];
  const inserts: number[] = [];
  for (let i = 0; i < rounds; i++) {
    say(`inserts and commands as fast as they come, round ${i + 1} of ${rounds}`);
    inserts.push(await insertRate(postgres.url, INSERTERS, quick ? 1 : 3));
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
  return { figures, table };
};
