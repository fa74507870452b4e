import { AppError, STATUS_OF } from '@banyan/contracts/errors.ts';
import { HEADERS, type Upstream as Side, type Stage } from '@banyan/contracts/vocabulary.ts';
import { createCommands, WRITES_PATH } from './commands.ts';
import { bucketOf } from './core/bucket.ts';
import { type Decision, decide } from './core/decide.ts';
import type { Observation } from './core/parity/observation.ts';
import {
  type Exchange,
  frozen,
  type Live,
  type LiveContext,
  mayDryRun,
  type PipelineDeps,
  type RouteSettings,
  THAW_MS,
  unavailable,
} from './exchange.ts';
import type { Answer } from './proxy/answer.ts';
import { type Call, prepare } from './proxy/call.ts';
import type { ClientRequest, ClientResponse } from './proxy/client.ts';
import type { ForwardOptions } from './proxy/client-exchange.ts';
import { readBody } from './proxy/collect.ts';
import { headerOf, pairsOf } from './proxy/headers.ts';
import { sendProblem } from './proxy/problem.ts';
import { type Delivered, reply } from './proxy/reply.ts';
import { recognise } from './recognise.ts';
import { ID_COOKIE, NO_STICKY, stickyOf } from './sticky.ts';

/** A query with a body up to this size can be sent a second time, to legacy. */
const REPLAYABLE_BYTES = 1024 * 1024;

const TARGETED = /^(?:surrogate-control|(?:[a-z0-9-]+-)?cdn-cache-control)$/;

/** A shared cache must not hand one client's cookie to another; what is stricter already stays as it is. */
const keepPrivate = (rawHeaders: string[]): void => {
  const kept: string[] = [];
  for (let i = rawHeaders.length - 2; i >= 0; i -= 2) {
    const name = rawHeaders[i]!.toLowerCase();
    // RFC 9213: what is said to one kind of cache counts there instead of Cache-Control
    if (TARGETED.test(name)) rawHeaders.splice(i, 2);
    if (name !== 'cache-control') continue;
    kept.unshift(...rawHeaders[i + 1]!.split(',').map((directive) => directive.trim()));
    rawHeaders.splice(i, 2);
  }
  const rest = kept.filter((directive) => directive !== '' && !/^(public|private|s-maxage)\b/i.test(directive));
  rawHeaders.push('cache-control', ['private', ...rest].join(', '));
};

const NO_PARAMS: Readonly<Record<string, string>> = {};

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
      memo: x.memo,
      method: x.call.method,
      operation: x.operation,
      decisionKind: x.decision?.kind ?? null,
      reason: x.reason,
      upstream: x.upstream,
      stage: x.flag?.stage ?? null,
      status,
      durationMs: d.now() - x.startedAt,
      decided: x.decision?.reason,
      extractedFailed: x.extractedFailed,
      error,
    });

  const deliver = async (x: Exchange, live: Live, answer: Answer): Promise<void> => {
    const headers = debugHeaders(x, live);
    // a cache that revalidates would put the cookie of a 304 beside the answer that it keeps for all (RFC 9111 3.2)
    if (x.sticky.issued !== null && x.flag?.stage === 'canary' && answer.status !== 304) {
      const secure = x.call.req && 'encrypted' in x.call.req.socket ? '; Secure' : '';
      headers.push('set-cookie', `${ID_COOKIE}=${x.sticky.issued}; Path=/; HttpOnly; SameSite=Lax; Max-Age=31536000${secure}`);
      keepPrivate(answer.rawHeaders);
    }
    const { status, rawHeaders } = answer;
    // before `reply` adds its own
    const seen = (x.shadowed || x.dryRun !== null) && x.context ? pairsOf(rawHeaders) : null;
    const headMs = d.now() - x.startedAt;
    const delivered = await reply(x.res, answer, {
      ...(headers.length > 0 ? { extraHeaders: headers } : {}),
      ...(seen && x.context ? { tee: { limitBytes: x.context.compareLimit } } : {}),
    });
    if (seen && x.context && x.upstream && !delivered.clientLeft) {
      const observation = observed(status, seen, delivered);
      if (x.dryRun !== null) x.dryRun.answered(observation);
      else offer(x, x.context, x.upstream, observation, headMs);
    } else x.dryRun?.lost();
    finish(
      x,
      delivered.clientLeft ? 499 : status,
      delivered.truncated ? new AppError('upstream-reset', 'the upstream broke off in the middle of its answer') : undefined,
    );
  };

  const observed = (status: number, headers: [string, string][], delivered: Delivered): Observation => ({
    status,
    headers,
    body: delivered.body ?? null,
    complete: delivered.body !== undefined || delivered.digest !== undefined,
    ...(delivered.digest === undefined ? {} : { digest: delivered.digest }),
    ...(delivered.complete ? {} : { why: 'truncated' }),
  });

  const offer = (x: Exchange, context: LiveContext, primary: Side, primaryObservation: Observation, latencyMs: number): void => {
    d.shadow.offer({
      requestId: x.call.requestId,
      context: context.name,
      route: x.label ?? '',
      method: x.call.method,
      target: x.call.target,
      headers: x.call.headers,
      primary,
      primaryObservation,
      pinned: x.pinned,
      latencyMs,
    });
  };

  const toLegacy = (x: Exchange, live: Live, body?: Buffer): Promise<Answer> => {
    x.upstream = 'legacy';
    return live.legacy.forward(x.call, body ? { body } : undefined);
  };

  /** Tells the service who is logged in, where that is configured. */
  const withIdentity = async (
    live: Live,
    context: LiveContext,
    call: Call,
    options: ForwardOptions | undefined,
  ): Promise<ForwardOptions | undefined> => {
    const { whoami, strip } = live;
    const token = whoami === null ? null : await whoami.tokenFor(context.name, call.headers);
    return token === null || strip === null ? options : { ...options, headers: [...(options?.headers ?? []), strip, token] };
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
      const sent = body ? { body } : undefined;
      const options = live.whoami === null ? sent : await withIdentity(live, context, call, sent);
      const answer = await extracted.breaker.run(() => extracted.upstream.forward(call, options), isFailure);
      if (!isFailure(answer)) {
        x.upstream = 'extracted';
        return answer;
      }
      answer.abort(new AppError('upstream-protocol', 'the extracted service failed; legacy answers'));
      x.extractedFailed = true;
      x.reason = 'ERROR';
    } catch (error) {
      if (call.left) throw error;
      const open = error instanceof AppError && error.code === 'breaker-open';
      x.extractedFailed = !open;
      x.reason = open ? 'BREAKER' : 'ERROR';
    }
    x.shadowed = false;
    return toLegacy(x, live, body);
  };

  /** Nobody stands in for the owner of a write: an answer passes as it is, no answer is an error that says whether anything was sent. */
  const toExtracted = async (
    x: Exchange,
    live: Live,
    context: LiveContext,
    call: Call,
    options?: { body?: Buffer; headers?: readonly string[] },
  ): Promise<Answer> => {
    x.upstream = 'extracted';
    const extracted = context.extracted;
    if (!extracted) throw unavailable(context, null);
    const known = live.whoami === null ? options : await withIdentity(live, context, call, options);
    try {
      return await extracted.breaker.run(() => extracted.upstream.forward(call, known), isFailure);
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
        return deliver(x, live, await toExtracted(x, live, context, x.call));
      case 'legacy-with-shadow':
        x.shadowed = context.extracted !== null && wants(x, context);
        return deliver(x, live, await toLegacy(x, live));
      default:
        return deliver(x, live, await toLegacy(x, live));
    }
  };

  const wants = (x: Exchange, context: LiveContext): boolean =>
    x.call.body === 'none' && d.shadow.wants(context.name, 'query', x.call.method, x.call.target);

  /** A body is kept for a dry run only where its length is known beforehand and small. */
  const toLegacyWithDryRun = async (x: Exchange, live: Live, context: LiveContext): Promise<Answer> => {
    const { call } = x;
    const small = call.body === 'none' || (call.contentLength !== null && call.contentLength <= context.compareLimit);
    if (!mayDryRun(x) || !d.shadow.makesDryRuns(context.name)) return toLegacy(x, live);
    const body = small ? await readBody(call, context.compareLimit) : null;
    x.dryRun = d.shadow.dryRun({
      requestId: call.requestId,
      context: context.name,
      route: x.label ?? '',
      method: call.method,
      target: call.target,
      headers: call.headers,
      body,
      key: headerOf(call.headers, HEADERS.idempotencyKey) ?? null,
      pinned: x.pinned,
    });
    return toLegacy(x, live, body === null || call.body === 'none' ? undefined : body);
  };

  /** A command of a route without events or back-sync: no ledger, no retry, no fallback. */
  const plainCommand = async (x: Exchange, live: Live, context: LiveContext, decision: Decision): Promise<void> => {
    const answer =
      decision.kind === 'extracted-only' ? await toExtracted(x, live, context, x.call) : await toLegacyWithDryRun(x, live, context);
    if (x.sticky.key !== null && answer.status < 400 && x.upstream)
      d.pins.set(context.name, x.sticky.key, x.upstream, context.pinMs, false);
    await deliver(x, live, answer);
  };

  const decideNow = (x: Exchange, context: LiveContext, maxStage: Stage | undefined): Decision => {
    const flag = d.flags.current(context.name);
    if (!flag) throw new AppError('context-unavailable', `the store does not know the context ${context.name}`, { retryAfterSeconds: 5 });
    x.flag = flag;
    const canary = flag.stage === 'canary';
    // the key of a query outside canary matters to pins alone
    if (x.sticky.key === null && (canary || x.operation === 'command' || d.pins.any())) x.sticky = stickyOf(x, context.stickyKey, canary);
    const pin = x.sticky.key === null ? null : d.pins.get(context.name, x.sticky.key);
    x.pinned = pin !== null;
    const decision = decide(flag, {
      operation: x.operation!,
      bucket: canary && x.sticky.key !== null ? bucketOf(context.salt, x.sticky.key) : 0,
      pin,
      stale: (canary || x.override === 'extracted') && d.stale(context.name),
      override: x.override,
      provided: x.provided,
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
    maxStage: Stage | undefined,
  ): Promise<void> => {
    const flag = d.flags.current(context.name);
    if (x.operation === 'query' && !flag) return deliver(x, live, await toLegacy(x, live));
    if (context.dual && x.operation === 'command' && d.flags.ageMs() > live.maxStaleMs)
      throw new AppError('store-unavailable', 'the store does not answer: commands of this context must wait', {
        retryable: true,
        retryAfterSeconds: 2,
      });
    if (flag && !context.plain) {
      const finding = recognise(x, context, flag, live, d.pins.any(), true);
      if (finding !== null) await finding;
    }
    if (x.operation === 'command' && settings.ledgered)
      return commands.ledgered(x, live, { context, settings, params: x.params, maxStage });
    let decision = decideNow(x, context, maxStage);
    if (x.operation === 'query') return query(x, live, context, decision);
    if (decision.kind === 'frozen') {
      await d.flags.thawed(context.name, THAW_MS);
      decision = decideNow(x, context, maxStage);
    }
    if (decision.kind === 'frozen') throw frozen(context.name);
    if (decision.kind === 'unavailable') throw unavailable(context, null);
    return plainCommand(x, live, context, decision);
  };

  const commands = createCommands(d, { decideNow, toExtracted, deliver });

  const run = async (x: Exchange, live: Live): Promise<void> => {
    const { call } = x;
    if (call.path === null) return deliver(x, live, await toLegacy(x, live));
    if (d.writer && call.path.startsWith(WRITES_PATH) && call.method === 'GET') return commands.status(x, live);
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
    const settings = match.route.rest;
    x.label = settings.label;
    x.memo = settings.memo;
    x.operation = match.operation;
    x.params = match.params;
    return owned(x, live, context, settings, match.route.maxStage);
  };

  return async (req: ClientRequest, res: ClientResponse): Promise<void> => {
    const live = d.live();
    let x: Exchange | null = null;
    try {
      const call = prepare(req, res, live);
      x = {
        call,
        res,
        startedAt: d.now(),
        context: null,
        flag: null,
        label: null,
        memo: undefined,
        operation: null,
        decision: null,
        reason: null,
        upstream: null,
        params: NO_PARAMS,
        sticky: NO_STICKY,
        claims: null,
        override: null,
        provided: null,
        shadowed: false,
        dryRun: null,
        pinned: false,
        extractedFailed: false,
      };
      await run(x, live);
    } catch (error) {
      if (x) {
        x.dryRun?.lost();
        finish(x, res.headersSent ? res.statusCode : STATUS_OF[error instanceof AppError ? error.code : 'internal'], error);
      }
      sendProblem(req, res, error);
      req.on('error', noop);
    }
  };
};
