import { randomUUID } from 'node:crypto';
import { AppError } from '@banyan/contracts/errors.ts';
import type { Reason, Upstream as Side } from '@banyan/contracts/vocabulary.ts';
import type { ContextFlag, Decision } from './core/decide.ts';
import type { Routes } from './core/match.ts';
import type { Flags } from './flags/flags.ts';
import type { CommandWriter, JournalEntry, Pins, ShadowOffer } from './ports.ts';
import type { Call } from './proxy/call.ts';
import type { ClientResponse } from './proxy/client.ts';
import { headerOf } from './proxy/headers.ts';
import type { Trusted } from './proxy/peer.ts';
import type { Upstream } from './proxy/upstream.ts';
import type { Breaker } from './resilience/breaker.ts';

/** What the configuration says of one route. */
export type RouteSettings = {
  readonly writes: { readonly bodyLimit: number; readonly answerLimit: number };
  /** Every command of this route goes through the ledger. */
  readonly ledgered: boolean;
  readonly pattern: string;
  /** For logs and metrics: `POST /api/orders`, or the bare pattern where a route has several methods. */
  readonly label: string;
};

/** One context as requests meet it; swapped whole at a reload. */
export type LiveContext = {
  readonly name: string;
  /** Salt of the bucket: the group, else the context. */
  readonly salt: string;
  readonly stickyKey: readonly { readonly from: 'header' | 'cookie'; readonly name: string }[];
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
  readonly shadow: { offer(offer: ShadowOffer): void; wants(context: string, operation: 'query', method: string, target: string): boolean };
  readonly journal: { note(entry: JournalEntry): void };
  readonly now: () => number;
};

/** The cookie that Banyan issues where a canary client has no sticky key of its own. */
export const ID_COOKIE = 'banyan-id';
/** How long a command waits for a flip to end before it is refused. */
export const THAW_MS = 2000;

/** What keeps one client on one side; `issued` when this very answer gives it its cookie. */
export type Sticky = { readonly key: string | null; readonly issued: string | null };

/** What the rest of a request's life needs to know of it. */
export type Exchange = {
  readonly call: Call;
  readonly res: ClientResponse;
  readonly startedAt: number;
  context: LiveContext | null;
  flag: ContextFlag | null;
  label: string | null;
  operation: 'query' | 'command' | null;
  decision: Decision | null;
  reason: Reason | null;
  upstream: Side | null;
  sticky: Sticky;
  shadowed: boolean;
  pinned: boolean;
};

const cookieOf = (header: string | undefined, name: string): string | undefined => {
  if (header === undefined) return undefined;
  for (const part of header.split(';')) {
    const at = part.indexOf('=');
    if (at > 0 && part.slice(0, at).trim() === name) return part.slice(at + 1).trim() || undefined;
  }
  return undefined;
};

const utf8 = new TextDecoder('utf-8', { fatal: true });

/** Node hands header bytes over as Latin-1. What is UTF-8 is read as UTF-8, so that a key has the bucket that `banyan bucket` prints for it. */
const textOf = (value: string): string => {
  if (!/[\x80-\xff]/.test(value)) return value;
  try {
    return utf8.decode(Buffer.from(value, 'latin1'));
  } catch {
    return value;
  }
};

/** Banyan's own cookie, once issued, comes before every configured key. */
export const stickyOf = (call: Call, context: LiveContext, issue: boolean): Sticky => {
  const cookies = headerOf(call.headers, 'cookie');
  const own = cookieOf(cookies, ID_COOKIE);
  if (own !== undefined) return { key: own, issued: null };
  for (const { from, name } of context.stickyKey) {
    const value = from === 'header' ? headerOf(call.headers, name) : cookieOf(cookies, name);
    if (value !== undefined && value !== '') return { key: textOf(value), issued: null };
  }
  if (!issue) return { key: null, issued: null };
  const id = randomUUID();
  return { key: id, issued: id };
};

/** Nobody may take this write just now, and nothing was sent. */
export const unavailable = (context: LiveContext, cause: unknown): AppError =>
  new AppError('context-unavailable', `the service that owns ${context.name} cannot take this request just now`, {
    cause,
    retryable: true,
    retryAfterSeconds: cause instanceof AppError ? (cause.retryAfterSeconds ?? 1) : 1,
  });

export const frozen = (context: string, cause?: unknown): AppError =>
  new AppError('context-frozen', `the writes of ${context} are being handed over`, { cause, retryable: true, retryAfterSeconds: 1 });
