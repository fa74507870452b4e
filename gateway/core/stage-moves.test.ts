import { STAGES } from '@banyan/contracts/vocabulary.ts';
import { describe, expect, it } from '@jest/globals';
import { planMove } from './stage-moves.ts';

const table = (force: boolean) =>
  Object.fromEntries(STAGES.map((from) => [from, Object.fromEntries(STAGES.map((to) => [to, planMove(from, to, force).kind]))]));

describe('planMove', () => {
  it('allows one step at a time, back to legacy from anywhere, nothing from retired', () => {
    expect(table(false)).toEqual({
      legacy: { legacy: 'instant', shadow: 'instant', canary: 'illegal', cutover: 'illegal', retired: 'illegal' },
      shadow: { legacy: 'instant', shadow: 'instant', canary: 'instant', cutover: 'illegal', retired: 'illegal' },
      canary: { legacy: 'instant', shadow: 'instant', canary: 'instant', cutover: 'flip', retired: 'illegal' },
      cutover: { legacy: 'flip', shadow: 'illegal', canary: 'flip', cutover: 'instant', retired: 'instant' },
      retired: { legacy: 'illegal', shadow: 'illegal', canary: 'illegal', cutover: 'illegal', retired: 'illegal' },
    });
  });
  it('lets force skip forward, but not into or out of retired', () => {
    expect(table(true)).toMatchObject({
      legacy: { canary: 'instant', cutover: 'flip', retired: 'illegal' },
      shadow: { cutover: 'flip' },
      cutover: { shadow: 'illegal' },
      retired: { legacy: 'illegal' },
    });
  });
});
