import type { Envelope } from '@banyan/contracts/envelope.ts';
import type { Knex } from 'knex';
import type { Handler } from './handlers.ts';

/** Collects facts for handlers that take many at once. `flush` must end it. */
export type Batches = {
  /** Runs the handlers of a fact, or keeps it for `flush`. */
  add(takers: readonly Handler[], key: string, envelope: Envelope): Promise<void>;
  flush(): Promise<void>;
};

/**
 * Every handler sees the facts of one key in their order, and a fact is seen by its handlers only after all earlier facts of its key were seen by theirs.
 * Facts of different keys may change places between handlers, as they may between shards. A handler that takes facts one by one runs after everything
 * that came before it on the shard.
 * @param order the handlers as the service lists them
 */
export const createBatches = (trx: Knex.Transaction, order: readonly Handler[]): Batches => {
  const pending = new Map<Handler, Envelope[]>();
  /** By which handlers the pending facts of a key are taken. */
  const takenBy = new Map<string, readonly Handler[]>();

  const flush = async (): Promise<void> => {
    // a later handler of a fact may build on what an earlier one has written
    const batches = [...pending].sort(([a], [b]) => order.indexOf(a) - order.indexOf(b));
    pending.clear();
    takenBy.clear();
    for (const [handler, envelopes] of batches) await handler.applyAll!(trx, envelopes);
  };

  return {
    flush,
    add: async (takers, key, envelope) => {
      if (!takers.every((handler) => handler.applyAll)) {
        await flush();
        for (const handler of takers) await handler.apply(trx, envelope);
        return;
      }
      const before = takenBy.get(key);
      if (before && (before.length !== takers.length || before.some((handler, index) => handler !== takers[index]))) await flush();
      takenBy.set(key, takers);
      for (const handler of takers) {
        const batch = pending.get(handler);
        if (batch) batch.push(envelope);
        else pending.set(handler, [envelope]);
      }
    },
  };
};
