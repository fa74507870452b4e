import { type ContextView, type FlipView, percentOf } from '@banyan/contracts/admin-api.ts';
import { AppError } from '@banyan/contracts/errors.ts';
import { within } from './limit.ts';
import type { AdminDeps, ShownFlag, ShownFlip } from './ports.ts';

/** How long a list of contexts waits for the store to say which flips are under way. */
const FLIPS_WAIT_MS = 1_000;

export type ContextViews = {
  /** @throws AppError `not-found` that names the contexts there are */
  flagOf(name: string): ShownFlag;
  one(name: string): Promise<ContextView>;
  all(): Promise<ContextView[]>;
  /** Without asking the store: the flip is the one that freezes the context, if any. */
  now(flag: ShownFlag, flips?: readonly ShownFlip[]): ContextView;
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

/** Contexts as the API shows them. The store being away only hides flips. */
export const createContextViews = (deps: Pick<AdminDeps, 'flags' | 'flips' | 'breakers'>): ContextViews => {
  const active = (): Promise<readonly ShownFlip[]> =>
    within(
      FLIPS_WAIT_MS,
      async () => (await deps.flips?.active()) ?? [],
      () => [],
    );
  const flagOf = (name: string): ShownFlag => {
    const flag = deps.flags.current(name);
    if (flag) return flag;
    const names = deps.flags.all().map((known) => known.name);
    throw new AppError('not-found', `no context is called ${JSON.stringify(name.slice(0, 100))}; there are: ${names.join(', ') || 'none'}`);
  };
  const now = (flag: ShownFlag, flips: readonly ShownFlip[] = []): ContextView => {
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
      ramp: null,
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
      const flips = await active();
      return now(flagOf(name), flips);
    },
    async all() {
      const flips = await active();
      return deps.flags.all().map((flag) => now(flag, flips));
    },
  };
};
