import type { DifferenceKind, VerdictKind } from '@banyan/contracts/vocabulary.ts';
import { ALIAS_RULE } from '../../core/parity/aliases.ts';
import { compareObservations } from '../../core/parity/compare.ts';
import { charsetOf, classOf, mediaTypeOf } from '../../core/parity/media.ts';
import { type Difference, type Noise, type Observation, verdictDocument } from '../../core/parity/observation.ts';
import { fieldOf } from '../../core/parity/path.ts';
import { fieldKey, PROBE_RULE } from '../../core/parity/probe.ts';
import type { CompiledRules } from '../../core/parity/rules.ts';
import { mannWhitney, type RankTest, wilson } from '../../core/parity/stats.ts';
import { inferTemplates } from '../../core/parity/template.ts';
import { createRedactor, type StoredAnswer } from '../redact.ts';
import type { Replayed } from './replay.ts';

/** A pair as it is kept on disk, redacted, to be judged again and reported. */
export type StoredPair = {
  readonly index: number;
  readonly method: string;
  readonly target: string;
  readonly headers: readonly (readonly [string, string])[];
  readonly body: string | null;
  readonly verdict: VerdictKind;
  readonly confirmed: boolean;
  readonly why: string | null;
  readonly differences: readonly Difference[];
  readonly noise: readonly Noise[];
  readonly legacy: StoredAnswer & { readonly ms: number; readonly digest?: string };
  readonly extracted: StoredAnswer & { readonly ms: number; readonly digest?: string };
};

const MAX_BODY = 1024 * 1024;
const MAX_DIFFERENCES = 100;

/** A pair ready to be kept: named secrets replaced by keyed hashes everywhere, also in echoes. `decoded` = the answers without content coding. */
export const storedPair = (
  result: Replayed,
  decoded: readonly [legacy: Observation, extracted: Observation],
  redact: readonly string[],
  key: Uint8Array,
): StoredPair => {
  const { request, verdict, confirmed } = result;
  const redactor = createRedactor(redact, key);
  const { differences, noise, why } = verdictDocument(verdict);
  const answer = (side: 'legacy' | 'extracted', observation: Observation): StoredPair['legacy'] => ({
    ...redactor.answer(observation, MAX_BODY),
    ...(observation.digest === undefined ? {} : { digest: observation.digest }),
    ms: Math.round(result[side].ms * 10) / 10,
  });
  const sent: Observation = { status: 200, headers: request.headers, body: request.body, complete: true };
  const build = (): StoredPair => ({
    index: request.index,
    method: request.method,
    headers: redactor.headers(request.headers),
    body: request.body === null ? null : redactor.answer(sent, MAX_BODY).body,
    target: redactor.target(request.target),
    verdict: verdict.kind,
    confirmed,
    why,
    legacy: answer('legacy', decoded[0]),
    extracted: answer('extracted', decoded[1]),
    differences: redactor.differences(differences.slice(0, MAX_DIFFERENCES)),
    noise: redactor.differences(noise.slice(0, MAX_DIFFERENCES)),
  });
  // The first pass learns the secrets, the second replaces their echoes wherever they stand.
  build();
  return build();
};

export type RouteSummary = { readonly route: string; readonly requests: number } & Readonly<Record<VerdictKind, number>>;
export type Latency = { readonly p50: number; readonly p95: number; readonly p99: number };
export type ReplayDocument = {
  readonly verdict: 'match' | 'mismatch' | 'incomparable';
  readonly why: string | null;
  readonly legacy: string;
  readonly extracted: string;
  readonly requests: number;
  /** Commands left out, lines that hold no request. */
  readonly skipped: { readonly commands: number; readonly unreadable: number };
  readonly compared: number;
  readonly match: number;
  readonly noise: number;
  readonly mismatch: number;
  readonly incomparable: number;
  readonly rate: number | null;
  readonly wilson: readonly [number, number];
  readonly byRoute: readonly RouteSummary[];
  readonly byField: readonly {
    readonly field: string;
    readonly kind: DifferenceKind;
    readonly rule: string | null;
    readonly count: number;
  }[];
  /** Milliseconds to the end of the answer. `test`: is extracted slower (Mann-Whitney)? Null with fewer than 8 answers. */
  readonly latency: { readonly legacy: Latency | null; readonly extracted: Latency | null; readonly test: RankTest | null };
  /** Those that do not match, in the order of the recording; at most 1,000. */
  readonly pairs: readonly ReportedPair[];
  /** How many more there were. */
  readonly omitted: number;
};
export type ReportedPair = Omit<StoredPair, 'headers' | 'body' | 'legacy' | 'extracted'> & {
  readonly route: string;
  readonly legacy: { readonly status: number; readonly ms: number; readonly body: string | null };
  readonly extracted: { readonly status: number; readonly ms: number; readonly body: string | null };
  readonly curl: { readonly legacy: string; readonly extracted: string };
};

const MAX_PAIRS = 1_000;
const MAX_SHOWN_BODY = 16_384;
/** More than this share of 401/403 on both sides: the recording's credentials do not work here, and nothing was compared but refusals. */
const MAX_REFUSED = 0.05;

const shell = (text: string): string => `'${text.replaceAll("'", "'\\''")}'`;
/** A redacted value becomes a variable of the shell, so that the command works for whoever has the secret. */
const withVariables = (text: string, name: string): string =>
  text
    .split(/\[redacted:[0-9a-f]{16}\]/)
    .map((part) => (part === '' ? '' : shell(part)))
    .join(`"$${name.toUpperCase().replace(/[^A-Z0-9]+/g, '_')}"`);
/** What curl sets itself or what this connection does not have. */
const NOT_IN_CURL = new Set(
  'host connection content-length transfer-encoding accept-encoding keep-alive te upgrade proxy-connection'.split(' '),
);

/** A command that asks the same of one side. */
const curlOf = (base: string, pair: Pick<StoredPair, 'method' | 'target' | 'headers' | 'body'>): string =>
  [
    'curl -sS --compressed',
    pair.method === 'HEAD' ? '--head' : `-X ${shell(pair.method)}`,
    ...pair.headers
      .filter(([name]) => !NOT_IN_CURL.has(name.toLowerCase()))
      .map(([name, value]) => `-H ${withVariables(`${name}: ${value}`, name)}`),
    ...(pair.body === null ? [] : [`--data-binary ${withVariables(pair.body, 'secret')}`]),
    withVariables(`${base.replace(/\/$/, '')}${pair.target}`, 'token'),
  ].join(' ');

const latencyOf = (ms: readonly number[]): Latency | null => {
  if (ms.length === 0) return null;
  const sorted = [...ms].sort((a, b) => a - b);
  const at = (share: number): number => sorted[Math.max(0, Math.ceil(share * sorted.length) - 1)]!;
  return { p50: at(0.5), p95: at(0.95), p99: at(0.99) };
};

/** Adds up what a replay has shown. Pure. */
export const replayDocument = (
  pairs: readonly StoredPair[],
  about: {
    readonly legacy: string;
    readonly extracted: string;
    readonly skipped: ReplayDocument['skipped'];
    readonly interrupted: boolean;
  },
): ReplayDocument => {
  const sorted = [...pairs].sort((a, b) => a.index - b.index);
  const templates = inferTemplates(sorted.map(({ target }) => target));
  const routes = new Map<string, { -readonly [K in keyof RouteSummary]: RouteSummary[K] }>();
  const fields = new Map<string, { field: string; kind: DifferenceKind; rule: string | null; count: number }>();
  const counts: Record<VerdictKind, number> = { match: 0, noise: 0, mismatch: 0, incomparable: 0 };
  for (const pair of sorted) {
    counts[pair.verdict]++;
    const route = `${pair.method} ${templates.get(pair.target)!}`;
    const row = routes.get(route) ?? { route, requests: 0, match: 0, noise: 0, mismatch: 0, incomparable: 0 };
    row.requests++;
    row[pair.verdict]++;
    routes.set(route, row);
    const seen = new Set<string>();
    for (const one of [...pair.differences.map((difference) => ({ ...difference, rule: null })), ...pair.noise]) {
      const key = `${fieldKey(one)}\u0000${one.rule ?? ''}`;
      if (seen.has(key)) continue;
      seen.add(key);
      const field = fields.get(key) ?? { field: fieldOf(one.path), kind: one.kind, rule: one.rule, count: 0 };
      field.count++;
      fields.set(key, field);
    }
  }
  const refused = sorted.filter(({ legacy, extracted }) =>
    [legacy, extracted].every(({ status }) => status === 401 || status === 403),
  ).length;
  const compared = counts.match + counts.noise + counts.mismatch;
  const judged = (): { verdict: ReplayDocument['verdict']; why: string | null } => {
    if (refused > MAX_REFUSED * sorted.length)
      return {
        verdict: 'incomparable',
        why: `${refused} of ${sorted.length} requests were refused (401 or 403) by both sides: pass working credentials with --header`,
      };
    if (counts.mismatch > 0) return { verdict: 'mismatch', why: null };
    if (compared === 0) return { verdict: 'incomparable', why: 'nothing could be compared' };
    return about.interrupted ? { verdict: 'incomparable', why: 'interrupted' } : { verdict: 'match', why: null };
  };
  const different = sorted.filter(({ verdict }) => verdict === 'mismatch' || verdict === 'incomparable');
  const times = (side: 'legacy' | 'extracted'): number[] => sorted.filter((pair) => pair[side].complete).map((pair) => pair[side].ms);
  const shown = ({ status, ms, body }: StoredPair['legacy']): ReportedPair['legacy'] => ({
    status,
    ms,
    body: body?.slice(0, MAX_SHOWN_BODY) ?? null,
  });
  return {
    ...judged(),
    legacy: about.legacy,
    extracted: about.extracted,
    requests: sorted.length,
    skipped: about.skipped,
    compared,
    ...counts,
    rate: compared === 0 ? null : (counts.match + counts.noise) / compared,
    wilson: wilson(counts.match + counts.noise, compared),
    byRoute: [...routes.values()].sort((a, b) => b.mismatch - a.mismatch || b.requests - a.requests),
    byField: [...fields.values()].sort((a, b) => b.count - a.count).slice(0, 200),
    latency: {
      legacy: latencyOf(times('legacy')),
      extracted: latencyOf(times('extracted')),
      test: mannWhitney(times('legacy').slice(0, 50_000), times('extracted').slice(0, 50_000)),
    },
    pairs: different.slice(0, MAX_PAIRS).map(({ headers: _headers, body: _body, ...pair }, i) => ({
      ...pair,
      route: `${pair.method} ${templates.get(pair.target)!}`,
      legacy: shown(pair.legacy),
      extracted: shown(pair.extracted),
      curl: { legacy: curlOf(about.legacy, different[i]!), extracted: curlOf(about.extracted, different[i]!) },
    })),
    omitted: Math.max(0, different.length - MAX_PAIRS),
  };
};

/** A stored answer as it was observed: what a judge under other rules looks at. */
const observationOf = ({ status, headers, body, complete }: StoredPair['legacy']): Observation => ({
  status,
  // Bodies are kept decoded.
  headers: headers.filter(([name]) => name.toLowerCase() !== 'content-encoding'),
  body: body === null ? null : new TextEncoder().encode(body),
  complete,
});

/** Is what was kept all that was compared? Not of large, binary, broken and multipart bodies, nor of those in another charset. */
const isWhole = (side: StoredPair['legacy']): boolean => {
  if (side.truncated || side.digest !== undefined || (side.body === null && side.bytes !== null && side.bytes > 0)) return false;
  const { headers, body } = observationOf(side);
  const media = mediaTypeOf({ headers });
  const kind = classOf(media, body ?? new Uint8Array(0));
  const charset = charsetOf(media, kind, body ?? new Uint8Array(0));
  return kind !== 'multipart' && (charset === null || /^(?:utf-?8|us-ascii|ascii)$/.test(charset));
};

/** What the bytes said and the kept text no longer does. */
const LOST: ReadonlySet<DifferenceKind> = new Set(['encoding', 'unparsable']);

/**
 * Judges a stored pair under other rules. What probing and aliases excused stays excused, and a verdict that needed more than what was kept (time, bytes) stays
 * as it was, because nobody is asked again. Pure.
 */
export const rejudge = (pair: StoredPair, rules: CompiledRules): StoredPair => {
  if (pair.verdict === 'incomparable' || !isWhole(pair.legacy) || !isWhole(pair.extracted)) return pair;
  if (pair.differences.some(({ kind }) => LOST.has(kind))) return pair;
  const found = verdictDocument(compareObservations(observationOf(pair.legacy), observationOf(pair.extracted), rules));
  if (found.verdict === 'incomparable')
    return { ...pair, verdict: 'incomparable', why: found.why, confirmed: false, differences: [], noise: [] };
  const place = ({ path, kind }: Difference): string => `${path}\u0000${kind}`;
  const probed = new Map(pair.noise.filter(({ rule }) => rule === PROBE_RULE || rule === ALIAS_RULE).map((one) => [place(one), one]));
  const differences = found.differences.filter((one) => !probed.has(place(one)));
  const noise = [...found.noise, ...found.differences.flatMap((one) => probed.get(place(one)) ?? [])];
  const verdict = differences.length > 0 ? 'mismatch' : noise.length > 0 ? 'noise' : 'match';
  return { ...pair, verdict, why: found.why, confirmed: pair.confirmed && verdict === 'mismatch', differences, noise };
};
