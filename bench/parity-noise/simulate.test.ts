import { describe, expect, it } from '@jest/globals';
import { type Scenario, simulate } from './simulate.ts';

const RUNS = 30;
const alarms = (scenario: Omit<Scenario, 'name' | 'fields'>): number => {
  let found = 0;
  for (let seed = 1; seed <= RUNS; seed++) if (simulate({ name: '', fields: 1, ...scenario }, seed).banyan) found++;
  return found;
};

describe('the simulation of noise', () => {
  it('finds what it was told to, and raises hardly an alarm about a service like legacy', () => {
    expect(alarms({ noise: 0.3, extracted: 0.37, n: 10_000 })).toBe(RUNS);
    expect(alarms({ noise: 0, extracted: 0.002, n: 10_000 })).toBeGreaterThanOrEqual(RUNS - 2);
    expect(alarms({ noise: 0.1, extracted: 0.1, n: 10_000 })).toBeLessThanOrEqual(2);
  });
});
