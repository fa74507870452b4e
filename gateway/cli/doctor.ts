import { existsSync } from 'node:fs';
import { readdir } from 'node:fs/promises';
import { createServer } from 'node:net';
import { join } from 'node:path';
import { readinessSchema } from '@banyan/contracts/admin-api.ts';
import pg from 'pg';
import { type Config, findConfigFile, formatFault, loadConfig } from '../config.ts';
import { answerNo } from './exit.ts';
import { askAround } from './online.ts';
import { printJson, type Register } from './output.ts';

type Check = { readonly name: string; readonly ok: boolean; readonly detail: string };
type Flags = { readonly config?: string; readonly dev?: boolean; readonly json?: boolean };

/** ms for each question. */
const TIMEOUT = 5_000;
const NODE_MAJOR = 24;

const reasonOf = (error: unknown): string => {
  if (!(error instanceof Error)) return String(error);
  const cause = (error.cause ?? error) as NodeJS.ErrnoException;
  return cause.code ?? cause.message;
};

const nodeCheck = (): Check => {
  const ok = Number(process.versions.node.split('.')[0]) >= NODE_MAJOR;
  return { name: 'node', ok, detail: ok ? process.version : `${process.version}; expected ${NODE_MAJOR} or newer` };
};

const urlOf = ({ host, port }: { readonly host: string; readonly port: number }): string => {
  const reachable = host === '0.0.0.0' ? '127.0.0.1' : host === '::' ? '::1' : host;
  return `http://${reachable.includes(':') ? `[${reachable}]` : reachable}:${port}`;
};

const gatewayRuns = async (config: Config): Promise<boolean> => {
  try {
    const response = await fetch(`${urlOf(config.admin.listen)}/livez`, { redirect: 'error', signal: AbortSignal.timeout(TIMEOUT) });
    const body = (await response.json()) as { status?: unknown };
    return response.ok && body.status === 'alive';
  } catch {
    return false;
  }
};

/** What a running gateway says of its upstreams: it may have left out a host that answers us. */
const hostChecks = async (config: Config): Promise<Check[]> => {
  try {
    const response = await fetch(`${urlOf(config.admin.listen)}/readyz?verbose`, {
      redirect: 'error',
      signal: AbortSignal.timeout(TIMEOUT),
    });
    const { checks } = readinessSchema.parse(await response.json());
    return (checks ?? [])
      .filter(({ name, ok }) => !ok && name.startsWith('upstream '))
      .map((check) => ({ ...check, name: `gateway: ${check.name}` }));
  } catch (error) {
    return [{ name: 'gateway: readyz', ok: false, detail: reasonOf(error) }];
  }
};

const portCheck = (name: string, at: { readonly host: string; readonly port: number }, runs: boolean): Promise<Check> => {
  const where = `${at.host}:${at.port}`;
  if (runs) return Promise.resolve({ name, ok: true, detail: `${where}: a gateway runs here` });
  if (at.port === 0) return Promise.resolve({ name, ok: true, detail: 'chosen by the system' });
  return new Promise((resolve) => {
    const server = createServer();
    server.once('error', (error) => resolve({ name, ok: false, detail: `${where}: ${reasonOf(error)}` }));
    server.listen({ host: at.host, port: at.port, exclusive: true }, () =>
      server.close(() => resolve({ name, ok: true, detail: `${where} is free` })),
    );
  });
};

const migrationNames = async (): Promise<string[]> =>
  (await readdir(join(import.meta.dirname, '..', 'migrations')))
    .filter((file) => /^[0-9]{3}-[a-z0-9-]+\.(ts|js)$/.test(file))
    .map((file) => file.replace(/\.(ts|js)$/, ''))
    .sort();

/** A store that nobody has migrated yet is fine as long as no gateway uses it: the next start does it. */
const schemaCheck = async (store: string, runs: boolean): Promise<Check> => {
  const name = 'store schema';
  const client = new pg.Client({ connectionString: store, connectionTimeoutMillis: TIMEOUT, query_timeout: TIMEOUT });
  client.on('error', () => undefined); // the query in flight fails and tells
  try {
    await client.connect();
    const exists = await client.query<{ found: boolean }>(`select to_regclass('banyan.migration') is not null as found`);
    const done = exists.rows[0]?.found
      ? new Set((await client.query<{ name: string }>('select name from banyan.migration')).rows.map((row) => row.name))
      : new Set<string>();
    const missing = (await migrationNames()).filter((migration) => !done.has(migration));
    if (missing.length === 0) return { name, ok: true, detail: 'up to date' };
    return {
      name,
      ok: !runs,
      detail: `${missing.join(', ')} ${runs ? 'missing though a gateway runs' : 'will be applied at the next start'}`,
    };
  } catch (error) {
    return { name, ok: false, detail: reasonOf(error) };
  } finally {
    await client.end().catch(() => undefined);
  }
};

const streamCheck = async (stream: string, { region, endpoint }: { region: string; endpoint: string }): Promise<Check> => {
  const name = `stream ${stream}`;
  const { createKinesisStream } = await import('../dual-write/stream.ts');
  const asked = createKinesisStream({ stream, region, endpoint, credentials: { accessKeyId: 'doctor', secretAccessKey: 'doctor' } });
  try {
    const said = await asked.check();
    return { name, ok: said === 'ready', detail: said };
  } catch (error) {
    return { name, ok: false, detail: reasonOf(error) };
  } finally {
    asked.close();
  }
};

const adapterCheck = async (url: string): Promise<Check> => {
  const name = 'adapter';
  try {
    const response = await fetch(new URL('/readyz', url), { redirect: 'error', signal: AbortSignal.timeout(TIMEOUT) });
    await response.body?.cancel();
    return { name, ok: response.ok, detail: response.ok ? `${url} is ready` : `${url} answers ${response.status}` };
  } catch (error) {
    return { name, ok: false, detail: `${url}: ${reasonOf(error)}` };
  }
};

const neighbours = async (config: Config): Promise<Check[]> =>
  (await askAround(config)).map(({ what, url, ok, why }) => ({ name: what, ok, detail: ok ? `${url} answers` : `${url}: ${why}` }));

const checksOf = async (config: Config): Promise<Check[]> => {
  const runs = await gatewayRuns(config);
  const { streams, store, adapter } = config;
  const usesAdapter = adapter.legacyDatabase !== null;
  // nothing is said to AWS: that needs credentials and costs money
  const emulator = streams !== null && streams.endpoint !== null ? { region: streams.region, endpoint: streams.endpoint } : null;
  const groups = await Promise.all([
    neighbours(config),
    runs ? hostChecks(config) : [],
    store === null ? [] : schemaCheck(store, runs).then((check) => [check]),
    streams === null || emulator === null ? [] : streamCheck(streams.facts, emulator).then((check) => [check]),
    usesAdapter ? adapterCheck(adapter.url).then((check) => [check]) : [],
    Promise.all([...config.listen.map((at) => portCheck('listen', at, runs)), portCheck('admin', config.admin.listen, runs)]),
  ]);
  return groups.flat();
};

const examine = async (flags: Flags): Promise<Check[]> => {
  const file = flags.config ?? findConfigFile();
  if (file === undefined || !existsSync(file))
    return [
      nodeCheck(),
      { name: 'config', ok: false, detail: file === undefined ? 'there is no banyan.yaml in this folder' : `there is no file ${file}` },
    ];
  const loaded = await loadConfig({ file, dev: flags.dev ?? false });
  if (!loaded.ok) return [nodeCheck(), ...loaded.faults.map((fault) => ({ name: 'config', ok: false, detail: formatFault(fault) }))];
  return [nodeCheck(), { name: 'config', ok: true, detail: `${file} is valid` }, ...(await checksOf(loaded.config))];
};

/** `banyan doctor`: what a gateway needs on this machine, one line each; 1 when something is missing. */
export const registerDoctor: Register = (program, io) => {
  program
    .command('doctor')
    .description('check what a gateway needs: Node, configuration, monolith, services, store, stream, adapter, ports')
    .option('--config <file>', 'default: banyan.yaml in this folder')
    .option('--dev', 'read it as `banyan dev` does')
    .option('--json', 'one JSON document')
    .action(async (flags: Flags) => {
      const checks = await examine(flags);
      const ok = checks.every((check) => check.ok);
      if (flags.json === true) printJson(io, { ok, checks });
      else for (const check of checks) io.out(`${check.ok ? '✓' : '✗'} ${check.name}: ${check.detail}`);
      if (!ok) throw answerNo();
    });
};
