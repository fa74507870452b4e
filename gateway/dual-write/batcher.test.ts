import { setImmediate as turn } from 'node:timers/promises';
import { describe, expect, it } from '@jest/globals';
import { createBatcher } from './batcher.ts';

const make = (over: Partial<Parameters<typeof createBatcher<number, number>>[0]> = {}) => {
  const batches: number[][] = [];
  const batcher = createBatcher<number, number>({
    run: async (items) => {
      batches.push([...items]);
      await turn();
      return items.map((item) => item * 2);
    },
    weigh: () => 1,
    splittable: () => true,
    ...over,
  });
  return { batches, batcher };
};

describe('the batcher', () => {
  it('runs what comes together together, and what comes meanwhile next', async () => {
    const { batches, batcher } = make({ concurrency: 1 });
    const first = [1, 2].map(batcher.add);
    await turn();
    const second = [3, 4, 5].map(batcher.add);
    expect(await Promise.all([...first, ...second])).toEqual([2, 4, 6, 8, 10]);
    expect(batches).toEqual([
      [1, 2],
      [3, 4, 5],
    ]);
    await batcher.idle();
  });

  it('keeps to its limits', async () => {
    const { batches, batcher } = make({ maxItems: 2, weigh: (n) => n, maxBytes: 10, concurrency: 1 });
    await Promise.all([1, 2, 9, 3, 50].map(batcher.add));
    expect(batches).toEqual([[1, 2], [9], [3], [50]]);
  });

  it('lets one bad item fail alone', async () => {
    const run = async (items: readonly number[]) => {
      if (items.includes(2)) throw new Error('two');
      return items;
    };
    const { batcher } = make({ run });
    expect((await Promise.allSettled([1, 2, 3].map(batcher.add))).map((r) => r.status)).toEqual(['fulfilled', 'rejected', 'fulfilled']);
  });

  it('fails all at once when trying again is useless, and refuses more than it may hold', async () => {
    let runs = 0;
    const run = async (): Promise<number[]> => {
      runs += 1;
      throw new Error('down');
    };
    const { batcher } = make({ run, splittable: () => false, maxQueued: 3 });
    const results = await Promise.allSettled([1, 2, 3, 4].map(batcher.add));
    expect(runs).toBe(1);
    expect(String((results[3] as PromiseRejectedResult).reason)).toContain('too many commands wait');
  });
});
