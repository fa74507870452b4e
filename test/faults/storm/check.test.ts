import type { Envelope } from '@banyan/contracts/envelope.ts';
import { describe, expect, it } from '@jest/globals';
import { check } from './check.ts';
import type { Effect } from './legacy.ts';

let ids = 0;
const fact = (subject: string, sequence: number, ref: string, more: Partial<Envelope> = {}): Envelope => {
  ids += 1;
  return {
    id: `f${ids}`,
    source: '/banyan/order/legacy',
    subject,
    sequence: String(sequence).padStart(18, '0'),
    epoch: 1,
    data: { ref },
    ...more,
  } as Envelope;
};
const effects = (...refs: [string, string][]): Map<string, Effect> =>
  new Map(refs.map(([key, subject], i) => [key, { key, subject, kind: 'entry' as const, n: i + 1 }]));
const NONE = { lost: 0, phantom: 0, doubled: 0, acked_missing: 0, out_of_order: 0, wrongly_compensated: 0, undecided: 0 };

describe('the checker of the storm', () => {
  it('finds nothing where every effect has its fact, repeats included', () => {
    const one = fact('a', 1, 'k1');
    const facts = [one, fact('a', 2, 'k2'), one];
    expect(check(facts, effects(['k1', 'a'], ['k2', 'a']), [{ key: 'k1', status: 201, id: 'a' }])).toEqual(NONE);
  });

  it('tells lost, phantom, doubled and acknowledged-but-missing apart', () => {
    const facts = [fact('a', 1, 'k1'), fact('a', 2, 'k1'), fact('b', 1, 'nobody')];
    const told = [
      { key: 'k2', status: 201, id: 'b' },
      { key: 'gone', status: 201, id: 'c' },
      { key: 'gave-up', status: 0, id: null },
    ];
    expect(check(facts, effects(['k1', 'a'], ['k2', 'a']), told)).toEqual({ ...NONE, lost: 1, phantom: 1, doubled: 1, acked_missing: 2 });
  });

  it('sees a gap on the stream, and facts in another order than their changes', () => {
    expect(check([fact('a', 2, 'k2'), fact('a', 1, 'k1')], effects(['k1', 'a'], ['k2', 'a']), []).out_of_order).toBe(1);
    expect(check([fact('a', 1, 'k2'), fact('a', 2, 'k1')], effects(['k1', 'a'], ['k2', 'a']), []).out_of_order).toBe(1);
  });

  it('wants exactly one end of a tentative fact, and no taking back of what was done', () => {
    const open = fact('a', 1, 'k1', { phase: 'tentative' });
    const confirmed = fact('a', 2, 'k1', { phase: 'confirmed', causationid: open.id });
    const compensated = fact('a', 3, 'k1', { phase: 'compensated', causationid: open.id });
    const done = effects(['k1', 'a']);
    expect(check([open, confirmed], done, [])).toEqual(NONE);
    expect(check([open, confirmed, compensated], done, [])).toEqual({ ...NONE, wrongly_compensated: 1, undecided: 1 });
    expect(check([open], new Map(), [])).toEqual({ ...NONE, undecided: 1 });
    expect(check([open, fact('a', 2, 'k1', { phase: 'compensated', causationid: open.id })], new Map(), [])).toEqual(NONE);
  });
});
