import { randomUUID } from 'node:crypto';
import { setTimeout as sleep } from 'node:timers/promises';
import { AppError } from '@banyan/contracts/errors.ts';
import type { Stage, Upstream } from '@banyan/contracts/vocabulary.ts';
import type { Knex } from 'knex';
import type { Logger } from 'pino';
import { activeFlip, appendAudit, lockAppends, lockFlags, patchFlag, type StoredFlag } from './flag-store.ts';
import type { Flags } from './flags.ts';

/** How far a flip got. `undone` = everything is as before, `detail` says why. */
export type FlipState = 'pending' | 'freezing' | 'draining' | 'watermark' | 'switching' | 'done' | 'undone';
export type Flip = {
  readonly id: string;
  readonly contexts: string[];
  readonly from: Stage;
  readonly to: Stage;
  readonly state: FlipState;
  readonly detail: string | null;
  readonly actor: string;
  readonly reason: string;
  readonly createdAt: Date;
  readonly updatedAt: Date;
};

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
  readonly log: Logger;
  readonly now: () => number;
  /** From freeze to resume; past it the flip is undone. Default 5 s on top of `maxStaleMs`. */
  readonly freezeLimitMs?: number;
  /** How long the two sides may take to come level before the freeze. Default 60 s. */
  readonly approachMs?: number;
};

export type FlipRequest = {
  readonly names: readonly string[];
  /** Where `context` stood when the move was judged; absent = anywhere. */
  readonly from?: Stage | undefined;
  readonly to: Stage;
  readonly canaryShareBp: number;
  /** The context whose version is checked. */
  readonly context: string;
  readonly ifVersion?: number | undefined;
  readonly actor: string;
  readonly reason: string;
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

type Row = {
  id: string;
  contexts: string[];
  from_stage: Stage;
  to_stage: Stage;
  state: FlipState;
  detail: string | null;
  actor: string;
  reason: string;
  created_at: Date;
  updated_at: Date;
};

const flipOf = (row: Row): Flip => ({
  id: row.id,
  contexts: row.contexts,
  from: row.from_stage,
  to: row.to_stage,
  state: row.state,
  detail: row.detail,
  actor: row.actor,
  reason: row.reason,
  createdAt: row.created_at,
  updatedAt: row.updated_at,
});

const FINAL_STATES = ['done', 'undone'];

/** Names what stands in the way: the first five in words, for whoever reads one line, the first hundred in `details.unresolved`. */
const unresolvedError = (contexts: readonly string[], open: readonly { id: string; state: string }[]): AppError => {
  const named = open.slice(0, 5).map((row) => `${row.id} ${row.state}`);
  if (open.length > named.length) named.push('…');
  const writes = open.length === 1 ? '1 write' : `${open.length} writes`;
  return new AppError('conflict', `${writes} of ${contexts.join(', ')} must be settled first: ${named.join(', ')}`, {
    details: { unresolved: open.slice(0, 100) },
  });
};

/** The hand-over of write ownership (DESIGN.md section 7): freeze, drain, watermark, epoch + 1, resume; on any trouble unfreeze unchanged. */
export const createFlips = (deps: FlipsDeps): Flips => {
  const { db, flags, log } = deps;
  const freezeLimitMs = deps.freezeLimitMs ?? deps.maxStaleMs + 5000;
  const running = new Set<Promise<unknown>>();
  const stopping = new AbortController();
  const { signal } = stopping;

  const pause = (ms: number): Promise<void> => sleep(ms, undefined, { signal }).catch(() => undefined);
  /** A part that takes its time must not hold up the end of the process; the flip is then undone. */
  const orStopped = <T>(work: Promise<T>): Promise<T> =>
    new Promise((resolve, reject) => {
      const leave = (): void => reject(new AppError('draining', 'the gateway that drove the flip is stopping'));
      if (signal.aborted) leave();
      signal.addEventListener('abort', leave, { once: true });
      work.then(resolve, reject).finally(() => signal.removeEventListener('abort', leave));
    });

  const track = <T>(work: Promise<T>): Promise<T> => {
    running.add(work);
    void work.catch(() => undefined).finally(() => running.delete(work));
    return work;
  };

  const note = async (id: string, state: FlipState, detail: string | null): Promise<void> => {
    await db('banyan.flip').where({ id }).whereNotIn('state', FINAL_STATES).update({ state, detail, updated_at: db.fn.now() });
  };

  const freeze = (id: string, request: FlipRequest): Promise<StoredFlag[]> =>
    db.transaction(async (trx) => {
      for (const name of request.names) await lockAppends(trx, name);
      const rows = await lockFlags(trx, request.names);
      const held = rows.find((row) => row.frozenBy && row.frozenBy !== id);
      if (held) throw new AppError('conflict', `${held.name} is frozen by flip ${held.frozenBy}`);
      const frozen: StoredFlag[] = [];
      for (const row of rows) frozen.push(await patchFlag(trx, row.name, { frozen_by: id }, row.updatedBy));
      return frozen;
    });

  const unfreeze = (id: string, why: string): Promise<void> =>
    db.transaction(async (trx) => {
      const known = await trx<Row>('banyan.flip').where({ id }).first();
      if (!known) return;
      // flags before flips, as everywhere: two orders would deadlock
      const held = await lockFlags(trx, known.contexts);
      const row = await trx<Row>('banyan.flip').where({ id }).forUpdate().first();
      if (!row || FINAL_STATES.includes(row.state)) return;
      for (const flag of held) {
        if (flag.frozenBy === id) await patchFlag(trx, flag.name, { frozen_by: null }, flag.updatedBy);
        await appendAudit(trx, {
          actor: row.actor,
          action: 'flip-undone',
          context: flag.name,
          before: null,
          after: { stage: flag.stage, epoch: flag.epoch },
          reason: row.reason,
          evidence: { flip: id, why },
        });
      }
      await trx('banyan.flip').where({ id }).update({ state: 'undone', detail: why, updated_at: trx.fn.now() });
    });

  /** Every replica serves the frozen flag, or has expired. */
  const acknowledged = async (frozen: readonly StoredFlag[]): Promise<boolean> => {
    const { rows } = await db.raw<{ rows: { behind: string }[] }>(
      `select count(*) as behind from banyan.member m
       where m.heartbeat_at > now() - ? * interval '1 millisecond'
         and exists (select 1 from jsonb_each_text(?::jsonb) w where coalesce((m.seen ->> w.key)::bigint, -1) < w.value::bigint)`,
      [deps.maxStaleMs, JSON.stringify(Object.fromEntries(frozen.map((flag) => [flag.name, flag.version])))],
    );
    return Number(rows[0]!.behind) === 0;
  };

  const wait = async (deadline: number, what: string, condition: () => Promise<boolean>): Promise<void> => {
    while (!(await condition())) {
      if (signal.aborted) throw new AppError('draining', 'the gateway that drove the flip is stopping');
      if (deps.now() > deadline) throw new AppError('conflict', `timed out: ${what}`);
      await pause(20);
    }
  };

  const switchOver = async (trx: Knex, id: string, request: FlipRequest, owner: Upstream): Promise<void> => {
    for (const name of request.names) await lockAppends(trx, name);
    for (const row of await lockFlags(trx, request.names)) {
      if (row.frozenBy !== id) throw new AppError('conflict', `the freeze of ${row.name} was lost`);
      if (row.killed && owner === 'extracted') throw new AppError('conflict', `${row.name} was killed meanwhile`);
      const next = await patchFlag(
        trx,
        row.name,
        { stage: request.to, canary_share_bp: request.canaryShareBp, owner, epoch: row.epoch + 1, frozen_by: null },
        request.actor,
      );
      const brief = (flag: StoredFlag) => ({ stage: flag.stage, owner: flag.owner, epoch: flag.epoch });
      await appendAudit(trx, {
        actor: request.actor,
        action: 'flip',
        context: row.name,
        before: brief(row),
        after: brief(next),
        reason: request.reason,
        evidence: { flip: id },
      });
    }
    const done = await trx('banyan.flip')
      .where({ id })
      .whereNotIn('state', FINAL_STATES)
      .update({ state: 'done', detail: null, updated_at: trx.fn.now() });
    if (done !== 1) throw new AppError('conflict', 'the flip was undone meanwhile');
  };

  const drive = async (id: string, request: FlipRequest): Promise<void> => {
    const owner: Upstream = request.to === 'cutover' ? 'extracted' : 'legacy';
    try {
      await note(id, 'pending', 'waiting for both sides to come level before the freeze');
      for (const name of request.names) await orStopped(deps.watermark(name, owner, deps.approachMs ?? 60_000));
      await note(id, 'freezing', null);
      const deadline = deps.now() + freezeLimitMs;
      const frozen = await freeze(id, request);
      await flags.refresh();
      await wait(deadline, 'not every replica acknowledged the freeze', () => acknowledged(frozen));
      await note(id, 'draining', null);
      await wait(deadline, 'commands in flight did not end', async () => (await deps.inFlight(request.names)) === 0);
      const open = await deps.unresolved(request.names);
      if (open.length > 0) throw unresolvedError(request.names, open);
      await note(id, 'watermark', null);
      for (const name of request.names) await orStopped(deps.watermark(name, owner, Math.max(100, deadline - deps.now())));
      await note(id, 'switching', null);
      await db.transaction((trx) => switchOver(trx, id, request, owner));
      await flags.refresh();
      log.info({ flip: id, contexts: request.names, to: request.to }, 'flip done');
    } catch (error) {
      const why = error instanceof AppError ? error.message : 'the store or a part of the system failed';
      log.warn({ err: error, flip: id, contexts: request.names }, 'flip undone');
      await unfreeze(id, why).catch((later) => log.error({ err: later, flip: id }, 'the freeze could not be lifted; another replica will'));
      await flags.refresh().catch(() => undefined);
      throw error;
    }
  };

  const prepare = async (request: FlipRequest): Promise<string> => {
    const open = await deps.unresolved(request.names);
    if (open.length > 0) throw unresolvedError(request.names, open);
    const id = randomUUID();
    await db.transaction(async (trx) => {
      const rows = await lockFlags(trx, request.names);
      const target = rows.find((row) => row.name === request.context);
      if (!target) throw new AppError('not-found', `the store knows no context called ${request.context}`);
      if (request.ifVersion !== undefined && target.version !== request.ifVersion)
        throw new AppError(
          'stale-version',
          `${request.context} is at version ${target.version}, not ${request.ifVersion}: somebody changed it`,
          { details: { version: target.version } },
        );
      if (request.from !== undefined && target.stage !== request.from)
        throw new AppError('conflict', `${request.context} has just moved to ${target.stage}`);
      const busy = await activeFlip(trx, request.names);
      if (busy) throw new AppError('conflict', `flip ${busy} of ${request.names.join(', ')} is under way`, { details: { flip: busy } });
      await trx('banyan.flip').insert({
        id,
        contexts: [...request.names],
        from_stage: target.stage,
        to_stage: request.to,
        state: 'pending',
        actor: request.actor,
        reason: request.reason,
        driver: deps.memberId,
      });
    });
    return id;
  };

  /** Kill with `--now`: takes the context out of any hand-over under way and gives the writes to legacy in one transaction. */
  const seize = (request: FlipRequest): Promise<void> =>
    db.transaction(async (trx) => {
      const id = randomUUID();
      for (const name of request.names) await lockAppends(trx, name);
      await lockFlags(trx, request.names);
      await trx('banyan.flip')
        .whereNotIn('state', FINAL_STATES)
        .whereRaw('contexts && ?::text[]', [[...request.names]])
        .update({ state: 'undone', detail: 'overtaken by a kill that does not wait', updated_at: trx.fn.now() });
      await trx('banyan.flip').insert({
        id,
        contexts: [...request.names],
        from_stage: 'cutover',
        to_stage: request.to,
        state: 'switching',
        actor: request.actor,
        reason: `${request.reason} (now)`,
        driver: deps.memberId,
      });
      await trx('banyan.context')
        .whereIn('name', [...request.names])
        .update({ frozen_by: id });
      await switchOver(trx, id, request, 'legacy');
    });

  const evacuateOnce = async (names: readonly string[], request: { actor: string; reason: string; now: boolean }): Promise<boolean> => {
    const left = flags
      .all()
      .filter((flag) => names.includes(flag.name) && flag.killed && flag.stage === 'cutover')
      .map((flag) => flag.name);
    if (left.length === 0) return true;
    const flip: FlipRequest = {
      names: left,
      to: 'legacy',
      canaryShareBp: 0,
      context: left[0]!,
      actor: request.actor,
      reason: request.reason,
    };
    if (request.now) {
      await seize(flip);
      await flags.refresh();
      return true;
    }
    await drive(await prepare(flip), flip);
    return true;
  };

  return {
    async begin(request) {
      const id = await prepare(request);
      track(drive(id, request));
      return { kind: 'flip', id, state: 'pending' };
    },
    async get(id) {
      const row = await db<Row>('banyan.flip').where({ id }).first();
      return row && flipOf(row);
    },
    async latest(context) {
      const row = await db<Row>('banyan.flip').whereRaw('? = any(contexts)', [context]).orderBy('created_at', 'desc').first();
      return row && flipOf(row);
    },
    async active() {
      return (await db<Row>('banyan.flip').whereNotIn('state', FINAL_STATES).orderBy('created_at')).map(flipOf);
    },
    evacuate(names, request) {
      track(
        (async () => {
          while (!signal.aborted) {
            try {
              if (await evacuateOnce(names, request)) return;
            } catch (error) {
              log.warn({ err: error, contexts: names }, 'legacy cannot take the writes back yet; commands stay refused');
            }
            await pause(1000);
          }
        })(),
      );
    },
    async recover() {
      const { rows } = await db.raw<{ rows: { id: string }[] }>(
        `select f.id from banyan.flip f left join banyan.member m on m.id = f.driver
         where f.state not in ('done', 'undone') and f.updated_at < now() - ? * interval '1 millisecond'
           and (m.id is null or m.heartbeat_at < now() - ? * interval '1 millisecond')`,
        [deps.maxStaleMs, deps.maxStaleMs],
      );
      for (const { id } of rows) {
        log.warn({ flip: id }, 'the driver of this flip died: undoing it');
        await unfreeze(id, 'the gateway that drove it died');
      }
      // kills at cutover whose driver died before the writes were handed back
      const orphans = flags.all().filter((flag) => flag.killed && flag.stage === 'cutover' && !flag.frozen);
      if (orphans.length > 0 && running.size === 0)
        this.evacuate(
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
