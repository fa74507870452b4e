import { AppError } from '@banyan/contracts/errors.ts';
import { z } from 'zod';

export type IdsOptions = {
  readonly adapterUrl: string;
  readonly token?: string | undefined;
  readonly context: string;
  /** Ids asked for at once. Default 100. They come from the legacy sequence, so a roll-back renumbers nothing; those not used when the process ends are gaps. */
  readonly block?: number;
  /** Below the 2 s after which the gateway gives a command up: then it is told that nothing has happened. Default 1,000. */
  readonly timeoutMs?: number;
};

/** A stock of order numbers that is refilled in the background, so that a command seldom waits for the adapter and never inside its transaction. */
export type Ids = {
  /** @param epoch of the command: numbers left from an earlier ownership are behind legacy's by now, and lists sort by number */
  take(epoch: number): Promise<number>;
  stop(): Promise<void>;
};

const answer = z.object({ ids: z.array(z.number().int().positive()).min(1).max(1000) });

export const createIds = ({ adapterUrl, token, context, block = 100, timeoutMs = 1000 }: IdsOptions): Ids => {
  let pool: number[] = [];
  let of = 0;
  let refill: Promise<void> | undefined;
  const stopping = new AbortController();

  const ask = async (): Promise<void> => {
    const response = await fetch(`${adapterUrl}/v1/contexts/${context}/ids`, {
      method: 'POST',
      headers: { 'content-type': 'application/json', ...(token === undefined ? {} : { authorization: `Bearer ${token}` }) },
      body: JSON.stringify({ count: block }),
      signal: AbortSignal.any([AbortSignal.timeout(timeoutMs), stopping.signal]),
    });
    const body: unknown = await response.json().catch(() => undefined);
    if (!response.ok) throw new Error(`the adapter answered ${response.status}`);
    pool = [...pool, ...answer.parse(body).ids];
  };
  /** One question at a time, however many wait. */
  const fill = (): Promise<void> => {
    refill ??= ask().finally(() => {
      refill = undefined;
    });
    return refill;
  };

  return {
    take: async (epoch) => {
      if (epoch > of) {
        of = epoch;
        pool = [];
      }
      for (;;) {
        const id = pool.shift();
        if (pool.length < block / 4) {
          const filling = fill();
          // whoever finds the pool empty hears of the failure; here the next command asks again
          filling.catch(() => undefined);
        }
        if (id !== undefined) return id;
        try {
          await fill();
        } catch (error) {
          throw new AppError('context-unavailable', 'no order number can be had just now', {
            retryable: true,
            retryAfterSeconds: 1,
            cause: error,
          });
        }
      }
    },
    stop: async () => {
      stopping.abort();
      await refill?.catch(() => undefined);
    },
  };
};
