import { randomUUID } from 'node:crypto';
import type { IncomingMessage, ServerResponse } from 'node:http';
import { AppError, STATUS_OF } from '@banyan/contracts/errors.ts';
import { HEADERS, type Reason, type Upstream as Side, type Stage } from '@banyan/contracts/vocabulary.ts';
import { bucketOf } from './core/bucket.ts';
import { type ContextFlag, type Decision, decide } from './core/decide.ts';
import type { Routes } from './core/match.ts';
import type { Observation } from './core/parity/observation.ts';
import type { Flags } from './flags/flags.ts';
import type { Begun, Command, CommandWriter, JournalEntry, Outcome, Pins, ScopeParts, ShadowOffer } from './ports.ts';
import type { Answer } from './proxy/answer.ts';
import { holdBack, wholeAnswer } from './proxy/buffered.ts';
import { type Call, copyOf, prepare } from './proxy/call.ts';
import { readBody } from './proxy/collect.ts';
import { headerOf, pairsOf } from './proxy/headers.ts';
import type { Trusted } from './proxy/peer.ts';
import { sendProblem } from './proxy/problem.ts';
import { type Delivered, reply } from './proxy/reply.ts';
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
const ID_COOKIE = 'banyan-id';
/** How long a command waits for a flip to end before it is refused. */
const THAW_MS = 2000;
/** A query with a body up to this size can be sent a second time, to legacy. */
const REPLAYABLE_BYTES = 1024 * 1024;
const WRITES_PATH = '/_banyan/writes/';

type Sticky = { readonly key: string | null; readonly issued: string | null };

/** What the rest of a request's life needs to know of it. */
type Exchange = {
  readonly call: Call;
  readonly res: ServerResponse;
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

const stickyOf = (call: Call, context: LiveContext, issue: boolean): Sticky => {
  const cookies = headerOf(call.headers, 'cookie');
  const own = cookieOf(cookies, ID_COOKIE);
  if (own !== undefined) return { key: own, issued: null };
  for (const { from, name } of context.stickyKey) {
    const value = from === 'header' ? headerOf(call.headers, name) : cookieOf(cookies, name);
    if (value !== undefined && value !== '') return { key: value, issued: null };
  }
  if (!issue) return { key: null, issued: null };
  const id = randomUUID();
  return { key: id, issued: id };
};

const isFailure = (answer: Answer): boolean => answer.status >= 500;

/** The life of one request. Before `forward`: memory only (a ledgered command commits first). After `reply`: nothing can delay or fail the client. */
export const createPipeline = (d: PipelineDeps) => {
  const noop = (): void => undefined;

  const debugHeaders = (x: Exchange, live: Live): string[] =>
    live.debugHeaders && x.context && x.flag
      ? ['banyan-route', `${x.context.name};upstream=${x.upstream ?? 'none'};reason=${x.reason};stage=${x.flag.stage}`]
      : [];

  const finish = (x: Exchange, status: number, error?: unknown): void =>
    d.journal.note({
      requestId: x.call.requestId,
      context: x.context?.name ?? null,
      route: x.label,
      method: x.call.method,
      operation: x.operation,
      decisionKind: x.decision?.kind ?? null,
      reason: x.reason,
      upstream: x.upstream,
      stage: x.flag?.stage ?? null,
      status,
      durationMs: d.now() - x.startedAt,
      error,
    });

  const deliver = async (x: Exchange, live: Live, answer: Answer): Promise<void> => {
    const headers = debugHeaders(x, live);
    if (x.sticky.issued !== null && x.flag?.stage === 'canary') {
      const secure = x.call.req && 'encrypted' in x.call.req.socket ? '; Secure' : '';
      headers.push('set-cookie', `${ID_COOKIE}=${x.sticky.issued}; Path=/; HttpOnly; SameSite=Lax; Max-Age=31536000${secure}`);
      // a shared cache must not hand one client's cookie to another
      const kept = answer.rawHeaders;
      for (let i = kept.length - 2; i >= 0; i -= 2) if (kept[i]!.toLowerCase() === 'cache-control') kept.splice(i, 2);
      headers.push('cache-control', 'private');
    }
    const { status, rawHeaders } = answer;
    const seen = x.shadowed && x.context ? [...rawHeaders] : null;
    const delivered = await reply(x.res, answer, {
      ...(headers.length > 0 ? { extraHeaders: headers } : {}),
      ...(seen && x.context ? { tee: { limitBytes: x.context.compareLimit } } : {}),
    });
    const latencyMs = d.now() - x.startedAt;
    if (seen && x.context && x.upstream && !delivered.clientLeft) offer(x, x.context, x.upstream, status, seen, delivered, latencyMs);
    finish(
      x,
      delivered.clientLeft ? 499 : status,
      delivered.truncated ? new AppError('upstream-reset', 'the upstream broke off in the middle of its answer') : undefined,
    );
  };

  const offer = (
    x: Exchange,
    context: LiveContext,
    primary: Side,
    status: number,
    headers: string[],
    delivered: Delivered,
    latencyMs: number,
  ): void => {
    const observation: Observation = {
      status,
      headers: pairsOf(headers),
      body: delivered.body ?? null,
      complete: delivered.complete && delivered.body !== undefined,
      ...(delivered.body === undefined ? { why: delivered.truncated ? 'truncated' : 'too-large' } : {}),
    };
    d.shadow.offer({
      requestId: x.call.requestId,
      context: context.name,
      route: x.label ?? '',
      method: x.call.method,
      target: x.call.target,
      headers: x.call.headers,
      primary,
      primaryObservation: observation,
      pinned: x.pinned,
      latencyMs,
    });
  };

  const toLegacy = (x: Exchange, live: Live, body?: Buffer): Promise<Answer> => {
    x.upstream = 'legacy';
    return live.legacy.forward(x.call, body ? { body } : undefined);
  };

  /** Queries only: an extracted side that fails is answered for by legacy. */
  const withFallback = async (x: Exchange, live: Live, context: LiveContext): Promise<Answer> => {
    const { call } = x;
    const extracted = context.extracted;
    const unknownLength = call.body === 'stream' && (call.contentLength === null || call.contentLength > REPLAYABLE_BYTES);
    if (!extracted || unknownLength) {
      x.reason = 'ERROR';
      x.shadowed = false;
      return toLegacy(x, live);
    }
    const body = call.body === 'stream' ? await readBody(call, REPLAYABLE_BYTES) : undefined;
    try {
      const answer = await extracted.breaker.run(() => extracted.upstream.forward(call, body ? { body } : undefined), isFailure);
      if (!isFailure(answer)) {
        x.upstream = 'extracted';
        return answer;
      }
      answer.abort(new AppError('upstream-protocol', 'the extracted service failed; legacy answers'));
      x.reason = 'ERROR';
    } catch (error) {
      if (call.left) throw error;
      x.reason = error instanceof AppError && error.code === 'breaker-open' ? 'BREAKER' : 'ERROR';
    }
    x.shadowed = false;
    return toLegacy(x, live, body);
  };

  const unavailable = (context: LiveContext, cause: unknown): AppError =>
    new AppError('context-unavailable', `the service that owns ${context.name} cannot take this request just now`, {
      cause,
      retryable: true,
      retryAfterSeconds: cause instanceof AppError ? (cause.retryAfterSeconds ?? 1) : 1,
    });

  /** Nobody stands in for the owner of a write: an answer passes as it is, no answer is an error that says whether anything was sent. */
  const toExtracted = async (
    x: Exchange,
    context: LiveContext,
    call: Call,
    options?: { body?: Buffer; headers?: readonly string[] },
  ): Promise<Answer> => {
    x.upstream = 'extracted';
    const extracted = context.extracted;
    if (!extracted) throw unavailable(context, null);
    try {
      return await extracted.breaker.run(() => extracted.upstream.forward(call, options), isFailure);
    } catch (error) {
      if (error instanceof AppError && error.sent === 'no' && error.code !== 'client-left') throw unavailable(context, error);
      throw error;
    }
  };

  const query = async (x: Exchange, live: Live, context: LiveContext, decision: Decision): Promise<void> => {
    switch (decision.kind) {
      case 'extracted-with-fallback':
        x.shadowed = decision.shadowLegacy && wants(x, context);
        return deliver(x, live, await withFallback(x, live, context));
      case 'extracted-only':
        return deliver(x, live, await toExtracted(x, context, x.call));
      case 'legacy-with-shadow':
        x.shadowed = context.extracted !== null && wants(x, context);
        return deliver(x, live, await toLegacy(x, live));
      default:
        return deliver(x, live, await toLegacy(x, live));
    }
  };

  const wants = (x: Exchange, context: LiveContext): boolean =>
    x.call.body === 'none' && d.shadow.wants(context.name, 'query', x.call.method, x.call.target);

  /** A command of a route without events or back-sync: no ledger, no retry, no fallback. */
  const plainCommand = async (x: Exchange, live: Live, context: LiveContext, decision: Decision): Promise<void> => {
    const answer = decision.kind === 'extracted-only' ? await toExtracted(x, context, x.call) : await toLegacy(x, live);
    await deliver(x, live, answer);
    if (x.sticky.key !== null && answer.status < 400 && x.upstream)
      d.pins.set(context.name, x.sticky.key, x.upstream, context.pinMs, false);
  };

  /**
   * Commits the command to the ledger under the flag of this moment. A freeze may reach the store before our snapshot, or end while we wait:
   * then the decision is taken again, for at most as long as a command may wait.
   */
  const admit = async (
    x: Exchange,
    context: LiveContext,
    maxStage: Stage | undefined,
    command: Omit<Command, 'upstream' | 'epoch'>,
  ): Promise<{ begun: Begun; side: Side }> => {
    const deadline = d.now() + THAW_MS;
    for (;;) {
      const decision = decideNow(x, context, maxStage);
      if (decision.kind === 'unavailable') throw unavailable(context, null);
      if (decision.kind !== 'frozen') {
        const side: Side = decision.kind === 'extracted-only' ? 'extracted' : 'legacy';
        try {
          return { begun: await d.writer!.begin({ ...command, upstream: side, epoch: x.flag!.epoch }), side };
        } catch (error) {
          if (!(error instanceof AppError) || error.code !== 'context-frozen' || d.now() >= deadline) throw error;
          await d.flags.refresh();
        }
      }
      const left = deadline - d.now();
      if (left <= 0 || !(await d.flags.thawed(context.name, left)))
        throw new AppError('context-frozen', `the writes of ${context.name} are being handed over`, {
          retryable: true,
          retryAfterSeconds: 1,
        });
    }
  };

  const ledgeredCommand = async (
    x: Exchange,
    live: Live,
    context: LiveContext,
    settings: RouteSettings,
    params: Readonly<Record<string, string>>,
    maxStage: Stage | undefined,
  ): Promise<void> => {
    const { call } = x;
    if (!d.writer) throw new AppError('store-unavailable', 'this route needs the store', { retryable: true, retryAfterSeconds: 2 });
    const body = await readBody(call, settings.writes.bodyLimit);
    x.sticky = stickyOf(call, context, false);
    const key = headerOf(call.headers, HEADERS.idempotencyKey) ?? null;
    const { begun, side } = await admit(x, context, maxStage, {
      context: context.name,
      route: `${call.method} ${settings.pattern}`,
      method: call.method,
      target: call.target,
      params,
      headers: call.headers,
      body,
      key,
      scope: scopeOf(x),
      traceparent: headerOf(call.headers, 'traceparent') ?? null,
      pin: x.sticky.key === null ? null : { stickyKey: x.sticky.key, ms: context.pinMs },
    });
    const flag = x.flag!;
    x.upstream = side;
    if (begun.kind === 'replay') return deliver(x, live, wholeAnswer(begun.status, '', [...begun.headers], begun.body));
    if (begun.kind === 'accepted') {
      const text = Buffer.from(JSON.stringify({ id: begun.id, state: 'unknown' }));
      return deliver(
        x,
        live,
        wholeAnswer(
          202,
          'Accepted',
          [
            'content-type',
            'application/json',
            'content-length',
            String(text.length),
            'location',
            `${WRITES_PATH}${begun.id}`,
            'retry-after',
            '1',
          ],
          text,
        ),
      );
    }

    // a client that leaves must not break off a command: the copy does not know it
    const headers = [
      HEADERS.idempotencyKey,
      begun.key,
      ...(side === 'extracted' ? [HEADERS.epoch, String(flag.epoch), HEADERS.write, begun.id] : []),
    ];
    const settle = (outcome: Outcome): Promise<void> => d.writer!.settle(begun, outcome);
    let answer: Answer;
    try {
      const sent = copyOf(call);
      answer =
        side === 'extracted' ? await toExtracted(x, context, sent, { body, headers }) : await live.legacy.forward(sent, { body, headers });
    } catch (error) {
      const known = error instanceof AppError ? error : null;
      const cause = known?.cause instanceof AppError ? known.cause : known;
      await settle(cause?.sent === 'no' ? { kind: 'not-sent', why: cause.message } : { kind: 'lost', why: cause?.message ?? 'no answer' });
      if (known && key !== null && known.retryAfterSeconds === undefined)
        throw new AppError(known.code, known.message, { cause: known.cause, sent: known.sent, retryAfterSeconds: 1, retryable: true });
      throw error;
    }
    const held = await holdBack(answer, settings.writes.answerLimit);
    const { status } = answer;
    if (!held.complete && held.error && status < 400) await settle({ kind: 'lost', why: 'the answer broke off' });
    else await settle({ kind: 'answered', status, headers: answer.rawHeaders, body: held.body });
    if (status < 400 && x.sticky.key !== null) d.pins.set(context.name, x.sticky.key, side, context.pinMs, true);
    await deliver(x, live, held.release());
  };

  const scopeOf = (x: Exchange): ScopeParts => ({
    authorization: headerOf(x.call.headers, 'authorization') ?? null,
    stickyKey: x.sticky.issued === null ? x.sticky.key : null,
  });

  const decideNow = (x: Exchange, context: LiveContext, maxStage: Stage | undefined): Decision => {
    const flag = d.flags.current(context.name);
    if (!flag) throw new AppError('context-unavailable', `the store does not know the context ${context.name}`, { retryAfterSeconds: 5 });
    x.flag = flag;
    const command = x.operation === 'command';
    x.sticky = stickyOf(x.call, context, flag.stage === 'canary' && !command);
    const pin = x.sticky.key === null ? null : d.pins.get(context.name, x.sticky.key);
    x.pinned = pin !== null;
    const decision = decide(flag, {
      operation: x.operation!,
      bucket: flag.stage === 'canary' && x.sticky.key !== null ? bucketOf(context.salt, x.sticky.key) : 0,
      pin,
      stale: flag.stage === 'canary' && d.stale(context.name),
      maxStage,
    });
    x.decision = decision;
    x.reason = decision.reason;
    return decision;
  };

  const owned = async (
    x: Exchange,
    live: Live,
    context: LiveContext,
    settings: RouteSettings,
    params: Readonly<Record<string, string>>,
    maxStage: Stage | undefined,
  ): Promise<void> => {
    if (x.operation === 'query' && !d.flags.current(context.name)) return deliver(x, live, await toLegacy(x, live));
    if (context.dual && x.operation === 'command' && d.flags.ageMs() > live.maxStaleMs)
      throw new AppError('store-unavailable', 'the store does not answer: commands of this context must wait', {
        retryable: true,
        retryAfterSeconds: 2,
      });
    if (x.operation === 'command' && settings.ledgered) return ledgeredCommand(x, live, context, settings, params, maxStage);
    let decision = decideNow(x, context, maxStage);
    if (x.operation === 'query') return query(x, live, context, decision);
    if (decision.kind === 'frozen') {
      await d.flags.thawed(context.name, THAW_MS);
      decision = decideNow(x, context, maxStage);
    }
    if (decision.kind === 'frozen')
      throw new AppError('context-frozen', `the writes of ${context.name} are being handed over`, {
        retryable: true,
        retryAfterSeconds: 1,
      });
    if (decision.kind === 'unavailable') throw unavailable(context, null);
    return plainCommand(x, live, context, decision);
  };

  /** `GET /_banyan/writes/{id}`: how a write that outlasted its request ended; readable with the same key and scope only. */
  const writeStatus = async (x: Exchange, live: Live): Promise<void> => {
    const id = x.call.path!.slice(WRITES_PATH.length);
    const key = headerOf(x.call.headers, HEADERS.idempotencyKey);
    let found: string | null = null;
    if (d.writer && key !== undefined && /^[0-9a-f-]{36}$/.test(id)) {
      const seen = new Set<string>();
      for (const context of live.contexts.values()) {
        const sticky = stickyOf(x.call, context, false).key;
        if (seen.has(sticky ?? '')) continue;
        seen.add(sticky ?? '');
        found = await d.writer.status(id, key, { authorization: headerOf(x.call.headers, 'authorization') ?? null, stickyKey: sticky });
        if (found) break;
      }
    }
    if (!found) throw new AppError('not-found', 'there is no such write under this key');
    const text = Buffer.from(found);
    await deliver(
      x,
      live,
      wholeAnswer(
        200,
        'OK',
        ['content-type', 'application/json', 'content-length', String(text.length), 'cache-control', 'no-store'],
        text,
      ),
    );
  };

  const run = async (x: Exchange, live: Live): Promise<void> => {
    const { call } = x;
    if (call.path === null) return deliver(x, live, await toLegacy(x, live));
    if (d.writer && call.path.startsWith(WRITES_PATH) && call.method === 'GET') return writeStatus(x, live);
    const match = live.routes.match(call.method, call.path);
    if (match.kind === 'none') return deliver(x, live, await toLegacy(x, live));
    if (match.kind === 'unowned-method') {
      const context = live.contexts.get(match.context);
      if (context?.else === 'refuse')
        throw new AppError('method-not-allowed', `${call.method} is not part of the context ${match.context}`);
      return deliver(x, live, await toLegacy(x, live));
    }
    const context = live.contexts.get(match.route.context)!;
    x.context = context;
    x.label = match.route.rest.label;
    x.operation = match.operation;
    return owned(x, live, context, match.route.rest, match.params, match.route.maxStage);
  };

  return async (req: IncomingMessage, res: ServerResponse): Promise<void> => {
    const live = d.live();
    let x: Exchange | null = null;
    try {
      const call = prepare(req, res, { trusted: live.trusted });
      x = {
        call,
        res,
        startedAt: d.now(),
        context: null,
        flag: null,
        label: null,
        operation: null,
        decision: null,
        reason: null,
        upstream: null,
        sticky: { key: null, issued: null },
        shadowed: false,
        pinned: false,
      };
      await run(x, live);
    } catch (error) {
      if (x) {
        finish(x, res.headersSent ? res.statusCode : STATUS_OF[error instanceof AppError ? error.code : 'internal'], error);
      }
      sendProblem(req, res, error);
      req.on('error', noop);
    }
  };
};
