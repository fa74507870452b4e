import { randomUUID } from 'node:crypto';
import { AppError } from '@banyan/contracts/errors.ts';
import { checkEventData } from '@banyan/contracts/events/index.ts';
import { HEADERS, type LedgerState } from '@banyan/contracts/vocabulary.ts';
import type { Knex } from 'knex';
import { buildTentative, eventsFor, knownAggregate } from '../core/event-mapping.ts';
import { createBatcher } from './batcher.ts';
import { type Failpoints, NO_FAILPOINTS } from './failpoints.ts';
import {
  beginRows,
  keepAnswer,
  type LedgerBegin,
  type LedgerBegun,
  type LedgerSettle,
  type LedgerSettled,
  rowOf,
  sendRow,
  settleRows,
  stateOf,
  storeIsAway,
  uuid7,
} from './ledger.ts';
import { fillTemplate } from './path-template.ts';
import { createPinAnnouncer } from './pins.ts';
import type { Ask } from './reconciler.ts';
import { readFinding } from './resolve.ts';
import { type Command, mayResend } from './route-writes.ts';
import type { Seal } from './seal.ts';
import { type Outcome, settlement } from './settlement.ts';
import { decodeResponse, encodeRequest, encodeResponse, factsOf, jsonValue, requestHash, type StoredRequest } from './stored.ts';
import { createWaiting } from './waiting.ts';

export type Log = { warn: (fields: object, message: string) => void; error: (fields: object, message: string) => void };

export type DualWriteDeps = {
  /** A pool for the two commits; a few connections are enough, since commands share transactions. */
  readonly db: Knex;
  /** banyan.member.id of this process; its heartbeat is written elsewhere. */
  readonly memberId: string;
  readonly seal: Seal;
  /** Is the outbox at 95 % of what it may hold? */
  readonly backlogFull: () => boolean;
  /** Asks for the answer of a command that was settled without one. */
  readonly ask: Ask;
  /** New facts are in the outbox. */
  readonly wakeRelay: () => void;
  readonly log: Log;
  /** A commit that took longer is not followed by a send: others may have taken this process for dead. Default 5,000 ms. */
  readonly staleMs?: number;
  /** Commands that may wait for others in this process. Default 1,000. */
  readonly maxWaiting?: number;
  /** After so many ms without a terminal commit the client is answered anyway. Default 1,000. */
  readonly answerAfterMs?: number;
  readonly fail?: Failpoints;
};

export type Begun =
  /** Committed: the first byte may go out, with `key` as Idempotency-Key and `id` as banyan-write. `settle` must follow. */
  | { readonly kind: 'send'; readonly id: string; readonly key: string; readonly fence: string; readonly resent: boolean }
  | {
      readonly kind: 'replay';
      readonly id: string;
      readonly status: number;
      readonly headers: readonly (readonly [string, string])[];
      readonly body: Buffer;
    }
  /** 202 with Location: /_banyan/writes/{id}. */
  | { readonly kind: 'accepted'; readonly id: string; readonly state: string };

export type Settled =
  | { readonly kind: 'settled'; readonly state: LedgerState }
  /** Recovery or another request took the row over: what was learned is not written, the client is answered all the same. */
  | { readonly kind: 'superseded'; readonly state: LedgerState | null }
  /** The store does not answer; the commit is tried on in the background. */
  | { readonly kind: 'deferred' };

export type DualWrite = {
  /**
   * One durable commit before the first byte.
   * @throws AppError `bad-request` (key), `key-reused`, `answer-lost` (details.location), `store-unavailable`, `backlog-full`, `overloaded`, `draining`,
   * `context-frozen` (the freeze outlasted the deadline), `context-unavailable` (details.moved true: ownership is elsewhere, decide anew; else the aggregate is busy)
   */
  readonly begin: (command: Command) => Promise<Begun>;
  /** Never throws; settles within about `answerAfterMs`. */
  readonly settle: (id: string, fence: string, outcome: Outcome) => Promise<Settled>;
  /** The JSON document `{id, state, status?, body?}` for the same key and scope, else null. */
  readonly status: (id: string, scope: string, key: string) => Promise<string | null>;
  /** Commands begun here and not settled. */
  readonly open: () => number;
  /** Refuses new commands, waits for commits under way, at most `timeoutMs`. */
  readonly stop: (timeoutMs?: number) => Promise<void>;
};

const MAX_DEFERRED = 10_000;
const busyPlace = (command: Command, aggregate: string | null) => `${command.writes.context}/${aggregate}`;
const locationOf = (id: string) => `/_banyan/writes/${id}`;
const pause = (ms: number) => new Promise<void>((resolve) => setTimeout(resolve, ms));

type Open = { command: Command; key: string; request: StoredRequest; aggregate: string | null; timer: NodeJS.Timeout };

export const createDualWrite = (deps: DualWriteDeps): DualWrite => {
  const { db, seal, log } = deps;
  const fail = deps.fail ?? NO_FAILPOINTS;
  const opened = new Map<string, Open>();
  const thaws = new Map<string, Promise<void>>();
  const waiting = createWaiting(deps.maxWaiting ?? 1_000);
  const pins = createPinAnnouncer({ db, warn: (error) => log.warn({ error: String(error) }, 'pins could not be announced') });
  let deferred = 0;
  let stopped = false;

  const begins = createBatcher<LedgerBegin, LedgerBegun>({
    run: async (rows) => {
      fail.hit('presend-before');
      const begun = await beginRows(db, rows);
      fail.hit('presend-after');
      return begun;
    },
    weigh: (row) => row.sealed_request.length + 1_000,
    splittable: (error) => !storeIsAway(error),
  });
  const settles = createBatcher<LedgerSettle, LedgerSettled>({
    run: async (rows) => {
      fail.hit('terminal-before');
      const settled = await settleRows(db, rows);
      fail.hit('terminal-after');
      return settled;
    },
    weigh: (row) => (row.sealed_response?.length ?? 0) + 1_000,
    splittable: (error) => !storeIsAway(error),
  });

  const unavailable = (cause: unknown) =>
    cause instanceof AppError
      ? cause
      : new AppError('store-unavailable', 'the ledger cannot be written just now', { retryable: true, retryAfterSeconds: 1, cause });

  const forget = (id: string): Open | undefined => {
    const open = opened.get(id);
    if (!open) return undefined;
    clearTimeout(open.timer);
    opened.delete(id);
    return open;
  };

  const send = (command: Command, aggregate: string | null, id: string, fence: string, key: string, resent: boolean): Begun => {
    const { writes, headers, method, target, body } = command;
    // past this the row is no longer ours: recovery has taken it
    const timer = setTimeout(() => forget(id), writes.responseTimeoutMs + writes.deadlineMs + 60_000);
    timer.unref();
    fail.later('request-sent', 3);
    opened.set(id, { command, key, request: { method, target, headers, body }, aggregate, timer });
    return { kind: 'send', id, key, fence, resent };
  };

  /**
   * Between the commit and the first byte a process may have stood still, for longer than its heartbeat holds: then its row may be settled as never
   * sent, and a flip be over. @param asked when the commit was asked for. @throws AppError `store-unavailable`; the row says that nothing was sent
   */
  const stillOurs = async (asked: number, id: string, fence: string, resent: boolean): Promise<void> => {
    if (performance.now() - asked <= (deps.staleMs ?? 5_000)) return;
    const error = 'the commit took so long that this gateway may count as dead';
    // an earlier attempt may have been applied: then only the reconciler can tell
    const known = resent ? ({ event: 'lost', settled_by: null } as const) : ({ event: 'not-sent', settled_by: 'not-sent' } as const);
    await settles.add({ id, fence, from_state: 'sent', ...known, error }).catch(() => undefined);
    throw new AppError('store-unavailable', 'the ledger took too long to write this command down; it was not sent', {
      retryable: true,
      retryAfterSeconds: 1,
    });
  };

  /** One look at the freeze for all who wait for it. */
  const thaw = (context: string, until: number): Promise<void> => {
    const known = thaws.get(context);
    if (known) return known;
    const look = async () => {
      while (!stopped && Date.now() < until) {
        const row = await db('banyan.context').where({ name: context }).first('frozen_by');
        if (!row?.frozen_by) return;
        await pause(25);
      }
    };
    const looking = look().finally(() => thaws.delete(context));
    thaws.set(context, looking);
    return looking;
  };

  const held = async (command: Command, aggregate: string | null, begun: LedgerBegun, key: string, until: number): Promise<Begun> => {
    const { context } = command.writes;
    for (;;) {
      await thaw(context, until);
      const asked = performance.now();
      const now = await sendRow(db, begun.id, begun.fence);
      if (now === 'sent') await stillOurs(asked, begun.id, begun.fence, false);
      if (now === 'sent') return send(command, aggregate, begun.id, begun.fence, key, false);
      if (now === 'moved' || now === 'gone')
        throw new AppError('context-unavailable', `the writes of ${context} moved while the command waited`, {
          retryable: true,
          retryAfterSeconds: 1,
          details: { moved: true },
        });
      if (Date.now() < until && !stopped) continue;
      await settles.add({
        id: begun.id,
        fence: begun.fence,
        from_state: 'intent',
        event: 'not-sent',
        settled_by: 'not-sent',
        error: 'the freeze outlasted the deadline',
      });
      throw new AppError('context-frozen', `the writes of ${context} are being handed over`, { retryable: true, retryAfterSeconds: 1 });
    }
  };

  /**
   * The answer of a command that was proven applied without one: `resolve.body` picks what stands for it. Asked once, then kept.
   * null = not configured, or the upstream does not tell.
   */
  const recall = async (command: Command, key: string, row: LedgerBegun): Promise<Begun | null> => {
    const { resolve, route, context, answerLimitBytes } = command.writes;
    if (resolve === null || resolve.body === null || !['evidence', 'resolve', 'attested'].includes(row.settled_by ?? '')) return null;
    const path = fillTemplate(resolve.get, { key, route, target: command.target });
    if (path === null) return null;
    try {
      const answer = await deps.ask(context, command.upstream, path);
      const finding = readFinding(resolve, answer.status, answer.body.toString());
      if (finding.kind !== 'found' || finding.body === null) return null;
      const response = {
        status: resolve.status,
        headers: [['content-type', 'application/json']] as const,
        body: Buffer.from(finding.body),
      };
      await keepAnswer(db, row.id, response.status, seal.seal(row.id, 'response', encodeResponse(response, answerLimitBytes)));
      return { kind: 'replay', id: row.id, ...response };
    } catch (error) {
      log.warn({ id: row.id, error: String(error) }, 'the answer of a settled command could not be asked for');
      return null;
    }
  };

  /** What a row that is already there means for a repeat of its key; null = wait for it. */
  const existing = async (command: Command, key: string, row: LedgerBegun): Promise<Begun | null> => {
    const undone =
      ['compensating', 'compensated', 'rejected'].includes(row.state) && row.response_status !== null && row.response_status < 400;
    if (undone) {
      // what legacy answered once is not so any more
    } else if (row.response_status !== null && row.sealed_response !== null) {
      const { status, headers, body } = decodeResponse(seal.open(row.id, 'response', row.sealed_response));
      if (body !== null) return { kind: 'replay', id: row.id, status, headers, body };
    } else if (row.response_status === null) {
      if (row.state === 'parked') return { kind: 'accepted', id: row.id, state: row.state };
      if (row.state === 'intent' || row.state === 'sent' || row.state === 'unknown') return null;
      const recalled = await recall(command, key, row);
      if (recalled) return recalled;
    }
    const takenBack = row.state === 'compensating' || row.state === 'compensated';
    const what = undone
      ? 'the command was applied and then taken back: repeat it under a new Idempotency-Key'
      : takenBack
        ? 'the command was not applied, and its tentative event was taken back: repeat it under a new Idempotency-Key'
        : 'the command was settled, but its answer is not known any more';
    throw new AppError('answer-lost', what, {
      details: { location: locationOf(row.id), state: row.state },
    });
  };

  const rowFor = (command: Command, key: string): LedgerBegin => {
    const { writes } = command;
    const id = uuid7();
    const facts = factsOf(command, null);
    const ours = command.upstream === 'legacy' && writes.publisher === 'ledger';
    const tentative = ours ? buildTentative(writes.events, facts, checkEventData) : null;
    return {
      id,
      context: writes.context,
      route: writes.route,
      event_types: [...new Set(eventsFor(writes.events, command.method, command.target).map((event) => event.type))],
      key,
      key_supplied: command.key !== null,
      scope: command.scope,
      request_hash: requestHash(command),
      method: command.method,
      // a query may hold secrets; the whole target is in the sealed request
      target: command.target.split('?', 1)[0]!,
      aggregate: knownAggregate(writes.events, facts),
      upstream: command.upstream,
      publisher: writes.publisher,
      epoch: command.epoch,
      owner: deps.memberId,
      sealed_request: seal.seal(id, 'request', encodeRequest(command)).toString('base64'),
      settle_ms: writes.settleMs,
      deadline_ms: writes.responseTimeoutMs + writes.deadlineMs,
      resend: mayResend(writes, command.upstream),
      tentative: tentative?.kind === 'built' ? tentative.events : null,
      traceparent: command.traceparent ?? null,
    };
  };

  const begin = async (command: Command): Promise<Begun> => {
    if (stopped) throw new AppError('draining', 'this gateway is stopping', { retryable: true, retryAfterSeconds: 1 });
    if (deps.backlogFull())
      throw new AppError('backlog-full', 'too many facts wait for the stream', { retryable: true, retryAfterSeconds: 5 });
    const key = command.key ?? randomUUID();
    if (!/^[\x20-\x7e\x80-\xff]{1,255}$/.test(key))
      throw new AppError('bad-request', 'Idempotency-Key must have 1 to 255 printable characters');
    const { writes } = command;
    // what a mapping may look at includes the key that we made
    const keyed = command.key === null ? { ...command, headers: { ...command.headers, [HEADERS.idempotencyKey]: key } } : command;
    const row = rowFor(keyed, key);
    const until = Date.now() + writes.deadlineMs;
    for (let look = 0; ; look += 1) {
      const asked = performance.now();
      const begun = await begins.add(row);
      const going = begun.outcome === 'sent' || begun.outcome === 'resent' || begun.outcome === 'again';
      if (going) await stillOurs(asked, begun.id, begun.fence, begun.outcome === 'resent');
      // short first: most commands are over in milliseconds; then rarer, and never in step
      const patience = Math.max(1, Math.min(until - Date.now(), Math.min(250, 20 * 2 ** look) * (0.5 + Math.random())));
      switch (begun.outcome) {
        case 'sent':
          return send(keyed, row.aggregate, begun.id, begun.fence, key, false);
        case 'resent':
        case 'again':
          return send(keyed, row.aggregate, begun.id, begun.fence, key, true);
        case 'held':
          return await held(keyed, row.aggregate, begun, key, until);
        case 'reused':
          throw new AppError('key-reused', 'this Idempotency-Key was used with another request');
        case 'moved':
        case 'frozen':
        case 'unknown-context':
          throw new AppError('context-unavailable', `${writes.context} is not owned by ${command.upstream} under epoch ${command.epoch}`, {
            retryable: true,
            retryAfterSeconds: 1,
            details: { moved: true },
          });
        case 'busy':
          if (Date.now() >= until || stopped)
            throw new AppError('context-unavailable', 'an earlier command on the same subject is not settled', {
              retryable: true,
              retryAfterSeconds: 1,
            });
          await waiting.wait(busyPlace(command, row.aggregate), patience);
          break;
        case 'exists': {
          const answer = await existing(keyed, key, begun);
          if (answer) return answer;
          for (let again = look; (await stateOf(db, begun.id)) === begun.state; again += 1) {
            if (Date.now() >= until || stopped) return { kind: 'accepted', id: begun.id, state: begun.state };
            await waiting.wait(begun.id, Math.max(1, Math.min(until - Date.now(), Math.min(250, 20 * 2 ** again))));
          }
        }
      }
    }
  };

  /** Tries on until the row is committed, is no longer ours, or this process stops. */
  const commit = async (row: LedgerSettle, until: number): Promise<LedgerSettled | null> => {
    let current = row;
    for (let attempt = 0; ; attempt += 1) {
      try {
        return await settles.add(current);
      } catch (error) {
        const code = String((error as { code?: unknown }).code ?? '');
        // the row itself is refused (not a conflict with another transaction): the effect is there, so a person must see it
        if (!storeIsAway(error) && !code.startsWith('40') && !(error instanceof AppError)) {
          if (current.event !== 'ok' || current.park) {
            log.error({ id: row.id, error: String(error) }, 'a command cannot be settled');
            return null;
          }
          current = {
            ...current,
            facts: null,
            park: `unbuildable: the store refused it: ${String((error as Error).message)}`.slice(0, 500),
          };
          continue;
        }
        if (attempt === 0) log.warn({ id: row.id, error: String(error) }, 'a settlement is not committed yet');
        if (stopped || Date.now() > until) return null;
        await pause(Math.min(2_000, 50 * 2 ** attempt) * (0.5 + Math.random()));
      }
    }
  };

  const settle: DualWrite['settle'] = async (id, fence, outcome) => {
    const open = forget(id);
    if (!open) return { kind: 'superseded', state: null };
    const { command, aggregate } = open;
    const row = settlement({ id, fence, key: open.key, command, request: open.request, outcome, seal });
    if (deferred >= MAX_DEFERRED) return { kind: 'deferred' };
    deferred += 1;
    const committed = commit(row, Date.now() + command.writes.responseTimeoutMs + command.writes.deadlineMs).then((done) => {
      deferred -= 1;
      if (done?.moved && row.pin)
        pins.announce({ context: command.writes.context, client: row.pin.client, side: row.pin.side, until: Date.now() + row.pin.ms });
      if (done?.state === 'applied' || done?.state === 'compensating') deps.wakeRelay();
      waiting.wakeAll(id);
      if (aggregate !== null) waiting.wakeFirst(busyPlace(command, aggregate));
      return done;
    });
    let timer: NodeJS.Timeout | undefined;
    const late = new Promise<'late'>((resolve) => {
      timer = setTimeout(() => resolve('late'), deps.answerAfterMs ?? 1_000);
    });
    const first = await Promise.race([committed, late]);
    clearTimeout(timer);
    if (first === 'late' || first === null) return { kind: 'deferred' };
    return first.moved && first.state ? { kind: 'settled', state: first.state } : { kind: 'superseded', state: first.state };
  };

  const status: DualWrite['status'] = async (id, scope, key) => {
    const row = scope === '' ? null : await rowOf(db, id);
    if (!row || row.scope !== scope || row.idempotency_key !== key) return null;
    const head = JSON.stringify({ id: row.id, state: row.state, ...(row.response_status === null ? {} : { status: row.response_status }) });
    const stored = row.sealed_response === null ? null : decodeResponse(seal.open(row.id, 'response', row.sealed_response));
    if (!stored?.body || stored.body.length === 0) return head;
    const json = stored.headers.some(([name, value]) => name.toLowerCase() === 'content-type' && /[/+]json\b/i.test(value));
    // spliced in as it came, so that no number changes on the way
    const text = stored.body.toString();
    return `${head.slice(0, -1)},"body":${json && jsonValue(text) !== undefined ? text : JSON.stringify(text)}}`;
  };

  return {
    begin: async (command) => {
      try {
        return await begin(command);
      } catch (error) {
        throw unavailable(error);
      }
    },
    settle,
    status,
    open: () => opened.size,
    stop: async (timeoutMs = 5_000) => {
      const until = Date.now() + timeoutMs;
      while (deferred > 0 && Date.now() < until) await pause(10);
      stopped = true;
      waiting.stop();
      await Promise.all([begins.idle(), settles.idle()]);
      for (const id of [...opened.keys()]) forget(id);
      await pins.stop();
    },
  };
};
