import type { RampAction, RampView } from '@banyan/contracts/admin-api.ts';
import { AppError } from '@banyan/contracts/errors.ts';
import type { RampState } from '@banyan/contracts/vocabulary.ts';
import type { Knex } from 'knex';
import { actionsIn, rampMove } from '../core/ramp/states.ts';
import { marksFrom, readNow } from './gather.ts';
import { type RampDeps, type RampFlag, type RampSettings, type Unit, unitOf } from './ports.ts';
import {
  auditRamp,
  beginRamp,
  clockOf,
  loadRamps,
  lockRamp,
  type RampPatch,
  type RampRow,
  type RampSummary,
  saveRamp,
} from './ramp-store.ts';

export type RampRequest = { readonly action: RampAction; readonly reason: string; readonly actor: string };

export type RampActions = {
  /** @throws AppError `not-found`, `illegal-move`, `conflict`, `not-configured` */
  act(context: string, request: RampRequest): Promise<void>;
  /** The ramps of these contexts; a context that never had one is left out. */
  views(contexts: readonly string[]): Promise<ReadonlyMap<string, RampView>>;
};

type ActionDeps = Pick<RampDeps, 'db' | 'settings' | 'flags' | 'parity'> & {
  /** Takes contexts from legacy to shadow in a person's name. @throws AppError as moves by people do */
  readonly toShadow: (context: string, request: { readonly reason: string; readonly actor: string }) => Promise<unknown>;
};

/** Without tokens everybody is this one: nobody can be told from somebody else. */
const ANONYMOUS = 'local';

const percentOf = (bp: number): number => bp / 100;

const viewOf = (row: RampSummary, settings: RampSettings | undefined): RampView => {
  const steps = settings?.steps ?? [];
  return {
    state: row.state,
    step: steps.filter((step) => step <= row.shareBp).length,
    steps: steps.map(percentOf),
    share: percentOf(row.shareBp),
    since: row.since.toISOString(),
    evidenceSince: row.evidenceSince.toISOString(),
    nextAt: row.nextAt?.toISOString() ?? null,
    outcome: row.outcome,
    reasons: row.reasons.map(({ text }) => text),
    approvals: { needed: settings?.approvals ?? 0, given: row.approvals.map(({ actor, at }) => ({ actor, at })) },
    paused: row.paused && { by: row.paused.by, at: row.paused.at, reason: row.paused.reason },
    startedBy: row.startedBy,
    startedAt: row.startedAt.toISOString(),
    contexts: [...row.contexts],
    serviceVersions: row.serviceVersions,
    updatedAt: row.updatedAt.toISOString(),
  };
};

/** What people do with a ramp. Each is one transaction with its audit row; any gateway takes it, whoever leads. */
export const createRampActions = (deps: ActionDeps): RampActions => {
  const unitAt = (context: string): { unit: Unit; flags: RampFlag[] } => {
    const flag = deps.flags.current(context);
    if (!flag) throw new AppError('not-found', `no context is called ${JSON.stringify(context.slice(0, 100))}`);
    const unit = unitOf(flag, deps.flags.all());
    return { unit, flags: unit.contexts.map((name) => deps.flags.current(name)!) };
  };

  const refuse = (unit: Unit, state: RampState, action: RampAction): never => {
    const legal = actionsIn(state);
    throw new AppError(
      'illegal-move',
      `the ramp of ${unit.contexts.join(', ')} is ${state}: ${action} is refused; possible: ${legal.join(', ')}`,
      {
        details: { state, legal },
      },
    );
  };

  const audit = (trx: Knex, unit: Unit, request: RampRequest, word: string, before: RampRow | undefined, after: object): Promise<void> =>
    auditRamp(trx, unit.contexts, {
      actor: request.actor,
      action: `ramp-${word}`,
      before: before ? { state: before.state, percent: percentOf(before.shareBp) } : null,
      after,
      reason: request.reason,
    });

  const versionsOf = (flags: readonly RampFlag[]): Record<string, number> =>
    Object.fromEntries(flags.map(({ name, version }) => [name, version]));

  /** Evidence counts from now on: of what came before, nobody knows under which conditions. */
  const begin = async (
    flags: readonly RampFlag[],
  ): Promise<Pick<Required<RampPatch>, 'evidenceSince' | 'looks' | 'marks' | 'approvals'>> => {
    const now = await clockOf(deps.db);
    for (const { name } of flags) await deps.parity.reset(name, now);
    return { evidenceSince: now, looks: 0, approvals: [], marks: marksFrom(await readNow(deps, flags), now, {}) };
  };

  const start = async (context: string, request: RampRequest): Promise<void> => {
    const { unit, flags: found } = unitAt(context);
    const [first] = found;
    const alone = unit.contexts.filter((name) => !deps.settings(name));
    if (alone.length > 0) throw new AppError('conflict', `${alone.join(', ')} has no extracted service that traffic could go to`);
    const provided = unit.contexts.filter((name) => deps.settings(name)?.provided);
    if (provided.length > 0)
      throw new AppError(
        'conflict',
        `an OpenFeature provider decides about ${provided.join(', ')}: there is no share that a ramp could raise`,
      );
    const killed = found.filter((flag) => flag.killed);
    if (killed.length > 0) throw new AppError('conflict', `${killed.map(({ name }) => name).join(', ')} is killed; revive it first`);
    if (first!.stage === 'cutover' || first!.stage === 'retired')
      throw new AppError('illegal-move', `${unit.contexts.join(', ')} is at ${first!.stage}: there is nothing left to ramp`);
    const [before] = await loadRamps(deps.db, unit.contexts);
    if (before && rampMove(before.state, 'start') === undefined) refuse(unit, before.state, 'start');
    if (first!.stage === 'legacy') await deps.toShadow(context, { reason: request.reason, actor: request.actor });
    const { flags } = unitAt(context);
    const shareBp = flags[0]!.stage === 'canary' ? flags[0]!.canaryShareBp : 0;
    const evidence = await begin(flags);
    await deps.db.transaction(async (trx) => {
      const row = await lockRamp(trx, unit.id);
      const state = rampMove(row?.state ?? 'idle', 'start');
      if (state === undefined) return refuse(unit, row!.state, 'start');
      await beginRamp(trx, unit.id, {
        contexts: unit.contexts,
        state,
        shareBp,
        flagVersions: versionsOf(flags),
        since: evidence.evidenceSince,
        serviceVersions: {},
        outcome: 'hold',
        reasons: [],
        paused: null,
        nextAt: null,
        startedBy: request.actor,
        startedAt: evidence.evidenceSince,
        ...evidence,
      });
      await audit(trx, unit, request, 'started', row, { state, percent: percentOf(shareBp) });
    });
  };

  /** A change of a ramp that there is. @param patch what changes besides the state */
  const change = async (
    context: string,
    request: RampRequest,
    event: 'pause' | 'resume' | 'abort',
    word: string,
    patch: (row: RampRow, flags: readonly RampFlag[]) => Promise<RampPatch> | RampPatch,
  ): Promise<void> => {
    const { unit, flags } = unitAt(context);
    await deps.db.transaction(async (trx) => {
      const row = await lockRamp(trx, unit.id);
      const state = rampMove(row?.state ?? 'idle', event);
      if (!row || state === undefined) return refuse(unit, row?.state ?? 'idle', request.action);
      await saveRamp(trx, row, { state, approvals: [], nextAt: null, ...(await patch(row, flags)) });
      await audit(trx, unit, request, word, row, { state, percent: percentOf(row.shareBp) });
    });
  };

  const resumed = async (row: RampRow, flags: readonly RampFlag[]): Promise<RampPatch> => {
    const killed = flags.filter((flag) => flag.killed);
    if (killed.length > 0) throw new AppError('conflict', `${killed.map(({ name }) => name).join(', ')} is killed; revive it first`);
    const [first] = flags;
    const share = first?.stage === 'canary' ? first.canaryShareBp : 0;
    if (share !== row.shareBp || (first?.stage !== 'canary' && first?.stage !== 'shadow'))
      throw new AppError('conflict', `${row.contexts.join(', ')} is not where the ramp left it: abort it and start anew`);
    const { marks, ...evidence } = await begin(flags);
    return { ...evidence, marks: { ...marks, reference: row.marks.reference }, paused: null, flagVersions: versionsOf(flags), reasons: [] };
  };

  const approve = async (context: string, request: RampRequest): Promise<void> => {
    const { unit } = unitAt(context);
    if (request.actor === ANONYMOUS)
      throw new AppError('conflict', 'an approval needs a name: give people tokens of their own (admin.tokens)');
    await deps.db.transaction(async (trx) => {
      const row = await lockRamp(trx, unit.id);
      if (row?.state !== 'waiting-approval')
        throw new AppError(
          'illegal-move',
          `nothing of ${unit.contexts.join(', ')} waits for approval: its ramp is ${row?.state ?? 'idle'}`,
        );
      if (row.startedBy === request.actor)
        throw new AppError('conflict', `${request.actor} started this ramp: somebody else must approve it`);
      if (row.approvals.some(({ actor }) => actor === request.actor))
        throw new AppError('conflict', `${request.actor} has approved this step already`);
      const at = (await clockOf(trx)).toISOString();
      const approvals = [...row.approvals, { actor: request.actor, at, reason: request.reason }];
      await saveRamp(trx, row, { approvals });
      await audit(trx, unit, request, 'approved', row, { state: row.state, percent: percentOf(row.shareBp), approvals: approvals.length });
    });
  };

  return {
    async act(context, request) {
      // what another gateway has just moved must not look like a move after this
      await deps.flags.refresh();
      switch (request.action) {
        case 'start':
          return start(context, request);
        case 'pause':
          return change(context, request, 'pause', 'paused', () => ({
            paused: { by: request.actor, at: new Date().toISOString(), reason: request.reason },
          }));
        case 'resume':
          return change(context, request, 'resume', 'resumed', resumed);
        case 'abort':
          return change(context, request, 'abort', 'aborted', () => ({ paused: null }));
        case 'approve':
          return approve(context, request);
      }
    },
    async views(contexts) {
      const rows = await loadRamps(deps.db, contexts);
      return new Map(rows.flatMap((row) => row.contexts.map((name) => [name, viewOf(row, deps.settings(row.contexts[0] ?? ''))] as const)));
    },
  };
};
