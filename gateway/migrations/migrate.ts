import { readdir } from 'node:fs/promises';
import knex, { type Knex } from 'knex';

/** knex writes what the caller is told anyway, stack and all, to stdout and stderr. */
const SILENT = { warn: () => undefined, error: () => undefined, debug: () => undefined, deprecate: () => undefined };

type Migration = { readonly name: string; readonly up: (db: Knex) => Promise<void> };

/** All gateways that start at once migrate one after the other: knex's own lock fails instead of waiting. */
const MIGRATION_LOCK = 7_311_425;

const load = async (): Promise<Migration[]> => {
  const files = (await readdir(import.meta.dirname)).filter((file) => /^[0-9]{3}-[a-z0-9-]+\.(ts|js)$/.test(file)).sort();
  return Promise.all(files.map(async (file) => (await import(`./${file}`)) as Migration));
};

/**
 * Brings schema `banyan` of the store up to date. Forward only, each migration once, in the order of its number, each in a transaction.
 * Safe to call from many processes at once.
 */
export const migrate = async (databaseUrl: string): Promise<void> => {
  const db = knex({
    client: 'pg',
    connection: { connectionString: databaseUrl, connectionTimeoutMillis: 5000 },
    pool: { min: 0, max: 1 },
    log: SILENT,
  });
  try {
    const migrations = await load();
    await db.transaction(async (trx) => {
      await trx.raw('select pg_advisory_xact_lock(?)', [MIGRATION_LOCK]);
      await trx.raw('create schema if not exists banyan');
      await trx.raw('create table if not exists banyan.migration (name text primary key, at timestamptz not null default now())');
      const done = new Set((await trx<{ name: string }>('banyan.migration').select('name')).map((row) => row.name));
      for (const migration of migrations) {
        if (done.has(migration.name)) continue;
        await migration.up(trx);
        await trx('banyan.migration').insert({ name: migration.name });
      }
    });
  } finally {
    await db.destroy();
  }
};
