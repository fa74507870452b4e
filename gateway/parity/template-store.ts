import type { Knex } from 'knex';
import { canonicalTemplate, type TemplateRule } from '../core/parity/route-names.ts';
import type { Batch, EvidenceStore } from './evidence.ts';

type Rules = ReadonlyMap<string, ReadonlyMap<string, TemplateRule>>;
type RuleRow = TemplateRule & { readonly context: string };

/** Adders share the lock of a context; a reset and a new rule have it alone: they must not delete rows that are being added to. */
export const lockContext = (trx: Knex, context: string, how: '' | '_shared'): Promise<unknown> =>
  Promise.resolve(trx.raw(`select pg_advisory_xact_lock${how}(hashtextextended(?, 0))`, [`banyan.parity ${context}`]));

const byContext = (rows: readonly RuleRow[]): Rules =>
  new Map(
    [...Map.groupBy(rows, ({ context }) => context)].map(([context, rules]) => [context, new Map(rules.map((rule) => [rule.at, rule]))]),
  );

/** To be called under the locks of these contexts. */
export const rulesIn = async (trx: Knex, contexts: readonly string[]): Promise<Rules> =>
  byContext(
    await trx
      .withSchema('banyan')
      .from('parity_template')
      .whereIn('context', [...contexts])
      .select<RuleRow[]>('context', 'at', 'kept', 'locale'),
  );

type Keyed = { readonly context: string; readonly route: string };
/** Rows with the same keys as one, with their sums. */
export const mergedRows = <T extends Keyed>(rows: readonly T[], keys: readonly (keyof T)[], sums: readonly (keyof T)[]): T[] => {
  const found = new Map<string, T>();
  for (const row of rows) {
    const key = keys.map((name) => row[name]).join('\u0000');
    const before = found.get(key);
    found.set(key, before ? { ...row, ...Object.fromEntries(sums.map((sum) => [sum, Number(before[sum]) + Number(row[sum])])) } : row);
  }
  return [...found.values()];
};

/** The batch under canonical templates; rows that become one are added up. */
export const canonicalBatch = (batch: Batch, rules: Rules): Batch => {
  if (rules.size === 0) return batch;
  const named = <T extends Keyed>(row: T): T => ({ ...row, route: canonicalTemplate(row.route, rules.get(row.context) ?? new Map()) });
  return {
    counts: mergedRows(batch.counts.map(named), ['context', 'route', 'what', 'why'], ['n']),
    fields: mergedRows(batch.fields.map(named), ['context', 'route', 'field', 'kind', 'rule'], ['n']),
    probes: mergedRows(batch.probes.map(named), ['context', 'route', 'field', 'kind'], ['onlyExtracted', 'onlyLegacy', 'both']),
    latencies: mergedRows(batch.latencies.map(named), ['context', 'route', 'upstream', 'asked', 'bucket'], ['n']),
    pairs: batch.pairs.map(named),
  };
};

/** Tables with rows per route: what else is in their keys, and how two rows become one. */
const TABLES: readonly (readonly [table: string, keys: readonly string[], values: Readonly<Record<string, string>>])[] = [
  ['parity_count', ['what', 'why'], { n: 'sum(n)' }],
  ['parity_latency', ['upstream', 'asked', 'bucket'], { n: 'sum(n)' }],
  ['parity_hour_count', ['hour', 'what', 'why'], { n: 'sum(n)' }],
  ['parity_hour_field', ['hour', 'field', 'kind', 'rule'], { n: 'sum(n)' }],
  ['parity_field', ['field', 'kind', 'rule'], { n: 'sum(n)', last_at: 'max(last_at)' }],
  // the larger p: an alarm of a part is looked at again with all there is
  [
    'parity_probe',
    ['field', 'kind'],
    { only_extracted: 'sum(only_extracted)', only_legacy: 'sum(only_legacy)', in_both: 'sum(in_both)', looks: 'max(looks)', p: 'max(p)' },
  ],
];

const renameRows = async (trx: Knex, context: string, from: readonly string[], to: string): Promise<void> => {
  for (const [table, keys, values] of TABLES) {
    const columns = Object.keys(values);
    // the rows that have the new name already are put together with the others
    await trx.raw(
      `with gone as (delete from banyan.${table} where context = ? and route = any(?) returning *)
       insert into banyan.${table} (context, route, ${[...keys, ...columns].join(', ')})
       select context, ?, ${[...keys, ...Object.values(values)].join(', ')} from gone group by context, ${keys.join(', ')}`,
      [context, [...from, to], to],
    );
  }
  await trx
    .withSchema('banyan')
    .from('parity_pair')
    .where({ context })
    .whereIn('route', [...from])
    .update({ route: to });
};

/** Rules of templates in PostgreSQL (migration 051-parity-templates). */
export const createTemplateStore = (db: Knex): Pick<EvidenceStore, 'templates' | 'learnTemplate'> => ({
  templates: async () => {
    const rules = await db.withSchema('banyan').from('parity_template').select<RuleRow[]>('context', 'at', 'kept', 'locale');
    const routes = await db.withSchema('banyan').from('parity_count').distinct<{ context: string; route: string }[]>('context', 'route');
    return { rules, routes };
  },
  learnTemplate: (context, rule) =>
    db.transaction(async (trx) => {
      await lockContext(trx, context, '');
      await trx.raw(
        `insert into banyan.parity_template as known (context, at, kept, locale) values (?, ?, ?, ?)
         on conflict (context, at) do update set kept = coalesce(known.kept, excluded.kept), locale = known.locale or excluded.locale`,
        [context, rule.at, rule.kept === null ? null : [...rule.kept], rule.locale],
      );
      const rules = (await rulesIn(trx, [context])).get(context)!;
      const { rows } = await trx.raw<{ rows: { route: string }[] }>(
        `select route from banyan.parity_count where context = ? union select route from banyan.parity_field where context = ?
         union select route from banyan.parity_probe where context = ? union select route from banyan.parity_pair where context = ?
         union select route from banyan.parity_hour_count where context = ? union select route from banyan.parity_hour_field where context = ?
         union select route from banyan.parity_latency where context = ?`,
        Array<string>(7).fill(context),
      );
      const renamed = rows.filter(({ route }) => canonicalTemplate(route, rules) !== route);
      for (const [to, from] of Map.groupBy(renamed, ({ route }) => canonicalTemplate(route, rules)))
        await renameRows(
          trx,
          context,
          from.map(({ route }) => route),
          to,
        );
    }),
});
