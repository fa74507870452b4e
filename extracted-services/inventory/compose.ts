import type { ServiceSpec } from '@banyan/kit/service.ts';
import { inventoryRoutes } from './api.ts';
import { handlers } from './consumer.ts';
import { allProducts, migrations, SCHEMA } from './store.ts';

/** The inventory service: products and stock, read only. */
export const inventoryService: ServiceSpec = {
  name: 'inventory',
  defaultPort: 4002,
  schema: SCHEMA,
  migrations,
  compose: ({ db, log }) => ({
    routes: inventoryRoutes({
      db,
      unexpected: (error) => log.error({ error: error instanceof Error ? error.stack : String(error) }, 'request failed'),
    }),
    handlers,
    states: allProducts,
  }),
};
