import type { Knex } from 'knex';
import type { Logger } from 'pino';
import type { Listener } from './flags/listener.ts';

/** Most connections of each pool; 0 = this process has no use for it. */
export type Pools = { readonly db: number; readonly write: number; readonly relay: number };

export type Store = {
  readonly url: string;
  readonly db: Knex;
  /** The two commits of commands. */
  readonly writeDb: Knex;
  /** The relay's own: a busy data plane must not keep facts back. */
  readonly relayDb: Knex;
  readonly listener: Listener;
  migrate(): Promise<void>;
  close(): Promise<void>;
};

/** A gateway that is one process, with one more connection to LISTEN. Commands share transactions, so a few connections carry them. */
const WHOLE: Pools = { db: 8, write: 6, relay: 3 };
/** Two: one that waits for a slow answer must not keep the heartbeat back. */
const LEAST = 2;

/** The connections of a gateway divided over its processes (docs/operations.md). @param of how many workers there are; 1 = a single process */
export const poolsOf = (role: 'whole' | 'primary' | 'worker', of: number): Pools => {
  if (role === 'whole') return WHOLE;
  if (role === 'primary') return { ...WHOLE, write: 0 };
  const share = (all: number): number => Math.max(LEAST, Math.ceil(all / of));
  return { db: share(WHOLE.db), write: share(WHOLE.write), relay: 0 };
};

/** Loaded only where there is a store: a plain proxy must be ready in a blink, and neither SQL nor the AWS SDK is light. Connects when first used. */
export const openStore = async (url: string, pools: Pools, log: Logger): Promise<Store> => {
  const [{ default: knex }, { createListener }, { migrate }] = await Promise.all([
    import('knex'),
    import('./flags/listener.ts'),
    import('./migrations/migrate.ts'),
  ]);
  const pool = (name: string, max: number, timeoutMs: number): Knex =>
    knex({
      client: 'pg',
      connection: {
        connectionString: url,
        application_name: name,
        connectionTimeoutMillis: 3000,
        statement_timeout: timeoutMs,
        query_timeout: timeoutMs + 1000,
        keepAlive: true,
      },
      pool: { min: 0, max },
      acquireConnectionTimeout: 3000,
      // knex would write to stdout
      log: {
        warn: (message: unknown) => log.warn(String(message)),
        error: (message: unknown) => log.warn(String(message)),
        debug: () => undefined,
        deprecate: () => undefined,
      },
    });
  const db = pool('banyan-gateway', pools.db, 30_000);
  // a store that hangs must not hold a client for long
  const writeDb = pools.write > 0 ? pool('banyan-ledger', pools.write, 5_000) : db;
  const relayDb = pools.relay > 0 ? pool('banyan-relay', pools.relay, 15_000) : db;
  const listener = createListener({ databaseUrl: url, log });
  return {
    url,
    db,
    writeDb,
    relayDb,
    listener,
    migrate: () => migrate(url),
    async close() {
      await listener.stop();
      await Promise.all([...new Set([db, writeDb, relayDb])].map((one) => one.destroy()));
    },
  };
};
