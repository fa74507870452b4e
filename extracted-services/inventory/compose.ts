import { participantRoutes, participantTables } from '@banyan/kit/participant.ts';
import type { ServiceSpec } from '@banyan/kit/service.ts';
import express from 'express';
import { inventoryRoutes } from './api.ts';
import { handlers } from './consumer.ts';
import { inventoryActions } from './participant.ts';
import { allProducts, migrations, SCHEMA } from './store.ts';

/** The inventory service: products and stock, read only. */
export const inventoryService: ServiceSpec = {
  name: 'inventory',
  defaultPort: 4002,
  schema: SCHEMA,
  migrations: [participantTables, ...migrations],
  compose: ({ db, log }) => ({
    routes: express.Router().use(
      participantRoutes({ db, schema: SCHEMA, actions: inventoryActions }),
      inventoryRoutes({
        db,
        unexpected: (error) => log.error({ error: error instanceof Error ? error.stack : String(error) }, 'request failed'),
      }),
    ),
    handlers,
    states: allProducts,
  }),
};
