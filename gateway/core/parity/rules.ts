import { AppError } from '@banyan/contracts/errors.ts';
import { type Cursor, cursorAt, parsePattern, type Segment } from './path.ts';

/** A named, reasoned, expiring excuse. `at`: JSONPath, `header:NAME` (a trailing `*` matches the rest) or `status`. `until`: the first day (UTC) or the instant at which it no longer works; null = always. */
export type IgnoreRule = { readonly at: string; readonly because?: string | undefined; readonly until?: string | null | undefined };

/** How arrays at a place are compared: matched by a member of their elements (`id`, `product.id`), or without order. Default is in order. */
export type ArrayRule = {
  readonly at: string;
  readonly by?: string | null | undefined;
  readonly as?: 'set' | 'multiset' | null | undefined;
};

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
    const until = rule.until ?? undefined;
    const end = until === undefined ? Number.POSITIVE_INFINITY : Date.parse(until);
    if (Number.isNaN(end)) faults.push(`${where}.until: expected a date such as 2027-03-01, found ${JSON.stringify(until)}`);
    const over = until !== undefined && end <= now;
    if (over) expired.push({ at: rule.at, because: rule.because ?? '', until });
    else validUntilMs = Math.min(validUntilMs, end);
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
    const [by, as] = [rule.by ?? null, rule.as ?? null];
    if ((by === null) === (as === null)) faults.push(`arrays[${i}]: expected either by: MEMBER or as: set|multiset`);
    body.push({ segments, rule: { kind: 'array', by: by?.split('.') ?? null, as } });
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
