import type { Envelope } from '@banyan/contracts/envelope.ts';
import { inventoryEvents } from '@banyan/contracts/events/inventory.ts';
import { orderEvents } from '@banyan/contracts/events/order.ts';
import { type Handler, project } from '@banyan/kit/handlers.ts';
import { bookingsOf, idOf, moveOf, productOf } from './domain.ts';
import { book, deleteLines, linesOf, lockProduct, markDeleted, putLines, putProduct, type Stamp } from './store.ts';

const stampOf = ({ epoch, sequence, time }: Envelope): Stamp => ({ epoch, sequence, at: time });

/** Stock from legacy's changes and from what the extracted side sold; `domain.ts` says how the two fit together. */
export const handlers: readonly Handler[] = [
  project({
    types: ['inventory.imported.v1', 'inventory.changed.v1'],
    apply: async (trx, envelope) => {
      const state = inventoryEvents['inventory.changed.v1'].parse(envelope.data);
      const product = productOf(state);
      const { known, news } = await lockProduct(trx, product.id, stampOf(envelope));
      if (news) await putProduct(trx, product, moveOf(state, known), stampOf(envelope));
    },
  }),
  project({
    types: ['inventory.deleted.v1'],
    apply: async (trx, envelope) => {
      const id = idOf(inventoryEvents['inventory.deleted.v1'].parse(envelope.data).id);
      const { known, news } = await lockProduct(trx, id, stampOf(envelope));
      if (known && news) await markDeleted(trx, id, stampOf(envelope));
    },
  }),
  project({
    types: ['order.placed.v1', 'order.imported.v1', 'order.changed.v1'],
    apply: async (trx, { id, type, origin, data, time }) => {
      const order = orderEvents['order.placed.v1'].parse(data);
      const lines = order.items.map((item) => ({ productId: idOf(item.productId), quantity: item.quantity }));
      await putLines(trx, idOf(order.id), lines);
      // what legacy sold is in the stock that legacy reports
      if (type === 'order.placed.v1' && origin === 'extracted') await book(trx, id, bookingsOf(lines, -1, time));
    },
  }),
  project({
    types: ['order.cancelled.v1'],
    apply: async (trx, { id, origin, data, time }) => {
      if (origin !== 'extracted') return;
      const orderId = idOf(orderEvents['order.cancelled.v1'].parse(data).id);
      const lines = await linesOf(trx, orderId);
      // its placing came before it on the same key, so it never will: a person must look
      if (!lines) throw new Error(`order ${orderId} was cancelled, but nothing said what was in it`);
      await book(trx, id, bookingsOf(lines, 1, time));
    },
  }),
  project({
    types: ['order.deleted.v1'],
    apply: (trx, { data }) => deleteLines(trx, idOf(orderEvents['order.deleted.v1'].parse(data).id)),
  }),
];
