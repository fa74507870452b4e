import type { ServiceSpec } from '@banyan/kit/service.ts';
import { notificationRoutes } from './api.ts';
import { handlers } from './consumer.ts';
import { migrations, SCHEMA } from './store.ts';

/** The notification service: writes to customers about what happened on the extracted side. */
export const notificationService: ServiceSpec = {
  name: 'notification',
  defaultPort: 4003,
  schema: SCHEMA,
  migrations,
  compose: ({ db }) => ({ routes: notificationRoutes({ db }), handlers }),
};
