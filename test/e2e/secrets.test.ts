import { mkdtemp, rm } from 'node:fs/promises';
import { type IncomingMessage, request, type ServerResponse } from 'node:http';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { gzipSync } from 'node:zlib';
import { CreateStreamCommand, GetRecordsCommand, GetShardIteratorCommand } from '@aws-sdk/client-kinesis';
import { type Kinesis, startKinesis } from '@banyan/dev-kinesis/emulator.ts';
import { afterAll, beforeAll, expect, it } from '@jest/globals';
import knex, { type Knex } from 'knex';
import { createRandom } from '../../bench/random.ts';
import { type FreshDatabase, freshDatabase } from '../harness/database.ts';
import { writeDemoConfig } from '../harness/demo-config.ts';
import { clientOf, endAll, SHARD_0 } from '../harness/kinesis-client.ts';
import { type Running, run } from '../harness/processes.ts';
import { type Listening, listenOn } from '../harness/two-sides.ts';
import { until } from '../harness/wait.ts';

/** Scenario 28 on a whole gateway: what it writes anywhere is searched for every secret that went through it. */

const ROUNDS = 70;
const random = createRandom(2_028);
const secrets: string[] = [];
const LETTERS = 'ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789';
const secret = (length = 14): string => {
  const text = Array.from({ length }, () => LETTERS[Math.floor(random() * LETTERS.length)]).join('');
  secrets.push(text);
  return text;
};
const jwt = (): string => `eyJhbGciOiJIUzI1NiJ9.eyJ${secret(20)}.${secret(30)}`;

let folder: string;
let database: FreshDatabase;
let db: Knex;
let kinesis: Kinesis;
let sides: readonly Listening[];
let gateway: Running;
let urls: Record<string, string>;

let last = 0;
/** Answers that differ between the sides, with secrets of their own. */
const answer = (side: string) => (req: IncomingMessage, res: ServerResponse) => {
  req.resume().on('end', () => {
    if (req.url === '/_banyan/dry-run')
      return void res.writeHead(200, { 'content-type': 'application/json' }).end('{"dryRun":true,"ids":"stable"}');
    if (req.url!.includes('/lost')) return void req.socket.destroy();
    last += 1;
    const order = {
      id: `${side}-${last}`,
      userId: 'user-1',
      items: [{ productId: 1, quantity: 1 }],
      total: 5,
      currency: 'EUR',
      createdAt: new Date().toISOString(),
      status: 'placed',
      apiKey: secret(),
      user: { password: secret(), deep: [{ card: secret() }] },
      note: `you are ${String(req.headers.authorization ?? '')}`,
      n: random(),
    };
    const zipped = last % 2 === 0;
    const body = Buffer.from(JSON.stringify(order));
    res.writeHead(req.method === 'POST' ? 201 : 200, {
      'content-type': 'application/json',
      'set-cookie': `session=${secret()}; Path=/; HttpOnly`,
      'banyan-dry-run': '1',
      ...(zipped ? { 'content-encoding': 'gzip' } : {}),
    });
    res.end(zipped && req.method === 'GET' ? gzipSync(body) : body);
  });
};

beforeAll(async () => {
  folder = await mkdtemp(join(tmpdir(), 'banyan secrets-'));
  database = await freshDatabase('store');
  db = knex({ client: 'pg', connection: database.url, pool: { min: 0, max: 2 } });
  kinesis = await startKinesis({ limits: { throttle: false } });
  await clientOf(kinesis.url).send(new CreateStreamCommand({ StreamName: 'domain-events', ShardCount: 1 }));
  sides = await Promise.all(['l', 'e'].map((side) => listenOn(answer(side))));
  const file = join(folder, 'banyan.yaml');
  await writeDemoConfig(file, {
    listen: '127.0.0.1:0',
    'admin.listen': '127.0.0.1:0',
    'legacy.url': sides[0]!.url,
    'contexts.order.extracted.url': sides[1]!.url,
    'contexts.order.stage': 'shadow',
    'contexts.order.pin': '1ms',
    'contexts.order.shadow': { maxPerSecond: 10_000 },
    'contexts.order.parity': { probe: '20%', dryRun: '100%', aliases: true },
    store: database.url,
    'streams.endpoint': kinesis.url,
    'seal.key': 'of this test alone',
    'log.level': 'trace',
    // the default, and what this shop calls its own
    redact: ['header:authorization', 'header:cookie', 'header:set-cookie', 'query:token', '$..password', '$..card', '$..apiKey'],
  });
  gateway = run('gateway/cli/main.ts', ['run', '--config', file], {
    cwd: folder,
    env: { DATABASE_URL: undefined, BANYAN_SEAL_KEY: undefined },
  });
  urls = await gateway.ready(60_000);
});
afterAll(async () => {
  await gateway?.stop('SIGTERM', 40_000);
  await Promise.all([...(sides ?? []).map((side) => side.stop()), kinesis?.stop()]);
  await endAll();
  await db?.destroy();
  await database?.drop();
  await rm(folder, { recursive: true, force: true });
});

const send = (method: string, path: string, headers: Readonly<Record<string, string>>, body: string | Buffer = ''): Promise<number> =>
  new Promise((resolve) => {
    const outgoing = request(
      `${urls.gateway}${path}`,
      { method, headers: { 'content-length': String(Buffer.byteLength(body)), ...headers } },
      (res) => res.resume().on('end', () => resolve(res.statusCode!)),
    );
    outgoing.on('error', () => resolve(0));
    outgoing.end(body);
  });

it('writes none of 1,000 secrets to its log, metrics, stream, exports or any table', async () => {
  for (let i = 0; i < ROUNDS; i++) {
    const headers = { authorization: `Bearer ${secret()}`, cookie: `session=${secret()}; theme=dark`, 'x-user-id': `u-${i}` };
    const query = `token=${secret()}&jwt=${jwt()}`;
    await send('GET', `/api/orders/${i}?${query}`, headers);
    if (i % 10 === 0) await send('GET', `/api/orders/reset/${jwt()}?${query}`, headers);
    if (i % 10 === 5) await send('GET', `/api/orders/lost?${query}`, headers);
    const form = `--xx\r\nContent-Disposition: form-data; name="password"\r\n\r\n${secret()}\r\n--xx--\r\n`;
    const json = JSON.stringify({ userId: 'user-1', items: [], password: secret(), payment: { card: secret() } });
    const bodies: readonly (readonly [string, string | Buffer, Record<string, string>])[] = [
      ['application/json', json, {}],
      ['multipart/form-data; boundary=xx', form, {}],
      ['application/json', gzipSync(json), { 'content-encoding': 'gzip' }],
    ];
    const [type, body, more] = bodies[i % bodies.length]!;
    await send('POST', `/api/orders?${query}`, { ...headers, 'content-type': type, 'idempotency-key': `k-${i}`, ...more }, body);
    if (i % 20 === 7) await send('POST', `/api/orders/lost-${i}/cancel?${query}`, { ...headers, 'idempotency-key': `l-${i}` });
  }
  expect(secrets.length).toBeGreaterThanOrEqual(1_000);

  const counted = async (what: string): Promise<number> =>
    Number((await db('banyan.parity_count').where({ context: 'order', what }).sum<{ sum: string | null }[]>('n'))[0]!.sum ?? 0);
  await until(async () => (await counted('noise')) > 20 && (await counted('dry-run')) > 20, {
    describe: 'judged pairs',
    timeoutMs: 25_000,
  });
  const client = clientOf(kinesis.url);
  const records = await until(
    async () => {
      const { ShardIterator } = await client.send(
        new GetShardIteratorCommand({ StreamName: 'domain-events', ShardId: SHARD_0, ShardIteratorType: 'TRIM_HORIZON' }),
      );
      const { Records } = await client.send(new GetRecordsCommand({ ShardIterator }));
      return Records !== undefined && Records.length > 0 && Records;
    },
    { describe: 'facts on the stream', timeoutMs: 25_000 },
  );

  const places: Record<string, string> = {
    stream: records.map(({ Data, PartitionKey }) => `${PartitionKey} ${Buffer.from(Data!).toString('latin1')}`).join('\n'),
    metrics: await (await fetch(`${urls.admin}/metrics`)).text(),
  };
  const api = async (path: string): Promise<string> => (await fetch(`${urls.admin}/api/v1${path}`)).text();
  const pairs = (JSON.parse(await api('/pairs?limit=200')) as { items: { id: string }[] }).items;
  const exports = [
    '/contexts',
    '/contexts/order/parity',
    '/contexts/order/parity/hours',
    '/contexts/order/parity/latency',
    '/ledger?limit=500',
    '/audit',
    '/traffic',
    '/streams',
  ];
  places.exports = (await Promise.all([...exports, ...pairs.map(({ id }) => `/pairs/${id}`)].map(api))).join('\n');
  const { rows: tables } = await db.raw<{ rows: { name: string }[] }>(
    `select format('%I.%I', table_schema, table_name) as name from information_schema.tables where table_schema not in ('pg_catalog', 'information_schema') and table_type = 'BASE TABLE'`,
  );
  const dumps: string[] = [];
  for (const { name } of tables) {
    const { rows } = await db.raw<{ rows: { text: string }[] }>(`select t::text as text from ${name} t`);
    dumps.push(...rows.map(({ text }) => `${name} ${text}`));
  }
  places.database = dumps.join('\n');
  places.log = gateway.lines.join('\n');

  // each place was really written to
  expect(pairs.length).toBeGreaterThan(10);
  expect(dumps.some((row) => row.startsWith('banyan.parity_pair '))).toBe(true);
  expect(gateway.lines.filter((line) => line.includes('"route":"POST /api/orders"')).length).toBe(ROUNDS);
  expect(places.stream!.includes('order.placed.v1')).toBe(true);
  expect(places.metrics!.includes('banyan_parity_comparisons_total')).toBe(true);
  const found = Object.entries(places).flatMap(([place, text]) =>
    secrets
      .filter(
        (one) =>
          text.includes(one) ||
          text.includes(Buffer.from(one).toString('hex')) ||
          text.includes(Buffer.from(one).toString('base64').replace(/=+$/, '')),
      )
      .map((one) => `${place}: ${/.{0,60}/.exec(text.slice(Math.max(0, text.indexOf(one) - 60)))![0]}`),
  );
  expect(found.slice(0, 5)).toEqual([]);
});
