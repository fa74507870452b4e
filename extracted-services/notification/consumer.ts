import { orderEvents } from '@banyan/contracts/events/order.ts';
import { type Handler, project, react } from '@banyan/kit/handlers.ts';
import { mailAbout } from './domain.ts';
import { customerOf, forgetCustomer, putCustomer, sendMail } from './store.ts';

/** Who ordered what is a projection, of every origin; the mail is a reaction, so that an order placed on legacy, in shadow or in a replay sends none. */
export const handlers: readonly Handler[] = [
  project({
    types: ['order.placed.v1', 'order.imported.v1', 'order.changed.v1'],
    apply: (trx, { subject, data }) => putCustomer(trx, subject, orderEvents['order.placed.v1'].parse(data).userId),
  }),
  project({ types: ['order.deleted.v1'], apply: (trx, { subject }) => forgetCustomer(trx, subject) }),
  react({
    types: ['order.placed.v1', 'order.cancelled.v1'],
    apply: async (trx, { id, type, subject }) => {
      const customer = await customerOf(trx, subject);
      if (customer === null) throw new Error(`order ${subject} is not known here, so nobody can be written to`);
      await sendMail(trx, mailAbout(type as 'order.placed.v1' | 'order.cancelled.v1', subject, customer), subject, id);
    },
  }),
];
