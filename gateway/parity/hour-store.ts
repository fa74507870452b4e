import type { Knex } from 'knex';
import { type EvidenceStore, type FieldRow, type Hours, MAX_FIELD_ROWS, OTHER_FIELD } from './evidence.ts';
import { mergedRows } from './template-store.ts';

export const FIELD_KEY = ['context', 'route', 'field', 'kind', 'rule'] as const;
const fieldKeyOf = (row: Record<(typeof FIELD_KEY)[number], string>): string => FIELD_KEY.map((name) => row[name]).join('\u0000');

/** The store's clock counts, for there are many gateways. */
export const hourNow = async (trx: Knex): Promise<string> => {
  const { rows } = await trx.raw<{ rows: { hour: string }[] }>(`select date_trunc('hour', now(), 'UTC')::text as hour`);
  return rows[0]!.hour;
};

/** Names of fields come from bodies, and bodies may hold anything: once a context has too many rows here, new ones become `(other)`. */
export const boundedFields = async (
  trx: Knex,
  table: string,
  within: Readonly<Record<string, string>>,
  rows: readonly FieldRow[],
): Promise<FieldRow[]> => {
  const kept: FieldRow[] = [];
  for (const [context, own] of Map.groupBy(rows, (row) => row.context)) {
    const found = await trx
      .withSchema('banyan')
      .from(table)
      .where({ context, ...within })
      .limit(MAX_FIELD_ROWS)
      .select<FieldRow[]>(...FIELD_KEY);
    const names = new Set(found.map(fieldKeyOf));
    for (const row of own) {
      const isNew = !names.has(fieldKeyOf(row));
      if (isNew && names.size >= MAX_FIELD_ROWS) {
        kept.push({ ...row, field: OTHER_FIELD });
        continue;
      }
      names.add(fieldKeyOf(row));
      kept.push(row);
    }
  }
  return mergedRows(kept, FIELD_KEY, ['n']);
};

/** Of each kind in one answer. */
const MAX_HOUR_ROWS = 200_000;

/** Figures by the hour in PostgreSQL (migration 052-parity-hours). */
export const createHourStore = (db: Knex): Pick<EvidenceStore, 'hours' | 'prune'> => ({
  hours: async ({ context, from, to, route }) => {
    const read = (table: string, columns: readonly string[]) =>
      db
        .withSchema('banyan')
        .from(table)
        .where({ context, ...(route === undefined ? {} : { route }) })
        .where('hour', '>=', from)
        .where('hour', '<', to)
        .orderBy('hour', 'desc')
        .orderBy('n', 'desc')
        .limit(MAX_HOUR_ROWS)
        .select<Record<string, unknown>[]>(...columns, 'n', 'hour');
    const [counts, fields] = await Promise.all([
      read('parity_hour_count', ['context', 'route', 'what', 'why']),
      read('parity_hour_field', FIELD_KEY),
    ]);
    const numbered = (row: Record<string, unknown>) => ({ ...row, n: Number(row.n) });
    return { counts: counts.map(numbered) as unknown as Hours['counts'], fields: fields.map(numbered) as unknown as Hours['fields'] };
  },
  prune: async (context, before) => {
    for (const table of ['parity_hour_count', 'parity_hour_field'])
      await db.withSchema('banyan').from(table).where({ context }).where('hour', '<', before).delete();
  },
});
