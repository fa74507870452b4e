import { STAGES, type Stage } from '@banyan/contracts/vocabulary.ts';

/** What a requested move of stage amounts to. A flip hands over write ownership; everything else is instant. */
export type StageMove =
  | { readonly kind: 'instant' }
  | { readonly kind: 'flip' }
  | { readonly kind: 'illegal'; readonly why: string; readonly legal: readonly Stage[] };

/** The stages that may follow without `force`, in order. From `retired` nothing. */
const NEXT: Readonly<Record<Stage, readonly Stage[]>> = {
  legacy: ['shadow'],
  shadow: ['legacy', 'canary'],
  canary: ['legacy', 'shadow', 'cutover'],
  cutover: ['legacy', 'canary', 'retired'],
  retired: [],
};

const kindOf = (from: Stage, to: Stage): StageMove =>
  (from === 'cutover') !== (to === 'cutover') && to !== 'retired' ? { kind: 'flip' } : { kind: 'instant' };

/**
 * Pure. One step at a time; `force` allows forward skips up to `cutover`; any stage but `retired` may go back to `legacy`.
 * `retired` is reached from `cutover` only: its further conditions are checked by the caller.
 */
export const planMove = (from: Stage, to: Stage, force: boolean): StageMove => {
  if (from === to) return from === 'retired' ? { kind: 'illegal', why: 'retired is final', legal: [] } : { kind: 'instant' };
  if (NEXT[from].includes(to)) return kindOf(from, to);
  const legal = NEXT[from];
  if (from === 'retired') return { kind: 'illegal', why: 'retired is final', legal };
  const forward = STAGES.indexOf(to) > STAGES.indexOf(from);
  if (forward && to !== 'retired') {
    if (force) return kindOf(from, to);
    return { kind: 'illegal', why: `${from} -> ${to} skips a stage: one step at a time, or force`, legal };
  }
  return { kind: 'illegal', why: `${from} -> ${to} is no legal move`, legal };
};
