import { sourceOf } from '@banyan/contracts/envelope.ts';
import { participantRoutes, participantTables } from '@banyan/kit/participant.ts';
import type { ServiceSpec } from '@banyan/kit/service.ts';
import express from 'express';
import { orderRoutes } from './api.ts';
import { commandHandlers } from './command-stream.ts';
import { createCommands } from './commands.ts';
import { handlers } from './consumer.ts';
import { stateOf } from './domain.ts';
import { createIds } from './ids.ts';
import { orderActions } from './participant.ts';
import { allOrders, findOutcome, migrations, ordersOf, SCHEMA } from './store.ts';

/** The order service: queries from its own store, commands once it owns the context. */
export const orderService: ServiceSpec = {
  name: 'order',
  defaultPort: 4001,
  schema: SCHEMA,
  migrations: [participantTables, ...migrations],
  publishes: sourceOf('order', 'extracted'),
  dryRun: { ids: 'transient' },
  compose: ({ config, db, log }) => {
    const ids = createIds({ adapterUrl: config.adapterUrl, token: config.adapterToken, context: 'order' });
    const commands = createCommands({ db, ids, now: () => new Date() });
    const api = orderRoutes({
      db,
      commands,
      unexpected: (error) => log.error({ error: error instanceof Error ? error.stack : String(error) }, 'request failed'),
    });
    return {
      routes: express.Router().use(participantRoutes({ db, schema: SCHEMA, actions: orderActions(commands) }), api),
      handlers,
      commands: { handlers: commandHandlers(commands), outcome: (id) => findOutcome(db, id) },
      states: async function* (trx) {
        for await (const chunk of allOrders(trx)) yield chunk.map(stateOf);
      },
      statesOf: async (trx, wanted) => (await ordersOf(trx, wanted)).map(stateOf),
      stop: ids.stop,
    };
  },
};
