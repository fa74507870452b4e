import type { RampState } from '@banyan/contracts/vocabulary.ts';

/** Nothing leads back to `idle`. */
type Led = Exclude<RampState, 'idle'>;

/**
 * What happens to a ramp. `walk` = one step further, `ask` = approvals are missing, `moved` = a person changed the stage, `killed` = a person killed the context
 * (or lifted a kill); `pause`, `resume` and `abort` are asked for by a person.
 */
type RampEvent = 'start' | 'walk' | 'finish' | 'ask' | 'withdraw' | 'pause' | 'resume' | 'abort' | 'moved' | 'killed' | 'roll-back';

/**
 * Every legal move of a ramp. From `rolled-back`, `aborted` and `done` only a person leads on. A paused ramp is still judged:
 * what is held back is promotion, not safety.
 */
const RAMP_MOVES: Readonly<Record<RampState, Partial<Record<RampEvent, Led>>>> = {
  idle: { start: 'running' },
  running: {
    walk: 'running',
    finish: 'done',
    ask: 'waiting-approval',
    pause: 'paused',
    killed: 'paused',
    abort: 'aborted',
    moved: 'aborted',
    'roll-back': 'rolled-back',
  },
  'waiting-approval': {
    walk: 'running',
    finish: 'done',
    // what was to be approved no longer stands: the evidence has changed, or nobody is asked any more
    withdraw: 'running',
    pause: 'paused',
    killed: 'paused',
    abort: 'aborted',
    moved: 'aborted',
    'roll-back': 'rolled-back',
  },
  paused: { resume: 'running', abort: 'aborted', moved: 'aborted', killed: 'paused', 'roll-back': 'rolled-back' },
  done: { start: 'running' },
  'rolled-back': { start: 'running' },
  aborted: { start: 'running' },
};

/** The state that follows, or undefined where the table has no such move: the caller refuses it. Pure. */
export const rampMove = (from: RampState, event: RampEvent): Led | undefined => RAMP_MOVES[from][event];

/** Is the ramp looked at and judged? */
export const isWatched = (state: RampState): boolean => RAMP_MOVES[state]['roll-back'] !== undefined;

/** What a person may ask for in this state, in words. */
export const actionsIn = (state: RampState): string[] =>
  (['start', 'pause', 'resume', 'abort'] as const).filter((event) => rampMove(state, event) !== undefined);

/** Every move as a row: what the diagram in docs/ramp.md is checked against. */
export const rampMovesAsRows = (): { readonly from: RampState; readonly event: RampEvent; readonly to: RampState }[] =>
  Object.entries(RAMP_MOVES).flatMap(([from, row]) =>
    Object.entries(row).map(([event, to]) => ({ from: from as RampState, event: event as RampEvent, to })),
  );
