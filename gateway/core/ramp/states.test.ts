import { RAMP_STATES } from '@banyan/contracts/vocabulary.ts';
import { describe, expect, it } from '@jest/globals';
import { actionsIn, isWatched, rampMove, rampMovesAsRows } from './states.ts';

const PROMOTING = ['walk', 'finish'];

describe('the states of a ramp', () => {
  it('are all reached from idle', () => {
    const seen = new Set<string>(['idle']);
    for (let round = 0; round < RAMP_STATES.length; round++) for (const { from, to } of rampMovesAsRows()) if (seen.has(from)) seen.add(to);
    expect([...seen].sort()).toEqual([...RAMP_STATES].sort());
  });

  it('promote nothing by themselves once ended, paused or rolled back: only what a person asks for leads on', () => {
    for (const state of ['done', 'rolled-back', 'aborted'] as const) {
      expect(rampMovesAsRows().filter(({ from }) => from === state)).toEqual([{ from: state, event: 'start', to: 'running' }]);
      expect(isWatched(state)).toBe(false);
    }
    for (const { from, event } of rampMovesAsRows()) if (PROMOTING.includes(event)) expect(['running', 'waiting-approval']).toContain(from);
  });

  it('go on being judged while paused', () => {
    expect(isWatched('paused')).toBe(true);
    expect(rampMove('paused', 'roll-back')).toBe('rolled-back');
    expect(rampMove('paused', 'walk')).toBeUndefined();
  });

  it('know what a person may ask for', () => {
    expect(actionsIn('idle')).toEqual(['start']);
    expect(actionsIn('running')).toEqual(['pause', 'abort']);
    expect(actionsIn('paused')).toEqual(['resume', 'abort']);
  });
});
