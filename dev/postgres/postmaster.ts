import { type ChildProcess, spawn } from 'node:child_process';
import { open, readFile, rename, writeFile } from 'node:fs/promises';
import { basename, join } from 'node:path';
import { setTimeout as pause } from 'node:timers/promises';
import pg from 'pg';
import { argumentsOf, gone, signal, startedAt } from './processes.ts';
import { identity, type RunAs } from './run-as.ts';
import { PostgresStartError } from './start-error.ts';

/** A running server. `child` is absent when we did not start it. */
export type Postmaster = { pid: number; port: number; child?: ChildProcess };

/** `arguments` are those of `postgres` but for the port. */
export type Launch = { program: string; arguments: readonly string[]; pgdata: string; logFile: string; user: RunAs };

type PidFile = { pid: number; port: number; ready: boolean };

/** Long, since a server that was killed replays its log first. */
const READY_TIMEOUT_MS = 60_000;
/** A fast shutdown waits for replication clients to catch up; one that hangs must not hang us. The log makes the harder ways safe. */
const STOP_STEPS: readonly [NodeJS.Signals, number][] = [
  ['SIGINT', 15_000],
  ['SIGQUIT', 10_000],
  ['SIGKILL', 5_000],
];

export const connectionUrl = (port: number, database: string): string =>
  `postgres://postgres@127.0.0.1:${port}/${encodeURIComponent(database)}`;

const readPidFile = async (pgdata: string): Promise<PidFile | null> => {
  const text = await readFile(join(pgdata, 'postmaster.pid'), 'utf8').catch(() => '');
  // pid, data folder, start time, port, socket folder, address, shared memory key, status (src/include/utils/pidfile.h)
  const lines = text.split('\n');
  const pid = Number(lines[0]);
  return Number.isInteger(pid) && pid > 0 ? { pid, port: Number(lines[3]), ready: lines[7]?.trim() === 'ready' } : null;
};

const runsOn = (pid: number, pgdata: string): boolean => {
  const args = argumentsOf(pid);
  const program = args[0] ?? '';
  return args.length === 1
    ? program.includes('postgres') && program.includes(pgdata)
    : basename(program) === 'postgres' && args.includes(pgdata);
};

/** Whether the server answers a query within five seconds. */
const answers = async (port: number): Promise<boolean> => {
  const client = new pg.Client({ connectionString: connectionUrl(port, 'postgres'), connectionTimeoutMillis: 5_000, query_timeout: 5_000 });
  client.on('error', () => undefined); // the failed query tells
  try {
    await client.connect();
    await client.query('select 1');
    return true;
  } catch {
    return false;
  } finally {
    await client.end().catch(() => undefined);
  }
};

const lastLines = async (file: string, count: number): Promise<string> =>
  (await readFile(file, 'utf8').catch(() => '')).trim().split('\n').slice(-count).join(' | ');

/** Waits for `ready` in the pid file; `false` when the process ends or the time is over first. */
const becomesReady = async (pid: number, pgdata: string): Promise<boolean> => {
  const deadline = performance.now() + READY_TIMEOUT_MS;
  while (performance.now() < deadline && startedAt(pid) !== null) {
    const file = await readPidFile(pgdata);
    if (file?.pid === pid && file.ready && (await answers(file.port))) return true;
    await pause(10);
  }
  return false;
};

/** Ends a server: fast shutdown first, then immediate, then kill. */
export const stopPostmaster = async (pid: number): Promise<void> => {
  for (const [name, timeoutMs] of STOP_STEPS) {
    signal(pid, name);
    if (await gone(pid, timeoutMs)) return;
  }
  throw new Error(`PostgreSQL (process ${pid}) does not end, not even by SIGKILL`);
};

/** The server that a dead parent left on this data, if any; also waits for one that is still starting or stopping. */
export const orphan = async (pgdata: string): Promise<Postmaster | null> => {
  const file = await readPidFile(pgdata);
  if (file === null || startedAt(file.pid) === null) return null;
  if (!runsOn(file.pid, pgdata)) {
    // The id now belongs to some other program, and PostgreSQL would refuse to start. Naming its parent-to-be instead makes it take the file
    // for stale (CreateLockFile in miscinit.c), yet keep its check that no backend of old still holds the shared memory.
    const text = await readFile(join(pgdata, 'postmaster.pid'), 'utf8');
    await writeFile(join(pgdata, 'postmaster.pid'), text.replace(/^\d+/, String(process.pid)));
    return null;
  }
  return { pid: file.pid, port: file.port };
};

/** Whether an orphan is what `launch` would start: same program and settings by its own record, and it answers. `port` 0 = any. */
export const adoptable = async (found: Postmaster, launch: Launch, port: number): Promise<boolean> => {
  if (port !== 0 && port !== found.port) return false;
  const record = await readFile(join(launch.pgdata, 'postmaster.opts'), 'utf8').catch(() => '');
  const wanted = [...launch.arguments, '-p', String(found.port)].map((argument) => ` "${argument}"`).join('');
  return record.trimEnd() === launch.program + wanted && (await becomesReady(found.pid, launch.pgdata));
};

type Outcome = { kind: 'ready'; server: Postmaster } | { kind: 'busy' } | { kind: 'memory-held' } | { kind: 'failed'; why: string };

const attempt = async (launch: Launch, port: number): Promise<Outcome> => {
  await rename(launch.logFile, `${launch.logFile}.1`).catch(() => undefined);
  const log = await open(launch.logFile, 'w');
  let child: ChildProcess;
  try {
    // Its own session, so that a Ctrl-C reaches only us and those who still write get to finish; a file for its log, since a pipe dies with us.
    child = spawn(launch.program, [...launch.arguments, '-p', String(port)], {
      ...identity(launch.user),
      cwd: launch.pgdata,
      detached: true,
      stdio: ['ignore', log.fd, log.fd],
      env: { PATH: process.env.PATH ?? '', LC_ALL: 'C', TZ: 'UTC' }, // none of the caller's PG* variables
    });
    await new Promise<void>((resolve, reject) => child.once('spawn', resolve).once('error', reject));
  } catch (error) {
    return { kind: 'failed', why: (error as Error).message };
  } finally {
    await log.close();
  }
  const pid = child.pid!;
  if (await becomesReady(pid, launch.pgdata)) return { kind: 'ready', server: { pid, port, child } };
  if (startedAt(pid) !== null) {
    await stopPostmaster(pid);
    return { kind: 'failed', why: `not ready after ${READY_TIMEOUT_MS / 1000} s; ${await lastLines(launch.logFile, 3)}` };
  }
  const text = await readFile(launch.logFile, 'utf8').catch(() => '');
  if (text.includes('Address already in use')) return { kind: 'busy' };
  if (text.includes('pre-existing shared memory block')) return { kind: 'memory-held' };
  return { kind: 'failed', why: await lastLines(launch.logFile, 6) };
};

/**
 * Starts the server and waits until it answers.
 * @returns `null` when the port is taken
 * @throws PostgresStartError with the last lines of its log
 */
export const launchPostmaster = async (launch: Launch, port: number): Promise<Postmaster | null> => {
  const deadline = performance.now() + READY_TIMEOUT_MS;
  for (;;) {
    const outcome = await attempt(launch, port);
    if (outcome.kind === 'ready') return outcome.server;
    if (outcome.kind === 'busy') return null;
    if (outcome.kind === 'failed') throw new PostgresStartError(`PostgreSQL on ${launch.pgdata} did not start: ${outcome.why}`);
    // The backends of a killed server notice within a moment that it is gone; until they end, a new one must not touch the data.
    if (performance.now() > deadline)
      throw new PostgresStartError(`PostgreSQL on ${launch.pgdata} did not start: processes of a killed server still hold its memory`);
    await pause(50);
  }
};
