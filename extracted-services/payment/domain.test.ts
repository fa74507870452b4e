import { expect, it } from '@jest/globals';
import { outcomeOf } from './domain.ts';

it.each([
  ['charged', 'done'],
  ['refused', 'refused'],
  ['refunded', 'refused'],
  ['void', 'refused'],
] as const)('a charge that is %s is %s', (state, outcome) => expect(outcomeOf({ state }).outcome).toBe(outcome));
