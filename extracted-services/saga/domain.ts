import { createHash } from 'node:crypto';
import type { SagaState } from '@banyan/contracts/vocabulary.ts';
import type { Definition, Step } from './definition.ts';

/**
 * Where a step stands. `asked` = its command went out and its outcome is not known (yet); `done` and `refused` are answers; `undone` is final.
 * A step without an entry has not been asked.
 */
export type StepState = 'asked' | 'done' | 'refused' | 'undone';
export type StepLog = Readonly<Record<string, { readonly state: StepState; readonly attempts: number }>>;

export type Move =
  /** Send the step's command; `again` = it may have arrived before, so ask first. */
  | { readonly kind: 'do'; readonly step: Step; readonly again: boolean }
  | { readonly kind: 'undo'; readonly step: Step }
  | { readonly kind: 'turn'; readonly why: string }
  | { readonly kind: 'park'; readonly why: string }
  | { readonly kind: 'end'; readonly state: Extract<SagaState, 'done' | 'compensated'> };

/** A step that is undone or, after the pivot, done is tried so often before a person is asked. */
export const MAX_ATTEMPTS = 12;

/** The id under which a step is done, however often and by whichever orchestrator: a repeat is recognised. */
export const commandId = (saga: string, step: string): string => createHash('sha256').update(`${saga}\n${step}`).digest('hex').slice(0, 32);

/**
 * What a saga does next. Pure. Forward: the first step that is not done. A refusal turns it around, and so does the deadline, before the pivot. Backward: every
 * step that may have been done, the last one first; what is not known is undone too, which also keeps it out should it arrive late.
 * @param late the deadline has passed
 */
export const nextMove = (
  definition: Definition,
  state: Extract<SagaState, 'running' | 'compensating'>,
  log: StepLog,
  late: boolean,
): Move => {
  if (state === 'compensating') {
    const back = [...definition.steps].reverse().find(({ name, given }) => {
      const standing = log[name]?.state ?? (given ? 'done' : 'undone');
      return standing === 'asked' || standing === 'done';
    });
    if (!back) return { kind: 'end', state: 'compensated' };
    if ((log[back.name]?.attempts ?? 0) >= MAX_ATTEMPTS) return { kind: 'park', why: `${back.name} cannot be undone` };
    return { kind: 'undo', step: back };
  }
  const pivot = definition.steps.findIndex((step) => step.pivot);
  const passed = pivot >= 0 && log[definition.steps[pivot]!.name]?.state === 'done';
  const refused = definition.steps.find(({ name }) => log[name]?.state === 'refused');
  if (refused)
    return passed
      ? { kind: 'park', why: `${refused.name} was refused after the point of no return` }
      : { kind: 'turn', why: `${refused.name} was refused` };
  const step = definition.steps.find(({ name }) => log[name]?.state !== 'done');
  if (!step) return { kind: 'end', state: 'done' };
  if (late && !passed) return { kind: 'turn', why: 'the deadline has passed' };
  const attempts = log[step.name]?.attempts ?? 0;
  if (passed && attempts >= MAX_ATTEMPTS) return { kind: 'park', why: `${step.name} does not come to an end` };
  return { kind: 'do', step, again: attempts > 0 };
};
