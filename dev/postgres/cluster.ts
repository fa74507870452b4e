import { spawn } from 'node:child_process';
import { randomUUID } from 'node:crypto';
import { once } from 'node:events';
import { chown, mkdir, readdir, realpath, rename, rm } from 'node:fs/promises';
import { createServer } from 'node:net';
import { join } from 'node:path';
import pg from 'pg';
import { binaries } from './binaries.ts';
import { claim } from './claim.ts';
import { type Placement, pin, place } from './placement.ts';
import { adoptable, connectionUrl, type Launch, launchPostmaster, orphan, type Postmaster, stopPostmaster } from './postmaster.ts';
import { startedAt } from './processes.ts';
import { identity } from './run-as.ts';
import { PostgresStartError } from './start-error.ts';

export { PostgresStartError } from './start-error.ts';

export type PostgresOptions = {
  /** Made when absent. The server's files are in its `pgdata`, or where its `location.json` says; its log is `server.log`. */
  dataDir: string;
  /** 0 = a free one, or the one of an adopted server. */
  port: number;
  /** Default true. False loses committed data when the machine (not the process) dies: for tests. */
  fsync?: boolean;
  /** More server settings by their names in postgresql.conf; they win over ours. */
  settings?: Readonly<Record<string, string>>;
  /** One line per step of ours; the server's own lines go to its log file. */
  log?: (line: string) => void;
};

export type Cluster = {
  host: string;
  port: number;
  /** The postmaster's process id. */
  pid: number;
  /** The folder that really holds the server's files (see `PostgresOptions.dataDir`). */
  directory: string;
  /** Whether a server that an earlier process had left was taken over. */
  adopted: boolean;
  /** Settles when the server ends, be it by `stop` or on its own. */
  exited: Promise<void>;
  /** A connection string; the database is `postgres` unless named. */
  url: (database?: string) => string;
  createDatabase: (name: string, template?: string) => Promise<void>;
  /** Ends the database's sessions; an absent database is no error. */
  dropDatabase: (name: string) => Promise<void>;
  /** Fast shutdown; may be called twice. */
  stop: () => Promise<void>;
};

const PORT_ATTEMPTS = 5;
const DRAFT = 'pgdata.draft-';

const settingsOf = (options: PostgresOptions): Record<string, string> => {
  const durable = options.fsync ?? true;
  const settings = {
    listen_addresses: '127.0.0.1',
    unix_socket_directories: '', // the path of one may not exceed 107 bytes, and nothing here needs it
    wal_level: 'logical',
    max_replication_slots: '10',
    max_wal_senders: '10',
    max_connections: '200',
    fsync: durable ? 'on' : 'off',
    ...(durable ? {} : { synchronous_commit: 'off', full_page_writes: 'off' }),
    timezone: 'UTC',
    log_timezone: 'UTC',
    // Clients are told of their own errors; without those lines the log stays small for as long as the server runs.
    log_min_messages: 'log',
    log_checkpoints: 'off',
    ...options.settings,
  };
  for (const [name, value] of Object.entries(settings))
    if (!/^[a-z_][a-z0-9_.]*$/.test(name) || /[\0\n]/.test(value))
      throw new PostgresStartError(`"${name}=${value}" is no PostgreSQL setting`);
  return settings;
};

/** Binds the port for a moment. @returns the port, or `null` when another program has it */
const probe = async (port: number): Promise<number | null> => {
  const server = createServer();
  try {
    server.listen({ port, host: '127.0.0.1', exclusive: true });
    await once(server, 'listening');
    const address = server.address();
    return typeof address === 'object' ? (address?.port ?? null) : null;
  } catch (error) {
    const { code, message } = error as NodeJS.ErrnoException;
    if (code === 'EADDRINUSE') return null;
    throw new PostgresStartError(`PostgreSQL cannot listen on 127.0.0.1:${port}: ${message}`);
  } finally {
    server.close();
  }
};

const busy = (port: number): PostgresStartError =>
  new PostgresStartError(
    `PostgreSQL cannot listen on 127.0.0.1:${port}: the port is in use by another program; stop that or choose another port`,
  );

const initialise = async (bin: string, { home, user }: Placement, durable: boolean): Promise<void> => {
  // Renamed when whole: a kill in the middle must not leave half a cluster. Named anew each time, since the initdb of a killed start may still write.
  for (const entry of await readdir(home))
    if (entry.startsWith(DRAFT)) await rm(join(home, entry), { recursive: true, force: true }).catch(() => undefined);
  const draft = join(home, `${DRAFT}${randomUUID()}`);
  await mkdir(draft, { mode: 0o700 });
  if (user.drop) await chown(draft, user.uid, user.gid);
  // Trust: whoever reaches the loopback port of this machine is let in. For development and tests only.
  const locale = ['--encoding=UTF8', '--locale=C', '--locale-provider=builtin', '--builtin-locale=C.UTF-8'];
  const child = spawn(
    join(bin, 'initdb'),
    ['-D', draft, '-U', 'postgres', '-A', 'trust', ...locale, '--no-instructions', ...(durable ? [] : ['--no-sync'])],
    {
      ...identity(user),
      cwd: draft,
      stdio: ['ignore', 'pipe', 'pipe'],
      env: { PATH: process.env.PATH ?? '', LC_ALL: 'C', TZ: 'UTC' },
    },
  );
  let said = '';
  child.stdout.resume();
  child.stderr.on('data', (chunk: Buffer) => {
    said = (said + chunk).slice(-2_000);
  });
  const code = await new Promise<number | null>((resolve, reject) => child.once('error', reject).once('close', resolve)).catch(
    (error: unknown) => {
      throw new PostgresStartError(`initdb could not be started as uid ${user.uid}: ${(error as Error).message}`);
    },
  );
  if (code !== 0) throw new PostgresStartError(`initdb in ${draft} failed: ${said.trim().split('\n').join(' | ')}`);
  await rename(draft, join(home, 'pgdata'));
};

const clear = async (home: string): Promise<void> => {
  const running = await orphan(join(home, 'pgdata'));
  if (running !== null) await stopPostmaster(running.pid);
  for (const entry of await readdir(home)) await rm(join(home, entry), { recursive: true, force: true });
};

const start = async (
  options: PostgresOptions,
  placement: Placement,
  log: (line: string) => void,
): Promise<{ server: Postmaster; adopted: boolean }> => {
  const bin = join(await realpath(await binaries(placement.user)), 'bin');
  const pgdata = join(placement.home, 'pgdata');
  const settings = Object.entries(settingsOf(options)).flatMap(([name, value]) => ['-c', `${name}=${value}`]);
  const launch: Launch = {
    program: join(bin, 'postgres'),
    arguments: ['-D', pgdata, ...settings],
    pgdata,
    logFile: join(placement.folder, 'server.log'),
    user: placement.user,
  };

  const found = await orphan(pgdata);
  if (found !== null) {
    if (await adoptable(found, launch, options.port)) {
      log(`adopted the running PostgreSQL (process ${found.pid}, port ${found.port})`);
      return { server: found, adopted: true };
    }
    log(`stopping a PostgreSQL left behind with other settings (process ${found.pid}, port ${found.port})`);
    await stopPostmaster(found.pid);
  }
  let port = await probe(options.port);
  if (port === null) throw busy(options.port);
  if (!(await readdir(placement.home)).includes('pgdata')) {
    log(`making a new PostgreSQL cluster in ${pgdata}`);
    await pin(placement);
    await initialise(bin, placement, options.fsync ?? true);
  }
  for (let attempt = 1; ; attempt++) {
    const server = await launchPostmaster(launch, port);
    if (server !== null) return { server, adopted: false };
    port = options.port === 0 ? await probe(0) : null;
    if (port === null || attempt === PORT_ATTEMPTS) throw busy(options.port);
  }
};

const exitOf = ({ pid, child }: Postmaster): Promise<void> => {
  if (child) return child.exitCode !== null || child.signalCode !== null ? Promise.resolve() : once(child, 'exit').then(() => undefined);
  return new Promise((resolve) => {
    const timer = setInterval(() => {
      if (startedAt(pid) !== null) return;
      clearInterval(timer);
      resolve();
    }, 200);
  });
};

/**
 * Starts a real PostgreSQL 18 on the loopback interface, user `postgres` without a password, logical replication on. Runs as the caller, or as
 * `nobody` when the caller is root. Data outlives restarts and kills. When this process dies without `stop`, the server goes on, and the next
 * start on the same folder adopts it if its port and settings are the wanted ones, and replaces it otherwise.
 * @throws PostgresStartError busy port, folder in use or out of reach, missing programs, or the server's own words
 */
export const startPostgres = async (options: PostgresOptions): Promise<Cluster> => {
  const log = options.log ?? (() => undefined);
  const placement = await place(options.dataDir);
  const release = await claim(placement.folder);
  try {
    if (placement.leftover !== null) {
      log(`removing ${placement.leftover}: the folder it belonged to is gone`);
      await clear(placement.leftover);
    }
    const { server, adopted } = await start(options, placement, log);
    const { pid, port } = server;
    const exited = exitOf(server);
    const url = (database = 'postgres'): string => connectionUrl(port, database);
    const execute = async (sql: (name: (text: string) => string) => string): Promise<void> => {
      const client = new pg.Client({ connectionString: url() });
      client.on('error', () => undefined); // the query in flight fails and tells
      await client.connect();
      try {
        await client.query(sql((text) => client.escapeIdentifier(text)));
      } finally {
        await client.end();
      }
    };
    let stopping: Promise<void> | undefined;
    const stop = async (): Promise<void> => {
      if (startedAt(pid) !== null) await stopPostmaster(pid);
      await exited;
      await release();
    };
    return {
      host: '127.0.0.1',
      port,
      pid,
      directory: placement.home,
      adopted,
      exited,
      url,
      createDatabase: (name, template) =>
        execute((quoted) => `create database ${quoted(name)}${template === undefined ? '' : ` template ${quoted(template)}`}`),
      dropDatabase: (name) => execute((quoted) => `drop database if exists ${quoted(name)} with (force)`),
      stop: () => (stopping ??= stop()),
    };
  } catch (error) {
    await release();
    throw error;
  }
};
