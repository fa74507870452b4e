import { once } from 'node:events';
import { chmod, mkdir, mkdtemp, readFile, rm, symlink, writeFile } from 'node:fs/promises';
import { createServer } from 'node:net';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { installInto } from '@banyan/dev-postgres/binaries.ts';
import { type Cluster, type PostgresOptions, startPostgres } from '@banyan/dev-postgres/cluster.ts';
import { gone, startedAt } from '@banyan/dev-postgres/processes.ts';
import { afterAll, afterEach, beforeAll, describe, expect, it } from '@jest/globals';
import pg from 'pg';
import { type FreshDatabase, freshDatabase } from '../harness/database.ts';
import { run } from '../harness/processes.ts';

const MAIN = 'dev/postgres/main.ts';
const clusters: Cluster[] = [];
const folders: string[] = [];
const postmasters = new Set<number>();

const start = async (options: PostgresOptions): Promise<Cluster> => {
  const cluster = await startPostgres(options);
  clusters.push(cluster);
  return cluster;
};

const folder = async (name = 'data'): Promise<string> => {
  const made = await mkdtemp(join(tmpdir(), 'banyan-test-'));
  folders.push(made);
  await chmod(made, 0o755);
  return join(made, name);
};

const query = async (url: string, sql: string): Promise<Record<string, unknown>[]> => {
  const client = new pg.Client({ connectionString: url });
  await client.connect();
  try {
    return (await client.query(sql)).rows;
  } finally {
    await client.end();
  }
};

const postmasterOf = async (dataDir: string): Promise<number> => {
  const pid = Number((await readFile(join(dataDir, 'pgdata', 'postmaster.pid'), 'utf8')).split('\n')[0]);
  postmasters.add(pid);
  return pid;
};

/** Starts main.ts, writes a row, and kills it so that its server is left alone. */
const abandon = async (dataDir: string): Promise<{ pid: number; url: string }> => {
  const parent = run(MAIN, ['--data-dir', dataDir, '--port', '0']);
  const { postgres: url } = await parent.ready();
  const pid = await postmasterOf(dataDir);
  await query(url!, 'create table note (id int primary key); insert into note values (1)');
  await parent.stop('SIGKILL');
  return { pid, url: url! };
};

afterEach(async () => {
  // Two of them may serve one directory in turn: it goes when nobody writes there any more.
  const ended = clusters.splice(0);
  for (const cluster of ended) await cluster.stop();
  for (const pid of postmasters) if (startedAt(pid) !== null) process.kill(pid, 'SIGQUIT');
  for (const pid of postmasters) await gone(pid, 10_000);
  postmasters.clear();
  for (const { directory } of ended) await rm(directory, { recursive: true, force: true });
  for (const made of folders.splice(0)) await rm(made, { recursive: true, force: true });
});

describe('two connections to one server', () => {
  let database: FreshDatabase;
  let a: pg.Client;
  let b: pg.Client;

  beforeAll(async () => {
    database = await freshDatabase('empty');
    [a, b] = [new pg.Client({ connectionString: database.url }), new pg.Client({ connectionString: database.url })];
    await Promise.all([a.connect(), b.connect()]);
    await a.query('create table job (id int primary key, state text not null)');
    await a.query("insert into job select n, 'new' from generate_series(1, 3) n");
  });
  afterAll(async () => {
    await Promise.all([a.end(), b.end()]);
    await database.drop();
  });

  it('have transactions open side by side, and skip what the other has locked', async () => {
    const next = 'select id from job order by id limit 1 for update skip locked';
    await a.query('begin');
    await b.query('begin');
    expect((await a.query(next)).rows).toEqual([{ id: 1 }]);
    expect((await b.query(next)).rows).toEqual([{ id: 2 }]);
    await b.query("update job set state = 'done' where id = 2");
    await b.query('commit');
    await a.query('rollback');
    expect((await a.query("select id from job where state = 'done'")).rows).toEqual([{ id: 2 }]);
  });

  it('get an advisory lock once', async () => {
    const lock = 'select pg_try_advisory_lock(7) as got';
    expect((await a.query(lock)).rows).toEqual([{ got: true }]);
    expect((await b.query(lock)).rows).toEqual([{ got: false }]);
    await a.query('select pg_advisory_unlock(7)');
  });

  it('hear each other by NOTIFY', async () => {
    const heard = once(a, 'notification');
    await a.query('listen flags');
    await b.query("notify flags, 'order'");
    expect(await heard).toEqual([expect.objectContaining({ channel: 'flags', payload: 'order' })]);
  });

  it('have a logical replication log', async () => {
    await a.query("select pg_create_logical_replication_slot('harness', 'pgoutput', true)");
    const [slot] = (await b.query("select wal_status from pg_replication_slots where slot_name = 'harness'")).rows;
    expect(slot).toEqual({ wal_status: 'reserved' });
  });
});

describe('the embedded server', () => {
  it('listens on the loopback interface only, and knows every letter', async () => {
    const cluster = await start({ dataDir: await folder(), port: 0, fsync: false, settings: { work_mem: '5MB' } });
    const settings =
      "select string_agg(name || '=' || setting, ' ' order by name) as said from pg_settings where name in ('listen_addresses', 'unix_socket_directories', 'wal_level', 'fsync', 'work_mem')";
    expect(await query(cluster.url(), settings)).toEqual([
      { said: 'fsync=off listen_addresses=127.0.0.1 unix_socket_directories= wal_level=logical work_mem=5120' },
    ]);
    expect(await query(cluster.url(), "select lower('ÄÖ') as lower, current_setting('server_encoding') as encoding")).toEqual([
      { lower: 'äö', encoding: 'UTF8' },
    ]);
    await cluster.createDatabase('a "b"');
    await query(cluster.url('a "b"'), 'create table copied (id int primary key)');
    await cluster.createDatabase('copy', 'a "b"');
    expect(await query(cluster.url('copy'), 'select * from copied')).toEqual([]);
    await cluster.dropDatabase('copy');
    await cluster.dropDatabase('copy');
    await expect(query(cluster.url('copy'), 'select 1')).rejects.toThrow('does not exist');
  });

  it('keeps its data over a restart, in a path with a space', async () => {
    const dataDir = await folder('with a space/and "quotes"');
    const first = await start({ dataDir, port: 0 });
    await query(first.url(), 'create table note (id int primary key); insert into note values (1)');
    await first.stop();
    await first.stop();
    const second = await start({ dataDir, port: first.port });
    expect(second.port).toBe(first.port);
    expect(second.adopted).toBe(false);
    expect(await query(second.url(), 'select * from note')).toEqual([{ id: 1 }]);
  });

  it('keeps what was committed when it is killed while a session is busy', async () => {
    const dataDir = await folder();
    const first = await start({ dataDir, port: 0 });
    await query(first.url(), 'create table note (id int primary key); insert into note values (1)');
    const busy = query(first.url(), 'insert into note values (2); select pg_sleep(60)').catch((error: Error) => error.message);
    process.kill(first.pid, 'SIGKILL');
    await first.exited;
    await first.stop();
    const second = await start({ dataDir, port: 0 });
    expect(await query(second.url(), 'select * from note')).toEqual([{ id: 1 }]);
    expect(await busy).toEqual(expect.any(String));
  });

  it('starts when the process id in a stale pid file belongs to another program', async () => {
    const dataDir = await folder();
    const first = await start({ dataDir, port: 0, fsync: false });
    process.kill(first.pid, 'SIGKILL');
    await first.exited;
    await first.stop();
    const pidFile = join(first.directory, 'pgdata', 'postmaster.pid');
    const bystander = run('dev/postgres/processes.ts', [], { nodeArguments: ['--eval', 'setInterval(() => {}, 1000)', '--'] });
    await writeFile(pidFile, (await readFile(pidFile, 'utf8')).replace(/^\d+/, String(bystander.pid)));
    const second = await start({ dataDir, port: 0, fsync: false });
    expect(await query(second.url(), 'select 1 as one')).toEqual([{ one: 1 }]);
    expect(startedAt(bystander.pid)).not.toBeNull();
    await bystander.stop('SIGKILL');
  });

  it('says in one line that the port is busy', async () => {
    const other = createServer().listen({ port: 0, host: '127.0.0.1' });
    await once(other, 'listening');
    const { port } = other.address() as { port: number };
    const child = run(MAIN, ['--data-dir', await folder(), '--port', String(port)]);
    expect(await child.exited).toEqual({ code: 2, signal: null });
    expect(child.lines).toEqual([
      `postgres: PostgreSQL cannot listen on 127.0.0.1:${port}: the port is in use by another program; stop that or choose another port`,
    ]);
    other.close();
  });

  it('serves one owner at a time', async () => {
    const dataDir = await folder();
    const cluster = await start({ dataDir, port: 0, fsync: false });
    await expect(startPostgres({ dataDir, port: 0, fsync: false })).rejects.toThrow(`is in use by process ${process.pid}`);
    expect(await query(cluster.url(), 'select 1 as one')).toEqual([{ one: 1 }]);
  });

  it('gives the server words when its data is unreadable', async () => {
    const dataDir = await folder();
    const first = await start({ dataDir, port: 0, fsync: false });
    await first.stop();
    await rm(join(first.directory, 'pgdata', 'global', 'pg_control'));
    await expect(startPostgres({ dataDir, port: 0, fsync: false })).rejects.toThrow(/did not start: .*pg_control/);
  });

  it('refuses a setting that is none', async () => {
    await expect(startPostgres({ dataDir: await folder(), port: 0, settings: { 'work mem': '1' } })).rejects.toThrow(
      '"work mem=1" is no PostgreSQL setting',
    );
  });
});

describe('a server whose parent was killed', () => {
  it('is adopted by the next start, and stopped by it', async () => {
    const dataDir = await folder();
    const left = await abandon(dataDir);
    const next = run(MAIN, ['--data-dir', dataDir, '--port', new URL(left.url).port]);
    expect((await next.ready()).postgres).toBe(left.url);
    expect(next.stdout[0]).toContain(`adopted the running PostgreSQL (process ${left.pid}`);
    expect(await query(left.url, 'select * from note')).toEqual([{ id: 1 }]);
    expect(await next.stop('SIGINT')).toEqual({ code: 0, signal: null });
    expect(startedAt(left.pid)).toBeNull();
  });

  it('is replaced when other settings are wanted, and keeps its data', async () => {
    const dataDir = await folder();
    const left = await abandon(dataDir);
    const next = await start({ dataDir, port: 0, fsync: false });
    expect(next.adopted).toBe(false);
    expect(startedAt(left.pid)).toBeNull();
    expect(await query(next.url(), "select id, current_setting('fsync') as fsync from note")).toEqual([{ id: 1, fsync: 'off' }]);
  });

  it('takes its end as the end of an adopted server too', async () => {
    const dataDir = await folder();
    const left = await abandon(dataDir);
    const next = await start({ dataDir, port: 0 });
    expect(next.adopted).toBe(true);
    process.kill(left.pid, 'SIGKILL');
    await next.exited;
  });
});

describe('main.ts', () => {
  it('stops the server when its parent goes away', async () => {
    const dataDir = await folder();
    const script = `require('node:child_process').fork(process.argv[1], ['--data-dir', process.argv[2], '--port', '0'], { execArgv: [] }).on('message', (m) => console.log(m.urls.postgres, m.type))`;
    const parent = run(MAIN, [dataDir], { nodeArguments: ['--eval', script] });
    await parent.line(/ready$/);
    const pid = await postmasterOf(dataDir);
    await parent.stop('SIGKILL');
    expect(await gone(pid, 20_000)).toBe(true);
  });

  it('removes a temporary folder at the end', async () => {
    const child = run(MAIN, ['--temporary', '--no-fsync', '--port', '0']);
    await child.ready();
    const directory = (await child.line(/data in (.+?);/))[1]!;
    await postmasterOf(directory);
    expect(await child.stop()).toEqual({ code: 0, signal: null });
    await expect(readFile(join(directory, 'server.log'))).rejects.toThrow('ENOENT');
  });

  it('explains wrong flags', async () => {
    const child = run(MAIN, ['--port', '70000']);
    expect(await child.exited).toEqual({ code: 2, signal: null });
    expect(child.stderr).toEqual(['postgres: --port 70000: expected a number from 0 to 65535 (--help explains)']);
  });

  it('says when the server died by itself', async () => {
    const dataDir = await folder();
    const child = run(MAIN, ['--data-dir', dataDir, '--port', '0', '--no-fsync']);
    await child.ready();
    process.kill(await postmasterOf(dataDir), 'SIGKILL');
    expect(await child.exited).toEqual({ code: 1, signal: null });
    expect(child.stderr[0]).toContain('the server ended on its own');
  });
});

describe('below a folder that only its owner may pass', () => {
  it('serves, keeps its data, and begins anew when the folder was removed', async () => {
    const home = await folder('home');
    await mkdir(home, { mode: 0o700 });
    const dataDir = join(home, 'project', '.banyan');
    const first = await start({ dataDir, port: 0, fsync: false });
    expect(first.directory === dataDir).toBe(process.getuid?.() !== 0);
    await query(first.url(), 'create table note (id int primary key)');
    await first.stop();
    const second = await start({ dataDir, port: 0, fsync: false });
    expect(second.directory).toBe(first.directory);
    expect(await query(second.url(), 'select * from note')).toEqual([]);
    await second.stop();
    await rm(dataDir, { recursive: true });
    const third = await start({ dataDir, port: 0, fsync: false });
    await expect(query(third.url(), 'select * from note')).rejects.toThrow('does not exist');
  });
});

describe('the copy of the programs', () => {
  it('has the library links that a blocked install script did not make, and is made once by many starts at a time', async () => {
    const made = await folder('package');
    for (const path of ['native/bin', 'native/lib', 'native/share/postgresql'])
      await mkdir(join(made, path), { recursive: true, mode: 0o700 });
    for (const path of ['bin/postgres', 'bin/initdb', 'share/postgresql/postgres.bki', 'lib/libpq.so.5.18', 'lib/libz.so.1'])
      await writeFile(join(made, 'native', path), path, { mode: 0o600 });
    await symlink('libz.so.1', join(made, 'native/lib/libz.so'));
    const listed = ['libpq.so.5', 'libpq.so'].map((name) => ({ source: 'native/lib/libpq.so.5.18', target: `native/lib/${name}` }));
    await writeFile(join(made, 'pg-symlinks.json'), JSON.stringify(listed));
    const cache = await folder('cache');
    await mkdir(cache);
    const copies = await Promise.all([1, 2, 3, 4].map(() => installInto(cache, { directory: made, version: '18.0' })));
    expect(new Set(copies).size).toBe(1);
    const copy = copies[0]!;
    expect(await readFile(join(copy, 'lib/libpq.so.5'), 'utf8')).toBe('lib/libpq.so.5.18');
    expect(await readFile(join(copy, 'lib/libz.so'), 'utf8')).toBe('lib/libz.so.1');
    await rm(join(copy, 'share'), { recursive: true }); // as a cleaner of temporary files would
    await installInto(cache, { directory: made, version: '18.0' });
    expect(await readFile(join(copy, 'share/postgresql/postgres.bki'), 'utf8')).toBe('share/postgresql/postgres.bki');
  });
});
