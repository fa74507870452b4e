import { describe, expect, it } from '@jest/globals';
import fc from 'fast-check';
import { type Head, judge } from './head-rule.ts';

const at = (epoch: number, sequence: number): Head => ({ epoch, sequence: BigInt(sequence) });

/** A consumer in little: applies what is next, keeps what came too early, looks at it again after each step. */
const consume = (deliveries: readonly Head[]): Head[] => {
  let head: Head | null = null;
  const applied: Head[] = [];
  let held: Head[] = [];
  for (const delivery of deliveries) {
    const queue = [delivery];
    for (let fact = queue.shift(); fact !== undefined; fact = queue.shift()) {
      const verdict = judge(head, fact);
      if (verdict === 'gap') held.push(fact);
      if (verdict !== 'next') continue;
      applied.push(fact);
      head = fact;
      queue.push(...held);
      held = [];
    }
  }
  return applied;
};

describe('the head rule', () => {
  it.each([
    [null, at(1, 1), 'next'],
    [null, at(4, 1), 'next'],
    [null, at(1, 2), 'gap'],
    [at(1, 1), at(1, 2), 'next'],
    [at(1, 1), at(1, 3), 'gap'],
    [at(1, 3), at(1, 3), 'duplicate'],
    [at(1, 3), at(1, 2), 'duplicate'],
    [at(1, 3), at(2, 1), 'next'],
    [at(1, 3), at(3, 1), 'next'],
    [at(1, 3), at(2, 4), 'gap'],
    [at(2, 1), at(1, 4), 'duplicate'],
  ] as const)('after %o comes %o: %s', (head, fact, verdict) => {
    expect(judge(head, fact)).toBe(verdict);
  });

  it('takes the first fact as it is in a replay, and only the first', () => {
    expect(judge(null, at(1, 7), true)).toBe('next');
    expect(judge(at(1, 7), at(1, 9), true)).toBe('gap');
  });

  it('gives the in-order run for any order and repetition of deliveries inside an epoch', () => {
    const epochs = fc.array(fc.integer({ min: 1, max: 6 }), { minLength: 1, maxLength: 4 });
    fc.assert(
      fc.property(epochs, fc.infiniteStream(fc.nat(1000)), (lengths, numbers) => {
        const next = (): number => numbers.next().value ?? 0;
        const inOrder = lengths.map((length, epoch) => Array.from({ length }, (_, index) => at(epoch + 1, index + 1)));
        const seen: Head[] = [];
        const deliveries = inOrder.flatMap((facts) => {
          const shuffled = facts.map((fact) => ({ fact, place: next() })).sort((a, b) => a.place - b.place);
          return shuffled.flatMap(({ fact }) => {
            seen.push(fact);
            // anything that was sent before may be sent again, also of an epoch that is over
            return [fact, ...Array.from({ length: next() % 3 }, () => seen[next() % seen.length]!)];
          });
        });
        expect(consume(deliveries)).toEqual(inOrder.flat());
      }),
    );
  });
});
