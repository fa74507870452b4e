import { AppError } from '@banyan/contracts/errors.ts';
import { type Judgement, judge, type RampReason } from '../core/ramp/judge.ts';
import { isOpen, nextOpen } from '../core/ramp/schedule.ts';
import { isWatched, rampMove } from '../core/ramp/states.ts';
import { evidenceForAudit, type Gathered, gather, marksFrom, readNow, referenceOf, turnMarks } from './gather.ts';
import { createLeader } from './leader.ts';
import { type RampDeps, type RampFlag, type RampMove, type RampSettings, unitOf } from './ports.ts';
import { auditRamp, clockOf, loadRamp, loadRamps, type RampPatch, type RampRow, type RampSummary, saveRamp } from './ramp-store.ts';
import { callHooks } from './webhooks.ts';

export type Runner = {
  start(): void;
  /** Lets another process lead; waits for a decision under way. */
  stop(): Promise<void>;
  leading(): boolean;
  /** Where ramps stood at the last look, for metrics. */
  states(): readonly { readonly context: string; readonly state: RampRow['state'] }[];
};

const ACTOR = 'ramp';
const LOOK_MS = 1_000;
/** Ramps that are looked at side by side. */
const MAX_IN_HAND = 16;
/** A hold whose reasons change to and fro is audited at most so often. */
const AUDIT_HOLD_MS = 30_000;

/** What a move may be answered with that passes by itself: somebody was faster, a flip is under way. */
const REFUSALS = new Set(['conflict', 'stale-version', 'illegal-move']);

const percentOf = (bp: number): number => bp / 100;
const stageOf = (bp: number) => ({ stage: bp === 0 ? 'shadow' : 'canary', percent: percentOf(bp) });
const words = (reasons: readonly RampReason[]): string => reasons.map(({ text }) => text).join('; ');
/** The audit's own limit. */
const short = (text: string): string => (text.length > 1_000 ? `${text.slice(0, 999)}…` : text);
const keyOf = (reasons: readonly RampReason[]): string => [...new Set(reasons.map(({ code }) => code))].sort().join(' ');

const same = (a: Readonly<Record<string, string>>, b: Readonly<Record<string, string>>): boolean =>
  Object.keys(a).length === Object.keys(b).length && Object.entries(a).every(([name, value]) => b[name] === value);

type Look = {
  readonly row: RampRow;
  readonly flags: readonly RampFlag[];
  readonly settings: RampSettings;
  readonly gathered: Gathered;
  readonly judgement: Judgement;
  /** The store's clock. */
  readonly now: Date;
};

/**
 * Looks at every ramp in turn, while this process leads, and moves what the evidence allows. Whatever it decides is written together with the move, under
 * the flag's version and the row's `rev` that it was decided on: a second leader, or a person who was faster, makes it nothing.
 */
export const createRunner = (deps: RampDeps): Runner => {
  const leader = createLeader(deps);
  const stopping = new AbortController();
  const lookedAt = new Map<string, number>();
  const inHand = new Map<string, Promise<void>>();
  const heldAt = new Map<string, { readonly key: string; readonly at: number }>();
  let known: readonly RampSummary[] = [];
  let timer: NodeJS.Timeout | null = null;
  let running: Promise<void> = Promise.resolve();

  const summary = (row: Pick<RampRow, 'state' | 'shareBp'>): object => ({ state: row.state, percent: percentOf(row.shareBp) });

  /** Writes a change of the ramp that moves no traffic, with its audit row. */
  const note = (row: RampRow, patch: RampPatch, action: string, reason: string, evidence?: unknown, actor = ACTOR): Promise<void> =>
    deps.db.transaction(async (trx) => {
      await saveRamp(trx, row, patch);
      const after = { state: patch.state ?? row.state, shareBp: patch.shareBp ?? row.shareBp };
      await auditRamp(trx, row.contexts, { actor, action, before: summary(row), after: summary(after), reason: short(reason), evidence });
    });

  /** Moves the traffic and the ramp in one transaction. @throws AppError as moves do */
  const walk = async (look: Look, shareBp: number, patch: RampPatch, reason: string, evidence: object): Promise<void> => {
    const { row, flags, now } = look;
    const [first] = flags;
    const move: RampMove = {
      ...(shareBp === 0 ? { stage: 'shadow' } : { stage: 'canary', canaryShareBp: shareBp }),
      reason: short(reason),
      actor: ACTOR,
      ifVersion: first!.version,
      approved: true,
      evidence,
      also: (trx, moved) =>
        saveRamp(trx, row, {
          shareBp,
          since: now,
          evidenceSince: now,
          looks: 0,
          approvals: [],
          nextAt: null,
          marks: marksFrom({}, now, referenceOf(row, look.gathered.evidence)),
          flagVersions: Object.fromEntries(moved.map((flag) => [flag.name, flag.version])),
          ...patch,
        }),
    };
    await deps.move(first!.name, move);
  };

  /** Did a person move what the ramp was about to move? Then the ramp is not theirs to correct. */
  const interfered = async (row: RampRow, flags: readonly RampFlag[]): Promise<boolean> => {
    const [first] = flags;
    const unit = first && unitOf(first, deps.flags.all());
    if (!first || flags.length !== row.contexts.length || unit?.contexts.join() !== row.contexts.join() || unit.id !== row.unit) {
      await note(row, { state: 'aborted', nextAt: null }, 'ramp-aborted', 'the contexts that move as one are others now');
      return true;
    }
    const changed = flags.filter((flag) => row.flagVersions[flag.name] !== flag.version);
    if (changed.length === 0) return false;
    const by = changed[0]!.updatedBy;
    const { stage, percent } = stageOf(row.shareBp);
    const moved = changed.some((flag) => flag.stage !== stage || (stage === 'canary' && percentOf(flag.canaryShareBp) !== percent));
    if (moved) {
      await note(
        row,
        { state: rampMove(row.state, 'moved')!, nextAt: null },
        'ramp-aborted',
        `${by} moved ${changed.map(({ name }) => name).join(', ')} by hand`,
        undefined,
        by,
      );
      return true;
    }
    const reason = changed.some(({ killed }) => killed) ? `killed by ${by}` : `changed by ${by}`;
    const versions = Object.fromEntries(flags.map((flag) => [flag.name, flag.version]));
    const paused = row.state === 'paused' ? row.paused : { by, at: new Date().toISOString(), reason };
    await note(
      row,
      { state: rampMove(row.state, 'killed')!, paused, flagVersions: versions, approvals: [], nextAt: null },
      'ramp-paused',
      reason,
      undefined,
      by,
    );
    return true;
  };

  /** Evidence of another version of the service is none of this one. null = a version cannot be told. */
  const versionsOf = async (flags: readonly RampFlag[]): Promise<Record<string, string> | null> => {
    try {
      const asked = flags.map(async ({ name }): Promise<[string, string][]> => {
        const path = deps.settings(name)?.version ?? null;
        return path === null ? [] : [[name, await deps.serviceVersion(name, path)]];
      });
      return Object.fromEntries((await Promise.all(asked)).flat());
    } catch (error) {
      deps.log.debug({ err: error }, 'the version of an extracted service cannot be told');
      return null;
    }
  };

  const restart = async (row: RampRow, flags: readonly RampFlag[], versions: Record<string, string>, now: Date): Promise<void> => {
    for (const { name } of flags) await deps.parity.reset(name, now);
    const told = Object.entries(versions)
      .map(([name, version]) => `${name} is at ${version} now`)
      .join(', ');
    await note(
      row,
      {
        serviceVersions: versions,
        evidenceSince: now,
        looks: 0,
        approvals: [],
        marks: marksFrom(await readNow(deps, flags), now, row.marks.reference),
        outcome: 'hold',
        reasons: [{ code: 'version', text: `${told}: evidence starts anew` }],
      },
      'ramp-restarted',
      `another version of the extracted service: ${told}`,
    );
  };

  const rollBack = async (look: Look): Promise<void> => {
    const { row, flags, judgement } = look;
    const { reasons } = judgement;
    const patch: RampPatch = { state: rampMove(row.state, 'roll-back')!, outcome: 'rollback', reasons, paused: null };
    const evidence = { outcome: 'rollback', ...(await evidenceForAudit(deps, look.gathered.evidence, flags)) };
    const reason = `rolled back from ${percentOf(row.shareBp)} % to shadow: ${words(reasons)}`;
    if (row.shareBp === 0) await note(row, patch, 'ramp-rolled-back', `not promoted from shadow: ${words(reasons)}`, evidence);
    else await walk(look, 0, patch, reason, evidence);
    for (const name of row.contexts) deps.onDecision(name, 'rollback');
    deps.log.warn({ contexts: row.contexts, reasons: reasons.map(({ text }) => text) }, 'the ramp rolled back');
    await callHooks(deps, look.settings.webhooks, messageOf(look, 'rollback', 0), stopping.signal);
  };

  const messageOf = ({ row, judgement }: Look, event: 'before' | 'after' | 'rollback', toBp: number) => ({
    event,
    id: `${row.unit} ${row.since.toISOString()} ${row.shareBp}-${toBp}`,
    contexts: row.contexts,
    from: stageOf(row.shareBp),
    to: stageOf(toBp),
    reasons: judgement.reasons.map(({ text }) => text),
  });

  const hold = async (look: Look, reasons: readonly RampReason[], more: RampPatch = {}): Promise<void> => {
    const { row, settings, gathered, now } = look;
    const patch: RampPatch = {
      outcome: 'hold',
      reasons,
      looks: row.looks + 1,
      marks: turnMarks(row.marks, gathered.readings, now, settings.interval),
      nextAt: nextAtOf(look),
      ...more,
    };
    const key = `${row.since.getTime()} ${patch.state ?? row.state} ${keyOf(reasons)}`;
    const last = heldAt.get(row.unit);
    const moved = patch.state !== undefined && patch.state !== row.state;
    // a new leader has the row's own reasons to go by
    const fresh = last ? last.key !== key : keyOf(row.reasons) !== keyOf(reasons) || row.looks === 0;
    const due = moved || (fresh && now.getTime() - (last?.at ?? 0) >= AUDIT_HOLD_MS);
    if (!due) return saveRamp(deps.db, row, patch);
    heldAt.set(row.unit, { key, at: now.getTime() });
    await note(row, patch, 'ramp-held', words(reasons), {
      outcome: 'hold',
      ...(await evidenceForAudit(deps, gathered.evidence, look.flags)),
    });
    for (const name of row.contexts) deps.onDecision(name, 'hold');
  };

  /** The earliest moment of the next step; null when that depends on something else than time. */
  const nextAtOf = ({ row, settings, now }: Look): Date | null => {
    const earliest = Math.max(row.evidenceSince.getTime() + settings.hold, now.getTime());
    const open = nextOpen(settings.schedule, earliest);
    return open === null || open <= now.getTime() ? null : new Date(open);
  };

  /** What stands between good evidence and the step; null = nothing. */
  const obstacle = async (look: Look, nextBp: number): Promise<{ reason: RampReason; patch: RampPatch } | null> => {
    const { row, settings, now } = look;
    if (!isOpen(settings.schedule, now.getTime())) {
      const open = nextOpen(settings.schedule, now.getTime());
      const text = `the evidence is good; the schedule opens ${open === null ? 'on no day of this week' : `at ${new Date(open).toISOString()}`}`;
      return { reason: { code: 'schedule', text }, patch: {} };
    }
    const given = row.approvals.length;
    if (given < settings.approvals)
      return {
        reason: {
          code: 'approval',
          text: `the evidence is good; ${given} of ${settings.approvals} approvals of the step to ${percentOf(nextBp)} % are given`,
        },
        patch: row.state === 'running' ? { state: rampMove(row.state, 'ask')! } : {},
      };
    const refused = await callHooks(deps, settings.webhooks, messageOf(look, 'before', nextBp), stopping.signal);
    return refused === null ? null : { reason: { code: 'webhook', text: `the evidence is good; ${refused}` }, patch: {} };
  };

  const advance = async (look: Look): Promise<void> => {
    const { row, flags, settings, gathered, judgement } = look;
    const { reasons } = judgement;
    const nextBp = settings.steps.find((step) => step > row.shareBp);
    const evidence = { outcome: 'advance', ...(await evidenceForAudit(deps, gathered.evidence, flags)) };
    if (nextBp === undefined) {
      const text = `the last step, ${percentOf(row.shareBp)} %, has passed: ${words(reasons)}`;
      await note(row, { state: rampMove(row.state, 'finish')!, outcome: 'advance', reasons, nextAt: null }, 'ramp-done', text, evidence);
      for (const name of row.contexts) deps.onDecision(name, 'done');
      return;
    }
    const before = await obstacle(look, nextBp);
    if (before) return hold(look, [before.reason], before.patch);
    const people = row.approvals.map(({ actor }) => actor);
    const reason = `${percentOf(row.shareBp)} % has passed: ${words(reasons)}${people.length > 0 ? ` (approved by ${people.join(', ')})` : ''}`;
    // a hook may have taken its time: whoever has lost the lead meanwhile leaves it to the next one
    if (!(await leader.lead())) return;
    await walk(look, nextBp, { state: rampMove(row.state, 'walk')!, outcome: 'advance', reasons }, reason, {
      ...evidence,
      approvals: row.approvals,
    });
    for (const name of row.contexts) deps.onDecision(name, 'advance');
    void callHooks(deps, settings.webhooks, messageOf(look, 'after', nextBp), stopping.signal);
  };

  const look = async (row: RampRow): Promise<void> => {
    const flags = row.contexts.flatMap((name) => deps.flags.current(name) ?? []);
    if (await interfered(row, flags)) return;
    if (flags.some(({ killed }) => killed)) return;
    const [settings] = row.contexts.map(deps.settings);
    const settingsOf = (name: string): RampSettings => deps.settings(name) ?? settings!;
    if (!settings) return;
    const now = await clockOf(deps.db);
    const versions = await versionsOf(flags);
    if (versions !== null && !same(versions, row.serviceVersions)) {
      if (Object.keys(row.serviceVersions).length > 0) return restart(row, flags, versions, now);
      await saveRamp(deps.db, row, { serviceVersions: versions });
      return;
    }
    const gathered = await gather(deps, row, flags, settingsOf);
    const judged = judge(gathered.evidence, settings, now.getTime());
    const unknown: RampReason = { code: 'version', text: 'the extracted service does not tell its version' };
    const judgement: Judgement =
      versions === null && judged.outcome !== 'rollback'
        ? { outcome: 'hold', reasons: judged.outcome === 'hold' ? [...judged.reasons, unknown] : [unknown] }
        : judged;
    const found: Look = { row, flags, settings, gathered, judgement, now };
    if (judgement.outcome === 'rollback') return rollBack(found);
    // what waits for approval no longer stands when the evidence does not
    const withdrawn: RampPatch = row.state === 'waiting-approval' ? { state: rampMove(row.state, 'withdraw')!, approvals: [] } : {};
    if (judgement.outcome === 'hold') return hold(found, judgement.reasons, withdrawn);
    if (row.state === 'paused') return hold(found, [{ code: 'hold', text: `the evidence is good: ${words(judgement.reasons)}` }]);
    return advance(found);
  };

  const safely = async (row: RampRow): Promise<void> => {
    try {
      await look(row);
    } catch (error) {
      if (!(error instanceof AppError) || !REFUSALS.has(error.code)) {
        deps.log.warn({ err: error, contexts: row.contexts }, 'a ramp could not be looked at');
        return;
      }
      deps.log.info({ contexts: row.contexts, why: error.message }, 'the ramp waits');
      const reasons: RampReason[] = [{ code: 'refused', text: `the move is refused for now: ${error.message}` }];
      // where somebody was faster the row is theirs, and the next look sees what it has become
      await saveRamp(deps.db, row, { outcome: 'hold', reasons }).catch(() => undefined);
    }
  };

  const turn = async (unit: string): Promise<void> => {
    try {
      const row = await loadRamp(deps.db, unit);
      // after the row: a flag that is older than the row would look as if a person had moved it
      await deps.flags.refresh();
      if (row && isWatched(row.state)) await safely(row);
    } catch (error) {
      deps.log.debug({ err: error, unit }, 'a ramp cannot be read');
    }
  };

  const round = async (): Promise<void> => {
    known = await loadRamps(deps.db);
    const watched = known.filter(({ state }) => isWatched(state));
    for (const unit of lookedAt.keys()) if (!watched.some((row) => row.unit === unit)) lookedAt.delete(unit);
    for (const unit of heldAt.keys()) if (!watched.some((row) => row.unit === unit)) heldAt.delete(unit);
    if (watched.length === 0) return leader.yield();
    if (!(await leader.lead())) return;
    for (const { unit, contexts } of watched) {
      if (stopping.signal.aborted || inHand.size >= MAX_IN_HAND) return;
      const interval = deps.settings(contexts[0] ?? '')?.interval ?? LOOK_MS;
      const at = performance.now();
      if (inHand.has(unit) || at - (lookedAt.get(unit) ?? Number.NEGATIVE_INFINITY) < interval) continue;
      lookedAt.set(unit, at);
      // not waited for: a hook that takes its time must not hold up the roll-back of others
      inHand.set(
        unit,
        turn(unit).finally(() => inHand.delete(unit)),
      );
    }
  };

  const nextRoundMs = (): number =>
    Math.min(
      LOOK_MS,
      ...known.filter(({ state }) => isWatched(state)).map((row) => deps.settings(row.contexts[0] ?? '')?.interval ?? LOOK_MS),
    );
  const schedule = (): void => {
    if (stopping.signal.aborted) return;
    timer = setTimeout(() => {
      running = round()
        .catch((error) => deps.log.debug({ err: error }, 'the ramps cannot be read'))
        .finally(schedule);
    }, nextRoundMs());
    timer.unref();
  };

  return {
    start: schedule,
    async stop() {
      stopping.abort();
      if (timer) clearTimeout(timer);
      await running;
      await Promise.all(inHand.values());
      await leader.yield();
    },
    leading: leader.leading,
    states: () => known.flatMap((row) => row.contexts.map((context) => ({ context, state: row.state }))),
  };
};
