import { afterAll, describe, expect, it } from '@jest/globals';
import pg from 'pg';
import { freshDatabase } from './database.ts';
import { freePort } from './ports.ts';
import { run } from './processes.ts';
import { until } from './wait.ts';

const clients: pg.Client[] = [];
const connect = async (url: string): Promise<pg.Client> => {
  const client = new pg.Client({ connectionString: url, application_name: 'harness' });
  clients.push(client);
  await client.connect();
  return client;
};

afterAll(() => Promise.all(clients.map((client) => client.end().catch(() => undefined))));

describe('a database of its own', () => {
  it('is cloned, separate and removed', async () => {
    const [a, b] = await Promise.all([freshDatabase('empty'), freshDatabase('empty')]);
    const [inA, inB] = [await connect(a.url), await connect(b.url)];
    await inA.query('create table only_in_a (id int primary key)');
    expect((await inB.query("select to_regclass('only_in_a') as found")).rows).toEqual([{ found: null }]);
    await Promise.all([inA.end(), inB.end()]);
    await Promise.all([a.drop(), b.drop()]);
    await expect(connect(a.url)).rejects.toThrow('does not exist');
  });

  it('has the migrated schema when it is a store', async () => {
    const store = await freshDatabase('store');
    const client = await connect(store.url);
    expect(
      (await client.query("select count(*)::int > 0 as any from information_schema.tables where table_schema = 'banyan'")).rows,
    ).toEqual([{ any: true }]);
    await client.end();
    await store.drop();
  });

  it('names the sessions that a test left open', async () => {
    const database = await freshDatabase('empty');
    const left = await connect(database.url);
    const broken = new Promise((resolve) => left.on('error', resolve));
    await left.query('select 42 as forgotten');
    await expect(database.drop()).rejects.toThrow('left 1 database session(s) open: [harness, idle] select 42 as forgotten');
    await broken;
  });
});

describe('waiting', () => {
  it('returns the first value that is set', async () => {
    let looks = 0;
    expect(await until(() => (looks++ < 2 ? null : 0), { describe: 'the third look' })).toBe(0);
  });

  it('says what it waited for and what it saw last', async () => {
    await expect(until(() => false, { describe: 'a miracle', timeoutMs: 1 })).rejects.toThrow(
      /waited 4 ms for a miracle: not so in \d+ looks; last value: false/,
    );
    const failing = (): boolean => {
      throw new Error('no such row');
    };
    await expect(until(failing, { describe: 'a row', timeoutMs: 1 })).rejects.toThrow('last error: no such row');
  });
});

describe('a child process', () => {
  it('is read, awaited and stopped', async () => {
    const child = run('dev/postgres/main.ts', ['--help']);
    expect((await child.line(/^usage: (\S+)/))[1]).toBe('main.ts');
    expect(await child.exited).toEqual({ code: 0, signal: null });
    await expect(child.ready()).rejects.toThrow('before its ready message; its output:\nRuns an embedded');
  });

  it('runs under the same Node as the tests', async () => {
    const child = run('test/harness/ports.ts', [], { nodeArguments: ['--print', 'process.version', '--'] });
    await child.exited;
    expect(child.stdout).toEqual([process.version]);
  });
});

it('gives ports that can be listened on', async () => {
  const [a, b] = [await freePort(), await freePort()];
  expect(a).toBeGreaterThan(0);
  expect(b).toBeGreaterThan(0);
});
