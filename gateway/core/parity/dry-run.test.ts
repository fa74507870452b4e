import { describe, expect, it } from '@jest/globals';
import { compareObservations } from './compare.ts';
import { excuseDryRun } from './dry-run.ts';
import type { Observation, Verdict } from './observation.ts';
import { compileRules } from './rules.ts';

const answer = (value: unknown, location?: string): Observation => ({
  status: 201,
  headers: [['Content-Type', 'application/json'], ...(location === undefined ? [] : [['Location', location] as const])],
  body: new TextEncoder().encode(JSON.stringify(value)),
  complete: true,
});
const judge = (legacy: Observation, extracted: Observation): Verdict =>
  excuseDryRun('/orders', legacy, extracted, compareObservations(legacy, extracted, compileRules({}, 0)));

describe('the answer to a dry run', () => {
  it('may name another id, and link to it, and another moment', () => {
    const verdict = judge(
      answer({ id: 17, self: '/orders/17', at: '2026-11-28T10:00:00.000Z', stamp: 1_790_000_000 }, '/orders/17'),
      answer({ id: 'o-1', self: '/orders/o-1', at: '2026-11-28T10:00:01.500Z', stamp: 1_790_000_002 }, '/orders/o-1'),
    );
    expect(verdict.kind).toBe('noise');
    expect((verdict.kind === 'noise' ? verdict.noise : []).map(({ path, rule }) => `${rule} ${path}`).sort()).toEqual([
      'alias $.id',
      'alias $.self',
      'alias header:location',
      'clock $.at',
      'clock $.stamp',
    ]);
  });
  it.each([
    ['no id', { id: 17 }, { id: 'undefined' }, '$.id'],
    ['an id that is gone', { id: 17 }, {}, '$.id'],
    ['another total', { id: 1, total: 5 }, { id: 2, total: 6 }, '$.total'],
    ['a moment of another day', { at: '2026-11-28T10:00:00Z' }, { at: '2026-11-29T10:00:00Z' }, '$.at'],
    ['seconds for milliseconds', { at: 1_790_000_000_000 }, { at: 1_790_000_000 }, '$.at'],
    ['a link to something else', { id: 1, self: '/orders/1' }, { id: 2, self: '/carts/2' }, '$.self'],
  ])('must not have %s', (_name, legacy, extracted, path) => {
    expect(judge(answer(legacy), answer(extracted))).toMatchObject({ kind: 'mismatch', differences: [{ path }] });
  });
});
