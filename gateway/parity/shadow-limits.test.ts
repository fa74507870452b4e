import { describe, expect, it } from '@jest/globals';
import { createSlots } from './shadow-limits.ts';

describe('slots', () => {
  it('go down to one while what holds them hangs, and come back one by one with every answer', () => {
    const slots = createSlots(() => 8);
    let [held, entered] = [0, 0];
    const waiter = {
      enter: () => {
        held++;
        entered++;
      },
    };
    const end = (outcome: 'answered' | 'hung'): void => {
      const all = held;
      held = 0;
      for (let i = 0; i < all; i++) slots.release(outcome);
    };
    for (let i = 0; i < 30; i++) slots.acquire({ ...waiter });
    expect(held).toBe(8);

    end('hung');
    expect(held).toBe(1);

    // 1, then 2, then 3 at a time …
    for (let round = 1; round <= 3; round++) end('answered');
    expect(held).toBe(8);
    while (held > 0) end('answered');
    expect(entered).toBe(30);
  });

  it('are not for who has left, and go to the others in turn', () => {
    const slots = createSlots(() => 1);
    const entered: string[] = [];
    const [first, second, third] = ['first', 'second', 'third'].map((name) => ({ enter: () => void entered.push(name) }));
    for (const one of [first!, second!, third!]) slots.acquire(one);
    expect(entered).toEqual(['first']);
    slots.leave(second!);
    slots.release('answered');
    expect(entered).toEqual(['first', 'third']);
    slots.release('answered');
    slots.acquire(second!);
    expect(entered).toEqual(['first', 'third', 'second']);
  });
});
