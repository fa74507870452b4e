import type { Envelope } from '@banyan/contracts/envelope.ts';
import { AppError } from '@banyan/contracts/errors.ts';
import type { Knex } from 'knex';
import { loadAggregates, quoted, type Shapes, tableSql } from '../legacy-rows.ts';
import type { Aggregate, LegacyRow, LegacyTable, LegacyValue, LegacyWrite, Translation } from '../ports.ts';
import { tablesOf } from '../ports.ts';

export type ApplyDeps = {
  readonly legacy: Knex;
  readonly translation: Translation;
  readonly aggregates: readonly Aggregate[];
  readonly shapes: Shapes;
};

/** `skipped` = an equal or newer fact of the same source and subject was applied before. */
export type Applied = 'applied' | 'skipped';

/** Not longer than a request of the shop may wait for the rows that back-sync holds. */
export const STATEMENT_TIMEOUT_MS = 10_000;

const pairs = (row: LegacyRow): [string, LegacyValue][] => Object.entries(row);
const whereKey = (key: LegacyRow): string =>
  pairs(key)
    .map(([column]) => `${quoted(column)} = ?`)
    .join(' and ');
const values = (row: LegacyRow): Knex.Value[] => pairs(row).map(([, value]) => value as Knex.Value);

/** @throws AppError `conflict` for an `add` that has no row or would fall below zero */
export const write = async (trx: Knex, tables: readonly LegacyTable[], change: LegacyWrite): Promise<void> => {
  const found = tables.find(({ name }) => name === change.table);
  if (!found) throw new AppError('internal', `the translation writes ${change.table}, which is none of its tables`);
  const table = tableSql(found);
  const named = `${change.table} ${pairs(change.key)
    .map(([column, value]) => `${column}=${String(value)}`)
    .join(', ')}`;
  switch (change.kind) {
    case 'delete':
      await trx.raw(`delete from ${table} where ${whereKey(change.key)}`, values(change.key));
      return;
    case 'add': {
      const column = quoted(change.column);
      const { rowCount } = await trx.raw<{ rowCount: number }>(
        `update ${table} set ${column} = ${column} + ? where ${whereKey(change.key)} and ${column} + ? >= 0`,
        [change.by, ...values(change.key), change.by],
      );
      if (rowCount !== 1) throw new AppError('conflict', `${named}: ${change.column} has no ${-change.by} left`, { retryable: true });
      return;
    }
    case 'upsert': {
      const set = pairs(change.set)
        .map(([column]) => `${quoted(column)} = ?`)
        .join(', ');
      const { rowCount } = await trx.raw<{ rowCount: number }>(`update ${table} set ${set} where ${whereKey(change.key)}`, [
        ...values(change.set),
        ...values(change.key),
      ]);
      if (rowCount > 0) return;
      const row = { ...change.key, ...change.set };
      await trx.raw(
        `insert into ${table} (${Object.keys(row).map(quoted).join(', ')}) values (${Object.keys(row)
          .map(() => '?')
          .join(', ')})`,
        values(row),
      );
    }
  }
};

/**
 * Writes one fact into the legacy tables: one transaction, marked so that capture does not echo it, and only when it is newer than what was
 * applied for its source and subject. May be repeated.
 * @throws AppError or the database's error when it cannot be written; then nothing has changed
 */
export const applyFact = ({ legacy, translation, aggregates, shapes }: ApplyDeps, context: string, fact: Envelope): Promise<Applied> =>
  legacy.transaction(async (trx) => {
    const aggregate = aggregates.find((candidate) => candidate.context === context);
    if (!aggregate) throw new AppError('not-found', `the legacy system has no context ${context}`);
    await trx.raw(`set local banyan.origin = 'back-sync'`);
    await trx.raw(`set local statement_timeout = ${STATEMENT_TIMEOUT_MS}`);
    // The row's lock makes two adapters that hold the same fact apply it one after the other. Never back, and never twice.
    const { rowCount } = await trx.raw<{ rowCount: number }>(
      `insert into banyan_capture.sync_map as m (context, subject, source, epoch, sequence) values (?, ?, ?, ?, ?::bigint)
       on conflict (context, subject, source) do update set epoch = excluded.epoch, sequence = excluded.sequence, applied_at = clock_timestamp()
         where (m.epoch, m.sequence) < (excluded.epoch, excluded.sequence)`,
      [context, fact.subject, fact.source, fact.epoch, fact.sequence],
    );
    if (rowCount === 0) return 'skipped';
    const current = (await loadAggregates(trx, shapes, aggregate, [fact.subject], true)).get(fact.subject)!;
    // An order books stock even where the context of the stock is not configured.
    const tables = translation.aggregates.flatMap(tablesOf);
    for (const change of translation.writes(context, fact, current)) await write(trx, tables, change);
    return 'applied';
  });
