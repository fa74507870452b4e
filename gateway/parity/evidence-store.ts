import type { Knex } from 'knex';
import { parseJson, printable } from '../core/parity/json.ts';
import type { LatencyRow } from '../core/parity/latency.ts';
import { type Looked, look, nextLookAt, type Tally } from '../core/parity/noise.ts';
import { type CountRow, type EvidenceStore, EXEMPLARS, type FieldRow, type Pair, type PairSummary } from './evidence.ts';
import { boundedFields, createHourStore, FIELD_KEY, hourNow } from './hour-store.ts';
import { isPairId, pageOf } from './pair-page.ts';
import { canonicalBatch, createTemplateStore, lockContext, rulesIn } from './template-store.ts';

const PROBE_KEY = ['context', 'route', 'field', 'kind'] as const;
/** Sums of bigint come as text. */
type ProbeRecord = Record<(typeof PROBE_KEY)[number], string> &
  Looked & { readonly only_extracted: string; readonly only_legacy: string; readonly in_both: string };
const tallyOf = (row: ProbeRecord): Tally => ({ onlyExtracted: Number(row.only_extracted), onlyLegacy: Number(row.only_legacy) });

type SummaryRow = {
  id: string;
  context: string;
  route: string;
  request_id: string;
  at: Date;
  verdict: PairSummary['verdict'];
  why: string | null;
  confirmed: boolean;
  primary_upstream: PairSummary['primary'];
  field: string;
  method: string;
  target: string;
};

const SUMMARY = [
  'id',
  'context',
  'route',
  'request_id',
  'at',
  'verdict',
  'why',
  'confirmed',
  'primary_upstream',
  'field',
  'method',
  'target',
] as const;

const summaryOf = ({ request_id, primary_upstream, at, id, ...rest }: SummaryRow): PairSummary => ({
  ...rest,
  id: String(id),
  requestId: request_id,
  at: at.toISOString(),
  primary: primary_upstream,
});

/** PostgreSQL's text knows no NUL; a body may hold one, and it must not cost a whole batch. */
const storable = (text: string): string => text.replaceAll('\u0000', '\uFFFD');

/** Rows in one order for everybody, so that two gateways never wait for each other in a circle. */
const ordered = <T>(rows: readonly T[], key: (row: T) => string): T[] =>
  rows
    .map((row) => [key(row), row] as const)
    .sort(([a], [b]) => (a < b ? -1 : a > b ? 1 : 0))
    .map(([, row]) => row);

const CHUNK = 1_000;
const chunks = <T>(rows: readonly T[]): T[][] =>
  Array.from({ length: Math.ceil(rows.length / CHUNK) }, (_, i) => rows.slice(i * CHUNK, (i + 1) * CHUNK));

/** The evidence store in PostgreSQL (migration 020-parity). `db` is the gateway's pool; errors of the database pass through. */
export const createEvidenceStore = (db: Knex): EvidenceStore => {
  const increment = async (
    trx: Knex,
    table: string,
    keys: readonly string[],
    rows: readonly Record<string, string | number | Knex.Raw>[],
    sums: readonly string[],
  ): Promise<void> => {
    const merged = (column: string): [string, Knex.Raw] => [column, trx.raw('??.?? + excluded.??', [table, column, column])];
    const touched: [string, Knex.Raw][] = table === 'parity_field' ? [['last_at', trx.raw('now()')]] : [];
    for (const part of chunks(ordered(rows, (row) => keys.map((key) => row[key]).join('\u0000'))))
      await trx
        .withSchema('banyan')
        .from(table)
        .insert(part)
        .onConflict([...keys])
        .merge(Object.fromEntries([...sums.map(merged), ...touched]));
  };

  /** Takes the looks that are due. The rows were just added to by this transaction, or are locked here, so that no look is taken twice. */
  const lookAtNoise = async (trx: Knex, contexts: readonly string[]): Promise<void> => {
    if (contexts.length === 0) return;
    const due = await trx
      .withSchema('banyan')
      .from('parity_probe')
      .whereIn('context', [...contexts])
      .whereRaw('only_extracted + only_legacy >= ? * power(2, looks)', [nextLookAt(0)])
      .orderBy([...PROBE_KEY])
      .forUpdate()
      .select<ProbeRecord[]>('*');
    for (const row of due) {
      const { looks, p } = look(row, tallyOf(row));
      await trx
        .withSchema('banyan')
        .from('parity_probe')
        .where(Object.fromEntries(PROBE_KEY.map((key) => [key, row[key]])))
        .update({ looks, p });
    }
  };

  return {
    ...createTemplateStore(db),
    ...createHourStore(db),
    add: (given) =>
      db.transaction(async (trx) => {
        const contexts = [
          ...new Set([...given.counts, ...given.fields, ...given.latencies, ...given.pairs].map(({ context }) => context)),
        ].sort();
        for (const context of contexts) {
          await lockContext(trx, context, '_shared');
          await trx.raw('insert into banyan.parity_window (context, since) values (?, now()) on conflict (context) do nothing', [context]);
        }
        const batch = canonicalBatch(given, await rulesIn(trx, contexts));
        await increment(
          trx,
          'parity_count',
          ['context', 'route', 'what', 'why'],
          batch.counts.map((row) => ({ ...row, why: storable(row.why) })),
          ['n'],
        );
        const fields = batch.fields.map((row) => ({ ...row, field: storable(row.field) }));
        const known = await boundedFields(trx, 'parity_field', {}, fields);
        await increment(
          trx,
          'parity_field',
          FIELD_KEY,
          known.map((row) => ({ ...row, last_at: trx.raw('now()') })),
          ['n'],
        );
        const hour = await hourNow(trx);
        await increment(
          trx,
          'parity_hour_count',
          ['context', 'hour', 'route', 'what', 'why'],
          batch.counts.map((row) => ({ ...row, why: storable(row.why), hour })),
          ['n'],
        );
        await increment(
          trx,
          'parity_hour_field',
          [...FIELD_KEY, 'hour'],
          (await boundedFields(trx, 'parity_hour_field', { hour }, fields)).map((row) => ({ ...row, hour })),
          ['n'],
        );
        const probes = batch.probes.map(({ onlyExtracted, onlyLegacy, both, ...row }) => ({
          ...row,
          field: storable(row.field),
          only_extracted: onlyExtracted,
          only_legacy: onlyLegacy,
          in_both: both,
        }));
        await increment(trx, 'parity_probe', ['context', 'route', 'field', 'kind'], probes, ['only_extracted', 'only_legacy', 'in_both']);
        await increment(trx, 'parity_latency', ['context', 'route', 'upstream', 'asked', 'bucket'], batch.latencies, ['n']);
        await lookAtNoise(trx, [...new Set(batch.probes.map(({ context }) => context))]);
        if (batch.pairs.length === 0) return;
        await trx
          .withSchema('banyan')
          .from('parity_pair')
          .insert(
            batch.pairs.map(({ headers, legacy, extracted, differences, noise, requestId, primary, ...row }) => ({
              ...row,
              why: row.why === null ? null : storable(row.why),
              field: storable(row.field),
              target: storable(row.target),
              request_id: storable(requestId),
              primary_upstream: primary,
              detail: JSON.stringify({ headers, legacy, extracted, differences, noise }),
            })),
          );
        await trx.raw(
          `delete from banyan.parity_pair where id in (
             select id from (
               select id, row_number() over (partition by context order by id desc) as in_context, row_number() over (partition by context, field order by id desc) as in_field
               from banyan.parity_pair where context = any(?)
             ) numbered where in_context > ? or in_field > ?)`,
          [contexts, EXEMPLARS.perContext, EXEMPLARS.perField],
        );
      }),

    latencies: async (context) => {
      const rows = await db
        .withSchema('banyan')
        .from('parity_latency')
        .where({ context })
        .select<(Omit<LatencyRow, 'n'> & { n: string })[]>('context', 'route', 'upstream', 'asked', 'bucket', 'n');
      return rows.map((row) => ({ ...row, n: Number(row.n) }));
    },

    totals: async (context) => {
      const window = await db.withSchema('banyan').from('parity_window').where({ context }).first<{ since: Date } | undefined>('since');
      const counts = await db
        .withSchema('banyan')
        .from('parity_count')
        .where({ context })
        .select<(Omit<CountRow, 'n'> & { n: string })[]>('context', 'route', 'what', 'why', 'n');
      const fields = await db
        .withSchema('banyan')
        .from('parity_field')
        .where({ context })
        .orderBy('n', 'desc')
        .limit(1_000)
        .select<(Omit<FieldRow, 'n'> & { n: string })[]>('context', 'route', 'field', 'kind', 'rule', 'n');
      const probes = await db
        .withSchema('banyan')
        .from('parity_probe')
        .where({ context })
        .orderBy('p')
        .orderByRaw('only_extracted + only_legacy + in_both desc')
        .limit(1_000)
        .select<ProbeRecord[]>('*');
      return {
        probes: probes.map((row) => ({
          context: row.context,
          route: row.route,
          field: row.field,
          kind: row.kind,
          ...tallyOf(row),
          both: Number(row.in_both),
          looks: row.looks,
          p: row.p,
        })),
        since: window?.since.toISOString() ?? null,
        counts: counts.map((row) => ({ ...row, n: Number(row.n) })),
        fields: fields.map((row) => ({ ...row, n: Number(row.n) })),
      };
    },

    pairs: async (query) => {
      const { limit, before } = pageOf(query);
      const wanted = db.withSchema('banyan').from('parity_pair');
      if (query.context !== undefined) wanted.where({ context: query.context });
      if (query.verdict !== undefined) wanted.where({ verdict: query.verdict });
      if (query.requestId !== undefined) wanted.where({ request_id: query.requestId });
      if (before !== undefined) wanted.where('id', '<', String(before));
      const rows = await wanted
        .orderBy('id', 'desc')
        .limit(limit + 1)
        .select<SummaryRow[]>(...SUMMARY);
      const items = rows.slice(0, limit).map(summaryOf);
      return { items, next: rows.length > limit ? items.at(-1)!.id : null };
    },

    pair: async (id) => {
      if (!isPairId(id)) return undefined;
      const row = await db
        .withSchema('banyan')
        .from('parity_pair')
        .where({ id })
        .first<(SummaryRow & { document: string }) | undefined>(...SUMMARY, db.raw('detail::text as document'));
      if (!row) return undefined;
      const { document: text, ...summary } = row;
      const detail = parseJson(text);
      // Read with our own parser, so that numbers keep their tokens on the way out.
      return detail.ok ? ({ ...summaryOf(summary), ...(printable(detail.value) as object) } as Pair) : undefined;
    },

    reset: (context, at) =>
      db.transaction(async (trx) => {
        await lockContext(trx, context, '');
        for (const table of ['parity_count', 'parity_field', 'parity_probe', 'parity_latency'])
          await trx.withSchema('banyan').from(table).where({ context }).delete();
        await trx.raw(
          'insert into banyan.parity_window (context, since) values (?, ?) on conflict (context) do update set since = excluded.since',
          [context, at],
        );
      }),
  };
};
