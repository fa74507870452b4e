import { AppError } from '@banyan/contracts/errors.ts';
import { HEADERS, type Upstream as Side, type Stage } from '@banyan/contracts/vocabulary.ts';
import type { Decision } from './core/decide.ts';
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
import type { Begun, Command, CommandWriter, Outcome, ScopeParts } from './ports.ts';
import type { Answer } from './proxy/answer.ts';
import { holdBack, wholeAnswer } from './proxy/buffered.ts';
import { type Call, copyOf } from './proxy/call.ts';
import { readBody } from './proxy/collect.ts';
import { headerOf, pairsOf } from './proxy/headers.ts';
import { recognise } from './recognise.ts';
import { stickyOf } from './sticky.ts';

/** What commands need of the rest of the pipeline. */
export type CommandSteps = {
  decideNow(x: Exchange, context: LiveContext, maxStage: Stage | undefined): Decision;
  toExtracted(
    x: Exchange,
    live: Live,
    context: LiveContext,
    call: Call,
    options: { body: Buffer; headers: readonly string[] },
  ): Promise<Answer>;
  deliver(x: Exchange, live: Live, answer: Answer): Promise<void>;
};

export type LedgeredCommand = {
  readonly context: LiveContext;
  readonly settings: RouteSettings;
  readonly params: Readonly<Record<string, string>>;
  readonly maxStage: Stage | undefined;
};

/** Where a client asks how a write ended that outlasted its request. */
export const WRITES_PATH = '/_banyan/writes/';

const json = (status: number, reason: string, text: string, more: readonly string[] = []): Answer => {
  const body = Buffer.from(text);
  return wholeAnswer(
    status,
    reason,
    ['content-type', 'application/json', 'content-length', String(body.length), 'cache-control', 'no-store', ...more],
    body,
  );
};

const routeOf = (call: Call, { pattern }: RouteSettings): string => `${call.method} ${pattern}`;

/** @throws AppError `bad-request` when there are two: nobody could tell which one a repeat repeats */
const keyOf = (call: Call): string | null => {
  let key: string | null = null;
  for (let i = 0; i + 1 < call.headers.length; i += 2) {
    if (call.headers[i]!.toLowerCase() !== HEADERS.idempotencyKey) continue;
    if (key !== null) throw new AppError('bad-request', 'Idempotency-Key must be given once');
    key = call.headers[i + 1]!;
  }
  return key;
};

const scopeOf = (x: Exchange): ScopeParts => ({
  authorization: headerOf(x.call.headers, 'authorization') ?? null,
  // a key that this answer gives the client tells nobody apart yet, and one in the target all who ask for the same
  stickyKey: x.sticky.personal ? x.sticky.key : null,
});

/** An error after the attempt: Retry-After only where a repeat is safe, that is nothing was sent, or the client has a key to repeat. */
const repeatable = (error: unknown, key: string | null): unknown => {
  if (!(error instanceof AppError) || error.retryAfterSeconds !== undefined || (error.sent !== 'no' && key === null)) return error;
  return new AppError(error.code, error.message, { cause: error.cause, sent: error.sent, retryAfterSeconds: 1, retryable: true });
};

/** Commands on routes with events or back-sync: one commit before the first byte, one after the answer (DESIGN.md sections 5 and 6). */
export const createCommands = (
  d: Pick<PipelineDeps, 'flags' | 'pins' | 'now' | 'shadow'> & { readonly writer: CommandWriter | null },
  steps: CommandSteps,
) => {
  /**
   * Commits the command to the ledger under the flag of this moment. A freeze may reach the store before our snapshot, or end while we wait:
   * then the decision is taken again, for at most as long as a command may wait.
   */
  const admit = async (
    x: Exchange,
    writer: CommandWriter,
    { context, maxStage }: LedgeredCommand,
    command: Omit<Command, 'upstream' | 'epoch' | 'scope' | 'pin'>,
  ): Promise<{ begun: Begun; side: Side }> => {
    const deadline = d.now() + THAW_MS;
    for (;;) {
      const decision = steps.decideNow(x, context, maxStage);
      if (decision.kind === 'unavailable') throw unavailable(context, null);
      if (decision.kind !== 'frozen') {
        const side: Side = decision.kind === 'extracted-only' ? 'extracted' : 'legacy';
        const pin = x.sticky.key === null ? null : { stickyKey: x.sticky.key, ms: context.pinMs };
        try {
          return { begun: await writer.begin({ ...command, upstream: side, epoch: x.flag!.epoch, scope: scopeOf(x), pin }), side };
        } catch (error) {
          if (!(error instanceof AppError) || error.code !== 'context-frozen' || d.now() >= deadline) throw error;
          await d.flags.refresh();
        }
      }
      const left = deadline - d.now();
      if (left <= 0 || !(await d.flags.thawed(context.name, left))) throw frozen(context.name);
    }
  };

  /** Sends what was committed and settles it. A client that leaves does not break off its command: the copy does not know it. */
  const execute = async (
    x: Exchange,
    live: Live,
    writer: CommandWriter,
    command: LedgeredCommand,
    begun: Extract<Begun, { kind: 'send' }>,
    side: Side,
    body: Buffer,
    key: string | null,
  ): Promise<Answer> => {
    const { context, settings } = command;
    const told = side === 'extracted' || settings.writes.attests;
    const own = [...(side === 'extracted' ? [HEADERS.epoch, String(x.flag!.epoch)] : []), ...(told ? [HEADERS.write, begun.id] : [])];
    const headers = [HEADERS.idempotencyKey, begun.key, ...own];
    const settle = (outcome: Outcome): Promise<void> => writer.settle(begun, outcome);
    let answer: Answer;
    try {
      const sent = copyOf(x.call);
      if (side === 'legacy' && mayDryRun(x))
        x.dryRun = d.shadow.dryRun({
          requestId: x.call.requestId,
          context: context.name,
          route: x.label ?? '',
          method: x.call.method,
          target: x.call.target,
          headers: x.call.headers,
          body,
          key: begun.key,
          pinned: x.pinned,
        });
      answer =
        side === 'extracted'
          ? await steps.toExtracted(x, live, context, sent, { body, headers })
          : await live.legacy.forward(sent, { body, headers });
    } catch (error) {
      const known = error instanceof AppError ? error : null;
      const cause = known?.cause instanceof AppError ? known.cause : known;
      await settle(cause?.sent === 'no' ? { kind: 'not-sent', why: cause.message } : { kind: 'lost', why: cause?.message ?? 'no answer' });
      throw repeatable(error, key);
    }
    const held = await holdBack(answer, settings.writes.answerLimit);
    const { status } = answer;
    if (!held.complete && held.error && status < 400) await settle({ kind: 'lost', why: 'the answer broke off' });
    else await settle({ kind: 'answered', status, headers: answer.rawHeaders, body: held.body });
    if (status < 400 && x.sticky.key !== null) d.pins.set(context.name, x.sticky.key, side, context.pinMs, true);
    const { resolve } = settings.writes;
    if (resolve !== null && status >= 200 && status < 300 && held.body !== null)
      d.shadow.created({
        requestId: x.call.requestId,
        context: context.name,
        route: routeOf(x.call, settings),
        target: x.call.target,
        headers: x.call.headers,
        primary: side,
        answer: { status, headers: pairsOf(answer.rawHeaders), body: held.body, complete: true },
        key: begun.key,
        resolve,
      });
    return held.release();
  };

  return {
    async ledgered(x: Exchange, live: Live, command: LedgeredCommand): Promise<void> {
      const { call } = x;
      const { writer } = d;
      if (!writer) throw new AppError('store-unavailable', 'this route needs the store', { retryable: true, retryAfterSeconds: 2 });
      const body = await readBody(call, command.settings.writes.bodyLimit);
      const key = keyOf(call);
      const { begun, side } = await admit(x, writer, command, {
        context: command.context.name,
        route: routeOf(call, command.settings),
        method: call.method,
        target: call.target,
        params: command.params,
        headers: call.headers,
        body,
        key,
        traceparent: headerOf(call.headers, 'traceparent') ?? null,
      });
      x.upstream = side;
      if (begun.kind === 'replay') return steps.deliver(x, live, wholeAnswer(begun.status, '', [...begun.headers], begun.body));
      if (begun.kind === 'accepted')
        return steps.deliver(
          x,
          live,
          json(202, 'Accepted', JSON.stringify({ id: begun.id, state: begun.state }), [
            'location',
            `${WRITES_PATH}${begun.id}`,
            'retry-after',
            '1',
          ]),
        );
      return steps.deliver(x, live, await execute(x, live, writer, command, begun, side, body, key));
    },

    /** `GET /_banyan/writes/{id}`: readable with the same key and scope only. */
    async status(x: Exchange, live: Live): Promise<void> {
      const id = x.call.path!.slice(WRITES_PATH.length);
      const key = headerOf(x.call.headers, HEADERS.idempotencyKey);
      const authorization = headerOf(x.call.headers, 'authorization') ?? null;
      if (d.writer && key !== undefined && /^[0-9a-f-]{36}$/.test(id)) {
        // contexts may know their clients by different keys
        const keys = new Set<string | null>();
        for (const context of live.contexts.values()) {
          const flag = d.flags.current(context.name);
          const client = { ...x, operation: 'command' as const };
          if (flag && context.jwt.key) await recognise(client, context, flag, live, false, false);
          const { key: own, personal } = stickyOf(client, context.stickyKey, false);
          keys.add(personal ? own : null);
        }
        for (const stickyKey of keys) {
          const found = await d.writer.status(id, key, { authorization, stickyKey });
          if (found) return steps.deliver(x, live, json(200, 'OK', found));
        }
      }
      throw new AppError('not-found', 'there is no such write under this key');
    },
  };
};
