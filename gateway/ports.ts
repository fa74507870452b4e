import type { Operation, Reason, Upstream as Side, Stage } from '@banyan/contracts/vocabulary.ts';
import type { Observation } from './core/parity/observation.ts';

/** What the pipeline asks of the dual write (gateway/dual-write). */
export type CommandWriter = {
  /**
   * One durable commit before the first byte is sent.
   * @throws AppError `key-reused`, `answer-lost`, `store-unavailable`, `context-frozen` (decide anew), `context-unavailable`, `backlog-full`.
   */
  begin(command: Command): Promise<Begun>;
  /** The terminal commit; resolves when it is durable, or after 1 s when the owner goes on trying. Never rejects. */
  settle(write: { id: string; fence: string }, outcome: Outcome): Promise<void>;
  /** The JSON document `{id, state, status?, body?}` for its own client; null when there is no such write under this key and scope. */
  status(id: string, key: string, scope: ScopeParts): Promise<string | null>;
};

/** Who a client is for idempotency: Authorization, else the sticky key; both absent = nobody is ever replayed a stored answer. */
export type ScopeParts = { readonly authorization: string | null; readonly stickyKey: string | null };

export type Command = {
  readonly context: string;
  /** `POST /api/orders`. */
  readonly route: string;
  readonly method: string;
  readonly target: string;
  readonly params: Readonly<Record<string, string>>;
  readonly headers: readonly string[];
  readonly body: Buffer;
  /** The client's own Idempotency-Key. */
  readonly key: string | null;
  readonly scope: ScopeParts;
  readonly upstream: Side;
  readonly epoch: number;
  readonly traceparent: string | null;
  /** Where the client's queries stay once the command succeeded. */
  readonly pin: { readonly stickyKey: string; readonly ms: number } | null;
};

export type Begun =
  | { readonly kind: 'send'; readonly id: string; readonly key: string; readonly fence: string }
  | { readonly kind: 'replay'; readonly status: number; readonly headers: readonly string[]; readonly body: Buffer }
  | { readonly kind: 'accepted'; readonly id: string; readonly state: string };

export type Outcome =
  | {
      readonly kind: 'answered';
      readonly status: number;
      readonly headers: readonly string[] /** null = too large to keep. */;
      readonly body: Buffer | null;
    }
  /** Nothing reached the upstream. */
  | { readonly kind: 'not-sent'; readonly why: string }
  /** It may have been done. */
  | { readonly kind: 'lost'; readonly why: string };

/** Announces pins to the other replicas: a JSON array of `{context, client, side, until}`, `until` in ms since 1970. */
export const PIN_CHANNEL = 'banyan_pin';

/** Which side has a client's last command of a context. */
export type Pins = {
  /** @param stored the terminal commit of a ledgered command has written it already */
  set(context: string, stickyKey: string, side: Side, forMs: number, stored: boolean): void;
  get(context: string, stickyKey: string): Side | null;
  /** Is anybody pinned at all? */
  any(): boolean;
};

/** The shadow path (gateway/parity). Nothing of it throws or delays. */
export type ShadowPort = {
  offer(offer: ShadowOffer): void;
  /** Would a copy of this query be of use? Decides whether its answer is kept at all. */
  wants(context: string, operation: 'query', method: string, target: string): boolean;
  /** A command is about to be sent to legacy; null = there is no dry run of it. */
  dryRun(command: DryRunOffer): DryRun | null;
  /** May there be a dry run of a command of this context? Decides whether its body is kept at all. */
  makesDryRuns(context: string): boolean;
  /** A command has made something: what the other side calls it may be learned. */
  created(made: CreatedOffer): void;
};

export type DryRunOffer = {
  readonly requestId: string;
  readonly context: string;
  readonly route: string;
  readonly method: string;
  readonly target: string;
  readonly headers: readonly string[];
  /** null = it is too large to be kept. */
  readonly body: Buffer | null;
  readonly key: string | null;
  readonly pinned: boolean;
};

/** A dry run beside its command; exactly one of these is called. */
export type DryRun = { answered(legacy: Observation): void; lost(): void };

export type CreatedOffer = {
  readonly requestId: string;
  readonly context: string;
  /** METHOD and pattern, `POST /api/orders`. */
  readonly route: string;
  /** Of the command. */
  readonly target: string;
  readonly headers: readonly string[];
  readonly primary: Side;
  /** 2xx, whole. */
  readonly answer: Observation;
  /** The idempotency key under which it was sent. */
  readonly key: string;
  /** How a side is asked what became of a command. */
  readonly resolve: { readonly get: string; readonly applied: string; readonly body: string | null };
};

export type ShadowOffer = {
  readonly requestId: string;
  readonly context: string;
  readonly route: string;
  readonly method: string;
  readonly target: string;
  readonly headers: readonly string[];
  readonly primary: Side;
  readonly primaryObservation: Observation;
  readonly pinned: boolean;
  /** From the request to the head of the answer. */
  readonly latencyMs: number;
};

/** Counts the requests of one route. */
export type RequestMeter = {
  add(sample: Pick<JournalEntry, 'method' | 'upstream' | 'status' | 'reason' | 'durationMs' | 'tunnel'>): void;
};

/** Where the journal keeps what it has put together for a route, beside the route itself, so that no request has to look it up. */
export type RouteMemo = { meter: RequestMeter | null; quoted: string | null };

/** What is noted of a request when it is over. */
export type JournalEntry = {
  readonly requestId: string;
  readonly traceId?: string | undefined;
  readonly context: string | null;
  /** The pattern, never the path. */
  readonly route: string | null;
  /** Of the context and route above; absent = nothing is kept for them. */
  readonly memo?: RouteMemo | undefined;
  readonly method: string;
  readonly operation: Operation | null;
  readonly decisionKind: string | null;
  readonly reason: Reason | null;
  readonly upstream: Side | null;
  readonly stage: Stage | null;
  readonly status: number;
  readonly durationMs: number;
  /** Why it was sent where it was first; `reason` may have become that of a fallback. Absent = there was no decision. */
  readonly decided?: Reason | undefined;
  /** Extracted was asked and failed; `upstream` is who answered instead. */
  readonly extractedFailed?: boolean | undefined;
  /** Of an upgrade that became a tunnel, noted at its end. */
  readonly tunnel?: { readonly end: string; readonly bytesUp: number; readonly bytesDown: number } | undefined;
  readonly error?: unknown;
};
