import { orderEvents } from '@banyan/contracts/events/order.ts';
import { type Handler, react } from '@banyan/kit/handlers.ts';
import { ORDER_SAGA } from './definition.ts';
import { begin } from './store.ts';

/** An order that was placed on the extracted side begins a saga; one that legacy executed never does, nor does a replay. */
export const handlers = (begun: () => void): readonly Handler[] => [
  react({
    types: ['order.placed.v1'],
    apply: async (trx, { id, subject, data }) => {
      const { items, total, currency, userId } = orderEvents['order.placed.v1'].parse(data);
      await begin(trx, {
        id,
        definition: ORDER_SAGA.name,
        version: ORDER_SAGA.version,
        subject,
        deadlineMs: ORDER_SAGA.deadlineMs,
        limitMs: ORDER_SAGA.limitMs,
        data: { orderId: subject, factId: id, userId, items, amount: total ?? 0, currency: currency ?? 'EUR' },
      });
      begun();
    },
  }),
];
