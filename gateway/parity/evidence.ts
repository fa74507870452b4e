import type { Upstream, VerdictKind } from '@banyan/contracts/vocabulary.ts';
import { type Asked, type LatencyReport, type LatencyRow, latencyBucket, latencyReportsOf } from '../core/parity/latency.ts';
import type { Looked } from '../core/parity/noise.ts';
import { type Difference, type Noise, type Observation, type Verdict, verdictDocument } from '../core/parity/observation.ts';
import { fieldOf } from '../core/parity/path.ts';
import { fieldKey } from '../core/parity/probe.ts';
import type { TemplateRule } from '../core/parity/route-names.ts';
import type { Gate } from '../core/parity/stats.ts';
import { type HourReport, hourReportsOf, type ParityReport, parityReportOf } from './evidence-report.ts';
import { exemplarOf, type Redaction } from './exemplar.ts';
import type { StoredAnswer } from './redact.ts';

/** What is counted besides verdicts: dry runs of commands, queries offered, not mirrored because something was full, left out on purpose, legacy asked twice, primary answers by status class. */
export type CountName = 'requests' | VerdictKind | 'dropped' | 'skipped' | 'probed' | 'answers' | 'dry-run';

export type CountRow = {
  readonly context: string;
  readonly route: string;
  readonly what: CountName;
  readonly why: string;
  readonly n: number;
};
export type FieldRow = {
  readonly context: string;
  readonly route: string;
  readonly field: string;
  readonly kind: string;
  /** '' = nothing excused it. */
  readonly rule: string;
  readonly n: number;
};
export type ProbeRow = Omit<FieldRow, 'rule' | 'n'> & {
  readonly onlyExtracted: number;
  readonly onlyLegacy: number;
  readonly both: number;
};

export type PairSummary = {
  readonly id: string;
  readonly context: string;
  readonly route: string;
  readonly requestId: string;
  /** ISO 8601. */
  readonly at: string;
  readonly verdict: VerdictKind;
  readonly why: string | null;
  /** Did a mismatch reproduce when both sides were asked again? */
  readonly confirmed: boolean;
  readonly primary: Upstream;
  /** What it is an example of. */
  readonly field: string;
  readonly method: string;
  readonly target: string;
};
/** A pair in full, redacted. Values print with their raw number tokens. */
export type Pair = PairSummary & {
  readonly headers: readonly (readonly [string, string])[];
  readonly legacy: StoredAnswer;
  readonly extracted: StoredAnswer;
  readonly differences: readonly Difference[];
  readonly noise: readonly Noise[];
};
export type NewPair = Omit<Pair, 'id'>;

export type Batch = {
  readonly counts: readonly CountRow[];
  readonly fields: readonly FieldRow[];
  readonly probes: readonly ProbeRow[];
  readonly latencies: readonly LatencyRow[];
  readonly pairs: readonly NewPair[];
};
/** What triples have shown of a field, with the looks that were taken. */
export type ProbeTotal = ProbeRow & Looked;
export type Totals = {
  readonly since: string | null;
  readonly counts: readonly CountRow[];
  readonly fields: readonly FieldRow[];
  readonly probes: readonly ProbeTotal[];
};
export type PairQuery = {
  readonly context?: string | undefined;
  readonly verdict?: VerdictKind | undefined;
  readonly requestId?: string | undefined;
  /** 1..200, default 50. */
  readonly limit?: number | undefined;
  /** `next` of an earlier answer. */
  readonly cursor?: string | undefined;
};

/** Newest exemplars kept per context and field, and per context. */
export const EXEMPLARS = { perField: 20, perContext: 1_000 } as const;

/** Counters of one hour, UTC; they outlive changes of stage. */
export type Hours = {
  readonly counts: readonly (CountRow & { readonly hour: Date })[];
  readonly fields: readonly (FieldRow & { readonly hour: Date })[];
};
export type HoursQuery = { readonly context: string; readonly from: Date; readonly to: Date; readonly route?: string | undefined };

/** Field rows kept of a context and, apart from that, of each of its hours; what differs beyond is counted under the field `(other)`. */
export const MAX_FIELD_ROWS = 2_000;
export const OTHER_FIELD = '(other)';

/** Rules of the templates that routes are named by, and the names that are in use. */
export type KnownTemplates = {
  readonly rules: readonly (TemplateRule & { readonly context: string })[];
  readonly routes: readonly { readonly context: string; readonly route: string }[];
};

/** Where evidence lives: PostgreSQL (`evidence-store.ts`), or memory when there is no store (`evidence.fake.ts`). Many gateways add at once. */
export type EvidenceStore = {
  /** Routes are stored under their canonical templates. */
  readonly add: (batch: Batch) => Promise<void>;
  readonly latencies: (context: string) => Promise<readonly LatencyRow[]>;
  readonly hours: (query: HoursQuery) => Promise<Hours>;
  /** Forgets the hours of a context before this moment. */
  readonly prune: (context: string, before: Date) => Promise<void>;
  readonly templates: () => Promise<KnownTemplates>;
  /** Keeps a rule, and puts together the rows that it makes one. */
  readonly learnTemplate: (context: string, rule: TemplateRule) => Promise<void>;
  readonly totals: (context: string) => Promise<Totals>;
  /** Newest first. @throws AppError `bad-request` for a cursor that it did not give */
  readonly pairs: (query: PairQuery) => Promise<{ readonly items: readonly PairSummary[]; readonly next: string | null }>;
  readonly pair: (id: string) => Promise<Pair | undefined>;
  /** Empties the counters of a context; exemplars stay. */
  readonly reset: (context: string, at: Date) => Promise<void>;
};

export type JudgedAnswers = {
  readonly legacy: Observation;
  readonly extracted: Observation;
  /** Present when they are as sent, codings still on, because they are too large to be looked at on the event loop. */
  readonly undecoded?: { readonly bodyLimitBytes: number } | undefined;
};

/** A judged pair as the shadow path hands it over. */
export type JudgedPair = {
  readonly context: string;
  readonly route: string;
  readonly requestId: string;
  /** Unix ms. */
  readonly at: number;
  readonly verdict: Verdict;
  readonly confirmed: boolean;
  readonly primary: Upstream;
  readonly method: string;
  readonly target: string;
  readonly headers: readonly (readonly [string, string])[];
  /** Absent where the pair was never complete (a pinned client: nobody was asked). */
  readonly answers?: JudgedAnswers | undefined;
  /** A command beside its dry run: counted apart from queries. */
  readonly dryRun?: boolean | undefined;
  /** Present when legacy was asked twice: how its two answers differ, and how extracted differs from the first before any excuse. */
  readonly probe?: { readonly volatile: readonly Difference[]; readonly differences: readonly Difference[] } | undefined;
};

export type EvidenceDeps = {
  readonly store: EvidenceStore;
  /** DESIGN's `redact:` list. */
  readonly redact: () => readonly string[];
  /** How long hours are kept, ms; by context. */
  readonly retention?: () => ReadonlyMap<string, number>;
  /** For the HMAC of redacted values. */
  readonly redactKey: Uint8Array;
  /** Makes examples of pairs whose answers are `undecoded`. Without it they are kept without bodies, as they are when it rejects. */
  readonly exemplar?: (pair: JudgedPair, field: string, redaction: Redaction) => Promise<NewPair>;
  /** Told once when the store fails and once when it works again. */
  readonly onStore?: (failing: boolean, error?: unknown) => void;
  /** Default 250. */
  readonly flushMs?: number;
};

export type Evidence = {
  /** Adds to a counter. Never throws, never waits. */
  readonly count: (context: string, route: string, what: CountName, why?: string) => void;
  /** Notes a judged pair: counters, fields, and perhaps an exemplar. Never throws, never waits. */
  readonly note: (pair: JudgedPair) => void;
  /** Notes how long a side took to the head of its answer, ms. Never throws, never waits. */
  readonly latency: (context: string, route: string, upstream: Upstream, asked: Asked, ms: number) => void;
  readonly parityLatency: (context: string) => Promise<LatencyReport[]>;
  readonly flush: () => Promise<void>;
  readonly parityReport: (context: string, gate?: Partial<Gate>) => Promise<ParityReport>;
  /** Newest hour first; an hour in which nothing was seen is left out. */
  readonly parityHours: (query: HoursQuery) => Promise<HourReport[]>;
  readonly pairs: EvidenceStore['pairs'];
  readonly pair: EvidenceStore['pair'];
  readonly templates: EvidenceStore['templates'];
  readonly learnTemplate: EvidenceStore['learnTemplate'];
  /** On a stage change: the window starts anew. */
  readonly reset: (context: string, at: Date) => Promise<void>;
  /** What was thrown away because the store was down or the buffer full. */
  readonly stats: () => { readonly lost: number; readonly waiting: number };
  /** Writes what is left, at most 2 s, and ends the timer. */
  readonly stop: () => Promise<void>;
};

/** Bounds between two flushes; beyond them things are dropped and counted. */
const MAX_KEYS = 5_000;
const MAX_PAIRS = 100;
const MAX_PAIRS_PER_FIELD = 5;
/** Examples of large answers that are made at a time. */
const MAX_ELSEWHERE = 4;
/** Redacting a pair takes about half a millisecond, in which no request moves: of pairs that agree one is example enough. */
const MAX_AGREEING = 1;
const STOP_MS = 2_000;
const PRUNE_MS = 600_000;

/** What a pair is an example of. */
const fieldOfExample = (verdict: Verdict): string => {
  if (verdict.kind === 'mismatch') return fieldKey(verdict.differences[0]!);
  if (verdict.kind === 'incomparable') return `incomparable ${verdict.why}`;
  return verdict.kind;
};

const refuse = (): Promise<NewPair> => Promise.reject(new Error('nobody makes examples of large answers'));

type Adding<T> = { -readonly [K in keyof T]: T[K] };

/** Gathers evidence and adds it to the store in batches. Starts its timer at once; `stop` ends it. */
export const createEvidence = (deps: EvidenceDeps): Evidence => {
  let counts = new Map<string, Adding<CountRow>>();
  let fields = new Map<string, Adding<FieldRow>>();
  let probes = new Map<string, Adding<ProbeRow>>();
  let latencies = new Map<string, Adding<LatencyRow>>();
  let pairs: NewPair[] = [];
  let perField = new Map<string, number>();
  let lost = 0;
  let failing = false;
  let running: Promise<void> | null = null;
  /** Examples of large answers that are being made. */
  let elsewhere = 0;

  const slot = <T>(map: Map<string, T>, key: readonly string[], make: () => T): T | undefined => {
    const id = key.join('\u0000');
    const known = map.get(id);
    if (known) return known;
    if (map.size >= MAX_KEYS) {
      lost++;
      return undefined;
    }
    const made = make();
    map.set(id, made);
    return made;
  };

  const count: Evidence['count'] = (context, route, what, why = '') => {
    const row = slot(counts, [context, route, what, why], () => ({ context, route, what, why, n: 0 }));
    if (row) row.n++;
  };

  const latency: Evidence['latency'] = (context, route, upstream, asked, ms) => {
    const bucket = latencyBucket(ms);
    const row = slot(latencies, [context, route, upstream, asked, String(bucket)], () => ({
      context,
      route,
      upstream,
      asked,
      bucket,
      n: 0,
    }));
    if (row) row.n++;
  };

  const field = (context: string, route: string, difference: Difference, rule: string): void => {
    const name = fieldOf(difference.path);
    const row = slot(fields, [context, route, name, difference.kind, rule], () => ({
      context,
      route,
      field: name,
      kind: difference.kind,
      rule,
      n: 0,
    }));
    if (row) row.n++;
  };

  /** One of each field family and kind: a thousand items that differ alike are one pair in which the field differs. */
  const families = <D extends Difference>(differences: readonly D[]): D[] => [
    ...new Map(differences.map((one) => [fieldKey(one), one])).values(),
  ];

  const probed = ({ context, route, probe }: JudgedPair): void => {
    if (!probe) return;
    count(context, route, 'probed');
    const [volatile, candidate] = [families(probe.volatile), families(probe.differences)];
    const [inLegacy, inExtracted] = [new Set(volatile.map(fieldKey)), new Set(candidate.map(fieldKey))];
    for (const one of families([...volatile, ...candidate])) {
      const name = fieldOf(one.path);
      const row = slot(probes, [context, route, name, one.kind], () => ({
        context,
        route,
        field: name,
        kind: one.kind,
        onlyExtracted: 0,
        onlyLegacy: 0,
        both: 0,
      }));
      if (!row) continue;
      const key = fieldKey(one);
      if (inLegacy.has(key) && inExtracted.has(key)) row.both++;
      else if (inLegacy.has(key)) row.onlyLegacy++;
      else row.onlyExtracted++;
    }
  };

  const keep = (pair: JudgedPair): void => {
    const name = fieldOfExample(pair.verdict);
    const key = `${pair.context}\u0000${name}`;
    const kept = perField.get(key) ?? 0;
    const { kind } = pair.verdict;
    const most = kind === 'match' || kind === 'noise' ? MAX_AGREEING : MAX_PAIRS_PER_FIELD;
    if (kept >= most || pairs.length >= MAX_PAIRS) return;
    perField.set(key, kept + 1);
    const redaction: Redaction = { list: deps.redact(), key: deps.redactKey };
    const { answers } = pair;
    if (answers?.undecoded === undefined) pairs.push(exemplarOf(pair, name, redaction));
    else void keepElsewhere(pair, name, redaction);
  };

  /** The same for answers that are too large to be redacted here. Its place among the examples is taken when it is done. */
  const keepElsewhere = async (pair: JudgedPair, name: string, redaction: Redaction): Promise<void> => {
    if (elsewhere >= MAX_ELSEWHERE) return;
    elsewhere++;
    try {
      const made = await (deps.exemplar ?? refuse)(pair, name, redaction).catch(() => {
        const bare = (answer: Observation): Observation => ({ ...answer, body: null });
        const { legacy, extracted } = pair.answers!;
        return exemplarOf({ ...pair, answers: { legacy: bare(legacy), extracted: bare(extracted) } }, name, redaction);
      });
      if (pairs.length < MAX_PAIRS) pairs.push(made);
    } catch {
      lost++;
    } finally {
      elsewhere--;
    }
  };

  const note: Evidence['note'] = (pair) => {
    try {
      const { context, route, verdict } = pair;
      const { differences, noise, why } = verdictDocument(verdict);
      if (pair.dryRun === true)
        count(context, route, 'dry-run', verdict.kind === 'incomparable' ? `incomparable:${why ?? ''}` : verdict.kind);
      else count(context, route, verdict.kind, verdict.kind === 'incomparable' ? (why ?? '') : '');
      for (const one of families(differences)) field(context, route, one, '');
      for (const one of new Map(noise.map((entry) => [`${fieldKey(entry)}\u0000${entry.rule}`, entry])).values())
        field(context, route, one, one.rule);
      probed(pair);
      keep(pair);
    } catch {
      lost++;
    }
  };

  const write = async (): Promise<void> => {
    const batch: Batch = {
      counts: [...counts.values()],
      fields: [...fields.values()],
      probes: [...probes.values()],
      latencies: [...latencies.values()],
      pairs,
    };
    const size = batch.counts.reduce((sum, { n }) => sum + n, 0) + pairs.length;
    if (size === 0 && batch.fields.length + batch.latencies.length === 0) return;
    [counts, fields, probes, latencies, pairs, perField] = [new Map(), new Map(), new Map(), new Map(), [], new Map()];
    try {
      await deps.store.add(batch);
      if (failing) deps.onStore?.(false);
      failing = false;
    } catch (error) {
      // Not tried again: whether the batch was committed is unknown, and evidence counted twice would be worse than evidence lost.
      lost += size;
      if (!failing) deps.onStore?.(true, error);
      failing = true;
    }
  };
  const flush = async (): Promise<void> => {
    // One batch at a time; what comes meanwhile waits in the bounded buffer.
    while (running) await running;
    running = write().finally(() => {
      running = null;
    });
    await running;
  };
  const timer = setInterval(() => {
    if (!running) void flush();
  }, deps.flushMs ?? 250);
  timer.unref();
  const prune = async (): Promise<void> => {
    try {
      for (const [context, ms] of deps.retention?.() ?? []) await deps.store.prune(context, new Date(Date.now() - ms));
    } catch {
      // the store is away, which is told when evidence cannot be stored; the next turn comes
    }
  };
  let pruning: Promise<void> = Promise.resolve();
  const pruner = setInterval(() => {
    pruning = pruning.then(prune);
  }, PRUNE_MS);
  pruner.unref();

  return {
    count,
    note,
    latency,
    parityLatency: async (context) => latencyReportsOf(await deps.store.latencies(context)),
    flush,
    parityReport: async (context, gate) => parityReportOf(await deps.store.totals(context), gate),
    parityHours: async (query) => hourReportsOf(await deps.store.hours(query)),
    pairs: deps.store.pairs,
    pair: deps.store.pair,
    templates: deps.store.templates,
    learnTemplate: deps.store.learnTemplate,
    reset: async (context, at) => {
      for (const map of [counts, fields, probes, latencies]) for (const [key, row] of map) if (row.context === context) map.delete(key);
      await deps.store.reset(context, at);
    },
    stats: () => ({ lost, waiting: counts.size + fields.size + probes.size + pairs.length }),
    stop: async () => {
      clearInterval(timer);
      clearInterval(pruner);
      let giveUp: NodeJS.Timeout | undefined;
      await Promise.race([
        Promise.all([flush(), pruning]),
        new Promise<void>((resolve) => {
          giveUp = setTimeout(resolve, STOP_MS);
        }),
      ]);
      clearTimeout(giveUp);
    },
  };
};
