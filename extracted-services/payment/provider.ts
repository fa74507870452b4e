import { z } from 'zod';

export type Charge = { readonly state: 'charged' | 'refused' | 'refunded' | 'void' };

/** Who takes the money. Every call is keyed: the same key charges once. @throws when it is not known what became of the call */
export type PaymentProvider = {
  readonly charge: (key: string, amount: number, currency: string) => Promise<Charge>;
  readonly find: (key: string) => Promise<Charge | null>;
  /** Gives back, or keeps out what has not arrived. */
  readonly refund: (key: string) => Promise<Charge>;
};

const answerSchema = z.object({ state: z.enum(['charged', 'refused', 'refunded', 'void']) });

/** The provider over HTTP, see dev/payment-provider for what it must answer. */
export const createHttpProvider = ({ url, timeoutMs }: { url: string; timeoutMs: number }): PaymentProvider => {
  const call = async (method: string, path: string, body?: object): Promise<Charge | null> => {
    const response = await fetch(`${url}/charges/${path}`, {
      method,
      signal: AbortSignal.timeout(timeoutMs),
      ...(body === undefined ? {} : { body: JSON.stringify(body), headers: { 'content-type': 'application/json' } }),
    });
    if (response.status === 404) {
      await response.body?.cancel();
      return null;
    }
    if (!response.ok) {
      await response.body?.cancel();
      throw new Error(`the provider answered ${response.status}`);
    }
    return answerSchema.parse(await response.json());
  };
  const must = async (charge: Promise<Charge | null>): Promise<Charge> => {
    const found = await charge;
    if (!found) throw new Error('the provider does not know this path');
    return found;
  };
  return {
    charge: (key, amount, currency) => must(call('PUT', key, { amount, currency })),
    find: (key) => call('GET', key),
    refund: (key) => must(call('POST', `${key}/refund`)),
  };
};
