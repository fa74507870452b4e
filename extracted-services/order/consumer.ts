import { inventoryEvents } from '@banyan/contracts/events/inventory.ts';
import { type OrderState, orderEvents } from '@banyan/contracts/events/order.ts';
import { type Handler, project } from '@banyan/kit/handlers.ts';
import { fromFact, idOf } from './domain.ts';
import {
  deleteOrder,
  deleteProduct,
  earlyCancellation,
  markCancelled,
  pricesOf,
  putEarlyCancellation,
  putOrder,
  putProduct,
} from './store.ts';

const STATES = ['order.placed.v1', 'order.imported.v1', 'order.changed.v1'] as const;
const PRODUCTS = ['inventory.imported.v1', 'inventory.changed.v1'] as const;

/** The read side: orders as legacy's facts tell them, products as inventory's do. */
export const handlers: readonly Handler[] = [
  project({
    types: STATES,
    apply: async (trx, { data, time, type }) => {
      const state: OrderState = orderEvents['order.placed.v1'].parse(data);
      const unpriced = state.items.filter((item) => item.price === undefined).map((item) => idOf(item.productId));
      const prices = unpriced.length > 0 ? await pricesOf(trx, unpriced) : new Map<number, number>();
      const order = fromFact(state, time, prices);
      const cancelledAt = type === 'order.imported.v1' ? await earlyCancellation(trx, order.id) : null;
      await putOrder(trx, cancelledAt === null ? order : { ...order, status: 'cancelled', cancelledAt });
    },
  }),
  project({
    types: ['order.cancelled.v1'],
    apply: async (trx, { data, time }) => {
      const { id, cancelledAt } = orderEvents['order.cancelled.v1'].parse(data);
      const at = new Date(cancelledAt ?? time).toISOString();
      if (!(await markCancelled(trx, idOf(id), at))) await putEarlyCancellation(trx, idOf(id), at);
    },
  }),
  project({
    types: ['order.deleted.v1'],
    apply: async (trx, { data }) => deleteOrder(trx, idOf(orderEvents['order.deleted.v1'].parse(data).id)),
  }),
  project({
    types: PRODUCTS,
    apply: async (trx, { data, epoch, sequence }) => {
      const { id, price, stock, active, stockDelta } = inventoryEvents['inventory.changed.v1'].parse(data);
      await putProduct(trx, idOf(id), { price, stock, active, stockDelta }, { epoch, sequence });
    },
  }),
  project({
    types: ['inventory.deleted.v1'],
    apply: async (trx, { data }) => deleteProduct(trx, idOf(inventoryEvents['inventory.deleted.v1'].parse(data).id)),
  }),
];
