import { mkdir, mkdtemp, rm } from 'node:fs/promises';
import type { IncomingMessage } from 'node:http';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { CreateStreamCommand } from '@aws-sdk/client-kinesis';
import { startKinesis } from '@banyan/dev-kinesis/emulator.ts';
import { type FreshDatabase, freshDatabase } from './database.ts';
import { type Changes, writeDemoConfig } from './demo-config.ts';
import { clientOf, endAll } from './kinesis-client.ts';
import { freePort } from './ports.ts';
import { type Running, run } from './processes.ts';
import { type TcpSwitch, tcpSwitch, throughPort } from './tcp-switch.ts';
import { listenOn } from './two-sides.ts';

export type Replica = {
  readonly process: Running;
  readonly gateway: string;
  readonly admin: string;
  /** Where its kill file lies by default. */
  readonly killFile: string;
  /** Between it and the store. */
  readonly store: TcpSwitch;
};

export type TwoGateways = {
  readonly replicas: readonly [Replica, Replica];
  readonly database: FreshDatabase;
  /** Keys of the orders that each side has been sent, in the order they came. */
  readonly placed: { readonly legacy: string[]; readonly extracted: string[] };
  /** Whether the adapter says that everything has reached the other side. */
  level: boolean;
  stop(): Promise<void>;
};

const bodyOf = async (req: IncomingMessage): Promise<string> => {
  let text = '';
  for await (const part of req.setEncoding('utf8')) text += part;
  return text;
};

/**
 * Two gateways over one store, each on a line of its own that can be cut, between stand-ins for monolith, order service and adapter. They know each
 * other as peers; the first one has two workers.
 */
export const openTwoGateways = async (changes: Changes = {}): Promise<TwoGateways> => {
  const folder = await mkdtemp(join(tmpdir(), 'banyan two gateways-'));
  const database = await freshDatabase('store');
  const kinesis = await startKinesis({ limits: { throttle: false } });
  await clientOf(kinesis.url).send(new CreateStreamCommand({ StreamName: 'domain-events', ShardCount: 1 }));
  const placed = { legacy: [] as string[], extracted: [] as string[] };
  const self = { level: true };
  let last = 0;
  const side = (name: 'legacy' | 'extracted') =>
    listenOn((req, res) => {
      void bodyOf(req).then((text) => {
        const json = (status: number, body: object): void =>
          void res.writeHead(status, { 'content-type': 'application/json', 'x-side': name }).end(JSON.stringify(body));
        if (req.url === '/_banyan/consumer')
          return json(200, { lagMs: 0, shards: [{ shardId: 'shardId-000000000000', sequenceNumber: null, ended: true }] });
        if (req.url?.startsWith('/_banyan/')) return json(404, {});
        if (req.method !== 'POST') return json(200, { id: 1, side: name });
        placed[name].push(String(req.headers['idempotency-key']));
        last += 1;
        json(201, { id: last, ...(JSON.parse(text) as object) });
      });
    });
  const adapter = await listenOn((req, res) => {
    req.resume();
    res.writeHead(req.method === 'GET' ? 404 : self.level ? 200 : 504, { 'content-type': 'application/json' }).end('{"passed":true}');
  });
  const [legacy, extracted] = await Promise.all([side('legacy'), side('extracted')]);
  const server = new URL(database.url);
  const admins = [await freePort(), await freePort()];
  const startReplica = async (n: 0 | 1): Promise<Replica> => {
    const store = await tcpSwitch({ host: server.hostname, port: Number(server.port) });
    const file = join(folder, `${n}`, 'banyan.yaml');
    await mkdir(join(folder, `${n}`));
    await writeDemoConfig(file, {
      listen: '127.0.0.1:0',
      'admin.listen': `127.0.0.1:${admins[n]}`,
      'admin.peers': [`http://127.0.0.1:${admins[1 - n]}`],
      'legacy.url': legacy.url,
      'contexts.order.extracted.url': extracted.url,
      'adapter.url': adapter.url,
      store: throughPort(database.url, store.port),
      'streams.endpoint': kinesis.url,
      'flags.maxStale': '2s',
      'seal.key': 'the same on both',
      ...changes,
    });
    const process = run('gateway/cli/main.ts', ['run', '--config', file, ...(n === 0 ? ['--workers', '2'] : [])], {
      cwd: folder,
      env: { DATABASE_URL: undefined, BANYAN_SEAL_KEY: undefined },
    });
    const urls = await process.ready(60_000);
    return { process, gateway: urls.gateway!, admin: urls.admin!, killFile: join(folder, `${n}`, '.banyan', 'kill'), store };
  };
  const replicas = (await Promise.all([startReplica(0), startReplica(1)])) as [Replica, Replica];
  return Object.assign(self, {
    replicas,
    database,
    placed,
    async stop() {
      await Promise.all(replicas.map((one) => one.process.stop('SIGTERM', 40_000)));
      await Promise.all([...replicas.map((one) => one.store.stop()), legacy.stop(), extracted.stop(), adapter.stop(), kinesis.stop()]);
      await endAll();
      await database.drop();
      await rm(folder, { recursive: true, force: true });
    },
  });
};
