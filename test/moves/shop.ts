import { readFileSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import pg from 'pg';
import { parseDocument } from 'yaml';
import { freePort, ROOT, type Workshop } from '../../bench/processes.ts';

/** The demo shop with several gateways, and an account before each side. */
export type MovingShop = {
  readonly replicas: readonly { readonly gateway: string; readonly admin: string }[];
  readonly fronts: { readonly legacy: string; readonly extracted: string };
  readonly adapter: string;
  readonly order: string;
  readonly kinesis: string;
  readonly store: string;
  readonly shop: string;
};

const STREAM = 'domain-events';

const createDatabase = async (server: string, name: string): Promise<string> => {
  const client = new pg.Client({ connectionString: server });
  await client.connect();
  await client.query(`create database ${name}`);
  await client.end();
  return Object.assign(new URL(server), { pathname: `/${name}` }).href;
};

const createStream = async (endpoint: string): Promise<void> => {
  const call = async (target: string, body: object): Promise<string> => {
    const response = await fetch(endpoint, {
      method: 'POST',
      headers: { 'content-type': 'application/x-amz-json-1.1', 'x-amz-target': `Kinesis_20131202.${target}` },
      body: JSON.stringify(body),
    });
    return response.text();
  };
  await call('CreateStream', { StreamName: STREAM, ShardCount: 2 });
  for (let i = 0; i < 200; i++) {
    if ((await call('DescribeStreamSummary', { StreamName: STREAM })).includes('"ACTIVE"')) return;
    await new Promise((done) => setTimeout(done, 25));
  }
  throw new Error('the stream did not become active');
};

/** Real parts all: PostgreSQL, stream, monolith, adapter, order service, `replicas` gateways with `workers` each. The workshop ends them. */
export const openMovingShop = async (workshop: Workshop, replicas: number, workers: number): Promise<MovingShop> => {
  const [postgres, stream] = await Promise.all([
    workshop.startNode('dev/postgres/main.ts', ['--temporary', '--port', '0'], { readyMs: 60_000 }),
    workshop.startNode('dev/kinesis/main.ts', ['--host', '127.0.0.1', '--port', '0', '--data', join(workshop.folder, 'kinesis.log')]),
  ]);
  const server = postgres.urls.postgres!;
  const kinesis = stream.urls.kinesis!;
  const store = await createDatabase(server, 'banyan');
  const shop = await createDatabase(server, 'shop');
  await createStream(kinesis);
  const monolith = await workshop.startNode('dev/monolith/main.ts', ['--port', '0'], { env: { SHOP_DATABASE_URL: shop } });
  const port = String(await freePort());
  const order = `http://127.0.0.1:${port}`;
  const adapter = `http://127.0.0.1:${await freePort()}`;
  const front = async (side: string, to: string): Promise<string> =>
    (await workshop.startNode('test/moves/front.ts', ['--side', side, '--to', to])).urls.upstream!;
  const fronts = { legacy: await front('legacy', monolith.urls.monolith!), extracted: await front('extracted', order) };

  const fileOf = (n: number): string => {
    const doc = parseDocument(readFileSync(join(ROOT, 'dev/stack/demo.yaml'), 'utf8'));
    const set = (path: string, value: unknown): void => doc.setIn(path.split('.'), doc.createNode(value));
    set('listen', '127.0.0.1:0');
    set('admin', { listen: '127.0.0.1:0' });
    set('store', store);
    set('streams', { endpoint: kinesis });
    set('adapter', { url: adapter, legacyDatabase: shop });
    set('legacy', { url: fronts.legacy });
    set('seal', { key: 'the same on every replica' });
    set('log', { level: 'warn' });
    doc.addIn(['contexts', 'order', 'match'], doc.createNode({ path: '/item/:id', methods: ['GET', 'HEAD'] }));
    // a busy machine must not make outcomes unknown, which would have to be waited for
    set('contexts.order.extracted', { url: fronts.extracted, timeouts: { response: '20s' } });
    set('contexts.order.parity', {
      probe: '0%',
      ignore: [{ at: 'header:x-side', because: 'the two sides differ in it on purpose' }],
    });
    const file = join(workshop.folder, `replica-${n}.yaml`);
    writeFileSync(file, doc.toString());
    return file;
  };
  const gateways: { gateway: string; admin: string }[] = [];
  for (let n = 0; n < replicas; n++) {
    const { urls } = await workshop.startNode('gateway/cli/main.ts', ['run', '--config', fileOf(n), '--workers', String(workers)], {
      readyMs: 60_000,
    });
    gateways.push({ gateway: urls.gateway!, admin: urls.admin! });
  }
  await Promise.all([
    workshop.startNode('legacy-adapter/main.ts', ['--config', fileOf(0)], { readyMs: 60_000 }),
    workshop.startNode('extracted-services/run.ts', ['order'], {
      readyMs: 60_000,
      env: { HOST: '127.0.0.1', PORT: port, DATABASE_URL: store, KINESIS_ENDPOINT: kinesis, ADAPTER_URL: adapter, LOG_LEVEL: 'warn' },
    }),
  ]);
  return { replicas: gateways, fronts, adapter, order, kinesis, store, shop };
};
