import { describe, expect, it } from '@jest/globals';
import { createSlots, type Release } from './shadow-limits.ts';

const never = new AbortController().signal;
const WAIT_MS = 60_000;

describe('slots', () => {
  it('go down to one while what holds them hangs, and come back one by one with every answer', async () => {
    const slots = createSlots(() => 8);
    const held: Release[] = [];
    const waiting: Promise<number>[] = [];
    const want = (): void => {
      waiting.push(slots.acquire(WAIT_MS, never).then((release) => held.push(release)));
    };
    const settle = async (): Promise<void> => {
      for (let i = 0; i < 4; i++) await Promise.resolve();
    };
    for (let i = 0; i < 30; i++) want();
    await settle();
    expect(held).toHaveLength(8);

    for (const release of held.splice(0)) release('hung');
    await settle();
    expect(held).toHaveLength(1);

    // 1, then 2, then 3 at a time …
    for (let round = 1; round <= 3; round++) {
      for (const release of held.splice(0)) release('answered');
      await settle();
    }
    expect(held).toHaveLength(8);
    while (held.length > 0) {
      for (const release of held.splice(0)) release('answered');
      await settle();
    }
    expect(waiting).toHaveLength(30);
    await Promise.all(waiting);
  });

  it('count one that is given back twice once', async () => {
    const slots = createSlots(() => 1);
    const release = await slots.acquire(WAIT_MS, never);
    const second = slots.acquire(WAIT_MS, never);
    const third = slots.acquire(10, never);
    release('answered');
    release('answered');
    await second;
    await expect(third).rejects.toMatchObject({ code: 'overloaded' });
  });
});
