import { AppError } from '@banyan/contracts/errors.ts';
import type { Reason, Upstream as Side } from '@banyan/contracts/vocabulary.ts';
import type { ResolveConfig, StickySelector } from './config.ts';
import type { ContextFlag, Decision } from './core/decide.ts';
import type { Routes } from './core/match.ts';
import type { Flags } from './flags/flags.ts';
import type { OverrideTokens } from './identity/override-token.ts';
import type { Claims, TokenReader } from './identity/tokens.ts';
import type { Whoami } from './identity/whoami.ts';
import type { Provided, Provider } from './openfeature/provider.ts';
import type { CommandWriter, DryRun, JournalEntry, Pins, RouteMemo, ShadowPort } from './ports.ts';
import type { Call } from './proxy/call.ts';
import type { ClientResponse } from './proxy/client.ts';
import type { Trusted } from './proxy/peer.ts';
import type { Upstream } from './proxy/upstream.ts';
import type { Breaker } from './resilience/breaker.ts';
import type { Sticky } from './sticky.ts';

/** What the configuration says of one route. */
export type RouteSettings = {
  /** `attests`: legacy tells the ledger in its own transaction, and so needs to know the entry. */
  readonly writes: {
    readonly bodyLimit: number;
    readonly answerLimit: number;
    readonly resolve: ResolveConfig | null;
    readonly attests: boolean;
  };
  /** Every command of this route goes through the ledger. */
  readonly ledgered: boolean;
  readonly pattern: string;
  /** For logs and metrics: `POST /api/orders`, or the bare pattern where a route has several methods. */
  readonly label: string;
  readonly memo: RouteMemo;
};

export type OverrideRule = { readonly to: Side; holds(call: Call, claims: Claims | null): boolean };

/** One context as requests meet it; swapped whole at a reload. */
export type LiveContext = {
  readonly name: string;
  /** Salt of the bucket: the group, else the context. */
  readonly salt: string;
  readonly stickyKey: readonly StickySelector[];
  readonly overrides: readonly OverrideRule[];
  /** Claims are needed for the sticky key; for an override. */
  readonly jwt: { readonly key: boolean; readonly override: boolean };
  /** What the OpenFeature provider decides here; null = nothing. */
  readonly provided: { readonly flag: string; readonly decides: 'upstream' | 'share' } | null;
  /** Who asks stands in plain headers and cookies: nothing to find out before a decision. */
  readonly plain: boolean;
  readonly else: 'legacy' | 'refuse' | null;
  readonly extracted: { readonly upstream: Upstream; readonly breaker: Breaker } | null;
  readonly pinMs: number;
  /** Bodies up to this size are kept for comparison, bytes. */
  readonly compareLimit: number;
  /** Events or back-sync hang on its commands: they need a fresh flag. */
  readonly dual: boolean;
};

/** Everything a reload swaps, read once per request. */
export type Live = {
  readonly routes: Routes<RouteSettings>;
  readonly contexts: ReadonlyMap<string, LiveContext>;
  readonly legacy: Upstream;
  readonly trusted: Trusted;
  /** Header of `identity` in lower case, which nobody may bring along; null = none. */
  readonly strip: string | null;
  /** Where clients' tokens stand; null = nobody needs them. */
  readonly tokens: { readonly header: string; readonly reader: TokenReader } | null;
  readonly overrideTokens: OverrideTokens | null;
  readonly whoami: Whoami | null;
  readonly provider: Provider | null;
  readonly debugHeaders: boolean;
  readonly maxStaleMs: number;
};

export type PipelineDeps = {
  readonly live: () => Live;
  readonly flags: Flags;
  readonly writer: CommandWriter | null;
  readonly pins: Pins;
  /** Does the extracted side lag behind by more than a pin covers? */
  readonly stale: (context: string) => boolean;
  readonly shadow: ShadowPort;
  readonly journal: { note(entry: JournalEntry): void };
  readonly now: () => number;
};

/** How long a command waits for a flip to end before it is refused. */
export const THAW_MS = 2000;

/** What the rest of a request's life needs to know of it. */
export type Exchange = {
  readonly call: Call;
  readonly res: ClientResponse;
  readonly startedAt: number;
  context: LiveContext | null;
  flag: ContextFlag | null;
  label: string | null;
  memo: RouteMemo | undefined;
  operation: 'query' | 'command' | null;
  decision: Decision | null;
  reason: Reason | null;
  upstream: Side | null;
  params: Readonly<Record<string, string>>;
  sticky: Sticky;
  claims: Claims | null;
  override: Side | null;
  provided: Provided | null;
  shadowed: boolean;
  /** The dry run beside this command. */
  dryRun: DryRun | null;
  pinned: boolean;
  /** Extracted was asked and failed: legacy answers instead. */
  extractedFailed: boolean;
};

/** Are the two sides being compared, so that a command which legacy does is worth a dry run? */
export const mayDryRun = ({ flag, context }: Exchange): boolean =>
  context !== null && context.extracted !== null && flag !== null && !flag.killed && (flag.stage === 'shadow' || flag.stage === 'canary');

/** Nobody may take this write just now, and nothing was sent. */
export const unavailable = (context: LiveContext, cause: unknown): AppError =>
  new AppError('context-unavailable', `the service that owns ${context.name} cannot take this request just now`, {
    cause,
    retryable: true,
    retryAfterSeconds: cause instanceof AppError ? (cause.retryAfterSeconds ?? 1) : 1,
  });

export const frozen = (context: string, cause?: unknown): AppError =>
  new AppError('context-frozen', `the writes of ${context} are being handed over`, { cause, retryable: true, retryAfterSeconds: 1 });
