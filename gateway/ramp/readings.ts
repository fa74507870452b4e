import type { Upstream } from '@banyan/contracts/vocabulary.ts';
import { type Histogram, quantileMs, total } from '../core/ramp/histogram.ts';
import type { Answers, Parity } from '../core/ramp/judge.ts';
import type { SampleRow } from './sample-store.ts';
import { BREAKER_BUCKET, FAILED_BUCKET } from './samples.ts';

/** The counters of one context at one moment; they only rise within a step. */
export type Reading = { readonly parity: Parity; readonly extracted: Answers; readonly legacy: Answers; readonly breakerOpened: number };
/** Readings of all contexts of a unit, by name. */
export type Readings = Readonly<Record<string, Reading>>;

/** As it is stored: histograms as pairs. */
type StoredAnswers = { readonly n: number; readonly failed: number; readonly latency: readonly (readonly [number, number])[] };
export type StoredReading = {
  readonly parity: Parity;
  readonly extracted: StoredAnswers;
  readonly legacy: StoredAnswers;
  readonly breakerOpened: number;
};

const NOTHING: Answers = { n: 0, failed: 0, latency: new Map() };
export const EMPTY_READING: Reading = { parity: { matches: 0, mismatches: 0 }, extracted: NOTHING, legacy: NOTHING, breakerOpened: 0 };

const answersOf = (rows: readonly SampleRow[], upstream: Upstream): Answers => {
  const latency = new Map<number, number>();
  let failed = 0;
  for (const { upstream: of, bucket, n } of rows) {
    if (of !== upstream) continue;
    if (bucket >= 0) latency.set(bucket, n);
    else if (bucket === FAILED_BUCKET) failed = n;
  }
  return { n: failed + total(latency), failed, latency };
};

export const readingOf = (parity: Parity, rows: readonly SampleRow[]): Reading => ({
  parity,
  extracted: answersOf(rows, 'extracted'),
  legacy: answersOf(rows, 'legacy'),
  breakerOpened: rows.find(({ bucket }) => bucket === BREAKER_BUCKET)?.n ?? 0,
});

const minusHistogram = (now: Histogram, then: Histogram): Histogram =>
  new Map([...now].map(([bucket, n]): [number, number] => [bucket, Math.max(0, n - (then.get(bucket) ?? 0))]).filter(([, n]) => n > 0));
const minusAnswers = (now: Answers, then: Answers): Answers => {
  const latency = minusHistogram(now.latency, then.latency);
  const failed = Math.max(0, now.failed - then.failed);
  return { n: failed + total(latency), failed, latency };
};

/** What came between two readings. A counter that was emptied meanwhile counts as 0: less evidence, never more. */
export const minus = (now: Reading, then: Reading): Reading => ({
  parity: {
    matches: Math.max(0, now.parity.matches - then.parity.matches),
    mismatches: Math.max(0, now.parity.mismatches - then.parity.mismatches),
  },
  extracted: minusAnswers(now.extracted, then.extracted),
  legacy: minusAnswers(now.legacy, then.legacy),
  breakerOpened: Math.max(0, now.breakerOpened - then.breakerOpened),
});

const stored = ({ n, failed, latency }: Answers): StoredAnswers => ({ n, failed, latency: [...latency] });
const restored = ({ n, failed, latency }: StoredAnswers): Answers => ({
  n,
  failed,
  latency: new Map(latency.map(([bucket, count]) => [bucket, count])),
});

export const toStored = (reading: Reading): StoredReading => ({
  ...reading,
  extracted: stored(reading.extracted),
  legacy: stored(reading.legacy),
});
export const fromStored = (reading: StoredReading | undefined): Reading =>
  reading ? { ...reading, extracted: restored(reading.extracted), legacy: restored(reading.legacy) } : EMPTY_READING;

/** For the audit: figures instead of histograms. Latencies in ms. */
export const figuresOf = ({ n, failed, latency }: Answers): object => ({
  answers: n,
  failed,
  p95: Number(quantileMs(latency, 0.95).toPrecision(3)),
  p99: Number(quantileMs(latency, 0.99).toPrecision(3)),
});
