import { type Handler, project } from '@banyan/kit/handlers.ts';
import { foldOrders, foldProducts, namedBy, ORDER_FACTS, PRODUCT_FACTS, productOfFact } from './fold.ts';
import { knownOrders, lockStamped, saveOrders, saveProducts } from './store.ts';

/** The read side: orders as legacy's facts tell them, products as inventory's do. */
export const handlers: readonly Handler[] = [
  project({
    types: ORDER_FACTS,
    applyAll: async (trx, facts) => saveOrders(trx, foldOrders(facts, await knownOrders(trx, namedBy(facts)))),
  }),
  project({
    types: PRODUCT_FACTS,
    applyAll: async (trx, facts) => {
      const ids = [...new Set(facts.map(({ data }) => productOfFact(data)))];
      await saveProducts(trx, foldProducts(facts, await lockStamped(trx, ids)));
    },
  }),
];
