import { type DatabaseServer, serveDatabases } from './database-server.ts';

/** Where the set-up leaves the server for the tear-down: jest loads the two apart from each other. */
export const KEY = Symbol.for('banyan.test.databases');

export type Holder = { [KEY]?: DatabaseServer };

/** Once per jest run, before the workers start: they inherit the variable. */
export default async (): Promise<void> => {
  const server = await serveDatabases();
  (globalThis as Holder)[KEY] = server;
  process.env.BANYAN_TEST_DATABASES = server.url;
};
