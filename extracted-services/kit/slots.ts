import { AppError } from '@banyan/contracts/errors.ts';

/** So many at once; the others wait their turn. */
export type Slots = { run<T>(work: () => Promise<T>): Promise<T> };

/**
 * Keeps a part of a process from taking every connection that the others need.
 * @param waiting how many may wait; one more is refused with AppError `overloaded` (retryable)
 */
export const createSlots = (atOnce: number, waiting = Number.POSITIVE_INFINITY): Slots => {
  let free = atOnce;
  const queue: (() => void)[] = [];
  return {
    async run(work) {
      if (free > 0) free -= 1;
      else {
        if (queue.length >= waiting)
          throw new AppError('overloaded', 'too many are waiting already', { retryable: true, retryAfterSeconds: 1 });
        // whoever leaves hands its slot over
        await new Promise<void>((resolve) => void queue.push(resolve));
      }
      try {
        return await work();
      } finally {
        const next = queue.shift();
        if (next) next();
        else free += 1;
      }
    },
  };
};
