import { readFileSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { setTimeout as pause } from 'node:timers/promises';
import { CreateStreamCommand, DescribeStreamSummaryCommand, KinesisClient } from '@aws-sdk/client-kinesis';
import { NodeHttpHandler } from '@smithy/node-http-handler';
import pg from 'pg';
import { freePort, openWorkshop, type Started, type Workshop } from '../../../bench/processes.ts';
import { readFacts } from '../../harness/facts.ts';
import { check, type Holes } from './check.ts';
import { startClients, type Told } from './clients.ts';
import { type Effect, type Legacy, startLegacy } from './legacy.ts';
import { randomOf } from './random.ts';

export type StormOptions = {
  readonly seed: number;
  readonly seconds: number;
  readonly perSecond: number;
  readonly publisher: 'ledger' | 'capture';
  /** The naive pattern instead of the gateway. */
  readonly naive: boolean;
  /** Clients never repeat a key: what nobody asks for again shows what the pattern alone leaves behind. */
  readonly once: boolean;
  /** Kill anything at all? A failpoint may do it instead. */
  readonly kills: boolean;
  /** Never less than so many commands, however long that takes (at most ten times `seconds`). */
  readonly leastCommands: number;
  readonly say: (line: string) => void;
};

export type StormReport = Holes & {
  readonly publisher: string;
  readonly commands: number;
  readonly effects: number;
  readonly kills: number;
  readonly gave_up: number;
  readonly gave_up_after: readonly string[];
  /** From the end of the storm to the last fact on the stream and the last answer. */
  readonly calm_seconds: number;
  /** Facts that the stream has more than once; readers drop them. */
  readonly repeats_on_stream: number;
  readonly parked: number;
  readonly parked_reasons: readonly string[];
  /** Rows of the ledger that neither ended nor wait for a person. */
  readonly not_terminal: number;
};

const GATEWAYS = 2;
const CALM_MS = 90_000;
const TYPES = { order: 'storm.ordered.v1', entry: 'storm.entered.v1', note: 'storm.noted.v1' } as const;

const event = (when: string, type: string, aggregate: string, mode: 'ledger' | 'tentative') => ({
  when,
  type,
  aggregate,
  data: mode === 'tentative' ? { ref: 'header:idempotency-key' } : { ref: 'header:idempotency-key', n: '$.response.body.n' },
  mode,
});

const configOf = (legacy: string, store: string, kinesis: string, publisher: 'ledger' | 'capture'): object => {
  const writes = {
    idempotency: 'key',
    settle: '2s',
    deadline: '4s',
    resolve: { get: '/find?ref={key}', applied: '$[0].id', body: '$[0]', status: 201 },
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
        ],
        events: [
          event('POST /api/orders 2xx', TYPES.order, '$.response.body.id', 'ledger'),
          event('POST /api/accounts/:id/entries 2xx', TYPES.entry, '$.params.id', 'ledger'),
          event('PUT /api/notes/:id 2xx', TYPES.note, '$.params.id', publisher === 'ledger' ? 'tentative' : 'ledger'),
        ],
      },
    },
  };
};

const createStream = async (endpoint: string): Promise<void> => {
  const client = new KinesisClient({
    endpoint,
    region: 'eu-west-1',
    credentials: { accessKeyId: 'test', secretAccessKey: 'test' },
    requestHandler: new NodeHttpHandler(),
  });
  await client.send(new CreateStreamCommand({ StreamName: 'domain-events', ShardCount: 4 }));
  for (let tries = 0; tries < 100; tries++) {
    const { StreamDescriptionSummary } = await client.send(new DescribeStreamSummaryCommand({ StreamName: 'domain-events' }));
    if (StreamDescriptionSummary?.StreamStatus === 'ACTIVE') break;
    await pause(50);
  }
  client.destroy();
};

/** A process that is started again whenever it ends. */
type Kept = {
  readonly pid: () => number | null /** Since it was ready; 0 = it is not. */;
  readonly upMs: () => number;
  readonly stop: () => Promise<void>;
};
const keep = (start: () => Promise<Started>): Kept => {
  let current: Started | null = null;
  let readyAt = 0;
  let stopped = false;
  const run = async (): Promise<void> => {
    while (!stopped) {
      try {
        const started = await start();
        current = started;
        readyAt = performance.now();
        if (stopped) await started.stop();
        else if (started.child.exitCode === null && started.child.signalCode === null)
          await new Promise((resolve) => started.child.once('exit', resolve));
      } catch {
        await pause(100);
      }
      current = null;
    }
  };
  const running = run();
  return {
    pid: () => current?.pid ?? null,
    upMs: () => (current === null ? 0 : performance.now() - readyAt),
    stop: async () => {
      stopped = true;
      await current?.stop();
      await running;
    },
  };
};

const query = async <T extends object>(url: string, sql: string, values: unknown[] = []): Promise<T[]> => {
  const client = new pg.Client({ connectionString: url, connectionTimeoutMillis: 2_000, statement_timeout: 10_000 });
  client.on('error', () => undefined);
  try {
    await client.connect();
    return (await client.query<T>(sql, values)).rows;
  } finally {
    await client.end().catch(() => undefined);
  }
};

/** What an adapter does: tells the store of every change in its order, again until it is taken. */
const startCapture = (store: string, legacy: Legacy): { finish: () => Promise<void> } => {
  let finished = false;
  const tell = async (client: pg.Client, { key, kind, subject, n }: Effect): Promise<boolean> => {
    const { rows } = await client.query<{ said: string }>(
      "select banyan.observe_change('order', 'capture', 'change', $1, $2, $3::jsonb, $4, $5) as said",
      [TYPES[kind], subject, JSON.stringify({ ref: key, n }), key, `change-${n}`],
    );
    return rows[0]!.said !== 'wait';
  };
  const run = async (): Promise<void> => {
    let next = 0;
    const idle = () => finished && next >= legacy.changes.length;
    while (!idle()) {
      const client = new pg.Client({ connectionString: store, connectionTimeoutMillis: 2_000, statement_timeout: 10_000 });
      client.on('error', () => undefined);
      try {
        await client.connect();
        while (!idle()) {
          const change = legacy.changes[next];
          if (change && (await tell(client, change))) next += 1;
          else await pause(10);
        }
      } catch {
        await pause(50);
      } finally {
        await client.end().catch(() => undefined);
      }
    }
  };
  const running = run();
  return {
    finish: () => {
      finished = true;
      return running;
    },
  };
};

/** Longer than a lease: who was stopped comes back when another has its lanes. */
const STOPPED_MS = 6_000;

/** Lets gateways that a failpoint stopped go on, later. */
const startWaking = (gateways: readonly Kept[]): { stop: () => void } => {
  const since = new Map<number, number>();
  const timer = setInterval(() => {
    for (const pid of gateways.map((one) => one.pid())) {
      if (pid === null) continue;
      try {
        const stat = readFileSync(`/proc/${pid}/stat`, 'latin1');
        if (stat.slice(stat.lastIndexOf(')') + 2)[0] !== 'T') since.delete(pid);
        else if (!since.has(pid)) since.set(pid, performance.now());
        else if (performance.now() - since.get(pid)! > STOPPED_MS) process.kill(pid, 'SIGCONT');
      } catch {
        since.delete(pid);
      }
    }
  }, 250);
  return { stop: () => clearInterval(timer) };
};

/** A gateway that is killed as soon as it is up does nothing that could go wrong. */
const LEAST_UP_MS = 500;

/** Kills in turn what runs, every 150 to 300 ms: mostly a gateway, and with it its relay; now and then PostgreSQL, a backend of it or the whole. */
const startKills = (
  seed: number,
  gateways: readonly Kept[],
  store: string,
  postmaster: () => number | null,
): { count: () => number; stop: () => Promise<void> } => {
  const random = randomOf(seed + 1);
  let stopped = false;
  let kills = 0;
  const kill = (pid: number | null): void => {
    if (pid === null) return;
    try {
      process.kill(pid, 'SIGKILL');
      kills += 1;
    } catch {
      // it had just ended
    }
  };
  const run = async (): Promise<void> => {
    while (!stopped) {
      await pause(150 + random() * 150);
      const dice = random();
      if (dice < 0.02) kill(postmaster());
      else if (dice < 0.06) {
        const rows = await query<{ pid: number }>(
          store,
          "select pid from pg_stat_activity where backend_type = 'client backend' and pid <> pg_backend_pid()",
        ).catch(() => []);
        kill(rows[Math.floor(random() * rows.length)]?.pid ?? null);
      } else {
        const victim = gateways[Math.floor(random() * gateways.length)]!;
        if (victim.upMs() > LEAST_UP_MS) kill(victim.pid());
      }
    }
  };
  const running = run();
  return {
    count: () => kills,
    stop: async () => {
      stopped = true;
      await running;
    },
  };
};

const settled = async (store: string): Promise<{ state: string; error: string | null; count: number }[]> =>
  query(store, 'select state, error, count(*)::int as count from banyan.ledger group by state, error');

const TERMINAL = ['done', 'rejected', 'expired', 'compensated', 'parked'];

type World = {
  readonly urls: readonly string[];
  readonly gateways: readonly Kept[];
  readonly store: string | null;
  readonly stop: () => Promise<void>;
  readonly postmaster: () => number | null;
};

const startBanyan = async (shop: Workshop, legacy: string, kinesis: string, publisher: 'ledger' | 'capture'): Promise<World> => {
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
  writeFileSync(file, JSON.stringify(configOf(legacy, store, kinesis, publisher)));
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

const startNaive = async (shop: Workshop, legacy: string, kinesis: string): Promise<World> => {
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

const answering = async (urls: readonly string[]): Promise<void> => {
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

/** Every effect has its fact on the stream, or time is up. */
const drained = async (
  kinesis: string,
  legacy: Legacy,
  store: string | null,
  told: readonly Told[],
): Promise<Awaited<ReturnType<typeof readFacts>>> => {
  const until = performance.now() + CALM_MS;
  for (;;) {
    const open =
      store === null
        ? []
        : (await settled(store).catch(() => [{ state: 'sent', error: null, count: 1 }])).filter(({ state }) => !TERMINAL.includes(state));
    if (open.length === 0 || performance.now() > until) {
      const facts = await readFacts(kinesis);
      const { lost } = check(facts, legacy.effects, told);
      if (lost === 0 || store === null || performance.now() > until) return facts;
    }
    await pause(500);
  }
};

/** One storm from an empty store to the last fact on the stream. */
export const storm = async (options: StormOptions): Promise<StormReport> => {
  const { seed, say } = options;
  const shop = openWorkshop();
  const legacy = await startLegacy(seed + 2, { failBefore: 0.05, failAfter: 0.05, hangAfter: 0.05, refuse: 0.03 });
  try {
    const kinesis = (await shop.startNode('dev/kinesis/main.ts', ['--port', '0', '--no-throttle', '--data', join(shop.folder, 'kinesis')]))
      .urls.kinesis!;
    await createStream(kinesis);
    const world = await (options.naive ? startNaive(shop, legacy.url, kinesis) : startBanyan(shop, legacy.url, kinesis, options.publisher));
    await answering(world.urls);
    say(
      `storm: seed ${seed}, ${options.naive ? 'naive' : `publisher ${options.publisher}`}, ${options.seconds} s at ${options.perSecond}/s`,
    );
    const capture = world.store !== null && options.publisher === 'capture' ? startCapture(world.store, legacy) : null;
    const clients = startClients({
      seed,
      urls: world.urls,
      perSecond: options.perSecond,
      once: options.once,
      subjects: 200,
      shares: { orders: 0.4, entries: 0.4 },
    });
    const waking = startWaking(world.gateways);
    const kills = options.kills ? startKills(seed, world.gateways, world.store ?? '', world.postmaster) : null;
    const end = performance.now() + options.seconds * 1000;
    while (performance.now() < end || (clients.begun() < options.leastCommands && performance.now() < end + options.seconds * 9_000))
      await pause(100);
    await kills?.stop();
    legacy.calm();
    say(`storm: over after ${kills?.count() ?? 0} kills and ${clients.begun()} commands; waiting for the rest`);
    const over = performance.now();
    const told = await clients.finish(CALM_MS);
    await capture?.finish();
    const facts = await drained(kinesis, legacy, world.store, told);
    const rows = world.store === null ? [] : await settled(world.store);
    const parked = rows.filter(({ state }) => state === 'parked');
    const report: StormReport = {
      publisher: options.naive ? 'naive' : options.publisher,
      ...check(facts, legacy.effects, told),
      commands: told.length,
      effects: legacy.effects.size,
      kills: kills?.count() ?? 0,
      gave_up: told.filter(({ status }) => status === 0).length,
      gave_up_after: told
        .filter(({ status }) => status === 0)
        .map(({ key, attempts, last }) => `${key}: ${attempts} attempts, ${last}`)
        .slice(0, 5),
      calm_seconds: Math.round((performance.now() - over) / 100) / 10,
      repeats_on_stream: facts.length - new Set(facts.map((fact) => `${fact.source} ${fact.id}`)).size,
      parked: parked.reduce((sum, { count }) => sum + count, 0),
      parked_reasons: [...new Set(parked.map(({ error }) => error ?? 'no reason'))].slice(0, 10),
      not_terminal: rows.filter(({ state }) => !TERMINAL.includes(state)).reduce((sum, { count }) => sum + count, 0),
    };
    waking.stop();
    await world.stop();
    return report;
  } finally {
    await legacy.stop();
    await shop.close();
  }
};

/** The keys that must be 0. */
export const HOLES = [
  'lost',
  'phantom',
  'doubled',
  'acked_missing',
  'out_of_order',
  'wrongly_compensated',
  'undecided',
  'not_terminal',
] as const;
export const holesIn = (report: StormReport): string[] =>
  HOLES.filter((hole) => report[hole] !== 0).map((hole) => `${hole} ${report[hole]}`);
