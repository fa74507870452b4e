import { AppError } from '@banyan/contracts/errors.ts';

/** Commands of this process that wait for another one: woken when it is over here, else they look again after a while. */
export type Waiting = {
  /** Resolves when `place` is woken or after `ms`. @throws AppError `overloaded` when too many wait already. */
  readonly wait: (place: string, ms: number) => Promise<void>;
  readonly wakeAll: (place: string) => void;
  /** Wakes the one that has waited longest: only one of them can have the aggregate. */
  readonly wakeFirst: (place: string) => void;
  readonly stop: () => void;
};

export const createWaiting = (maxWaiting: number): Waiting => {
  const places = new Map<string, Set<() => void>>();
  let count = 0;
  return {
    wait: (place, ms) => {
      if (count >= maxWaiting)
        return Promise.reject(new AppError('overloaded', 'too many commands wait for others', { retryable: true, retryAfterSeconds: 1 }));
      return new Promise((resolve) => {
        const here = places.get(place) ?? new Set();
        const done = () => {
          clearTimeout(timer);
          if (!here.delete(done)) return;
          if (here.size === 0) places.delete(place);
          count -= 1;
          resolve();
        };
        const timer = setTimeout(done, ms);
        here.add(done);
        places.set(place, here);
        count += 1;
      });
    },
    wakeAll: (place) => {
      for (const done of [...(places.get(place) ?? [])]) done();
    },
    wakeFirst: (place) => {
      const [first] = places.get(place) ?? [];
      first?.();
    },
    stop: () => {
      for (const here of [...places.values()]) for (const done of [...here]) done();
    },
  };
};
