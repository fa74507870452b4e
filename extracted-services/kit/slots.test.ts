import { expect, it } from '@jest/globals';
import { createSlots } from './slots.ts';

it('runs so many at once, the others in their order, and refuses what may not wait', async () => {
  const slots = createSlots(2, 2);
  const begun: number[] = [];
  const ends: (() => void)[] = [];
  const work = (n: number) =>
    slots.run(async () => {
      begun.push(n);
      await new Promise<void>((resolve) => void ends.push(resolve));
      if (n === 1) throw new Error('failed');
      return n;
    });
  const all = [1, 2, 3, 4].map(work);
  all[0]!.catch(() => undefined);
  await expect(work(5)).rejects.toMatchObject({ code: 'overloaded', retryable: true });
  expect(begun).toEqual([1, 2]);
  ends[0]!();
  await expect(all[0]).rejects.toThrow('failed');
  expect(begun).toEqual([1, 2, 3]);
  ends[1]!();
  ends[2]!();
  expect(await Promise.all(all.slice(1, 3))).toEqual([2, 3]);
  expect(begun).toEqual([1, 2, 3, 4]);
  ends[3]!();
  expect(await all[3]).toBe(4);
  const last = work(6);
  ends[4]!();
  expect(await last).toBe(6);
});
