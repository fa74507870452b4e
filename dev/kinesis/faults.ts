import { z } from 'zod';
import type { Clock } from './limits.ts';

/**
 * What may go wrong. `throttle` and `error` refuse before anything is done; `error-after` and `lost` do it and then answer 500 or close the connection;
 * `fail-records` fails single records of PutRecords; `delay` answers late; `hang` never answers and freezes subscriptions that are open (half-open);
 * `outage` closes the connection without doing anything.
 */
const KINDS = ['throttle', 'error', 'error-after', 'lost', 'fail-records', 'delay', 'hang', 'outage'] as const;

const rule = z.strictObject({
  kind: z.enum(KINDS),
  /** Bare operation names such as `PutRecords`; absent = every operation. */
  operations: z.array(z.string().min(1).max(64)).max(64).optional(),
  /** Share of the calls (of the records for `fail-records`), 0..1; default all. */
  share: z.number().min(0).max(1).default(1),
  /** The rule is gone after it has struck so often; absent = it stays. */
  times: z.int().min(1).max(1e9).optional(),
  /** ms of `delay`; default 1,000. */
  ms: z.int().min(0).max(600_000).default(1000),
  /** The rule is gone after so many ms. */
  forMs: z.int().min(1).max(86_400_000).optional(),
});
export const faultRules = z.array(rule).max(100);
type Rule = z.infer<typeof rule>;
export type FaultRule = z.input<typeof rule>;

export type Faults = {
  /** Replaces all rules. @throws ZodError */
  readonly set: (rules: readonly FaultRule[]) => void;
  /** The fault of this call, if one strikes; `fail-records` is asked for each record. */
  readonly strike: (operation: string) => { readonly kind: Rule['kind']; readonly ms: number } | undefined;
  readonly failsRecord: () => boolean;
  /** True while open subscriptions send nothing. */
  readonly frozen: () => boolean;
};

/** Scripted faults, for tests of whatever uses a stream. @param random 0..1, so that a seeded run repeats itself */
export const createFaults = (clock: Clock, random: () => number = Math.random): Faults => {
  let rules: (Rule & { left: number; until: number })[] = [];
  const alive = (): typeof rules => {
    if (rules.length > 0) {
      const now = clock();
      rules = rules.filter((each) => each.left > 0 && each.until > now);
    }
    return rules;
  };
  const struck = (found: (typeof rules)[number] | undefined): boolean => {
    if (!found || random() >= found.share) return false;
    found.left -= 1;
    return true;
  };
  const covers = (each: Rule, operation: string): boolean => each.operations === undefined || each.operations.includes(operation);
  return {
    set: (wanted) => {
      const now = clock();
      rules = faultRules.parse(wanted).map((each) => ({
        ...each,
        left: each.times ?? Number.POSITIVE_INFINITY,
        until: each.forMs === undefined ? Number.POSITIVE_INFINITY : now + each.forMs,
      }));
    },
    strike: (operation) => {
      for (const each of alive()) {
        if (each.kind !== 'fail-records' && covers(each, operation) && struck(each)) return { kind: each.kind, ms: each.ms };
      }
      return undefined;
    },
    failsRecord: () => struck(alive().find((each) => each.kind === 'fail-records')),
    frozen: () => alive().some((each) => each.kind === 'hang' && covers(each, 'SubscribeToShard')),
  };
};
