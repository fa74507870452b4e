import { orderEvents } from '@banyan/contracts/events/order.ts';
import { type Handler, project, react } from '@banyan/kit/handlers.ts';
import { mailAbout } from './domain.ts';
import { customersOf, saveCustomers, sendMails } from './store.ts';

/** Who ordered what is a projection, of every origin; the mail is a reaction, so that an order placed on legacy, in shadow or in a replay sends none. */
export const handlers: readonly Handler[] = [
  project({
    types: ['order.placed.v1', 'order.imported.v1', 'order.changed.v1', 'order.deleted.v1'],
    applyAll: async (trx, facts) => {
      // the last one about an order stands; null = it is gone
      const customers = new Map<string, string | null>();
      for (const { type, subject, data } of facts)
        customers.set(subject, type === 'order.deleted.v1' ? null : orderEvents['order.placed.v1'].parse(data).userId);
      await saveCustomers(trx, customers);
    },
  }),
  react({
    types: ['order.placed.v1', 'order.cancelled.v1'],
    applyAll: async (trx, facts) => {
      const customers = await customersOf(trx, [...new Set(facts.map(({ subject }) => subject))]);
      const mails = facts.map(({ id, type, subject }) => {
        const customer = customers.get(subject);
        if (customer === undefined) throw new Error(`order ${subject} is not known here, so nobody can be written to`);
        return { ...mailAbout(type as 'order.placed.v1' | 'order.cancelled.v1', subject, customer), orderId: subject, factId: id };
      });
      await sendMails(trx, mails);
    },
  }),
];
