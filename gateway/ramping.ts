import { createHash } from 'node:crypto';
import { AppError } from '@banyan/contracts/errors.ts';
import type { Knex } from 'knex';
import type { RampPort } from './admin/ports.ts';
import type { Moves } from './flags/moves.ts';
import { queryRoutesOf } from './live.ts';
import type { Member } from './member.ts';
import { askUpstream } from './proxy/ask.ts';
import { createRampActions } from './ramp/actions.ts';
import type { RampDeps, RampSettings } from './ramp/ports.ts';
import { createRunner } from './ramp/runner.ts';
import { createSamples, type Samples } from './ramp/samples.ts';

/** Joins the ramp to flags, moves, evidence and metrics. */

const VERSION_BYTES = 64 * 1024;
const VERSION_MS = 3_000;
const VERSION_TEXT = /^[\x21-\x7e]{1,64}$/;
const MISMATCHES = 5;

/** What this process sees of canaries; null without a store, where nothing could be decided on it. */
export const samplesOf = (member: Member): Samples | null => {
  const { store, live } = member;
  if (!store || !member.hasContexts) return null;
  const samples = createSamples({
    db: store.db,
    flag: member.flags.current,
    openBreakers: () => [...live().breakers].flatMap(([name, { state }]) => (state === 'open' ? [name] : [])),
    log: member.log,
  });
  member.metrics.rampSamplesLost(samples.lost);
  return samples;
};

export type Ramping = { readonly actions: RampPort; start(): void; stop(): Promise<void> };

export const createRamping = (deps: {
  readonly member: Member;
  readonly db: Knex;
  readonly moves: Moves;
  readonly stale: (context: string) => boolean;
}): Ramping => {
  const { member, db, moves } = deps;
  const { evidence, flags, log } = member;

  const settings = (name: string): RampSettings | undefined => {
    const context = member.config().contexts[name];
    if (!context?.extracted) return undefined;
    const { gate, schedule, ...ramp } = context.ramp;
    return {
      ...ramp,
      ...gate,
      approvals: Math.max(ramp.approvals, member.config().admin.approvals),
      schedule: schedule.map(({ days, hours, zone }) => ({ days, ...hours, zone })),
      provided: context.openfeature !== null,
      routes: queryRoutesOf(context),
    };
  };

  /** A short text as it is, anything else by its hash. */
  const serviceVersion: RampDeps['serviceVersion'] = async (context, path) => {
    const upstream = member.live().contexts.get(context)?.extracted?.upstream;
    if (!upstream) throw new Error(`${context} has no extracted service`);
    const { status, body } = await askUpstream(upstream, { path, limitBytes: VERSION_BYTES, timeoutMs: VERSION_MS });
    if (status < 200 || status > 299) throw new Error(`${path} answered ${status}`);
    const said = body.toString().trim();
    return VERSION_TEXT.test(said) ? said : createHash('sha256').update(body).digest('hex').slice(0, 12);
  };

  const parity: RampDeps['parity'] = {
    report: (context) => evidence.parityReport(context, member.config().contexts[context]?.ramp.gate.parity),
    mismatches: async (context) => (await evidence.pairs({ context, verdict: 'mismatch', limit: MISMATCHES })).items,
    reset: evidence.reset,
  };
  const runner = createRunner({
    db,
    databaseUrl: member.store!.url,
    settings,
    flags,
    move: moves.stage,
    parity,
    stale: deps.stale,
    serviceVersion,
    onDecision: (context, outcome) => metrics.decided(context, outcome),
    onWebhook: (on, result) => metrics.hooked(on, result),
    log,
  });
  const metrics = member.metrics.ramp({ states: runner.states, leading: runner.leading });
  const actions = createRampActions({
    db,
    settings,
    flags,
    parity,
    async toShadow(context, request) {
      const moved = await moves.stage(context, { stage: 'shadow', ...request });
      if (moved.kind === 'asked')
        throw new AppError(
          'conflict',
          `${moved.askedBy.join(', ')} asked for shadow, ${moved.needed} people must; start the ramp after that`,
        );
    },
  });
  return { actions, start: runner.start, stop: runner.stop };
};
