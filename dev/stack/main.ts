import { spawnSync } from 'node:child_process';
import { randomBytes } from 'node:crypto';
import { existsSync, mkdirSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { isAbsolute, join, resolve } from 'node:path';
import { parseArgs } from 'node:util';
import pg from 'pg';
import { effectiveText, outlineOf } from './effective-config.ts';
import { createSupervisor, type Part, PartFailed } from './supervisor.ts';

const ROOT = resolve(import.meta.dirname, '../..');
const PARTS = [
  'postgres',
  'kinesis',
  'monolith',
  'gateway',
  'adapter',
  'order',
  'inventory',
  'notification',
  'provider',
  'payment',
  'shipping',
  'saga',
  'traffic',
] as const;
type PartName = (typeof PARTS)[number];

const HELP = `Runs the whole system on this machine: embedded PostgreSQL, Kinesis emulator, gateway and, when the configuration
names no monolith (legacy.url), the demo shop with its adapter and services. Never contacts AWS.

usage: banyan dev [--config FILE] [--only PART,…] [--traffic] [--data-dir DIR]

  --config FILE   default banyan.yaml where there is one, else the demo shop's
  --only LIST     only these: ${PARTS.join(', ')}
  --traffic       place and read orders all the time
  --data-dir DIR  where data is kept (default dev.dataDir, .banyan)
  --help
`;

const say = (line: string): void => {
  process.stdout.write(`${line}\n`);
};
const complain = (line: string): void => {
  process.stderr.write(`banyan dev: ${line}\n`);
};

class Usage extends Error {}

const readFlags = () => {
  const options = {
    config: { type: 'string' },
    only: { type: 'string' },
    traffic: { type: 'boolean' },
    'data-dir': { type: 'string' },
    help: { type: 'boolean', short: 'h' },
  } as const;
  let values: ReturnType<typeof parseArgs<{ options: typeof options }>>['values'];
  try {
    ({ values } = parseArgs({ options }));
  } catch (error) {
    throw new Usage((error as Error).message);
  }
  const only = values.only
    ?.split(',')
    .map((name) => name.trim())
    .filter((name) => name !== '');
  const unknown = only?.find((name) => !(PARTS as readonly string[]).includes(name));
  if (unknown !== undefined) throw new Usage(`--only: there is no part called "${unknown}"; there are ${PARTS.join(', ')}`);
  return {
    config: values.config,
    only: only as PartName[] | undefined,
    traffic: values.traffic ?? false,
    dataDir: values['data-dir'],
    help: values.help ?? false,
  };
};

/** Users run the stack from their project; the demo's file lies beside this one. */
const findConfig = (named: string | undefined): string => {
  if (named !== undefined) {
    const file = isAbsolute(named) ? named : resolve(named);
    if (!existsSync(file)) throw new Usage(`--config ${named}: there is no such file`);
    return file;
  }
  const own = resolve('banyan.yaml');
  return existsSync(own) ? own : join(ROOT, 'dev/stack/demo.yaml');
};

type Lock = { note(pids: Readonly<Record<string, number>>): void; release(): void };

/** Another stack on the same data would fight over it. A lock whose process is gone is stale. The file also names the process of each part. */
const lock = (dataDir: string): Lock => {
  const file = join(dataDir, 'stack.json');
  if (existsSync(file)) {
    let pid = 0;
    let command = '';
    try {
      pid = Number((JSON.parse(readFileSync(file, 'utf8')) as { pid?: number }).pid);
      command = readFileSync(`/proc/${pid}/cmdline`, 'utf8');
    } catch {
      // damaged, gone, or no /proc on this system: ask the kernel below
    }
    let alive = false;
    try {
      alive = pid > 0 && pid !== process.pid && process.kill(pid, 0) && (command === '' || command.includes('stack'));
    } catch {
      alive = false;
    }
    if (alive) throw new Usage(`already running on ${dataDir} (process ${pid}); stop it or use another --data-dir`);
  }
  const note = (parts: Readonly<Record<string, number>>): void => writeFileSync(file, JSON.stringify({ pid: process.pid, parts }));
  note({});
  return { note, release: () => rmSync(file, { force: true }) };
};

const secret = (file: string): string => {
  if (!existsSync(file)) writeFileSync(file, randomBytes(32).toString('hex'), { mode: 0o600 });
  return readFileSync(file, 'utf8').trim();
};

const ensureDatabase = async (server: string, name: string): Promise<string> => {
  const client = new pg.Client({ connectionString: server, connectionTimeoutMillis: 5000 });
  await client.connect();
  try {
    const found = await client.query('select 1 from pg_database where datname = $1', [name]);
    if (found.rowCount === 0) await client.query(`create database ${client.escapeIdentifier(name)}`);
  } finally {
    await client.end();
  }
  const url = new URL(server);
  url.pathname = `/${name}`;
  return url.href;
};

const ensureStream = async (endpoint: string, name: string): Promise<void> => {
  const call = async (target: string, body: object) =>
    fetch(endpoint, {
      method: 'POST',
      headers: { 'content-type': 'application/x-amz-json-1.1', 'x-amz-target': `Kinesis_20131202.${target}` },
      body: JSON.stringify(body),
      signal: AbortSignal.timeout(10_000),
    });
  const created = await call('CreateStream', { StreamName: name, ShardCount: 4, StreamModeDetails: { StreamMode: 'PROVISIONED' } });
  const text = await created.text();
  if (!created.ok && !text.includes('ResourceInUseException'))
    throw new Error(`the stream ${name} could not be created: ${text.slice(0, 200)}`);
  for (let i = 0; i < 100; i++) {
    const summary = await (await call('DescribeStreamSummary', { StreamName: name })).text();
    if (summary.includes('"ACTIVE"')) return;
    await new Promise((done) => setTimeout(done, 50));
  }
  throw new Error(`the stream ${name} did not become active`);
};

const main = async (): Promise<number> => {
  for (const stream of [process.stdout, process.stderr]) stream.on('error', () => undefined);
  const flags = readFlags();
  if (flags.help) {
    process.stdout.write(HELP);
    return 0;
  }
  const configFile = findConfig(flags.config);
  const judged = spawnSync(
    process.execPath,
    ['--disable-warning=ExperimentalWarning', join(ROOT, 'gateway/cli/main.ts'), 'validate', '--dev', configFile],
    { encoding: 'utf8' },
  );
  if (judged.status !== 0) {
    process.stderr.write(judged.stderr || judged.stdout);
    return judged.status ?? 2;
  }
  const text = readFileSync(configFile, 'utf8');
  const outline = outlineOf(text, process.env);
  const dataDir = resolve(flags.dataDir ?? outline.dataDir);
  mkdirSync(dataDir, { recursive: true });
  const held = lock(dataDir);

  const demo = outline.legacyUrl === null;
  const wanted = (name: PartName): boolean => {
    if (flags.only) return flags.only.includes(name) || (name === 'traffic' && flags.traffic);
    if (name === 'traffic') return flags.traffic;
    if (name === 'postgres') return outline.store === null;
    if (name === 'kinesis') return outline.streamEndpoint === null;
    if (name === 'gateway') return true;
    return demo;
  };

  let leave: (code: number) => void = () => undefined;
  const asked = new Promise<number>((done) => {
    leave = done;
  });
  for (const signal of ['SIGINT', 'SIGTERM', 'SIGHUP'] as const) process.on(signal, () => leave(0));
  process.on('disconnect', () => leave(0));

  const supervisor = createSupervisor({
    root: ROOT,
    say,
    onPids: held.note,
    onFatal: (name, why) => {
      complain(`${name} ${why}`);
      leave(1);
    },
  });
  const start = async (
    name: PartName,
    script: string,
    args: string[],
    env: Record<string, string> = {},
    readyMs = 60_000,
  ): Promise<Record<string, string>> => {
    const part: Part = { name, script, args, env, readyMs };
    const result = await Promise.race([supervisor.start(part), asked.then(() => null)]);
    if (result === null) throw new PartFailed(name, 0, 'stopped while starting');
    return result;
  };

  const bring = async (): Promise<void> => {
    const startedAt = performance.now();
    const server = outline.store ?? `postgres://postgres@127.0.0.1:${outline.postgresPort}/postgres`;
    let kinesis = outline.streamEndpoint ?? `http://127.0.0.1:${outline.kinesisPort}`;
    const urls: Record<string, string> = {};
    const first: Promise<void>[] = [];
    let postgresUrl = server;
    if (wanted('postgres'))
      first.push(
        start('postgres', 'dev/postgres/main.ts', ['--data-dir', join(dataDir, 'postgres'), '--port', String(outline.postgresPort)]).then(
          (found) => {
            postgresUrl = found.postgres ?? server;
          },
        ),
      );
    if (wanted('kinesis'))
      first.push(
        start('kinesis', 'dev/kinesis/main.ts', [
          '--host',
          '127.0.0.1',
          '--port',
          String(outline.kinesisPort),
          '--data',
          join(dataDir, 'kinesis.log'),
        ]).then((found) => {
          kinesis = found.kinesis ?? kinesis;
        }),
      );
    await Promise.all(first);
    const store =
      outline.store ?? (wanted('postgres') ? await ensureDatabase(postgresUrl, 'banyan') : new URL('/banyan', postgresUrl).href);
    const shop =
      outline.legacyDatabase ?? (wanted('postgres') ? await ensureDatabase(postgresUrl, 'shop') : new URL('/shop', postgresUrl).href);
    if (wanted('kinesis')) for (const name of new Set([outline.facts, outline.commands])) await ensureStream(kinesis, name);

    let monolith = outline.legacyUrl;
    const side =
      demo && wanted('monolith')
        ? await start('monolith', 'dev/monolith/main.ts', ['--port', String(outline.monolithPort)], { SHOP_DATABASE_URL: shop })
        : {};
    monolith ??= side.monolith ?? `http://127.0.0.1:${outline.monolithPort}`;

    const file = join(dataDir, 'effective.yaml');
    const services: Record<string, string> = {};
    if (demo)
      for (const [name, port] of [
        ['notification', outline.notificationPort],
        ['saga', outline.sagaPort],
      ] as const)
        if (port !== 0 && wanted(name)) services[name] = `http://127.0.0.1:${port}`;
    writeFileSync(file, effectiveText(text, outline, { store, kinesis, monolith, legacyDatabase: demo ? shop : null, services }), {
      mode: 0o600,
    });
    const common = {
      DATABASE_URL: store,
      LEGACY_DATABASE_URL: shop,
      KINESIS_ENDPOINT: kinesis,
      BANYAN_STREAM: outline.facts,
      BANYAN_COMMANDS: outline.commands,
      AWS_REGION: outline.region,
      ADAPTER_URL: outline.adapterUrl,
      // a shard may be polled five times a second by all services together; where fan-out costs nothing each has its own
      FAN_OUT: process.env.FAN_OUT ?? (wanted('kinesis') ? 'on' : 'off'),
      BANYAN_SEAL_KEY: process.env.BANYAN_SEAL_KEY ?? secret(join(dataDir, 'seal.key')),
      BANYAN_SERVICE_TOKEN: process.env.BANYAN_SERVICE_TOKEN || secret(join(dataDir, 'service.token')),
    };
    const rest: Promise<void>[] = [];
    const collect = (name: PartName, script: string, args: string[], env: Record<string, string> = {}): void => {
      if (!wanted(name)) return;
      rest.push(
        start(name, script, args, { ...common, ...env }).then((found) => {
          Object.assign(urls, found);
        }),
      );
    };
    collect('gateway', 'gateway/cli/main.ts', ['run', '--config', file]);
    if (demo) {
      collect('adapter', 'legacy-adapter/main.ts', ['--config', file]);
      for (const service of [
        { name: 'order', port: '4001' },
        { name: 'inventory', port: '4002' },
        { name: 'notification', port: String(outline.notificationPort) },
      ] as const) {
        const named = outline.contexts.find((context) => context.name === service.name)?.extractedUrl;
        collect(service.name, 'extracted-services/run.ts', [service.name], {
          HOST: '127.0.0.1',
          PORT: named ? new URL(named).port : service.port,
        });
      }
    }
    if (demo) {
      // nobody asks payment and shipping but the saga, so they take free ports
      const where: Record<string, string> = {};
      const bringParticipants = async (): Promise<void> => {
        const service = async (name: 'payment' | 'shipping', env: Record<string, string> = {}): Promise<void> => {
          if (!wanted(name)) return;
          const found = await start(name, 'extracted-services/run.ts', [name], { ...common, HOST: '127.0.0.1', PORT: '0', ...env });
          Object.assign(urls, found);
          where[`${name.toUpperCase()}_URL`] = found[name] ?? '';
        };
        const pay = async (): Promise<void> => {
          const provider = wanted('provider') ? await start('provider', 'dev/payment-provider/main.ts', ['--port', '0']) : {};
          await service('payment', provider.provider === undefined ? {} : { PROVIDER_URL: provider.provider });
        };
        await Promise.all([pay(), service('shipping')]);
        if (!wanted('saga')) return;
        const urlOf = (name: string, port: string): string =>
          outline.contexts.find((context) => context.name === name)?.extractedUrl ?? `http://127.0.0.1:${port}`;
        const found = await start('saga', 'extracted-services/run.ts', ['saga'], {
          ...common,
          HOST: '127.0.0.1',
          PORT: String(outline.sagaPort),
          ORDER_URL: urlOf('order', '4001'),
          INVENTORY_URL: urlOf('inventory', '4002'),
          ...where,
        });
        Object.assign(urls, found);
      };
      rest.push(bringParticipants());
    }
    await Promise.all(rest);
    if (wanted('traffic')) await start('traffic', 'dev/traffic/main.ts', ['--gateway', urls.gateway ?? 'http://127.0.0.1:8080']);

    say('');
    say(`READY in ${((performance.now() - startedAt) / 1000).toFixed(1)} s`);
    const rows: [string, string | undefined][] = [
      ['gateway', urls.gateway],
      ['admin', urls.admin],
      ['monolith', side.monolith ?? (wanted('gateway') ? monolith : undefined)],
      ['adapter', urls.adapter],
      ['order', urls.order],
      ['inventory', urls.inventory],
      ['notification', urls.notification],
      ['payment', urls.payment],
      ['shipping', urls.shipping],
      ['saga', urls.saga && urls.admin ? `${urls.saga} (banyan saga list)` : urls.saga],
      ['stream', wanted('kinesis') ? `${kinesis} (${outline.facts})` : undefined],
      ['store', wanted('postgres') ? store : undefined],
      ['shop tables', wanted('postgres') && demo ? `${shop} (schema shop)` : undefined],
    ];
    for (const [name, url] of rows) if (url) say(`  ${name.padEnd(13)}${url}`);
    say(`  ${'data'.padEnd(13)}${dataDir}`);
    say('Ctrl-C stops all of it; starting again keeps its data.');
    if (process.connected) process.send?.({ type: 'ready', urls: { ...urls, monolith: monolith ?? '', kinesis, store, shop } });
  };

  try {
    await bring();
    return await asked;
  } catch (error) {
    if (error instanceof PartFailed) {
      if (error.exitCode !== 0) complain(error.message);
      return error.exitCode;
    }
    complain(error instanceof Error ? error.message : String(error));
    return 1;
  } finally {
    say('stopping');
    await supervisor.stop();
    held.release();
  }
};

try {
  process.exitCode = await main();
} catch (error) {
  complain(error instanceof Usage ? `${error.message} (--help explains)` : error instanceof Error ? error.message : String(error));
  process.exitCode = 2;
}
if (process.connected) process.disconnect();
