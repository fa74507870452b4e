import { participantRoutes } from '@banyan/kit/participant.ts';
import type { ServiceSpec } from '@banyan/kit/service.ts';
import express from 'express';
import { mayShip, orderIn } from './domain.ts';
import { callBack, handOver, listShipments, migrations, SCHEMA } from './store.ts';

/** The shipping service: one parcel an order, when the saga says so. */
export const shippingService: ServiceSpec = {
  name: 'shipping',
  defaultPort: 4005,
  schema: SCHEMA,
  migrations,
  compose: ({ db }) => {
    const api = express.Router();
    api.get('/api/shipments', async (_req, res) => void res.set('cache-control', 'no-store').json(await listShipments(db)));
    return {
      routes: api.use(
        participantRoutes({
          db,
          schema: SCHEMA,
          actions: {
            ship: {
              kind: 'local',
              act: async (trx, { id, data }) => {
                const order = orderIn(data);
                if (order === null) return { outcome: 'refused', why: 'no order to ship' };
                return mayShip(await handOver(trx, order, id));
              },
              undo: (trx, { id }) => callBack(trx, id),
            },
          },
        }),
      ),
      handlers: [],
    };
  },
};
