import { describe, expect, it } from '@jest/globals';
import fc from 'fast-check';
import { ORDER_SAGA } from './definition.ts';
import { commandId, MAX_ATTEMPTS, nextMove, type StepLog, type StepState } from './domain.ts';

const at = (state: StepState, attempts = 1) => ({ state, attempts });
const names = ORDER_SAGA.steps.map((step) => step.name);
const show = (move: ReturnType<typeof nextMove>): string =>
  'step' in move ? `${move.kind} ${move.step.name}` : `${move.kind} ${'state' in move ? move.state : move.why}`;

describe('what a saga does next', () => {
  it.each<[string, StepLog, string]>([
    ['nothing done', {}, 'do order'],
    ['asked, outcome unknown', { order: at('done'), reserve: at('asked') }, 'do reserve'],
    ['a refusal', { order: at('done'), reserve: at('done'), pay: at('refused') }, 'turn pay was refused'],
    ['all done', Object.fromEntries(names.map((name) => [name, at('done')])), 'end done'],
  ])('forward, %s', (_what, log, expected) => expect(show(nextMove(ORDER_SAGA, 'running', log, false))).toBe(expected));

  it.each<[string, StepLog, string]>([
    ['the last that may have run comes first', { order: at('done'), reserve: at('done'), pay: at('asked') }, 'undo pay'],
    ['what was refused is not undone', { order: at('done'), reserve: at('done'), pay: at('refused') }, 'undo reserve'],
    ['all undone', { order: at('undone'), reserve: at('undone') }, 'end compensated'],
    ['what was there before the saga is undone though nobody asked', {}, 'undo order'],
    ['out of attempts', { order: at('done'), reserve: at('asked', MAX_ATTEMPTS) }, 'park reserve cannot be undone'],
  ])('backward, %s', (_what, log, expected) => expect(show(nextMove(ORDER_SAGA, 'compensating', log, false))).toBe(expected));

  it('turns around at the deadline, but not past the point of no return', () => {
    expect(show(nextMove(ORDER_SAGA, 'running', { order: at('asked') }, true))).toBe('turn the deadline has passed');
    const withTail = { ...ORDER_SAGA, steps: [...ORDER_SAGA.steps, { name: 'thank', participant: 'mail', action: 'thank' }] };
    const shipped = Object.fromEntries(names.map((name) => [name, at('done')]));
    expect(show(nextMove(withTail, 'running', shipped, true))).toBe('do thank');
    expect(show(nextMove(withTail, 'running', { ...shipped, thank: at('asked', MAX_ATTEMPTS) }, true))).toBe(
      'park thank does not come to an end',
    );
  });

  it('always comes to an end, and never leaves a step done that it turned away from', () => {
    fc.assert(
      fc.property(
        fc.infiniteStream(fc.constantFrom<StepState>('asked', 'done', 'refused')),
        fc.infiniteStream(fc.boolean()),
        fc.nat(20),
        (outcomes, undos, lateAfter) => {
          const log: Record<string, { state: StepState; attempts: number }> = {};
          let state: 'running' | 'compensating' = 'running';
          for (let i = 0; i < 200; i += 1) {
            const move = nextMove(ORDER_SAGA, state, log, i > lateAfter);
            if (move.kind === 'end')
              return move.state === 'done'
                ? names.every((name) => log[name]?.state === 'done')
                : names.every((name) => ['undone', 'refused', name === 'order' ? '' : undefined].includes(log[name]?.state));
            if (move.kind === 'park') return true;
            if (move.kind === 'turn') {
              state = 'compensating';
              for (const name of Object.keys(log)) log[name] = { ...log[name]!, attempts: 0 };
              continue;
            }
            const before = log[move.step.name]?.attempts ?? 0;
            if (move.kind === 'do') log[move.step.name] = at(outcomes.next().value!, before + 1);
            else
              log[move.step.name] = undos.next().value
                ? at('undone')
                : { state: log[move.step.name]?.state ?? 'done', attempts: before + 1 };
          }
          return false;
        },
      ),
    );
  });

  it('names a command by its saga and step only', () => {
    expect(commandId('s', 'pay')).toBe(commandId('s', 'pay'));
    expect(commandId('s', 'pay')).not.toBe(commandId('s', 'ship'));
  });
});
