import { chmod, mkdtemp, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { parseArgs } from 'node:util';
import { type Cluster, PostgresStartError, startPostgres } from './cluster.ts';

const HELP = `Runs an embedded PostgreSQL until SIGTERM, SIGINT or, when started with an IPC channel, until the parent is gone.

usage: main.ts [--data-dir DIR | --temporary] [--port N] [--no-fsync]

  --data-dir DIR   where the data lives; made when absent (default .banyan/postgres)
  --temporary      a new folder instead, removed at the end
  --port N         TCP port on 127.0.0.1, 0 = a free one (default 5433)
  --no-fsync       faster, may lose data when the machine dies; for tests
  --help
`;

type Flags = { dataDir: string; temporary: boolean; port: number; fsync: boolean };

const parse = (args: string[]): Flags | 'help' => {
  const options = {
    'data-dir': { type: 'string' },
    temporary: { type: 'boolean' },
    port: { type: 'string' },
    'no-fsync': { type: 'boolean' },
    help: { type: 'boolean' },
  } as const;
  const { values } = parseArgs({ args, options });
  if (values.help) return 'help';
  const port = Number(values.port ?? 5433);
  if (!Number.isInteger(port) || port < 0 || port > 65535) throw new Error(`--port ${values.port}: expected a number from 0 to 65535`);
  if (values.temporary && values['data-dir'] !== undefined) throw new Error('--temporary and --data-dir exclude each other');
  return { dataDir: values['data-dir'] ?? '.banyan/postgres', temporary: values.temporary ?? false, port, fsync: !values['no-fsync'] };
};

const say = (line: string): void => {
  process.stdout.write(`${line}\n`);
};

const main = async (): Promise<number> => {
  // Deaf writes: when the parent is gone so are its pipes, and the server must still be stopped in good order.
  for (const stream of [process.stdout, process.stderr]) stream.on('error', () => undefined);
  let flags: Flags | 'help';
  try {
    flags = parse(process.argv.slice(2));
  } catch (error) {
    process.stderr.write(`postgres: ${(error as Error).message} (--help explains)\n`);
    return 2;
  }
  if (flags === 'help') {
    process.stdout.write(HELP);
    return 0;
  }
  const asked = new Promise<'asked'>((resolve) => {
    for (const event of ['SIGTERM', 'SIGINT', 'disconnect'] as const) process.on(event, () => resolve('asked'));
  });
  const dataDir = flags.temporary ? await mkdtemp(join(tmpdir(), 'banyan-postgres-')) : flags.dataDir;
  if (flags.temporary) await chmod(dataDir, 0o755); // mkdtemp makes it 0700, which the user who runs the server for root cannot pass
  let cluster: Cluster | undefined;
  try {
    cluster = await startPostgres({ dataDir, port: flags.port, fsync: flags.fsync, log: say });
    say(`PostgreSQL on ${cluster.url()} (data in ${cluster.directory}; loopback only, no password: for development)`);
    if (process.connected) process.send?.({ type: 'ready', urls: { postgres: cluster.url() } }, () => undefined);
    if ((await Promise.race([asked, cluster.exited])) === 'asked') return 0;
    process.stderr.write(`postgres: the server ended on its own; its last words are in ${join(dataDir, 'server.log')}\n`);
    return 1;
  } catch (error) {
    process.stderr.write(`postgres: ${error instanceof PostgresStartError ? error.message : ((error as Error).stack ?? error)}\n`);
    return 2;
  } finally {
    await cluster?.stop();
    if (flags.temporary) {
      if (cluster) await rm(cluster.directory, { recursive: true, force: true });
      await rm(dataDir, { recursive: true, force: true });
    }
  }
};

process.exitCode = await main();
if (process.connected) process.disconnect();
