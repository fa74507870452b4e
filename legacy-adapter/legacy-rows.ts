import { AppError } from '@banyan/contracts/errors.ts';
import type { Knex } from 'knex';
import type { Aggregate, AggregateRows, LegacyRow, LegacyTable } from './ports.ts';
import { qualified, tablesOf } from './ports.ts';

/** What the catalogue says about a captured table. */
export type TableShape = { readonly table: LegacyTable; readonly primaryKey: readonly string[]; readonly linkType: string };

/** Shapes by table name (without schema). */
export type Shapes = ReadonlyMap<string, TableShape>;

/** Quotes an identifier. */
export const quoted = (name: string): string => `"${name.replaceAll('"', '""')}"`;
/** Quotes a text. */
export const literal = (text: string): string => `'${text.replaceAll("'", "''")}'`;
/** `"schema"."name"`, safe inside SQL. */
export const tableSql = (table: LegacyTable): string => `${quoted(table.schema)}.${quoted(table.name)}`;

/**
 * Looks all tables of the aggregates up.
 * @throws AppError `not-configured` naming every table that is missing, has no primary key, or lacks its link column
 */
export const describeTables = async (db: Knex, aggregates: readonly Aggregate[]): Promise<Shapes> => {
  const shapes = new Map<string, TableShape>();
  const faults: string[] = [];
  for (const table of aggregates.flatMap(tablesOf)) {
    const { rows } = await db.raw<{ rows: { found: boolean; pk: string[]; link_type: string | null }[] }>(
      `select c.oid is not null as found,
         coalesce((select array_agg(a.attname::text order by k.n) from pg_index i, unnest(i.indkey) with ordinality as k (attnum, n), pg_attribute a
           where i.indrelid = c.oid and i.indisprimary and a.attrelid = c.oid and a.attnum = k.attnum), '{}') as pk,
         (select format_type(a.atttypid, null) from pg_attribute a where a.attrelid = c.oid and a.attname = ? and not a.attisdropped) as link_type
       from (select to_regclass(?) as oid) c`,
      [table.link, tableSql(table)],
    );
    const row = rows[0]!;
    if (!row.found) faults.push(`there is no table ${qualified(table)}`);
    else if (row.pk.length === 0)
      faults.push(
        `table ${qualified(table)} has no primary key: capture needs one to tell its rows apart; add a primary key, or take the table out of translate/`,
      );
    else if (row.link_type === null) faults.push(`table ${qualified(table)} has no column ${table.link}`);
    else shapes.set(table.name, { table, primaryKey: row.pk, linkType: row.link_type });
  }
  if (faults.length > 0) throw new AppError('not-configured', faults.join('; '));
  return shapes;
};

type Reviver = (key: string, value: unknown, context: { readonly source?: string }) => unknown;
const keepDigits: Reviver = (_key, value, context) => (typeof value === 'number' ? context.source! : value);

/** A row from the text of its jsonb: numbers stay digits, because JSON.parse would round a bigint. */
export const parseRow = (text: string): LegacyRow => JSON.parse(text, keepDigits as (key: string, value: unknown) => unknown) as LegacyRow;

/** Stable text of a row's primary key. */
export const keyOf = (shape: TableShape, row: LegacyRow): string => JSON.stringify(shape.primaryKey.map((column) => row[column] ?? null));

/**
 * The live rows of some aggregates of one context, by subject. Every asked subject is in the answer; rows come in primary key order.
 * @param lock locks root rows against change for the rest of the transaction
 */
export const loadAggregates = async (
  db: Knex,
  shapes: Shapes,
  aggregate: Aggregate,
  subjects: readonly string[],
  lock = false,
): Promise<Map<string, AggregateRows>> => {
  const found = new Map<string, Record<string, LegacyRow[]>>(subjects.map((subject) => [subject, {}]));
  if (subjects.length === 0) return found;
  for (const table of tablesOf(aggregate)) {
    const { primaryKey, linkType } = shapes.get(table.name)!;
    const forUpdate = lock && table === aggregate.root ? ' for update' : '';
    const { rows } = await db.raw<{ rows: { subject: string; row: string }[] }>(
      `select to_jsonb(t) ->> ${literal(table.link)} as subject, to_jsonb(t)::text as row from ${tableSql(table)} t
       where t.${quoted(table.link)} = any(?::text[]::${linkType}[]) order by ${primaryKey.map((column) => `t.${quoted(column)}`).join(', ')}${forUpdate}`,
      [[...subjects]],
    );
    for (const { subject, row } of rows) {
      const tables = found.get(subject);
      if (!tables) continue;
      tables[table.name] ??= [];
      tables[table.name]!.push(parseRow(row));
    }
  }
  return found;
};

/** At most `limit` root rows behind `afterKey` (null = from the first) in primary key order: subjects, rows and keys as jsonb text. */
export const nextSubjects = async (
  db: Knex,
  shapes: Shapes,
  aggregate: Aggregate,
  afterKey: string | null,
  limit: number,
): Promise<{ subjects: string[]; rows: string[]; keys: string[] }> => {
  const { table, primaryKey } = shapes.get(aggregate.root.name)!;
  const columns = primaryKey.map((column) => `t.${quoted(column)}`).join(', ');
  const beyond = primaryKey.map((column) => `(a.r).${quoted(column)}`).join(', ');
  const { rows } = await db.raw<{ rows: { subject: string; row: string; key: string }[] }>(
    `select to_jsonb(t) ->> ${literal(table.link)} as subject, to_jsonb(t)::text as row,
       jsonb_build_object(${primaryKey.map((column) => `${literal(column)}, t.${quoted(column)}`).join(', ')})::text as key
     from ${tableSql(table)} t${afterKey === null ? '' : `, (select jsonb_populate_record(null::${tableSql(table)}, ?::jsonb) as r) a where (${columns}) > (${beyond})`}
     order by ${columns} limit ?`,
    afterKey === null ? [limit] : [afterKey, limit],
  );
  return { subjects: rows.map((row) => row.subject), rows: rows.map((row) => row.row), keys: rows.map((row) => row.key) };
};
