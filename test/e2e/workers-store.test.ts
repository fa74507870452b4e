import { mkdtemp, rm } from 'node:fs/promises';
import { createServer, type Server } from 'node:http';
import type { AddressInfo } from 'node:net';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { CreateStreamCommand } from '@aws-sdk/client-kinesis';
import { startKinesis } from '@banyan/dev-kinesis/emulator.ts';
import { afterAll, beforeAll, expect, it } from '@jest/globals';
import pg from 'pg';
import { type FreshDatabase, freshDatabase } from '../harness/database.ts';
import { writeDemoConfig } from '../harness/demo-config.ts';
import { clientOf, endAll } from '../harness/kinesis-client.ts';
import { childrenOf, type Running, run } from '../harness/processes.ts';
import { until } from '../harness/wait.ts';

/** Two workers that share a store: members like any other replica, with few connections, and a primary that looks after those that die. */

let folder: string;
let store: FreshDatabase;
let db: pg.Client;
let kinesis: Awaited<ReturnType<typeof startKinesis>>;
let legacy: Server;
const late: (() => void)[] = [];
let running: Running;
let urls: Record<string, string>;
beforeAll(async () => {
  folder = await mkdtemp(join(tmpdir(), 'banyan workers store-'));
  store = await freshDatabase('store');
  db = new pg.Client({ connectionString: store.url, application_name: 'the test' });
  await db.connect();
  kinesis = await startKinesis({ limits: { throttle: false } });
  await clientOf(kinesis.url).send(new CreateStreamCommand({ StreamName: 'domain-events', ShardCount: 1 }));
  let last = 0;
  legacy = createServer((req, res) => {
    const answer = (): void => {
      last += 1;
      const body = { id: last, userId: 'user-1', items: [{ productId: 1, quantity: 1 }] };
      res.writeHead(req.method === 'POST' ? 201 : 200, { 'content-type': 'application/json' }).end(JSON.stringify(body));
    };
    req.resume().on('end', () => (req.headers['x-late'] === undefined ? answer() : late.push(answer)));
  });
  await new Promise<void>((done) => void legacy.listen(0, '127.0.0.1', done));
  const file = join(folder, 'banyan.yaml');
  await writeDemoConfig(file, {
    listen: '127.0.0.1:0',
    'admin.listen': '127.0.0.1:0',
    'legacy.url': `http://127.0.0.1:${(legacy.address() as AddressInfo).port}`,
    store: store.url,
    'streams.endpoint': kinesis.url,
  });
  running = run('gateway/cli/main.ts', ['run', '--config', file, '--workers', '2'], {
    cwd: folder,
    env: { DATABASE_URL: undefined, BANYAN_SEAL_KEY: undefined },
  });
  urls = await running.ready(40_000);
}, 180_000);
afterAll(async () => {
  for (const answer of late) answer();
  await running.stop();
  legacy.closeAllConnections();
  await new Promise<void>((done) => void legacy.close(() => done()));
  await kinesis.stop();
  await endAll();
  await db.end();
  await store.drop();
  await rm(folder, { recursive: true, force: true });
}, 180_000);

const ask = (path: string, init: RequestInit = {}): Promise<Response> =>
  fetch(path, { ...init, headers: { connection: 'close', 'content-type': 'application/json', 'x-user-id': 'user-1', ...init.headers } });
const place = (key: string, headers: Record<string, string> = {}): Promise<Response> =>
  ask(`${urls.gateway}/api/orders`, {
    method: 'POST',
    headers: { 'idempotency-key': key, ...headers },
    body: '{"userId":"user-1","items":[{"productId":1,"quantity":1}]}',
  });
const rows = async <T>(sql: string): Promise<T[]> => (await db.query(sql)).rows as T[];

it('are members, with the connections that the documentation says', async () => {
  const answers = await Promise.all(Array.from({ length: 40 }, (_, i) => place(`many-${i}`)));
  expect(new Set(answers.map((one) => one.status))).toEqual(new Set([201]));
  expect(await rows('select id from banyan.member')).toHaveLength(3);
  const used = await rows<{ name: string; n: string }>(
    `select application_name as name, count(*) as n from pg_stat_activity where datname = current_database() and application_name like 'banyan-%' group by 1`,
  );
  const of = (name: string): number => Number(used.find((one) => one.name === name)?.n ?? 0);
  expect(of('banyan-listen')).toBe(3);
  expect(of('banyan-gateway')).toBeLessThanOrEqual(8 + 2 * 4);
  expect(of('banyan-ledger')).toBeLessThanOrEqual(2 * 3);
  expect(of('banyan-relay')).toBeLessThanOrEqual(3);
});

it('publish through the relay of the primary', async () => {
  await until(async () => (await rows(`select from banyan.outbox where published_at is null`)).length === 0, {
    describe: 'every fact to be on the stream',
  });
  const [count] = await rows<{ n: string }>('select count(*) as n from banyan.outbox');
  expect(Number(count!.n)).toBe(40);
  // the backlog is counted once a second
  const metrics = await until(
    async () => {
      const text = await (await ask(`${urls.admin}/metrics`)).text();
      return /^banyan_outbox_depth 0$/m.test(text) ? text : null;
    },
    { describe: 'an empty backlog in the metrics' },
  );
  expect(metrics).toMatch(/^banyan_config_generation 1$/m);
  expect(metrics.match(/^banyan_build_info\{.*$/gm)).toEqual([expect.stringMatching(/ 1$/)]);
  expect(metrics.match(/^banyan_upstream_hosts\{context="none",upstream="legacy",state="healthy"\} .*$/gm)).toEqual([
    expect.stringMatching(/ 1$/),
  ]);
});

it('all serve a change before it is answered', async () => {
  const routes = async (): Promise<Set<string | null>> =>
    new Set(
      (await Promise.all(Array.from({ length: 8 }, () => ask(`${urls.gateway}/api/orders/1`)))).map((one) =>
        one.headers.get('banyan-route'),
      ),
    );
  for (let round = 0; round < 3; round++) {
    await ask(`${urls.admin}/api/v1/contexts/order/kill`, { method: 'POST', body: '{"reason":"the test says so"}' });
    expect(await routes()).toEqual(new Set(['order;upstream=legacy;reason=KILLED;stage=legacy']));
    await ask(`${urls.admin}/api/v1/contexts/order/revive`, { method: 'POST', body: '{"reason":"the test says so"}' });
    expect(await routes()).toEqual(new Set(['order;upstream=legacy;reason=STAGE;stage=legacy']));
  }
});

it('leave no command behind when one dies: it is taken over at once', async () => {
  const broken = Promise.all(
    ['a', 'b'].map((name) =>
      place(`late-${name}`, { 'x-late': '1' }).then(
        (answer) => answer.status,
        () => 'broken',
      ),
    ),
  );
  await until(() => late.length === 2, { describe: 'both commands at the monolith' });
  const [victim] = childrenOf(running.pid);
  process.kill(victim!, 'SIGKILL');
  const states = (): Promise<{ state: string }[]> => rows(`select state from banyan.ledger where idempotency_key like 'late-%'`);
  await until(async () => (await states()).filter(({ state }) => state === 'unknown').length === 1, {
    describe: 'the command of the dead worker to be unknown, the other to go on',
  });
  for (const answer of late.splice(0)) answer();
  expect(new Set(await broken)).toEqual(new Set(['broken', 201]));
  await until(async () => (await rows('select from banyan.member')).length === 3, { describe: 'the successor to be a member' });
});
