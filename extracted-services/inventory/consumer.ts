import { type Handler, project } from '@banyan/kit/handlers.ts';
import { cancelledIn, foldOrders, foldProducts, ORDER_FACTS, PRODUCT_FACTS, productIdOf } from './fold.ts';
import { linesOf, lockProducts, saveOrders, saveProducts } from './store.ts';

/** Stock from legacy's changes and from what the extracted side sold. */
export const handlers: readonly Handler[] = [
  project({
    types: PRODUCT_FACTS,
    applyAll: async (trx, facts) => {
      const ids = [...new Set(facts.map(({ data }) => productIdOf(data)))];
      await saveProducts(trx, foldProducts(facts, await lockProducts(trx, ids)));
    },
  }),
  project({
    types: ORDER_FACTS,
    applyAll: async (trx, facts) => {
      const cancelled = cancelledIn(facts);
      await saveOrders(trx, foldOrders(facts, cancelled.length > 0 ? await linesOf(trx, cancelled) : new Map()));
    },
  }),
];
