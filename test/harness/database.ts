import type { Kind } from './database-server.ts';

/** A database of its own for one test file. */
export type FreshDatabase = {
  /** `postgres://…`, superuser, loopback. */
  url: string;
  /** Removes it. @throws Error when the test left sessions open in it */
  drop: () => Promise<void>;
};

const ask = async (method: 'POST' | 'DELETE', name: string): Promise<string> => {
  const base = process.env.BANYAN_TEST_DATABASES;
  if (base === undefined)
    throw new Error('BANYAN_TEST_DATABASES is not set: run the test with npm test, whose global set-up provides databases');
  const response = await fetch(`${base}/databases/${name}`, { method, headers: { connection: 'close' } });
  const text = await response.text();
  if (!response.ok) throw new Error(text);
  return text;
};

/**
 * Makes a database on the PostgreSQL that all test files of a run share (fsync off; logical replication on).
 * @param kind `store` = cloned from a template with the gateway's migrations applied; `empty` = nothing in it
 */
export const freshDatabase = async (kind: Kind): Promise<FreshDatabase> => {
  const url = await ask('POST', kind);
  return { url, drop: async () => void (await ask('DELETE', new URL(url).pathname.slice(1))) };
};
