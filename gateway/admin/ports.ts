import type {
  AuditQuery,
  AuditRow,
  AuditVerdict,
  BacklogView,
  BreakerView,
  HoursQuery,
  LedgerEntryView,
  LedgerQuery,
  Page,
  PairDetailView,
  PairsQuery,
  PairView,
  ParityHourView,
  ParityLatencyView,
  ParityView,
  RampAction,
  RampView,
  Reloaded,
  Resolution,
  UpstreamView,
} from '@banyan/contracts/admin-api.ts';
import type { Stage } from '@banyan/contracts/vocabulary.ts';
import type { Logger } from 'pino';
import type { Registry } from 'prom-client';
import type { Config } from '../config.ts';
import type { ContextFlag } from '../core/decide.ts';

/** What the admin API asks of the rest of the gateway. Everything it shows or changes goes through these. */

/** A flag with who changed it last. */
export type ShownFlag = ContextFlag & { readonly updatedAt: Date; readonly updatedBy: string };

export type FlagsPort = {
  current(context: string): ShownFlag | undefined;
  all(): ShownFlag[];
  /** Milliseconds; Infinity before the first load. */
  ageMs(): number;
  /** Contexts killed here that the store has not heard of yet. */
  pendingKills(): string[];
  onChange(listener: (flag: ShownFlag) => void): () => void;
};

export type StageMoveRequest = {
  readonly stage: Stage;
  readonly canaryShareBp?: number | undefined;
  readonly reason: string;
  readonly force?: boolean | undefined;
  readonly ifVersion?: number | undefined;
  readonly actor: string;
};

export type MovesPort = {
  stage(
    context: string,
    request: StageMoveRequest,
  ): Promise<
    | { readonly kind: 'done' }
    | { readonly kind: 'flip'; readonly id: string; readonly state: string }
    | { readonly kind: 'asked'; readonly canaryShareBp: number; readonly askedBy: readonly string[]; readonly needed: number }
  >;
  kill(
    contexts: readonly string[],
    request: { id?: string | undefined; reason: string; now?: boolean | undefined; actor: string },
  ): Promise<unknown>;
  revive(contexts: readonly string[], request: { reason: string; actor: string }): Promise<unknown>;
};

export type ShownFlip = {
  readonly id: string;
  readonly contexts: readonly string[];
  readonly from: Stage;
  readonly to: Stage;
  readonly state: 'pending' | 'freezing' | 'draining' | 'watermark' | 'switching' | 'done' | 'undone';
  readonly detail: string | null;
  readonly actor: string;
  readonly reason: string;
  readonly createdAt: Date;
  readonly updatedAt: Date;
};
export type FlipsPort = {
  get(id: string): Promise<ShownFlip | undefined>;
  /** Flips that are neither done nor undone. */
  active(): Promise<ShownFlip[]>;
};

export type RampPort = {
  /** @throws AppError `illegal-move` naming what is possible, `conflict` */
  act(context: string, request: { readonly action: RampAction; readonly reason: string; readonly actor: string }): Promise<void>;
  /** By context; one that never had a ramp is left out. */
  views(contexts: readonly string[]): Promise<ReadonlyMap<string, RampView>>;
};

export type ParityHoursQuery = HoursQuery & { readonly context: string };

export type ParityPort = {
  /** undefined = not such a context. */
  parityReport(context: string): Promise<ParityView | undefined>;
  /** The last so many hours, this one included; undefined = not such a context. */
  parityHours(query: ParityHoursQuery): Promise<Page<ParityHourView> | undefined>;
  /** By route, since the last change of stage; undefined = not such a context. */
  parityLatency(context: string): Promise<Page<ParityLatencyView> | undefined>;
  pairs(query: PairsQuery): Promise<Page<PairView>>;
  pair(id: string): Promise<PairDetailView | undefined>;
};

export type LedgerPort = {
  list(query: LedgerQuery): Promise<Page<LedgerEntryView>>;
  get(id: string): Promise<LedgerEntryView | null | undefined>;
  /** Settles a parked entry. @throws AppError `not-found`, or `illegal-move` when it is not parked */
  resolve(id: string, as: Resolution, reason: string, actor: string): Promise<LedgerEntryView>;
};

export type AuditEntry = {
  readonly actor: string;
  readonly action: string;
  readonly context: string | null;
  readonly before: unknown;
  readonly after: unknown;
  readonly reason: string;
  readonly evidence?: unknown;
};
export type AuditPort = {
  /** Newest first. */
  list(query: AuditQuery): Promise<Page<AuditRow>>;
  verify(): Promise<AuditVerdict>;
  append(entry: AuditEntry): Promise<void>;
};

export type Replica = {
  readonly id: string;
  readonly name: string;
  readonly startedAt: Date;
  readonly heartbeatAt: Date;
  readonly alive: boolean;
};
export type StorePort = {
  /** Throws when the store does not answer. */
  ping(): Promise<void>;
  replicas(): Promise<Replica[]>;
};

export type AdminDeps = {
  readonly version: string;
  /** The effective configuration now; a reload replaces it. */
  readonly config: () => Config;
  readonly reload: () => Promise<Reloaded>;
  readonly draining: () => boolean;
  /** How many of the processes that serve requests accept connections. */
  readonly serving: () => { readonly listening: number; readonly of: number };
  readonly flags: FlagsPort;
  readonly moves: MovesPort;
  /** null = no store, or no events. */
  readonly flips: FlipsPort | null;
  /** null = no store: nothing can be ramped. */
  readonly ramp: RampPort | null;
  readonly parity: ParityPort | null;
  readonly ledger: LedgerPort | null;
  readonly audit: AuditPort | null;
  readonly store: StorePort | null;
  /** Legacy first, then the extracted services. */
  readonly upstreams: () => readonly UpstreamView[];
  readonly breakers: (context: string) => BreakerView;
  /** null = nothing is published from here. */
  readonly backlog: () => Promise<BacklogView | null>;
  readonly registry: Pick<Registry, 'metrics' | 'contentType'>;
  /** Sent to the adapter as bearer; null = none. */
  readonly adapterToken: string | null;
  /** Sent to the services as bearer; null = none. */
  readonly serviceToken: string | null;
  readonly now: () => number;
  readonly log: Logger;
};
