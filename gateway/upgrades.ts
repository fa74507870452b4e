import type { IncomingMessage } from 'node:http';
import type { Socket } from 'node:net';
import { AppError, STATUS_OF } from '@banyan/contracts/errors.ts';
import type { Upstream as Side } from '@banyan/contracts/vocabulary.ts';
import { bucketOf } from './core/bucket.ts';
import { type ContextFlag, decide } from './core/decide.ts';
import { type Live, type LiveContext, type PipelineDeps, unavailable } from './exchange.ts';
import type { JournalEntry } from './ports.ts';
import { type Call, callWith, prepare } from './proxy/call.ts';
import { refuseRaw } from './proxy/refuse-raw.ts';
import type { Tunnel } from './proxy/tunnel.ts';
import type { Carried, Upgrader } from './proxy/upgrade.ts';
import type { Upstream } from './proxy/upstream.ts';
import { type Client, recognise } from './recognise.ts';
import { NO_STICKY, stickyOf } from './sticky.ts';

export type UpgradesDeps = Pick<PipelineDeps, 'live' | 'flags' | 'pins' | 'stale' | 'journal' | 'now'> & {
  readonly upgrader: Upgrader;
  /** `open` = a tunnel, `refused` = by the upstream, `failed` = no usable answer, `rejected` = by the gateway, `left` = the client went. */
  readonly count: (outcome: UpgradeOutcome) => void;
};

export type UpgradeOutcome = 'open' | 'refused' | 'failed' | 'rejected' | 'left';

export type Upgrades = {
  /** Is this an upgrade that may become a tunnel? A command of a context is not: past its ledger and its owner no byte may go. */
  takes(req: IncomingMessage): boolean;
  /** Answers or tunnels. Never throws. */
  upgrade(req: IncomingMessage, socket: Socket, head: Buffer): void;
  /** Open tunnels by side. */
  tunnels(): Readonly<Record<Side, number>>;
  /** Ends every tunnel, WebSockets with 1001. Resolves when none is left, at the latest after `limitMs`. */
  drain(limitMs: number): Promise<void>;
  stop(): void;
};

/** How long the other side has to answer a Close frame, ms. */
const HANDSHAKE_MS = 5_000;
/** A client that nothing tells apart is diverted only where all are: an upgrade issues no cookie that would keep it on its side. */
const LAST_BUCKET = 9_999;

type Place = {
  readonly context: LiveContext;
  readonly label: string;
  readonly operation: 'query' | 'command';
  readonly params: Readonly<Record<string, string>>;
  readonly maxStage: JournalEntry['stage'];
};

/** What is known of one upgrade until its line is written. */
type Trip = {
  readonly req: IncomingMessage;
  readonly socket: Socket;
  readonly head: Buffer;
  readonly call: Call;
  upstream: Side | null;
  note: Omit<JournalEntry, 'status' | 'durationMs' | 'error' | 'tunnel' | 'upstream' | 'reason'>;
  reason: JournalEntry['reason'];
};

/** A rollback takes open tunnels along: clients come back and are sent to legacy. */
const isTakenBack = (flag: ContextFlag): boolean =>
  flag.killed ? flag.stage !== 'retired' : flag.stage === 'legacy' || flag.stage === 'shadow';

/**
 * Connection upgrades by the rules of requests, as queries: stage, kill, bucket, pin, breaker. A tunnel is stateful, so nothing is shadowed, and legacy
 * stands in for extracted only while nothing has been sent.
 */
export const createUpgrades = (d: UpgradesDeps): Upgrades => {
  const { upgrader } = d;
  let draining = false;
  const sides: Record<Side, number> = { legacy: 0, extracted: 0 };
  /** Tunnels to extracted services, by context. */
  const diverted = new Map<string, Set<Tunnel>>();

  const placeOf = (live: Live, call: Call): Place | null => {
    if (call.path === null) return null;
    const match = live.routes.match(call.method, call.path);
    if (match.kind === 'none') return null;
    if (match.kind === 'unowned-method') {
      if (live.contexts.get(match.context)?.else === 'refuse')
        throw new AppError('method-not-allowed', `${call.method} is not part of the context ${match.context}`);
      return null;
    }
    const { route } = match;
    return {
      context: live.contexts.get(route.context)!,
      label: route.rest.label,
      operation: match.operation,
      params: match.params,
      maxStage: route.maxStage ?? null,
    };
  };

  const keep = (trip: Trip, tunnel: Tunnel, startedAt: number): void => {
    const { note, reason } = trip;
    const side = trip.upstream!;
    const { context } = note;
    sides[side]++;
    const away = side === 'extracted' && context !== null ? context : null;
    if (away !== null) {
      const known = diverted.get(away) ?? new Set();
      diverted.set(away, known.add(tunnel));
    }
    const flag = away === null ? undefined : d.flags.current(away);
    if (flag && isTakenBack(flag)) tunnel.close('moved', HANDSHAKE_MS, HANDSHAKE_MS);
    tunnel.onEnd = (report) => {
      sides[side]--;
      if (away !== null) diverted.get(away)?.delete(tunnel);
      d.journal.note({ ...note, upstream: side, reason, status: 101, durationMs: d.now() - startedAt, tunnel: report });
    };
  };

  const carry = async (trip: Trip, upstream: Upstream, side: Side, call: Call = trip.call): Promise<Carried> => {
    trip.upstream = side;
    const standing = await upstream.stand();
    if (trip.socket.destroyed) {
      standing.socket.destroy();
      throw new AppError('client-left', 'The client left', { sent: 'no' });
    }
    return upgrader.carry(call, trip.req, trip.socket, trip.head, standing);
  };

  const divert = async (trip: Trip, live: Live, context: LiveContext, fallback: boolean): Promise<Carried> => {
    const { extracted } = context;
    if (!extracted) {
      if (!fallback) throw unavailable(context, null);
      trip.reason = 'ERROR';
      return carry(trip, live.legacy, 'legacy');
    }
    const token = live.whoami === null ? null : await live.whoami.tokenFor(context.name, trip.call.headers);
    const call = token === null || live.strip === null ? trip.call : callWith(trip.call, [live.strip, token]);
    try {
      return await extracted.breaker.run(
        () => carry(trip, extracted.upstream, 'extracted', call),
        (carried) => carried.status >= 500,
      );
    } catch (error) {
      if (!(error instanceof AppError) || error.sent !== 'no' || error.code === 'client-left') throw error;
      if (!fallback) throw unavailable(context, error);
      trip.reason = error.code === 'breaker-open' ? 'BREAKER' : 'ERROR';
      return carry(trip, live.legacy, 'legacy');
    }
  };

  const send = async (trip: Trip, live: Live): Promise<Carried> => {
    const place = placeOf(live, trip.call);
    if (place === null) return carry(trip, live.legacy, 'legacy');
    const { context, operation } = place;
    trip.note = { ...trip.note, context: context.name, route: place.label, operation };
    if (operation === 'command') throw new AppError('bad-request', 'A command cannot be upgraded to another protocol');
    let flag = d.flags.current(context.name);
    if (!flag) return carry(trip, live.legacy, 'legacy');
    const client: Client = {
      call: trip.call,
      params: place.params,
      operation,
      sticky: NO_STICKY,
      claims: null,
      override: null,
      provided: null,
    };
    if (!context.plain) {
      await recognise(client, context, flag, live, true, false);
      flag = d.flags.current(context.name) ?? flag;
    }
    const sticky = stickyOf(client, context.stickyKey, false).key;
    const decision = decide(flag, {
      operation,
      bucket: flag.stage !== 'canary' ? 0 : sticky === null ? LAST_BUCKET : bucketOf(context.salt, sticky),
      pin: sticky === null ? null : d.pins.get(context.name, sticky),
      stale: (flag.stage === 'canary' || client.override === 'extracted') && d.stale(context.name),
      override: client.override,
      provided: client.provided,
      maxStage: place.maxStage ?? undefined,
    });
    trip.note = { ...trip.note, decisionKind: decision.kind, stage: flag.stage };
    trip.reason = decision.reason;
    switch (decision.kind) {
      case 'extracted-with-fallback':
        return divert(trip, live, context, true);
      case 'extracted-only':
        return divert(trip, live, context, false);
      default:
        return carry(trip, live.legacy, 'legacy');
    }
  };

  const outcomeOf = (error: AppError): UpgradeOutcome => {
    if (error.code === 'client-left') return 'left';
    return error.code.startsWith('upstream-') || error.code === 'context-unavailable' ? 'failed' : 'rejected';
  };

  const run = async (req: IncomingMessage, socket: Socket, head: Buffer): Promise<void> => {
    const startedAt = d.now();
    const live = d.live();
    let trip: Trip | null = null;
    try {
      const call = prepare(req, null, live);
      const note = {
        requestId: call.requestId,
        context: null,
        route: null,
        method: call.method,
        operation: null,
        decisionKind: null,
        stage: null,
      };
      trip = { req, socket, head, call, upstream: null, note, reason: null };
      const carried = await send(trip, live);
      if ('tunnel' in carried) {
        d.count('open');
        keep(trip, carried.tunnel, startedAt);
        return;
      }
      d.count('refused');
      const { clientLeft, truncated } = await carried.delivered;
      d.journal.note({
        ...trip.note,
        upstream: trip.upstream,
        reason: trip.reason,
        status: clientLeft ? 499 : carried.status,
        durationMs: d.now() - startedAt,
        ...(truncated ? { error: new AppError('upstream-reset', 'the upstream broke off in the middle of its answer') } : {}),
      });
    } catch (error) {
      const known =
        error instanceof AppError ? error : new AppError('internal', 'Something went wrong inside the gateway', { cause: error });
      d.count(outcomeOf(known));
      if (!socket.destroyed && !socket.writableEnded) refuseRaw(socket, known);
      if (trip)
        d.journal.note({
          ...trip.note,
          upstream: trip.upstream,
          reason: trip.reason,
          status: STATUS_OF[known.code],
          durationMs: d.now() - startedAt,
          error: known,
        });
    }
  };

  const unlisten = d.flags.onChange((flag) => {
    if (!isTakenBack(flag)) return;
    for (const tunnel of diverted.get(flag.name) ?? []) tunnel.close('moved', HANDSHAKE_MS, HANDSHAKE_MS);
  });

  return {
    takes(req) {
      try {
        const live = d.live();
        return placeOf(live, prepare(req, null, live))?.operation !== 'command';
      } catch {
        return true; // refused by name when it is tried
      }
    },
    upgrade(req, socket, head) {
      socket.on('error', () => {});
      if (draining) {
        d.count('rejected');
        refuseRaw(socket, new AppError('draining', 'The gateway is shutting down', { retryable: true }));
      } else void run(req, socket, head);
    },
    tunnels: () => sides,
    drain(limitMs) {
      draining = true;
      return upgrader.drain(Math.min(HANDSHAKE_MS, limitMs), limitMs);
    },
    stop() {
      unlisten();
      upgrader.stop();
    },
  };
};
