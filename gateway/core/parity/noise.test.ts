import { describe, expect, it } from '@jest/globals';
import fc from 'fast-check';
import { holm, look, NOISE_ALPHA, NOT_LOOKED, nextLookAt, signTest } from './noise.ts';

describe('the sign test', () => {
  it.each([
    [8, 0, 1 / 256],
    [7, 1, 9 / 256],
    [0, 5, 1],
    [5, 3, 93 / 256],
    [1, 1, 1],
  ])('of %i against %i is exact', (onlyExtracted, onlyLegacy, p) => {
    expect(signTest({ onlyExtracted, onlyLegacy })).toBeCloseTo(p, 12);
  });
});

describe('looks', () => {
  it('are taken when the discordant triples have doubled, and never spend more than all of the error', () => {
    expect([0, 1, 2, 3].map(nextLookAt)).toEqual([8, 16, 32, 64]);
    expect(look(NOT_LOOKED, { onlyExtracted: 7, onlyLegacy: 0 })).toBe(NOT_LOOKED);
    expect(look(NOT_LOOKED, { onlyExtracted: 8, onlyLegacy: 0 })).toEqual({ looks: 1, p: expect.closeTo(2 / 256, 12) as unknown });
    expect(look({ looks: 1, p: 0.5 }, { onlyExtracted: 8, onlyLegacy: 3 })).toEqual({ looks: 1, p: 0.5 });
    expect(look(NOT_LOOKED, { onlyExtracted: 20, onlyLegacy: 20 }).looks).toBe(3);
  });
  it('an error in a field that never differed before is an alarm at its eighth sight', () => {
    expect(look(NOT_LOOKED, { onlyExtracted: 8, onlyLegacy: 0 }).p).toBeLessThan(NOISE_ALPHA);
  });
  it('remember the clearest look', () => {
    fc.assert(
      fc.property(fc.array(fc.tuple(fc.nat(200), fc.nat(200)), { maxLength: 10 }), (steps) => {
        let [state, tally] = [NOT_LOOKED, { onlyExtracted: 0, onlyLegacy: 0 }];
        for (const [b, c] of steps) {
          tally = { onlyExtracted: tally.onlyExtracted + b, onlyLegacy: tally.onlyLegacy + c };
          const next = look(state, tally);
          expect(next.p).toBeLessThanOrEqual(state.p);
          expect(next.looks).toBeGreaterThanOrEqual(state.looks);
          state = next;
        }
      }),
    );
  });
});

describe("Holm's procedure", () => {
  it('steps down and stops at the first that is not significant', () => {
    expect(holm([0.001, 0.04, 0.006, 0.0001], 0.01)).toEqual([true, false, false, true]);
    expect(holm([0.0026, 0.003, 0.004, 0.009], 0.01)).toEqual([false, false, false, false]);
    expect(holm([], 0.01)).toEqual([]);
  });
});
