import type { LatencyRow } from '../core/parity/latency.ts';
import { look, NOT_LOOKED } from '../core/parity/noise.ts';
import { canonicalTemplate, type TemplateRule } from '../core/parity/route-names.ts';
import {
  type Batch,
  type CountRow,
  type EvidenceStore,
  EXEMPLARS,
  type FieldRow,
  MAX_FIELD_ROWS,
  OTHER_FIELD,
  type Pair,
  type PairSummary,
  type ProbeTotal,
} from './evidence.ts';
import { pageOf } from './pair-page.ts';

const keyOfCount = ({ context, route, what, why }: CountRow): string => [context, route, what, why].join('\u0000');
const keyOfField = ({ context, route, field, kind, rule }: FieldRow): string => [context, route, field, kind, rule].join('\u0000');

/** The evidence store in memory: for gateways without a store, and for tests. Bounded like the real one; gone with the process. */
export const createMemoryEvidenceStore = (now: () => Date = () => new Date()): EvidenceStore => {
  const windows = new Map<string, Date>();
  const counts = new Map<string, CountRow>();
  const fields = new Map<string, FieldRow>();
  const probes = new Map<string, ProbeTotal>();
  const latencies = new Map<string, LatencyRow>();
  let pairs: Pair[] = [];
  let lastId = 0;

  const add = <T extends { readonly n: number }>(map: Map<string, T>, key: readonly string[], row: T): void => {
    const id = key.join('\u0000');
    map.set(id, { ...row, n: (map.get(id)?.n ?? 0) + row.n });
  };
  const prune = (): void => {
    const seen = new Map<string, number>();
    const nth = (key: string): number => {
      const n = (seen.get(key) ?? 0) + 1;
      seen.set(key, n);
      return n;
    };
    pairs = pairs.filter(({ context, field }) => {
      const [inContext, inField] = [nth(context), nth(`${context}\u0000${field}`)];
      return inContext <= EXEMPLARS.perContext && inField <= EXEMPLARS.perField;
    });
  };
  const summary = ({
    headers: _headers,
    legacy: _legacy,
    extracted: _extracted,
    differences: _differences,
    noise: _noise,
    ...rest
  }: Pair): PairSummary => rest;

  /** By hour. */
  const hours = new Map<string, { readonly counts: Map<string, CountRow>; readonly fields: Map<string, FieldRow> }>();
  const hourOf = (at: Date): string => `${at.toISOString().slice(0, 13)}:00:00.000Z`;
  const boundField = (map: ReadonlyMap<string, FieldRow>, row: FieldRow): FieldRow =>
    map.size < MAX_FIELD_ROWS || map.has(keyOfField(row)) ? row : { ...row, field: OTHER_FIELD };
  const rules = new Map<string, Map<string, TemplateRule>>();
  const named = <T extends { readonly context: string; readonly route: string }>(row: T): T => ({
    ...row,
    route: canonicalTemplate(row.route, rules.get(row.context) ?? new Map()),
  });

  const sum = (batch: Batch): void => {
    for (const row of batch.counts) {
      if (!windows.has(row.context)) windows.set(row.context, now());
      add(counts, [keyOfCount(row)], row);
    }
    for (const one of batch.fields) {
      const row = boundField(fields, one);
      add(fields, [keyOfField(row)], row);
    }
    for (const row of batch.latencies) add(latencies, [row.context, row.route, row.upstream, row.asked, String(row.bucket)], row);
    for (const row of batch.probes) {
      const id = [row.context, row.route, row.field, row.kind].join('\u0000');
      const before = probes.get(id) ?? { ...row, onlyExtracted: 0, onlyLegacy: 0, both: 0, ...NOT_LOOKED };
      const sum = {
        onlyExtracted: before.onlyExtracted + row.onlyExtracted,
        onlyLegacy: before.onlyLegacy + row.onlyLegacy,
        both: before.both + row.both,
      };
      const { looks, p } = look(before, sum);
      probes.set(id, { ...before, ...sum, looks, p });
    }
    pairs = [...batch.pairs.map((pair) => ({ ...pair, id: String(++lastId) })).reverse(), ...pairs];
    prune();
  };

  const store: EvidenceStore = {
    templates: async () => ({
      rules: [...rules].flatMap(([context, known]) => [...known.values()].map((rule) => ({ ...rule, context }))),
      routes: [...new Map([...counts.values()].map(({ context, route }) => [`${context} ${route}`, { context, route }])).values()],
    }),
    learnTemplate: async (context, rule) => {
      const known = rules.get(context) ?? new Map<string, TemplateRule>();
      rules.set(context, known);
      const before = known.get(rule.at);
      known.set(rule.at, { at: rule.at, kept: before?.kept ?? rule.kept, locale: rule.locale || before?.locale === true });
      for (const hour of hours.values())
        for (const [map, keyOf] of [
          [hour.counts, keyOfCount],
          [hour.fields, keyOfField],
        ] as const) {
          const rows = [...map.values()] as (CountRow & FieldRow)[];
          map.clear();
          for (const row of rows) add(map as Map<string, CountRow & FieldRow>, [keyOf(named(row))], named(row));
        }
      const all: Batch = {
        counts: [...counts.values()].map(named),
        fields: [...fields.values()].map(named),
        probes: [...probes.values()].map(named),
        latencies: [...latencies.values()].map(named),
        pairs: [],
      };
      for (const map of [counts, fields, probes, latencies]) map.clear();
      pairs = pairs.map(named);
      sum(all);
    },
    add: async (given) => {
      const batch: Batch = {
        counts: given.counts.map(named),
        fields: given.fields.map(named),
        probes: given.probes.map(named),
        latencies: given.latencies.map(named),
        pairs: given.pairs.map(named),
      };
      const at = hourOf(now());
      const hour = hours.get(at) ?? { counts: new Map<string, CountRow>(), fields: new Map<string, FieldRow>() };
      hours.set(at, hour);
      for (const row of batch.counts) add(hour.counts, [keyOfCount(row)], row);
      for (const one of batch.fields) {
        const row = boundField(hour.fields, one);
        add(hour.fields, [keyOfField(row)], row);
      }
      sum(batch);
    },
    hours: async ({ context, from, to, route }) => {
      const within = [...hours].filter(([hour]) => Date.parse(hour) >= from.getTime() && Date.parse(hour) < to.getTime());
      const rows = <T extends CountRow | FieldRow>(
        pick: (hour: { counts: Map<string, CountRow>; fields: Map<string, FieldRow> }) => Map<string, T>,
      ) =>
        within.flatMap(([hour, maps]) =>
          [...pick(maps).values()]
            .filter((row) => row.context === context && (route === undefined || row.route === route))
            .map((row) => ({ ...row, hour: new Date(hour) })),
        );
      return { counts: rows(({ counts: own }) => own), fields: rows(({ fields: own }) => own) };
    },
    prune: async (context, before) => {
      for (const [hour, maps] of hours) {
        if (Date.parse(hour) >= before.getTime()) continue;
        for (const map of [maps.counts, maps.fields]) for (const [key, row] of map) if (row.context === context) map.delete(key);
        if (maps.counts.size + maps.fields.size === 0) hours.delete(hour);
      }
    },
    latencies: async (context) => [...latencies.values()].filter((row) => row.context === context),
    totals: async (context) => ({
      since: windows.get(context)?.toISOString() ?? null,
      counts: [...counts.values()].filter((row) => row.context === context),
      fields: [...fields.values()].filter((row) => row.context === context),
      probes: [...probes.values()].filter((row) => row.context === context),
    }),
    pairs: async (query) => {
      const { limit, before } = pageOf(query);
      const found = pairs.filter(
        (pair) =>
          (query.context === undefined || pair.context === query.context) &&
          (query.verdict === undefined || pair.verdict === query.verdict) &&
          (query.requestId === undefined || pair.requestId === query.requestId) &&
          (before === undefined || BigInt(pair.id) < before),
      );
      const items = found.slice(0, limit).map(summary);
      return { items, next: found.length > limit ? items.at(-1)!.id : null };
    },
    pair: async (id) => pairs.find((pair) => pair.id === id),
    reset: async (context, at) => {
      for (const map of [counts, fields, probes, latencies]) for (const [key, row] of map) if (row.context === context) map.delete(key);
      windows.set(context, at);
    },
  };
  return store;
};
