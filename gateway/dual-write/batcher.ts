import { AppError } from '@banyan/contracts/errors.ts';

export type BatcherDeps<I, O> = {
  /** Answers in the order of its items. */
  readonly run: (items: readonly I[]) => Promise<readonly O[]>;
  readonly weigh: (item: I) => number;
  /** Whether running the items one by one may help: false when the store itself cannot be reached. */
  readonly splittable: (error: unknown) => boolean;
  readonly maxItems?: number;
  readonly maxBytes?: number;
  /** Items that may wait; beyond it `add` refuses. */
  readonly maxQueued?: number;
  readonly maxQueuedBytes?: number;
  /** Batches at a time. */
  readonly concurrency?: number;
};

export type Batcher<I, O> = { readonly add: (item: I) => Promise<O>; readonly idle: () => Promise<void> };

type Waiting<I, O> = { item: I; bytes: number; resolve: (value: O) => void; reject: (error: unknown) => void };

/**
 * Group commit: one transaction for all that came while the one before was being flushed. An item that arrives when nothing runs starts at once (at the
 * end of the event loop's turn), so waiting costs nothing at rest and is bounded by one flush under load. A batch that fails is run again one by one.
 */
export const createBatcher = <I, O>(deps: BatcherDeps<I, O>): Batcher<I, O> => {
  const { maxItems = 128, maxBytes = 4 * 1_048_576, maxQueued = 20_000, maxQueuedBytes = 64 * 1_048_576, concurrency = 2 } = deps;
  const queue: Waiting<I, O>[] = [];
  const idlers: (() => void)[] = [];
  let queuedBytes = 0;
  let running = 0;
  let scheduled = false;

  const runOne = async (one: Waiting<I, O>): Promise<void> => {
    try {
      const [value] = await deps.run([one.item]);
      one.resolve(value as O);
    } catch (error) {
      one.reject(error);
    }
  };
  const runBatch = async (batch: readonly Waiting<I, O>[]): Promise<void> => {
    try {
      const values = await deps.run(batch.map((one) => one.item));
      batch.forEach((one, index) => {
        one.resolve(values[index] as O);
      });
    } catch (error) {
      if (batch.length === 1 || !deps.splittable(error)) for (const one of batch) one.reject(error);
      else for (const one of batch) await runOne(one);
    }
  };
  const take = (): Waiting<I, O>[] => {
    let count = 0;
    let bytes = 0;
    while (count < queue.length && count < maxItems && (count === 0 || bytes + queue[count]!.bytes <= maxBytes))
      bytes += queue[count++]!.bytes;
    queuedBytes -= bytes;
    return queue.splice(0, count);
  };
  const pump = (): void => {
    scheduled = false;
    while (running < concurrency && queue.length > 0) {
      running += 1;
      void runBatch(take()).then(() => {
        running -= 1;
        pump();
      });
    }
    if (running === 0) for (const resolve of idlers.splice(0)) resolve();
  };
  return {
    add: (item) =>
      new Promise((resolve, reject) => {
        const bytes = deps.weigh(item);
        if (queue.length >= maxQueued || (queue.length > 0 && queuedBytes + bytes > maxQueuedBytes)) {
          reject(new AppError('overloaded', 'too many commands wait for the store', { retryable: true, retryAfterSeconds: 1 }));
          return;
        }
        queue.push({ item, bytes, resolve, reject });
        queuedBytes += bytes;
        if (scheduled || running >= concurrency) return;
        scheduled = true;
        setImmediate(pump);
      }),
    idle: () => (running === 0 && queue.length === 0 ? Promise.resolve() : new Promise((resolve) => idlers.push(resolve))),
  };
};
