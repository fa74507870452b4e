import type { ServiceSpec } from '@banyan/kit/service.ts';
import { sagaRoutes } from './api.ts';
import { handlers } from './consumer.ts';
import { DEFINITIONS } from './definition.ts';
import { startOrchestrator } from './orchestrator.ts';
import { createParticipants } from './participants.ts';
import { migrations, SCHEMA } from './store.ts';

const PARTICIPANT_TIMEOUT_MS = 3000;
/** A move asks a participant twice at most; the rest is for the own database. */
const LEASE_MS = 2 * PARTICIPANT_TIMEOUT_MS + 4000;

/** The orchestrator: what must follow an order, and what is taken back when it cannot. @param urls where the participants are, by name */
export const sagaService = (urls: Readonly<Record<string, string>>): ServiceSpec => ({
  name: 'saga',
  defaultPort: 4006,
  schema: SCHEMA,
  migrations,
  compose: ({ config, db, log }) => {
    const orchestrator = startOrchestrator({
      db,
      log,
      definitions: DEFINITIONS,
      leaseMs: LEASE_MS,
      participants: createParticipants({ urls, token: config.serviceToken, timeoutMs: PARTICIPANT_TIMEOUT_MS }),
    });
    return { routes: sagaRoutes({ db, wake: orchestrator.wake }), handlers: handlers(orchestrator.wake), stop: orchestrator.stop };
  },
});

export const urlsOf = (env: Readonly<Record<string, string | undefined>>): Record<string, string> => ({
  order: env.ORDER_URL || 'http://127.0.0.1:4001',
  inventory: env.INVENTORY_URL || 'http://127.0.0.1:4002',
  payment: env.PAYMENT_URL || 'http://127.0.0.1:4004',
  shipping: env.SHIPPING_URL || 'http://127.0.0.1:4005',
});
