import { type ChildProcess, fork } from 'node:child_process';
import { once } from 'node:events';
import { createServer, type IncomingMessage } from 'node:http';
import type { AddressInfo } from 'node:net';
import { fileURLToPath } from 'node:url';
import pg from 'pg';

/** What a database starts with: nothing, or the gateway's migrated schema. */
export type Kind = 'empty' | 'store';

/** Hands out databases of one embedded PostgreSQL to the test files of one jest run, over HTTP on the loopback interface. */
export type DatabaseServer = { url: string; stop: () => Promise<void> };

const MAIN = fileURLToPath(new URL('../../dev/postgres/main.ts', import.meta.url));
const STORE_TEMPLATE = 'template_store';
const IN_USE = '55006'; // object_in_use

type Server = { url: (database: string) => string; stop: () => Promise<void> };

const startServer = async (): Promise<Server> => {
  // Its own process: when jest is killed the IPC channel closes, and the server stops and removes its folder.
  const child: ChildProcess = fork(MAIN, ['--temporary', '--no-fsync', '--port', '0'], {
    execArgv: [],
    stdio: ['ignore', 'ignore', 'pipe', 'ipc'],
  });
  let said = '';
  child.stderr?.on('data', (chunk: Buffer) => {
    said = (said + chunk).slice(-2_000);
  });
  const ended = once(child, 'close');
  const ready = await Promise.race([
    new Promise<{ urls: { postgres: string } }>((resolve) =>
      child.once('message', (message) => resolve(message as { urls: { postgres: string } })),
    ),
    ended.then(() => {
      throw new Error(`no PostgreSQL for the tests: ${said.trim() || `${MAIN} ended without a word`}`);
    }),
  ]);
  const base = new URL(ready.urls.postgres);
  return {
    url: (database) => Object.assign(new URL(base), { pathname: `/${database}` }).href,
    stop: async () => {
      child.kill('SIGTERM');
      await ended;
    },
  };
};

const execute = async (url: string, sql: string, values: unknown[] = []): Promise<Record<string, unknown>[]> => {
  const client = new pg.Client({ connectionString: url });
  client.on('error', () => undefined); // the query in flight fails and tells
  await client.connect();
  try {
    return (await client.query(sql, values)).rows;
  } finally {
    await client.end();
  }
};

const migratedTemplate = async (server: Server): Promise<string> => {
  await execute(server.url('postgres'), `create database ${STORE_TEMPLATE}`);
  const { migrate } = await import('@banyan/gateway/migrations/migrate.ts');
  await migrate(server.url(STORE_TEMPLATE));
  return STORE_TEMPLATE;
};

/** Drops a database. A session that its test file left open fails the file, since it is a pool or process that nobody stopped. */
const drop = async (server: Server, name: string): Promise<void> => {
  const admin = server.url('postgres');
  try {
    await execute(admin, `drop database if exists ${name}`); // waits up to 5 s for sessions that are ending
  } catch (error) {
    if ((error as { code?: string }).code !== IN_USE) throw error;
    const left = await execute(
      admin,
      'select application_name, state, left(query, 200) as query from pg_stat_activity where datname = $1',
      [name],
    );
    await execute(admin, `drop database if exists ${name} with (force)`);
    const list = left.map((session) => `[${session.application_name || 'unnamed'}, ${session.state}] ${session.query}`).join('; ');
    throw new Error(`the test left ${left.length} database session(s) open: ${list}`);
  }
};

/** Listens; PostgreSQL itself starts with the first database that is asked for, so that tests without one do not pay for it. */
export const serveDatabases = async (): Promise<DatabaseServer> => {
  let server: Promise<Server> | undefined;
  let template: Promise<string> | undefined;
  let made = 0;
  const create = async (kind: Kind): Promise<string> => {
    server ??= startServer();
    const running = await server;
    if (kind === 'store') template ??= migratedTemplate(running);
    const from = kind === 'store' ? await template : 'template1';
    made += 1;
    const name = `test_${made}`;
    await execute(running.url('postgres'), `create database ${name} template ${from}`);
    return running.url(name);
  };
  const answer = async (request: IncomingMessage): Promise<string> => {
    const [, , last = ''] = (request.url ?? '').split('/');
    if (request.method === 'POST' && (last === 'empty' || last === 'store')) return create(last);
    if (request.method === 'DELETE' && /^test_\d+$/.test(last) && server) {
      await drop(await server, last);
      return '';
    }
    throw new Error(`${request.method} ${request.url}: expected POST /databases/empty, POST /databases/store or DELETE /databases/test_N`);
  };
  const http = createServer((request, response) => {
    answer(request).then(
      (text) => response.end(text),
      (error: unknown) => response.writeHead(500).end(error instanceof Error ? error.message : String(error)),
    );
  });
  http.listen({ port: 0, host: '127.0.0.1' });
  await once(http, 'listening');
  return {
    url: `http://127.0.0.1:${(http.address() as AddressInfo).port}`,
    stop: async () => {
      http.close();
      http.closeAllConnections();
      const running = await server?.catch(() => undefined);
      await running?.stop();
    },
  };
};
