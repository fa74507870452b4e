import { z } from 'zod';
import {
  BREAKER_STATES,
  DIFFERENCE_KINDS,
  HOST_STATES,
  LEDGER_STATES,
  RAMP_STATES,
  SAGA_STATES,
  STAGES,
  UPSTREAMS,
  VERDICTS,
} from './vocabulary.ts';

/**
 * What the admin API, the dashboard and the CLI say to each other (DESIGN.md section 10). Times are RFC 3339 in UTC.
 * Shares are percentages here (`12.5`), while flags hold basis points (`1250`).
 */

type DeepReadonly<T> = T extends readonly unknown[] | object ? { readonly [Key in keyof T]: DeepReadonly<T[Key]> } : T;

const when = z.iso.datetime();
const uuid = z.uuid({ error: 'an id such as 0199f0a4-7a70-7c3e-9d55-2f1e6a3b5c7d' });
const count = z.number().int().min(0);
const oneOf = <const V extends readonly [string, ...string[]]>(values: V) => z.enum(values, { error: `one of ${values.join(', ')}` });
const yesNo = z.boolean({ error: 'true or false' });

/** Longest reason that is kept. */
const REASON_MAX = 1_000;
const REASON = `why, in words (1 to ${REASON_MAX} characters)`;
/** Why somebody changes something; kept in the audit. */
export const reasonSchema = z.string({ error: REASON }).trim().min(1, { error: REASON }).max(REASON_MAX, { error: REASON });

const PERCENT = 'a percentage from 0 to 100 in steps of 0.01, such as 12.5';
/** A basis point is the resolution; the tolerance forgives binary fractions such as 0.07 * 100. */
const percentSchema = z
  .number({ error: PERCENT })
  .min(0, { error: PERCENT })
  .max(100, { error: PERCENT })
  .refine((percent) => Math.abs(percent * 100 - Math.round(percent * 100)) < 1e-6, { error: PERCENT });

/** Percentage to basis points 0..10000. */
export const bpOf = (percent: number): number => Math.round(percent * 100);
/** Basis points to a percentage. */
export const percentOf = (bp: number): number => bp / 100;

/** `{items, next}`; `next` is the cursor of the following page, null on the last one. */
export const pageOf = <T extends z.ZodType>(item: T) => z.strictObject({ items: z.array(item), next: z.string().nullable() });
export type Page<T> = { readonly items: readonly T[]; readonly next: string | null };

/** How far a flip got; `undone` = everything is as before, `detail` says why. */
const FLIP_STATES = ['pending', 'freezing', 'draining', 'watermark', 'switching', 'done', 'undone'] as const;
const flipRef = z.strictObject({ id: uuid, state: oneOf(FLIP_STATES) });
export const flipSchema = z.strictObject({
  id: uuid,
  contexts: z.array(z.string()),
  from: oneOf(STAGES),
  to: oneOf(STAGES),
  state: oneOf(FLIP_STATES),
  detail: z.string().nullable(),
  actor: z.string(),
  reason: z.string(),
  createdAt: when,
  updatedAt: when,
});
export type FlipView = z.output<typeof flipSchema>;
/** Answer of a stage change that hands over write ownership: 202. */
export const flipStartedSchema = z.strictObject({ flip: flipRef });

/** Answer of a promotion that others must ask for too: 202. `needed` counts everybody, the first one included. */
export const askedSchema = z.strictObject({
  asked: z.strictObject({ stage: oneOf(STAGES), percent: percentSchema, askedBy: z.array(z.string()), needed: count }),
});

/** `state` is the worst over the circuits, `open` of `of` are not closed. */
export const breakerSchema = z.strictObject({ state: oneOf(BREAKER_STATES), open: count, of: count });
export type BreakerView = z.output<typeof breakerSchema>;

/** Where the ramp of a context stands. Shares are percentages. */
export const rampSchema = z.strictObject({
  state: oneOf(RAMP_STATES),
  /** How many of `steps` are reached; 0 = shadow. */
  step: count,
  steps: z.array(percentSchema),
  /** The share of the step; 0 = shadow. */
  share: percentSchema,
  /** Begin of the step. */
  since: when,
  /** Since when evidence counts: the same, or when another version of the service showed up. */
  evidenceSince: when,
  /** The earliest moment of the next step; null when it does not depend on time alone. */
  nextAt: when.nullable(),
  /** What the last look came to, and why, in words. */
  outcome: oneOf(['advance', 'hold', 'rollback']),
  reasons: z.array(z.string()),
  approvals: z.strictObject({ needed: count, given: z.array(z.strictObject({ actor: z.string(), at: when })) }),
  paused: z.strictObject({ by: z.string(), at: when, reason: z.string() }).nullable(),
  startedBy: z.string(),
  startedAt: when,
  /** The contexts that move as one. */
  contexts: z.array(z.string()),
  /** Of contexts whose service tells its version. */
  serviceVersions: z.record(z.string(), z.string()),
  updatedAt: when,
});
export type RampView = DeepReadonly<z.output<typeof rampSchema>>;

export const contextSchema = z.strictObject({
  name: z.string(),
  group: z.string().nullable(),
  stage: oneOf(STAGES),
  percent: percentSchema,
  killed: z.boolean(),
  version: count,
  epoch: count,
  breaker: breakerSchema,
  /** The ramp, also one that has ended; null when there never was one. */
  ramp: rampSchema.nullable(),
  /** The flip under way; null while there is none. */
  flip: flipRef.nullable(),
  updatedAt: when,
  updatedBy: z.string(),
});
export type ContextView = DeepReadonly<z.output<typeof contextSchema>>;

const rate = z.number().min(0).max(1);
const figures = {
  requests: count,
  /** match + noise + mismatch. */
  compared: count,
  match: count,
  noise: count,
  mismatch: count,
  incomparable: count,
  dropped: count,
  skipped: count,
  /** (match + noise) / compared; null while nothing was compared. */
  rate: rate.nullable(),
};
const fieldSchema = z.strictObject({
  route: z.string(),
  field: z.string(),
  kind: oneOf(DIFFERENCE_KINDS),
  rule: z.string().nullable(),
  count,
});
const tally = z.record(z.string(), count);
/** Window = since the last change of stage. `since` is null when nothing was ever seen. */
export const paritySchema = z.strictObject({
  since: when.nullable(),
  ...figures,
  /** 95 % interval of the rate; display only. */
  wilson: z.tuple([rate, rate]),
  sprt: z.strictObject({ state: oneOf(['promote', 'rollback', 'continue']), llr: z.number() }),
  /** `reasons` such as `{"incomparable:lagging": 3}`, `answers` of the primary such as `{"2xx": 10}`. */
  byRoute: z.array(z.strictObject({ route: z.string(), ...figures, reasons: tally, answers: tally })),
  /** Most frequent first, at most 200. `rule` = what excused it. */
  byField: z.array(fieldSchema),
  /** Fields in which legacy differs from itself, or only extracted does, when legacy is asked twice. Alarms first, at most 200. */
  noisy: z.array(
    z.strictObject({
      route: z.string(),
      field: z.string(),
      kind: oneOf(DIFFERENCE_KINDS),
      onlyExtracted: count,
      onlyLegacy: count,
      both: count,
      /** Of the one-sided sign test, corrected for looks. */
      p: rate,
      /** More often different than noise explains, at 1 % over all fields of the route. */
      alarm: z.boolean(),
    }),
  ),
  /** Commands that legacy did, beside what the service answered to their dry runs; by route. */
  dryRuns: z.array(
    z.strictObject({
      route: z.string(),
      compared: count,
      match: count,
      noise: count,
      mismatch: count,
      incomparable: count,
      rate: rate.nullable(),
      reasons: tally,
    }),
  ),
});
export type ParityView = DeepReadonly<z.output<typeof paritySchema>>;

/** One hour, UTC. `byField` most frequent first, at most 50. */
export const parityHourSchema = z.strictObject({
  hour: when,
  ...figures,
  byRoute: z.array(z.strictObject({ route: z.string(), ...figures })),
  byField: z.array(fieldSchema),
});
export type ParityHourView = DeepReadonly<z.output<typeof parityHourSchema>>;

const ms = z.number().min(0);
/** ms to the heads of answers to the same queries. */
export const parityLatencySchema = z.strictObject({
  route: z.string(),
  sides: z.array(
    z.strictObject({
      upstream: oneOf(UPSTREAMS),
      /** `primary` = a client waited for it; `copy` = only the comparison did. */
      asked: oneOf(['primary', 'copy']),
      n: count,
      p50: ms,
      p90: ms,
      p99: ms,
      max: ms,
    }),
  ),
  /** Is extracted slower? null with fewer than 8 answers of a side. */
  test: z
    .strictObject({
      /** `copies` = both sides were asked beside the client; `mixed` = one of them answered it. */
      basis: oneOf(['copies', 'mixed']),
      /** Chance that an answer of extracted takes longer than one of legacy; 0.5 = alike. */
      larger: rate,
      /** Two-sided. */
      p: rate,
      /** Median of extracted over that of legacy. */
      medians: z.number().min(0),
    })
    .nullable(),
});
export type ParityLatencyView = DeepReadonly<z.output<typeof parityLatencySchema>>;

const differenceSchema = z.looseObject({
  path: z.string(),
  kind: oneOf(DIFFERENCE_KINDS),
  legacy: z.unknown().optional(),
  extracted: z.unknown().optional(),
});
export const pairSchema = z.strictObject({
  id: z.string(),
  context: z.string(),
  route: z.string(),
  requestId: z.string(),
  at: when,
  verdict: oneOf(VERDICTS),
  why: z.string().nullable(),
  /** Did a mismatch reproduce when both sides were asked again? */
  confirmed: z.boolean(),
  primary: oneOf(UPSTREAMS),
  /** What it is an example of. */
  field: z.string(),
  method: z.string(),
  target: z.string(),
});
const headers = z.array(z.tuple([z.string(), z.string()]));
const storedAnswer = z.strictObject({
  status: z.number().int(),
  headers,
  body: z.string().nullable(),
  bytes: count.nullable(),
  complete: z.boolean(),
  truncated: z.boolean(),
});
/** A pair in full, redacted. */
export const pairDetailSchema = pairSchema.extend({
  headers,
  legacy: storedAnswer,
  extracted: storedAnswer,
  differences: z.array(differenceSchema),
  noise: z.array(differenceSchema.extend({ rule: z.string() })),
});
export type PairView = DeepReadonly<z.output<typeof pairSchema>>;
export type PairDetailView = DeepReadonly<z.output<typeof pairDetailSchema>>;

export const ledgerEntrySchema = z.strictObject({
  id: z.string(),
  context: z.string(),
  route: z.string(),
  aggregate: z.string().nullable(),
  idempotencyKey: z.string().nullable(),
  state: oneOf(LEDGER_STATES),
  attempts: count,
  upstream: oneOf(UPSTREAMS),
  epoch: count,
  createdAt: when,
  updatedAt: when,
  response: z.strictObject({ status: z.number().int() }).optional(),
  event: z
    .strictObject({ id: z.string(), type: z.string(), shard: z.string().nullable(), sequenceNumber: z.string().nullable() })
    .optional(),
  error: z.string().optional(),
});
export type LedgerEntryView = DeepReadonly<z.output<typeof ledgerEntrySchema>>;

/** What a person says of a parked write; `compensate` = it was applied, and is to be taken back. */
export const RESOLUTIONS = ['applied', 'not-applied', 'no-event', 'compensate'] as const;
export type Resolution = (typeof RESOLUTIONS)[number];

/** Services that could not be asked, so that what they have is not among the items. */
const missing = z.array(z.strictObject({ service: z.string(), why: z.string() }));
/** A fact that a service could not apply. `id` = `service:position`; `key` null = it is no envelope; `error` null = it waits behind another of its key. */
export const letterSchema = z.strictObject({
  id: z.string(),
  service: z.string(),
  key: z.string().nullable(),
  source: z.string(),
  eventId: z.string(),
  error: z.string().nullable(),
  at: when,
  /** The fact as it came; base64 when it was no text. */
  envelope: z.string(),
});
export type LetterView = z.output<typeof letterSchema>;
export const lettersSchema = pageOf(letterSchema).extend({ missing });
/** What became of a key: facts applied now, and what stopped the rest, if anything did. */
export const replayedSchema = z.strictObject({ applied: count, left: count, error: z.string().nullable() });

export const SAGA_RESOLUTIONS = ['retry', 'compensate', 'done'] as const;
export type SagaResolution = (typeof SAGA_RESOLUTIONS)[number];
export const sagaSchema = z.looseObject({
  id: z.string(),
  definition: z.string(),
  version: count,
  subject: z.string(),
  state: oneOf(SAGA_STATES),
  why: z.string().nullable(),
  createdAt: when,
  updatedAt: when,
  deadline: when,
});
export type SagaView = z.output<typeof sagaSchema>;
/** With where each step stands and everything that was asked and answered, in order. */
export const sagaDetailSchema = sagaSchema.extend({
  steps: z.record(z.string(), z.looseObject({ state: z.string(), attempts: count })),
  timeline: z.array(z.looseObject({ at: when, what: z.string(), step: z.string().nullable(), detail: z.string().nullable() })),
});

/** One row of the hash-chained audit. `id` counts from 1 without gaps. */
export const auditRowSchema = z.strictObject({
  id: count,
  at: when,
  actor: z.string(),
  action: z.string(),
  context: z.string().nullable(),
  before: z.unknown(),
  after: z.unknown(),
  reason: z.string(),
  evidence: z.unknown(),
  hash: z.string(),
});
export type AuditRow = z.output<typeof auditRowSchema>;
/** `faults` names the rows that are not what was written, or do not follow their predecessor; at most 100. */
export const auditVerdictSchema = z.strictObject({
  ok: z.boolean(),
  rows: count,
  faults: z.array(z.strictObject({ id: count, fault: z.string() })),
});
export type AuditVerdict = z.output<typeof auditVerdictSchema>;

/** Facts that wait in the store for the stream. */
export const backlogSchema = z.looseObject({
  depth: count,
  oldestAgeMs: z.number().min(0),
  /** Until nothing waits if it goes on falling as it does; null = it does not get less. */
  etaMs: z.number().min(0).nullable().optional(),
  bytes: count.optional(),
  maxBytes: count.optional(),
});
export type BacklogView = z.output<typeof backlogSchema>;

const part = z.strictObject({ configured: z.boolean(), ok: z.boolean(), detail: z.string().nullable() });
export type PartView = z.output<typeof part>;
/** One upstream's hosts as this gateway sees them; `context` is null for legacy. `detail` = why a host is left out, null while it is not. */
const upstreamSchema = z.strictObject({
  context: z.string().nullable(),
  upstream: oneOf(UPSTREAMS),
  hosts: z.array(z.strictObject({ url: z.string(), state: oneOf(HOST_STATES), detail: z.string().nullable() })),
});
export type UpstreamView = z.output<typeof upstreamSchema>;

export const statusSchema = z.strictObject({
  version: z.string(),
  startedAt: when,
  uptimeSeconds: z.number().min(0),
  draining: z.boolean(),
  /** Milliseconds since the flags were last known to be the store's; null before the first time. */
  flagsAgeMs: z.number().nullable(),
  contexts: z.array(contextSchema),
  store: part,
  stream: part.extend({ backlog: backlogSchema.nullable() }),
  adapter: part,
  upstreams: z.array(upstreamSchema),
  replicas: z.array(z.strictObject({ id: z.string(), name: z.string(), startedAt: when, heartbeatAt: when, alive: z.boolean() })),
});
export type StatusView = DeepReadonly<z.output<typeof statusSchema>>;

export const streamsSchema = z.strictObject({
  facts: z.string().nullable(),
  commands: z.string().nullable(),
  region: z.string().nullable(),
  backlog: backlogSchema.nullable(),
});

export const readinessSchema = z.strictObject({
  status: oneOf(['ready', 'degraded', 'starting', 'draining']),
  /** What keeps it from being `ready`, in one line. */
  reason: z.string().optional(),
  checks: z.array(z.strictObject({ name: z.string(), ok: z.boolean(), detail: z.string() })).optional(),
});
export type Readiness = z.output<typeof readinessSchema>;

/** What a reload did; `ok: false` = the configuration before stays. */
export const reloadedSchema = z.strictObject({ ok: z.boolean(), faults: z.array(z.string()), warnings: z.array(z.string()) });
export type Reloaded = z.output<typeof reloadedSchema>;

// ---- requests ----

export const stageChangeSchema = z.strictObject({
  stage: oneOf(STAGES),
  percent: percentSchema.optional(),
  reason: reasonSchema,
  force: yesNo.optional(),
  /** The version that the caller has seen; another one is 409. */
  ifVersion: z.number({ error: 'the version as a whole number' }).int({ error: 'the version as a whole number' }).min(0).optional(),
});
export const killSchema = z.strictObject({ reason: reasonSchema, now: yesNo.optional() });
export const reasonedSchema = z.strictObject({ reason: reasonSchema });
/** `approve` = the step that waits may be taken. */
export const RAMP_ACTIONS = ['start', 'pause', 'resume', 'abort', 'approve'] as const;
export type RampAction = (typeof RAMP_ACTIONS)[number];
export const rampChangeSchema = z.strictObject({ action: oneOf(RAMP_ACTIONS), reason: reasonSchema.optional() });
export const resolveSchema = z.strictObject({ as: oneOf(RESOLUTIONS), reason: reasonSchema });

const limit = (most: number) => {
  const error = `a whole number from 1 to ${most}`;
  return z.coerce.number({ error }).int({ error }).min(1, { error }).max(most, { error }).default(50);
};
const window = {
  limit: limit(500),
  cursor: z.string({ error: 'the `next` of the page before' }).min(1).max(256).optional(),
};
const name = z.string({ error: 'one name' }).min(1).max(256);
export const pairsQuerySchema = z.strictObject({
  context: name.optional(),
  verdict: oneOf(VERDICTS).optional(),
  requestId: name.optional(),
  ...window,
  limit: limit(200),
});
export type PairsQuery = z.output<typeof pairsQuerySchema>;
const HOURS = 'whole hours from 1 to 8784';
export const hoursQuerySchema = z.strictObject({
  /** So many, this one included. */
  hours: z.coerce.number({ error: HOURS }).int({ error: HOURS }).min(1, { error: HOURS }).max(8_784, { error: HOURS }).default(24),
  route: z.string().max(2_048).optional(),
});
export type HoursQuery = z.output<typeof hoursQuerySchema>;
export const ledgerQuerySchema = z.strictObject({ context: name.optional(), state: oneOf(LEDGER_STATES).optional(), ...window });
export type LedgerQuery = z.output<typeof ledgerQuerySchema>;
export const dlqQuerySchema = z.strictObject({ service: name.optional(), ...window });
export type DlqQuery = z.output<typeof dlqQuerySchema>;
export const sagasQuerySchema = z.strictObject({ state: oneOf(SAGA_STATES).optional(), ...window });
export const sagaResolveSchema = z.strictObject({ as: oneOf(SAGA_RESOLUTIONS), reason: reasonSchema });
export const auditQuerySchema = z.strictObject({ context: name.optional(), ...window });
export type AuditQuery = z.output<typeof auditQuerySchema>;
