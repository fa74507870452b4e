import { type ContextView, type FlipView, percentOf, type RampView } from '@banyan/contracts/admin-api.ts';
import { AppError } from '@banyan/contracts/errors.ts';
import { within } from './limit.ts';
import type { AdminDeps, ShownFlag, ShownFlip } from './ports.ts';

/** How long a list of contexts waits for the store to say which flips and ramps are under way. */
const STORE_WAIT_MS = 1_000;

export type ContextViews = {
  /** @throws AppError `not-found` that names the contexts there are */
  flagOf(name: string): ShownFlag;
  one(name: string): Promise<ContextView>;
  all(): Promise<ContextView[]>;
  /** Without asking the store: the flip is the one that freezes the context, if any, and the ramp is left out unless given. */
  now(flag: ShownFlag, flips?: readonly ShownFlip[], ramp?: RampView): ContextView;
};

export const flipView = (flip: ShownFlip): FlipView => ({
  id: flip.id,
  contexts: [...flip.contexts],
  from: flip.from,
  to: flip.to,
  state: flip.state,
  detail: flip.detail,
  actor: flip.actor,
  reason: flip.reason,
  createdAt: flip.createdAt.toISOString(),
  updatedAt: flip.updatedAt.toISOString(),
});

/** Contexts as the API shows them. The store being away only hides flips and ramps. */
export const createContextViews = (deps: Pick<AdminDeps, 'flags' | 'flips' | 'ramp' | 'breakers'>): ContextViews => {
  const active = (): Promise<readonly ShownFlip[]> =>
    within(
      STORE_WAIT_MS,
      async () => (await deps.flips?.active()) ?? [],
      () => [],
    );
  const ramps = (names: readonly string[]): Promise<ReadonlyMap<string, RampView>> =>
    within(
      STORE_WAIT_MS,
      async () => (await deps.ramp?.views(names)) ?? new Map(),
      () => new Map(),
    );
  const flagOf = (name: string): ShownFlag => {
    const flag = deps.flags.current(name);
    if (flag) return flag;
    const names = deps.flags.all().map((known) => known.name);
    throw new AppError('not-found', `no context is called ${JSON.stringify(name.slice(0, 100))}; there are: ${names.join(', ') || 'none'}`);
  };
  const now = (flag: ShownFlag, flips: readonly ShownFlip[] = [], ramp?: RampView): ContextView => {
    const flip = flips.find((candidate) => candidate.contexts.includes(flag.name));
    return {
      name: flag.name,
      group: flag.group,
      stage: flag.stage,
      percent: percentOf(flag.canaryShareBp),
      killed: flag.killed,
      version: flag.version,
      epoch: flag.epoch,
      breaker: deps.breakers(flag.name),
      ramp: ramp ?? null,
      flip: flip ? { id: flip.id, state: flip.state } : null,
      updatedAt: flag.updatedAt.toISOString(),
      updatedBy: flag.updatedBy,
    };
  };
  return {
    flagOf,
    now,
    async one(name) {
      flagOf(name);
      const [flips, ramp] = await Promise.all([active(), ramps([name])]);
      return now(flagOf(name), flips, ramp.get(name));
    },
    async all() {
      const [flips, ramp] = await Promise.all([active(), ramps(deps.flags.all().map(({ name }) => name))]);
      return deps.flags.all().map((flag) => now(flag, flips, ramp.get(flag.name)));
    },
  };
};
