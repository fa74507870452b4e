import type { DifferenceKind } from '@banyan/contracts/vocabulary.ts';
import { holm } from '../core/parity/noise.ts';
import { type Gate, type Sprt, sprt, wilson } from '../core/parity/stats.ts';
import type { CountRow, FieldRow, Hours, Totals } from './evidence.ts';

type Figures = {
  readonly requests: number;
  /** match + noise + mismatch: pairs that could be judged. */
  readonly compared: number;
  readonly match: number;
  readonly noise: number;
  readonly mismatch: number;
  readonly incomparable: number;
  readonly dropped: number;
  readonly skipped: number;
  /** (match + noise) / compared; null while nothing was compared. */
  readonly rate: number | null;
};

export type RouteReport = Figures & {
  readonly route: string;
  /** Why pairs were incomparable, dropped or skipped: `{ 'incomparable:lagging': 3 }`. */
  readonly reasons: Readonly<Record<string, number>>;
  /** Primary answers by class: `{ '2xx': 10, '4xx': 1 }`. */
  readonly answers: Readonly<Record<string, number>>;
};
export type FieldReport = {
  readonly route: string;
  readonly field: string;
  readonly kind: DifferenceKind;
  readonly rule: string | null;
  readonly count: number;
};

/** A field that differs between two answers of legacy, or between the sides in triples, and what the sign test says of it. */
export type NoiseReport = {
  readonly route: string;
  readonly field: string;
  readonly kind: DifferenceKind;
  readonly onlyExtracted: number;
  readonly onlyLegacy: number;
  readonly both: number;
  /** Corrected for looks; 1 until the first one. */
  readonly p: number;
  /** Does it differ more often than its own noise explains (1 % over all fields of the route and all looks)? */
  readonly alarm: boolean;
};

/** Commands that legacy did, beside what the service answered to their dry runs. */
export type DryRunReport = Pick<Figures, 'compared' | 'match' | 'noise' | 'mismatch' | 'incomparable' | 'rate'> & {
  readonly route: string;
  /** Why there was none, or it could not be compared: `{ 'skipped:sample': 3 }`. */
  readonly reasons: Readonly<Record<string, number>>;
};

/** The Parity document of DESIGN.md section 10; the window is since the last stage change. */
export type ParityReport = Figures & {
  /** ISO 8601; null when nothing was ever seen. */
  readonly since: string | null;
  readonly wilson: readonly [low: number, high: number];
  readonly sprt: Sprt;
  readonly byRoute: readonly RouteReport[];
  /** Most frequent first, at most 200. */
  readonly byField: readonly FieldReport[];
  /** Alarms first, at most 200. */
  readonly noisy: readonly NoiseReport[];
  readonly dryRuns: readonly DryRunReport[];
};

/** One hour of a context. */
export type HourReport = Figures & {
  /** Its beginning, ISO 8601, UTC. */
  readonly hour: string;
  readonly byRoute: readonly (Figures & { readonly route: string })[];
  /** Most frequent first, at most 50. */
  readonly byField: readonly FieldReport[];
};

const MAX_FIELDS = 200;
const MAX_FIELDS_OF_HOUR = 50;

const figures = (counts: readonly CountRow[]): Figures => {
  const of = (what: CountRow['what']): number => counts.reduce((sum, row) => (row.what === what ? sum + row.n : sum), 0);
  const [match, noise, mismatch] = [of('match'), of('noise'), of('mismatch')];
  const compared = match + noise + mismatch;
  return {
    requests: of('requests'),
    compared,
    match,
    noise,
    mismatch,
    incomparable: of('incomparable'),
    dropped: of('dropped'),
    skipped: of('skipped'),
    rate: compared === 0 ? null : (match + noise) / compared,
  };
};

const isQueryRow = ({ what }: Pick<CountRow, 'what'>): boolean => what !== 'dry-run';

const dryRunReports = (counts: readonly CountRow[]): DryRunReport[] =>
  [
    ...Map.groupBy(
      counts.filter((row) => !isQueryRow(row)),
      ({ route }) => route,
    ),
  ]
    .sort(([a], [b]) => (a < b ? -1 : 1))
    .map(([route, rows]) => {
      const of = (why: string): number =>
        rows.reduce((sum, row) => (row.why === why || row.why.startsWith(`${why}:`) ? sum + row.n : sum), 0);
      const [match, noise, mismatch] = [of('match'), of('noise'), of('mismatch')];
      const compared = match + noise + mismatch;
      const reasons = Object.fromEntries(rows.filter(({ why }) => why.includes(':')).map(({ why, n }) => [why, n]));
      return {
        route,
        compared,
        match,
        noise,
        mismatch,
        incomparable: of('incomparable'),
        rate: compared === 0 ? null : (match + noise) / compared,
        reasons,
      };
    });

/** Holm's correction runs over the fields of one route: what clients of an endpoint see is one family. */
const noisyFields = (probes: Totals['probes']): NoiseReport[] =>
  [...new Set(probes.map(({ route }) => route))]
    .flatMap((route) => {
      const rows = probes.filter((row) => row.route === route);
      const alarms = holm(rows.map(({ p }) => p));
      return rows.map(({ field, kind, onlyExtracted, onlyLegacy, both, p }, i) => ({
        route,
        field,
        kind: kind as DifferenceKind,
        onlyExtracted,
        onlyLegacy,
        both,
        p: Math.min(1, p),
        alarm: alarms[i]!,
      }));
    })
    .sort((a, b) => Number(b.alarm) - Number(a.alarm) || a.p - b.p || b.both - a.both)
    .slice(0, MAX_FIELDS);

const fieldsOf = (rows: readonly FieldRow[], most: number): FieldReport[] =>
  rows
    .map(({ route, field, kind, rule, n }) => ({ route, field, kind: kind as DifferenceKind, rule: rule === '' ? null : rule, count: n }))
    .sort((a, b) => b.count - a.count)
    .slice(0, most);

/** Newest first. Pure. */
export const hourReportsOf = ({ counts, fields }: Hours): HourReport[] => {
  const queries = counts.filter(isQueryRow);
  const fieldRows = Map.groupBy(fields, ({ hour }) => hour.toISOString());
  return [...Map.groupBy(queries, ({ hour }) => hour.toISOString())]
    .sort(([a], [b]) => (a < b ? 1 : -1))
    .map(([hour, rows]) => ({
      hour,
      ...figures(rows),
      byRoute: [...Map.groupBy(rows, ({ route }) => route)]
        .sort(([a], [b]) => (a < b ? -1 : 1))
        .map(([route, own]) => ({ route, ...figures(own) })),
      byField: fieldsOf(fieldRows.get(hour) ?? [], MAX_FIELDS_OF_HOUR),
    }));
};

/** Makes the report from stored totals. Pure. */
export const parityReportOf = (totals: Totals, gate: Partial<Gate> = {}): ParityReport => {
  const all = figures(totals.counts);
  const routes = [...new Set(totals.counts.filter(isQueryRow).map(({ route }) => route))].sort();
  return {
    since: totals.since,
    ...all,
    wilson: wilson(all.match + all.noise, all.compared),
    sprt: sprt(all.match + all.noise, all.mismatch, gate),
    byRoute: routes.map((route) => {
      const rows = totals.counts.filter((row) => row.route === route);
      const named = (rest: readonly CountRow[], key: (row: CountRow) => string): Record<string, number> =>
        Object.fromEntries(rest.map((row) => [key(row), row.n]));
      return {
        route,
        ...figures(rows),
        reasons: named(
          rows.filter(({ what, why }) => why !== '' && what !== 'answers' && what !== 'dry-run'),
          ({ what, why }) => `${what}:${why}`,
        ),
        answers: named(
          rows.filter(({ what }) => what === 'answers'),
          ({ why }) => why,
        ),
      };
    }),
    byField: fieldsOf(totals.fields, MAX_FIELDS),
    noisy: noisyFields(totals.probes),
    dryRuns: dryRunReports(totals.counts),
  };
};
