import { randomUUID } from 'node:crypto';
import { setTimeout as sleep } from 'node:timers/promises';
import { AppError } from '@banyan/contracts/errors.ts';
import type { Upstream } from '@banyan/contracts/vocabulary.ts';
import type { Knex } from 'knex';
import type { Logger } from 'pino';
import type { Flags } from './flags.ts';
import {
  abandonedFlips,
  activeFlips,
  behindOn,
  FINAL_STATES,
  type Flip,
  type FlipRequest,
  type FlipState,
  findFlip,
  freezeContexts,
  insertFlip,
  latestFlip,
  noteFlip,
  seizeWrites,
  switchOver,
  undoFlip,
} from './flip-store.ts';
import type { Baseline, Levels } from './levels.ts';

export type FlipsDeps = {
  readonly db: Knex;
  readonly flags: Flags;
  readonly memberId: string;
  /** A member that has not beaten for so long has expired: it sends no command any more (DESIGN.md section 5). */
  readonly maxStaleMs: number;
  /** Ledger rows of these contexts that somebody must settle first. */
  readonly unresolved: (contexts: readonly string[]) => Promise<{ id: string; state: string }[]>;
  /** Ledger rows of these contexts on their way now. */
  readonly inFlight: (contexts: readonly string[]) => Promise<number>;
  /** Resolves when everything committed on the side that gives the writes away has reached the other; throws on time-out. */
  readonly watermark: (context: string, into: Upstream, timeoutMs: number) => Promise<void>;
  /** Absent = what the sides hold is not compared. */
  readonly levels?: Levels | undefined;
  readonly log: Logger;
  readonly now: () => number;
  /** From freeze to resume; past it the flip is undone. Default 5 s on top of `maxStaleMs`. */
  readonly freezeLimitMs?: number;
  /** How long the two sides may take to come level before the freeze. Default 60 s. */
  readonly approachMs?: number;
  /** How long comparing them may take, also before the freeze. Default 5 min. */
  readonly compareMs?: number;
};

export type Flips = {
  begin(request: FlipRequest): Promise<{ kind: 'flip'; id: string; state: FlipState }>;
  get(id: string): Promise<Flip | undefined>;
  latest(context: string): Promise<Flip | undefined>;
  /** Those that are neither done nor undone. */
  active(): Promise<Flip[]>;
  /** After a kill at cutover: hands the writes back to legacy as soon as that is safe; repeats until done, revived or stopped. */
  evacuate(names: readonly string[], request: { actor: string; reason: string; now: boolean }): void;
  /** Undoes flips whose driver died; called regularly. */
  recover(): Promise<void>;
  stop(): Promise<void>;
};

const plural = (n: number, word: string): string => `${n} ${word}${n === 1 ? '' : word.endsWith('s') ? 'es' : 's'}`;

/** Names what stands in the way: the first five in words, for whoever reads one line, the first hundred in `details.unresolved`. */
const unresolvedError = (contexts: readonly string[], open: readonly { id: string; state: string }[]): AppError => {
  const named = open.slice(0, 5).map((row) => `${row.id} ${row.state}`);
  if (open.length > named.length) named.push('…');
  return new AppError('conflict', `${plural(open.length, 'write')} of ${contexts.join(', ')} must be settled first: ${named.join(', ')}`, {
    details: { unresolved: open.slice(0, 100) },
  });
};

const STOPPING = 'the gateway that drove the flip is stopping';
const LOOK_MS = 20;
/** Between two attempts to give the writes back to legacy, or to lift a freeze. */
const AGAIN_MS = 1_000;
/** What a kill leaves for the way of the last facts when commands in flight have used up the freeze. */
const KILL_WATERMARK_MS = 5_000;

/** The hand-over of write ownership (DESIGN.md section 7): freeze, drain, watermark, epoch + 1, resume; on any trouble unfreeze unchanged. */
export const createFlips = (deps: FlipsDeps): Flips => {
  const { db, flags, log } = deps;
  const freezeLimitMs = deps.freezeLimitMs ?? deps.maxStaleMs + 5000;
  const running = new Set<Promise<unknown>>();
  /** Flips that this process drives. */
  const driven = new Set<string>();
  const evacuating = new Set<string>();
  const stopping = new AbortController();
  const { signal } = stopping;

  const pause = (ms: number): Promise<void> => sleep(ms, undefined, { signal }).catch(() => undefined);
  /** A part that takes its time must not hold up the end of the process; the flip is then undone. */
  const orStopped = <T>(work: Promise<T>): Promise<T> =>
    new Promise((resolve, reject) => {
      const leave = (): void => reject(new AppError('draining', STOPPING));
      if (signal.aborted) leave();
      signal.addEventListener('abort', leave, { once: true });
      work.then(resolve, reject).finally(() => signal.removeEventListener('abort', leave));
    });

  const track = <T>(work: Promise<T>): Promise<T> => {
    running.add(work);
    void work.catch(() => undefined).finally(() => running.delete(work));
    return work;
  };

  /** Looks until there is nothing left to wait for; false when that takes too long. */
  const wait = async (deadline: number, look: () => Promise<boolean>): Promise<boolean> => {
    while (!(await look())) {
      if (signal.aborted) throw new AppError('draining', STOPPING);
      if (deps.now() > deadline) return false;
      await pause(LOOK_MS);
    }
    return true;
  };

  const progressOf = (id: string): ((state: FlipState, detail: string | null) => Promise<void>) => {
    let last = '';
    return async (state, detail) => {
      const now = `${state} ${detail}`;
      if (now !== last) await noteFlip(db, id, state, detail);
      last = now;
    };
  };

  /**
   * From the freeze to the hand-over. A kill does not insist on what a person's move insists on: once a context is frozen, what its extracted
   * service has committed stands among the facts that back-sync carries over, and what it has not is refused there under the next epoch.
   */
  const handOver = async (id: string, request: FlipRequest, baselines: readonly Baseline[]): Promise<void> => {
    const { names, kill } = request;
    const owner: Upstream = request.to === 'cutover' ? 'extracted' : 'legacy';
    const say = progressOf(id);
    await say('freezing', null);
    const began = deps.now();
    const deadline = began + freezeLimitMs;
    const frozen = await freezeContexts(db, id, request, owner);
    await flags.refresh();
    let behind: readonly string[] = [];
    const acknowledged = await wait(deadline, async () => {
      behind = await behindOn(db, frozen, deps.maxStaleMs);
      if (behind.length > 0)
        await say('freezing', `${plural(behind.length, 'process')} of the gateways to acknowledge: ${behind.slice(0, 5).join(', ')}`);
      return behind.length === 0;
    });
    if (!acknowledged)
      throw new AppError('conflict', `timed out: not every replica acknowledged the freeze: ${behind.slice(0, 5).join(', ')}`);
    let inFlight = 0;
    const drained = await wait(deadline, async () => {
      inFlight = await deps.inFlight(names);
      await say('draining', inFlight === 0 ? null : `${plural(inFlight, 'command')} in flight`);
      return inFlight === 0;
    });
    if (!drained && !kill) throw new AppError('conflict', `timed out: ${plural(inFlight, 'command')} in flight did not end`);
    const open = kill ? [] : await deps.unresolved(names);
    if (open.length > 0) throw unresolvedError(names, open);
    const least = kill ? KILL_WATERMARK_MS : 100;
    for (const name of names) {
      await say('watermark', `waiting for ${owner} to have every write of ${name}`);
      await orStopped(deps.watermark(name, owner, Math.max(least, deadline - deps.now())));
    }
    let rechecked = 0;
    for (const baseline of baselines) {
      await say('watermark', `comparing what changed in ${baseline.context} meanwhile`);
      rechecked += (await orStopped(deps.levels!.recheck(baseline, Math.max(100, deadline - deps.now())))) ?? 0;
    }
    await say('switching', null);
    const heldMs = Math.round(deps.now() - began);
    const compared = baselines.every(({ aggregates }) => aggregates !== null) && baselines.length > 0;
    const aggregates = baselines.reduce((sum, one) => sum + (one.aggregates ?? 0), 0);
    const found = compared
      ? `; ${plural(aggregates, 'aggregate')} were equal on both sides, ${rechecked} of them compared again under the freeze`
      : '; nothing was compared';
    await db.transaction((trx) =>
      switchOver(trx, id, request, owner, {
        detail: `commands were held for ${heldMs} ms${found}`,
        evidence: { heldMs, compared: compared ? aggregates : null, rechecked: compared ? rechecked : null },
      }),
    );
  };

  /** A freeze that stayed would stop all commands: tried on until the store takes it. */
  const undo = async (id: string, why: string): Promise<void> => {
    for (;;) {
      try {
        return await undoFlip(db, id, why);
      } catch (error) {
        log.error({ err: error, flip: id }, 'the freeze cannot be lifted yet');
        if (signal.aborted) return;
        await pause(AGAIN_MS);
      }
    }
  };

  const drive = async (id: string, request: FlipRequest): Promise<void> => {
    const owner: Upstream = request.to === 'cutover' ? 'extracted' : 'legacy';
    const say = progressOf(id);
    try {
      await say('pending', 'waiting for both sides to come level before the freeze');
      for (const name of request.names) await orStopped(deps.watermark(name, owner, deps.approachMs ?? 60_000));
      const baselines: Baseline[] = [];
      if (deps.levels && !request.kill)
        for (const name of request.names) {
          await say('pending', `comparing what both sides of ${name} hold before the freeze`);
          baselines.push(await orStopped(deps.levels.compare(name, deps.compareMs ?? 300_000)));
        }
      await handOver(id, request, baselines);
      await flags.refresh();
      log.info({ flip: id, contexts: request.names, to: request.to }, 'flip done');
    } catch (error) {
      const why = error instanceof AppError ? error.message : 'the store or a part of the system failed';
      log.warn({ err: error, flip: id, contexts: request.names }, 'flip undone');
      await undo(id, why);
      await flags.refresh().catch(() => undefined);
      throw error;
    } finally {
      driven.delete(id);
    }
  };

  const prepare = async (request: FlipRequest): Promise<string> => {
    const open = request.kill ? [] : await deps.unresolved(request.names);
    if (open.length > 0) throw unresolvedError(request.names, open);
    const id = randomUUID();
    driven.add(id);
    try {
      await insertFlip(db, id, request, deps.memberId);
    } catch (error) {
      driven.delete(id);
      throw error;
    }
    return id;
  };

  const evacuateOnce = async (names: readonly string[], request: { actor: string; reason: string; now: boolean }): Promise<void> => {
    const left = flags
      .all()
      .filter((flag) => names.includes(flag.name) && flag.killed && flag.stage === 'cutover')
      .map((flag) => flag.name);
    if (left.length === 0) return;
    const { actor, reason } = request;
    const flip: FlipRequest = { names: left, to: 'legacy', canaryShareBp: 0, context: left[0]!, actor, reason, kill: true };
    if (request.now) {
      await seizeWrites(db, randomUUID(), flip, deps.memberId);
      await flags.refresh();
    } else await drive(await prepare(flip), flip);
  };

  const evacuate: Flips['evacuate'] = (names, request) => {
    const place = [...names].sort().join(' ');
    if (evacuating.has(place) && !request.now) return;
    evacuating.add(place);
    track(
      (async () => {
        while (!signal.aborted) {
          try {
            await evacuateOnce(names, request);
            break;
          } catch (error) {
            log.warn({ err: error, contexts: names }, 'legacy cannot take the writes back yet; commands stay refused');
          }
          await pause(AGAIN_MS);
        }
        evacuating.delete(place);
      })(),
    );
  };

  return {
    async begin(request) {
      const id = await prepare(request);
      track(drive(id, request));
      return { kind: 'flip', id, state: 'pending' };
    },
    async get(id) {
      const flip = await findFlip(db, id);
      // whoever hears that it is over must find here what it did
      const isBehind = (name: string): boolean => (flags.current(name)?.updatedAt.getTime() ?? 0) < flip!.updatedAt.getTime();
      if (flip !== undefined && FINAL_STATES.includes(flip.state) && flip.contexts.some(isBehind)) await flags.refresh();
      return flip;
    },
    latest: (context) => latestFlip(db, context),
    active: () => activeFlips(db),
    evacuate,
    async recover() {
      for (const id of await abandonedFlips(db, deps.memberId, [...driven], deps.maxStaleMs)) {
        log.warn({ flip: id }, 'the driver of this flip died: undoing it');
        await undoFlip(db, id, 'the gateway that drove it died');
      }
      // kills at cutover whose driver died before the writes were handed back, and those made while the store was away
      const orphans = flags.all().filter((flag) => flag.killed && flag.stage === 'cutover' && !flag.frozen);
      if (orphans.length > 0 && evacuating.size === 0)
        evacuate(
          orphans.map((flag) => flag.name),
          { actor: 'recovery', reason: 'killed at cutover', now: false },
        );
    },
    async stop() {
      stopping.abort();
      await Promise.allSettled([...running]);
    },
  };
};
