import { participantRoutes, participantTables } from '@banyan/kit/participant.ts';
import type { ServiceSpec } from '@banyan/kit/service.ts';
import { outcomeOf, paymentSchema } from './domain.ts';
import { createHttpProvider, type PaymentProvider } from './provider.ts';

const SCHEMA = 'svc_payment';
const PROVIDER_TIMEOUT_MS = 2000;

/** The payment service: takes and gives back money when the saga says so, never twice and never without knowing. */
export const paymentService = (provider: PaymentProvider): ServiceSpec => ({
  name: 'payment',
  defaultPort: 4004,
  schema: SCHEMA,
  migrations: [participantTables],
  compose: ({ db }) => ({
    routes: participantRoutes({
      db,
      schema: SCHEMA,
      actions: {
        pay: {
          kind: 'external',
          act: async ({ id, data }) => {
            const payment = paymentSchema.safeParse(data);
            if (!payment.success) return { outcome: 'refused', why: 'no amount to pay' };
            return outcomeOf(await provider.charge(id, payment.data.amount, payment.data.currency));
          },
          ask: async ({ id }) => {
            const charge = await provider.find(id);
            return charge ? outcomeOf(charge) : 'absent';
          },
          undo: async ({ id }) => {
            await provider.refund(id);
            return { outcome: 'done' };
          },
        },
      },
    }),
    handlers: [],
  }),
});

export const providerOf = (env: Readonly<Record<string, string | undefined>>): PaymentProvider =>
  createHttpProvider({ url: (env.PROVIDER_URL || 'http://127.0.0.1:4010').replace(/\/$/, ''), timeoutMs: PROVIDER_TIMEOUT_MS });
