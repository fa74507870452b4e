import { inventoryEvents } from '@banyan/contracts/events/inventory.ts';
import { type OrderState, orderEvents } from '@banyan/contracts/events/order.ts';
import { type Handler, project } from '@banyan/kit/handlers.ts';
import { fromFact, idOf, OrderRefused } from './domain.ts';
import { deleteOrder, deleteProduct, markCancelled, pricesOf, putOrder, putProduct } from './store.ts';

const STATES = ['order.placed.v1', 'order.imported.v1', 'order.changed.v1'] as const;
const PRODUCTS = ['inventory.imported.v1', 'inventory.changed.v1'] as const;

/** The read side: orders as legacy's facts tell them, products as inventory's do. */
export const handlers: readonly Handler[] = [
  project({
    types: STATES,
    apply: async (trx, { data, time }) => {
      const state: OrderState = orderEvents['order.placed.v1'].parse(data);
      const unpriced = state.items.filter((item) => item.price === undefined).map((item) => idOf(item.productId));
      const prices = unpriced.length > 0 ? await pricesOf(trx, unpriced) : new Map<number, number>();
      await putOrder(trx, fromFact(state, time, prices));
    },
  }),
  project({
    types: ['order.cancelled.v1'],
    apply: async (trx, { data, time }) => {
      const { id, cancelledAt } = orderEvents['order.cancelled.v1'].parse(data);
      const found = await markCancelled(trx, idOf(id), new Date(cancelledAt ?? time).toISOString());
      // its placing came before it on the same key, so it never will: a person must look
      if (!found) throw new OrderRefused(404, `order ${id} was cancelled, but nothing said that it was placed`);
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
