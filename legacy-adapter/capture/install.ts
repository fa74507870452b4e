import { createHash } from 'node:crypto';
import { AppError } from '@banyan/contracts/errors.ts';
import type { Knex } from 'knex';
import { describeTables, literal, type Shapes, type TableShape, tableSql } from '../legacy-rows.ts';
import type { Aggregate } from '../ports.ts';
import { qualified, tablesOf } from '../ports.ts';
import { CAPTURE_VERSION, SCHEMA_SQL, triggersOf } from './install-sql.ts';

/** Adapters that install at the same time do it one after the other. Arbitrary, but must never change. */
const INSTALL_LOCK = 7_311_440;
/** A trigger needs a lock that waits for running writers while later writers wait behind it: give up early and try again rather than stall the shop. */
const LOCK_TIMEOUT_MS = 2000;
const LOCK_ATTEMPTS = 10;

const argumentsOf = (context: string, shape: TableShape): string => {
  const key = `{${shape.primaryKey.map((column) => `"${column.replaceAll(/(["\\])/g, '\\$1')}"`).join(',')}}`;
  return [context, key, shape.table.link].map(literal).join(', ');
};

const isLockTimeout = (error: unknown): boolean =>
  error instanceof Error && 'code' in error && (error.code === '55P03' || error.code === '40P01');

/** Runs `change` with a short lock time-out, again while the tables are busy. @throws AppError `conflict` when they stay busy */
const withBriefLocks = async (db: Knex, change: (trx: Knex.Transaction) => Promise<void>): Promise<void> => {
  for (let attempt = 1; ; attempt += 1) {
    try {
      await db.transaction(async (trx) => {
        await trx.raw('select pg_advisory_xact_lock(?)', [INSTALL_LOCK]);
        await trx.raw(`set local lock_timeout = ${LOCK_TIMEOUT_MS}`);
        await trx.raw(`set local client_min_messages = 'warning'`);
        await change(trx);
      });
      return;
    } catch (error) {
      if (!isLockTimeout(error)) throw error;
      if (attempt === LOCK_ATTEMPTS)
        throw new AppError('conflict', 'a long transaction holds the legacy tables: the triggers could not be changed, try again later', {
          retryable: true,
          cause: error,
        });
    }
  }
};

const dropTriggers = async (db: Knex, table: string): Promise<void> => {
  for (const name of Object.keys(triggersOf(table, ''))) await db.raw(`drop trigger if exists ${name} on ${table}`);
};

/**
 * Makes capture's schema and triggers for the aggregates and takes away the triggers of tables that are no longer among them. Idempotent: tables
 * whose triggers are right are not locked. A context that gets a trigger anew must be read by a snapshot again, since changes may have gone by.
 * @throws AppError `not-configured` for tables that cannot be captured; then nothing has changed
 */
export const install = async (db: Knex, aggregates: readonly Aggregate[]): Promise<void> => {
  const shapes = await describeTables(db, aggregates);
  await withBriefLocks(db, async (trx) => {
    await trx.raw(SCHEMA_SQL);
    const { rows: installed } = await trx.raw<{ rows: { tbl: string; definition: string; intact: boolean }[] }>(
      `select c.tbl, c.definition, (select count(*) from pg_trigger t where t.tgrelid = to_regclass(c.tbl) and t.tgname like 'banyan\\_capture\\_%' and t.tgenabled <> 'D') = 4 as intact
       from banyan_capture.captured_table c`,
    );
    const wanted = aggregates.flatMap((aggregate) => tablesOf(aggregate).map((table) => ({ aggregate, table, sql: tableSql(table) })));
    for (const { tbl } of installed.filter((row) => !wanted.some(({ sql }) => sql === row.tbl))) {
      const { rows } = await trx.raw<{ rows: { there: boolean }[] }>('select to_regclass(?) is not null as there', [tbl]);
      if (rows[0]!.there) await dropTriggers(trx, tbl);
      await trx.raw('delete from banyan_capture.captured_table where tbl = ?', [tbl]);
    }
    for (const { aggregate, table, sql } of wanted) {
      const triggers = triggersOf(sql, argumentsOf(aggregate.context, shapes.get(table.name)!));
      const definition = createHash('sha256')
        .update(JSON.stringify([CAPTURE_VERSION, triggers]))
        .digest('hex');
      const before = installed.find((row) => row.tbl === sql);
      if (before?.intact && before.definition === definition) continue;
      await dropTriggers(trx, sql);
      for (const [name, what] of Object.entries(triggers)) await trx.raw(`create trigger ${name} ${what}`);
      await trx.raw(
        `insert into banyan_capture.captured_table (tbl, context, definition) values (?, ?, ?)
         on conflict (tbl) do update set context = excluded.context, definition = excluded.definition`,
        [sql, aggregate.context, definition],
      );
      // Replaced in one transaction = nothing was missed; made anew = whatever happened without it is unknown.
      if (!before?.intact) await trx.raw('delete from banyan_capture.snapshot where context = ?', [aggregate.context]);
    }
    const contexts = aggregates.map((aggregate) => aggregate.context);
    for (const table of ['snapshot', 'change'])
      await trx.raw(`delete from banyan_capture.${table} where context <> all(?::text[])`, [contexts]);
  });
};

/** Takes away everything that `install` made; the legacy database is then as it was. Changes that were not settled yet are gone. */
export const remove = async (db: Knex): Promise<void> => {
  const { rows: there } = await db.raw<{ rows: { there: boolean }[] }>(
    `select to_regclass('banyan_capture.captured_table') is not null as there`,
  );
  if (!there[0]!.there) return;
  await withBriefLocks(db, async (trx) => {
    const { rows } = await trx.raw<{ rows: { tbl: string }[] }>(
      'select tbl from banyan_capture.captured_table where to_regclass(tbl) is not null',
    );
    for (const { tbl } of rows) await dropTriggers(trx, tbl);
    await trx.raw('drop schema banyan_capture cascade');
  });
};

export type Installed = { readonly databaseId: string; readonly shapes: Shapes };

/** What capture needs to read, or null while it is not installed for all of the aggregates' tables. */
export const installation = async (db: Knex, aggregates: readonly Aggregate[]): Promise<Installed | null> => {
  const { rows: there } = await db.raw<{ rows: { there: boolean }[] }>(
    `select to_regclass('banyan_capture.captured_table') is not null as there`,
  );
  if (!there[0]!.there) return null;
  const { rows } = await db.raw<{ rows: { database_id: string; tables: string[] }[] }>(
    `select database_id, coalesce((select array_agg(tbl) from banyan_capture.captured_table), '{}') as tables from banyan_capture.meta`,
  );
  const captured = new Set(rows[0]?.tables);
  if (!rows[0] || !aggregates.flatMap(tablesOf).every((table) => captured.has(tableSql(table)))) return null;
  return { databaseId: rows[0].database_id, shapes: await describeTables(db, aggregates) };
};

/** Names of the captured tables, for people. */
export const tableNames = (aggregates: readonly Aggregate[]): string[] => aggregates.flatMap(tablesOf).map(qualified);
