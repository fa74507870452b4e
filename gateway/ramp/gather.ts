import type { ParityView } from '@banyan/contracts/admin-api.ts';
import { labelOfTemplate } from '../core/parity/route-names.ts';
import type { ContextEvidence, Evidence } from '../core/ramp/judge.ts';
import type { RampDeps, RampFlag, RampSettings } from './ports.ts';
import type { Marks, RampRow } from './ramp-store.ts';
import { EMPTY_READING, figuresOf, fromStored, minus, type Reading, type Readings, readingOf, toStored } from './readings.ts';
import { loadExamples, loadSamples } from './sample-store.ts';

export type Gathered = { readonly evidence: Evidence; readonly readings: Readings };

/** At this share legacy answers nobody at first hand. */
const EVERYBODY_BP = 10_000;
/** The last minutes begin so long ago, at the least, and twice as long at the most; never less than a few looks. */
const RECENT_MS = 60_000;
const RECENT_LOOKS = 6;

/** Parity of this step; nothing while the window is still an earlier step's. */
const ownParity = (report: ParityView, flag: RampFlag): ParityView | null =>
  report.since === null || Date.parse(report.since) < flag.since.getTime() ? null : report;

const read = async (deps: Pick<RampDeps, 'db' | 'parity'>, flag: RampFlag): Promise<{ reading: Reading; parity: ParityView | null }> => {
  const [report, samples] = await Promise.all([deps.parity.report(flag.name), loadSamples(deps.db, flag.name, flag.since)]);
  const parity = ownParity(report, flag);
  return { parity, reading: readingOf({ matches: parity ? parity.match + parity.noise : 0, mismatches: parity?.mismatch ?? 0 }, samples) };
};

/** The counters as they are now: where new evidence begins. */
export const readNow = async (deps: Pick<RampDeps, 'db' | 'parity'>, flags: readonly RampFlag[]): Promise<Readings> =>
  Object.fromEntries(await Promise.all(flags.map(async (flag) => [flag.name, (await read(deps, flag)).reading] as const)));

const storedAll = (readings: Readings): Marks['base'] =>
  Object.fromEntries(Object.entries(readings).map(([name, reading]) => [name, toStored(reading)]));

/** Marks of a new beginning. */
export const marksFrom = (base: Readings, at: Date, reference: Marks['reference']): Marks => ({
  base: storedAll(base),
  older: null,
  newer: { at: at.toISOString(), readings: storedAll(base) },
  reference,
});

/** Keeps the last minutes apart from the rest. */
export const turnMarks = (marks: Marks, readings: Readings, now: Date, interval: number): Marks =>
  now.getTime() - Date.parse(marks.newer.at) < Math.max(RECENT_MS, RECENT_LOOKS * interval)
    ? marks
    : { ...marks, older: marks.newer, newer: { at: now.toISOString(), readings: storedAll(readings) } };

const answersIn = (parity: ParityView | null, classes: readonly string[]): number =>
  (parity?.byRoute ?? []).reduce((sum, route) => sum + classes.reduce((of, name) => of + (route.answers[name] ?? 0), 0), 0);

/** What was seen of each configured route; the evidence is kept by the templates inferred below it. */
const coverageOf = (parity: ParityView | null, routes: readonly string[]): ContextEvidence['routes'] => {
  const below = Map.groupBy(parity?.byRoute ?? [], ({ route }) => labelOfTemplate(route, routes));
  return routes.map((route) => {
    const found = below.get(route) ?? [];
    const sum = (of: (one: (typeof found)[number]) => number): number => found.reduce((all, one) => all + of(one), 0);
    return {
      route,
      requests: sum(({ requests }) => requests),
      compared: sum(({ compared }) => compared),
      unsafe: sum(({ reasons }) => reasons['skipped:unsafe'] ?? 0),
    };
  });
};

/** What all replicas have seen since the evidence of this ramp began. @param now the store's clock */
export const gather = async (
  deps: Pick<RampDeps, 'db' | 'parity' | 'stale'>,
  row: RampRow,
  flags: readonly RampFlag[],
  settings: (context: string) => RampSettings,
): Promise<Gathered> => {
  const readings: Record<string, Reading> = {};
  const contexts = await Promise.all(
    flags.map(async (flag): Promise<ContextEvidence> => {
      const { reading, parity } = await read(deps, flag);
      readings[flag.name] = reading;
      const seen = minus(reading, fromStored(row.marks.base[flag.name]));
      const recent = row.marks.older ? minus(reading, fromStored(row.marks.older.readings[flag.name])) : null;
      const alone = row.shareBp >= EVERYBODY_BP;
      const reference = alone ? fromStored(row.marks.reference[flag.name]).legacy : null;
      return {
        context: flag.name,
        canary: row.shareBp > 0,
        parity: seen.parity,
        routes: coverageOf(parity, settings(flag.name).routes),
        answers: { successes: answersIn(parity, ['2xx', '3xx']), errors: answersIn(parity, ['4xx', '5xx']) },
        extracted: seen.extracted,
        legacy: reference ?? seen.legacy,
        legacyFrom: alone ? 'earlier' : 'step',
        recent: recent && { parity: recent.parity, extracted: recent.extracted, legacy: reference ?? recent.legacy },
        breakerOpened: seen.breakerOpened,
        stale: deps.stale(flag.name),
      };
    }),
  );
  return { evidence: { since: row.evidenceSince.getTime(), looks: row.looks, contexts }, readings };
};

/** What legacy did at this step, for the step at which it answers nobody any more. */
export const referenceOf = (row: RampRow, { contexts }: Evidence): Marks['reference'] =>
  row.shareBp >= EVERYBODY_BP
    ? row.marks.reference
    : Object.fromEntries(contexts.map((one) => [one.context, toStored({ ...EMPTY_READING, legacy: one.legacy })]));

/** The evidence as the audit keeps it: figures, and requests that show what they mean. */
export const evidenceForAudit = async (
  deps: Pick<RampDeps, 'db' | 'parity'>,
  { contexts, since, looks }: Evidence,
  flags: readonly RampFlag[],
): Promise<object> => ({
  since: new Date(since).toISOString(),
  looks,
  contexts: await Promise.all(
    contexts.map(async (one) => {
      const flag = flags.find(({ name }) => name === one.context)!;
      const [pairs, examples] = await Promise.all([deps.parity.mismatches(one.context), loadExamples(deps.db, one.context, flag.since)]);
      return {
        context: one.context,
        parity: one.parity,
        extracted: figuresOf(one.extracted),
        legacy: { ...figuresOf(one.legacy), from: one.legacyFrom },
        breakerOpened: one.breakerOpened,
        samples: {
          mismatches: pairs
            .filter(({ at }) => Date.parse(at) >= since)
            .map(({ id, requestId, route, field }) => ({ pair: id, requestId, route, field })),
          failed: examples.filter(({ kind }) => kind === 'failed').map(({ requestId, route }) => ({ requestId, route })),
          slowest: examples
            .filter(({ kind }) => kind === 'slow')
            .map(({ requestId, route, ms }) => ({ requestId, route, ms: Math.round(ms * 10) / 10 })),
        },
      };
    }),
  ),
});
