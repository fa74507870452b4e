/** The glossary (docs/glossary.md) as types: the words that cross a process border. */

/** Where a context stands, in the order in which it may move. */
export const STAGES = ['legacy', 'shadow', 'canary', 'cutover', 'retired'] as const;
export type Stage = (typeof STAGES)[number];

/** Who can answer a request. */
export const UPSTREAMS = ['legacy', 'extracted'] as const;
export type Upstream = (typeof UPSTREAMS)[number];

/** Queries are GET and HEAD unless the route says otherwise; everything else is a command. */
export const OPERATIONS = ['query', 'command'] as const;
export type Operation = (typeof OPERATIONS)[number];

/** Why a decision fell as it did; shown in `banyan-route`, in logs and by `banyan bucket`. */
export const REASONS = [
  'STAGE',
  'SPLIT',
  'OVERRIDE',
  'TARGETING',
  'PROVIDER',
  'PINNED',
  'KILLED',
  'BREAKER',
  'ERROR',
  'STALE',
  'FROZEN',
  'NO_CONTEXT',
] as const;
export type Reason = (typeof REASONS)[number];

/** What a comparison found. */
export const VERDICTS = ['match', 'noise', 'mismatch', 'incomparable'] as const;
export type VerdictKind = (typeof VERDICTS)[number];

/** What kind of difference stands at a path. `missing` = absent in extracted, `extra` = only there. */
export const DIFFERENCE_KINDS = [
  'missing',
  'extra',
  'type',
  'value',
  'length',
  'order',
  'duplicate-key',
  'encoding',
  'header',
  'status',
  'unparsable',
] as const;
export type DifferenceKind = (typeof DIFFERENCE_KINDS)[number];

/** States of a dual write; the legal moves are in `gateway/core/ledger-moves.ts` and guarded by SQL. */
export const LEDGER_STATES = [
  'intent',
  'sent',
  'unknown',
  'applied',
  'published',
  'rejected',
  'expired',
  'compensating',
  'compensated',
  'parked',
  'done',
] as const;
export type LedgerState = (typeof LEDGER_STATES)[number];

/** Where a ramp stands; its legal moves are in `gateway/core/ramp/states.ts`. `idle` = there never was one. */
export const RAMP_STATES = ['idle', 'running', 'waiting-approval', 'paused', 'done', 'rolled-back', 'aborted'] as const;
export type RampState = (typeof RAMP_STATES)[number];

/** Where a saga stands. `parked` = out of attempts, waiting for a person. */
export const SAGA_STATES = ['running', 'compensating', 'done', 'compensated', 'parked'] as const;
export type SagaState = (typeof SAGA_STATES)[number];

/** Breaker states as opossum and the field name them; `worst` over replicas is shown. */
/** `unhealthy` = so say its active checks; `ejected` = left out for a while for how it answered. */
export const HOST_STATES = ['healthy', 'unhealthy', 'ejected'] as const;
export type HostState = (typeof HOST_STATES)[number];

export const BREAKER_STATES = ['closed', 'half-open', 'open'] as const;
export type BreakerState = (typeof BREAKER_STATES)[number];

/** Roles of the admin API, weakest first. */
export const ROLES = ['viewer', 'operator', 'admin'] as const;
export type Role = (typeof ROLES)[number];

/** Header names that Banyan's processes use between themselves; the gateway strips a client's own copies of all but `idempotency-key`. */
export const HEADERS = {
  /** On copies (shadow and probe requests): `1`. */
  shadow: 'banyan-shadow',
  /** On copies of commands, and on the answers to them: `1` = nothing of it may have an effect. */
  dryRun: 'banyan-dry-run',
  /** On commands to an extracted service: the epoch under which the gateway believes the context to be owned. */
  epoch: 'banyan-epoch',
  /** On commands to an extracted service, and to legacy on a route with `idempotency: database`: the ledger id. */
  write: 'banyan-write',
  /** On responses to the client, when `debugHeaders` is on (RFC 8941 list). */
  route: 'banyan-route',
  idempotencyKey: 'idempotency-key',
  /** From a client: `CONTEXT=UPSTREAM`, believed only with the token below; never sent on. */
  override: 'banyan-override',
  overrideToken: 'banyan-override-token',
} as const;
