import { AppError } from '@banyan/contracts/errors.ts';
import { type Cursor, cursorAt, parsePattern, type Segment } from './path.ts';

/** A named, reasoned, expiring excuse. `at`: JSONPath, `header:NAME` (a trailing `*` matches the rest) or `status`. `until`: a day (its last moment in UTC still counts) or an instant. */
export type IgnoreRule = { readonly at: string; readonly because?: string | undefined; readonly until?: string | Date | undefined };

/** How arrays at a place are compared: matched by a member of their elements (`id`, `product.id`), or without order. Default is in order. */
export type ArrayRule = { readonly at: string; readonly by?: string | undefined; readonly as?: 'set' | 'multiset' | undefined };

/** Numbers at a place may differ by `abs`, or by the share `rel` of the larger one. */
export type ToleranceRule = { readonly at: string; readonly abs?: number | undefined; readonly rel?: number | undefined };

/** The comparing part of a context's `parity:` block. */
export type ParityRules = {
  readonly ignore?: readonly IgnoreRule[] | undefined;
  readonly arrays?: readonly ArrayRule[] | undefined;
  readonly tolerance?: readonly ToleranceRule[] | undefined;
};

/** A rule as a walk over the body meets it. */
export type BodyRule =
  | { readonly kind: 'ignore'; readonly name: string }
  | { readonly kind: 'array'; readonly by: readonly string[] | null; readonly as: 'set' | 'multiset' | null }
  | { readonly kind: 'tolerance'; readonly abs: number | undefined; readonly rel: number | undefined };

export type ExpiredRule = { readonly at: string; readonly because: string; readonly until: string };

export type CompiledRules = {
  readonly body: Cursor<BodyRule>;
  /** The name of the rule that excuses a header (lower case), or undefined. */
  readonly header: (name: string) => string | undefined;
  readonly status: string | undefined;
  /** Rules that no longer work; whoever compiles reports them. */
  readonly expired: readonly ExpiredRule[];
  /** Unix ms at which the next rule expires: compile again then. Infinity = never. */
  readonly validUntilMs: number;
};

const DAY_MS = 86_400_000;

/** Unix ms of the last moment at which a rule works; undefined when the text is no date. */
const endOf = (until: string | Date): number | undefined => {
  const day = typeof until === 'string' && /^\d{4}-\d{2}-\d{2}$/.test(until);
  const at = typeof until === 'string' ? Date.parse(until) : until.getTime();
  if (Number.isNaN(at)) return undefined;
  return day ? at + DAY_MS - 1 : at;
};

const HEADER = /^header:([!#$%&'*+.^_`|~0-9A-Za-z-]+)$/;

type HeaderRule = { readonly name: string; readonly prefix: boolean; readonly rule: string };

/**
 * Turns rules into what the comparison walks with. `now` in unix ms.
 * @throws AppError `unprocessable` that lists every fault as `ignore[0].at: …`.
 */
export const compileRules = (rules: ParityRules, now: number): CompiledRules => {
  const faults: string[] = [];
  const body: { segments: readonly Segment[]; rule: BodyRule }[] = [];
  const headers: HeaderRule[] = [];
  const expired: ExpiredRule[] = [];
  let status: string | undefined;
  let validUntilMs = Number.POSITIVE_INFINITY;

  const pattern = (at: string, where: string): readonly Segment[] => {
    const parsed = parsePattern(at);
    if (parsed.ok) return parsed.segments;
    faults.push(`${where}.at: ${parsed.why}`);
    return [];
  };

  for (const [i, rule] of (rules.ignore ?? []).entries()) {
    const where = `ignore[${i}]`;
    const name = `ignore ${rule.at}${rule.because ? `: ${rule.because}` : ''}`;
    const end = rule.until === undefined ? undefined : endOf(rule.until);
    if (rule.until !== undefined && end === undefined)
      faults.push(`${where}.until: expected a date such as 2027-03-01, found ${JSON.stringify(rule.until)}`);
    const over = end !== undefined && end < now;
    if (over)
      expired.push({
        at: rule.at,
        because: rule.because ?? '',
        until: typeof rule.until === 'string' ? rule.until : new Date(end).toISOString(),
      });
    else if (end !== undefined) validUntilMs = Math.min(validUntilMs, end + 1);
    const header = HEADER.exec(rule.at)?.[1]?.toLowerCase();
    if (header !== undefined) {
      const prefix = header.endsWith('*');
      if (!over) headers.push({ name: prefix ? header.slice(0, -1) : header, prefix, rule: name });
    } else if (rule.at === 'status') {
      if (!over) status ??= name;
    } else {
      const segments = pattern(rule.at, where);
      if (!over) body.push({ segments, rule: { kind: 'ignore', name } });
    }
  }
  for (const [i, rule] of (rules.arrays ?? []).entries()) {
    const segments = pattern(rule.at, `arrays[${i}]`);
    if ((rule.by === undefined) === (rule.as === undefined)) faults.push(`arrays[${i}]: expected either by: MEMBER or as: set|multiset`);
    body.push({ segments, rule: { kind: 'array', by: rule.by === undefined ? null : rule.by.split('.'), as: rule.as ?? null } });
  }
  for (const [i, rule] of (rules.tolerance ?? []).entries()) {
    const segments = pattern(rule.at, `tolerance[${i}]`);
    if (rule.abs === undefined && rule.rel === undefined) faults.push(`tolerance[${i}]: expected abs: NUMBER or rel: NUMBER`);
    for (const key of ['abs', 'rel'] as const)
      if (rule[key] !== undefined && !(Number.isFinite(rule[key]) && rule[key] >= 0))
        faults.push(`tolerance[${i}].${key}: expected a number >= 0`);
    body.push({ segments, rule: { kind: 'tolerance', abs: rule.abs, rel: rule.rel } });
  }
  if (faults.length > 0) throw new AppError('unprocessable', `parity rules: ${faults.join('; ')}`, { details: { faults } });
  return {
    body: cursorAt(body),
    header: (name) => headers.find((rule) => (rule.prefix ? name.startsWith(rule.name) : rule.name === name))?.rule,
    status,
    expired,
    validUntilMs,
  };
};

const KNOWN: Readonly<Record<keyof ParityRules, readonly string[]>> = {
  ignore: ['at', 'because', 'until'],
  arrays: ['at', 'by', 'as'],
  tolerance: ['at', 'abs', 'rel'],
};
/** The rest of a `parity:` block: fine in a rules file, without meaning for a comparison. */
const ELSEWHERE = ['sample', 'compare', 'probe', 'unsafeQueries', 'bodyLimit'];

/**
 * Reads untyped rules (a parsed YAML or JSON file with the keys of a `parity:` block).
 * @throws AppError `unprocessable` that lists every fault with its place.
 */
export const readRules = (input: unknown): ParityRules => {
  const faults: string[] = [];
  const isObject = (value: unknown): value is Record<string, unknown> =>
    typeof value === 'object' && value !== null && !Array.isArray(value);
  if (input === null || input === undefined) return {};
  if (!isObject(input)) throw new AppError('unprocessable', 'parity rules: expected an object with ignore, arrays and tolerance');
  for (const key of Object.keys(input))
    if (!(key in KNOWN) && !ELSEWHERE.includes(key)) faults.push(`${key}: unknown key, expected ${Object.keys(KNOWN).join(', ')}`);
  const kind: Record<string, (value: unknown) => boolean> = {
    at: (value) => typeof value === 'string',
    because: (value) => typeof value === 'string',
    until: (value) => typeof value === 'string' || value instanceof Date,
    by: (value) => typeof value === 'string' && value !== '',
    as: (value) => value === 'set' || value === 'multiset',
    abs: (value) => typeof value === 'number',
    rel: (value) => typeof value === 'number',
  };
  for (const list of Object.keys(KNOWN) as (keyof ParityRules)[]) {
    const rules = input[list];
    if (rules === undefined || rules === null) continue;
    if (!Array.isArray(rules)) {
      faults.push(`${list}: expected a list`);
      continue;
    }
    for (const [i, rule] of rules.entries()) {
      if (!isObject(rule)) {
        faults.push(`${list}[${i}]: expected an object with ${KNOWN[list].join(', ')}`);
        continue;
      }
      if (rule.at === undefined) faults.push(`${list}[${i}].at: missing`);
      for (const [key, value] of Object.entries(rule)) {
        if (!KNOWN[list].includes(key)) faults.push(`${list}[${i}].${key}: unknown key, expected ${KNOWN[list].join(', ')}`);
        else if (!kind[key]!(value)) faults.push(`${list}[${i}].${key}: did not expect ${JSON.stringify(value) ?? String(value)}`);
      }
    }
  }
  if (faults.length > 0) throw new AppError('unprocessable', `parity rules: ${faults.join('; ')}`, { details: { faults } });
  return Object.fromEntries(Object.keys(KNOWN).flatMap((key) => (input[key] ? [[key, input[key]]] : []))) as ParityRules;
};

/** No rules at all. */
export const NO_RULES: CompiledRules = compileRules({}, 0);
