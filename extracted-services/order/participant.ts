import { type Action, DONE } from '@banyan/kit/participant.ts';
import type { Commands } from './commands.ts';
import { findOrder } from './store.ts';

const idOf = (data: Readonly<Record<string, unknown>>): number =>
  typeof data.orderId === 'string' && /^[1-9]\d{0,15}$/.test(data.orderId) ? Number(data.orderId) : Number.NaN;

/** The order's part in the saga: it is there already; undone, it is cancelled, which tells everybody else. */
export const orderActions = (commands: Commands): Readonly<Record<string, Action>> => ({
  accept: {
    kind: 'local',
    given: true,
    act: async (trx, { data }) => {
      const id = idOf(data);
      const order = Number.isSafeInteger(id) ? await findOrder(trx, id) : null;
      if (!order) return { outcome: 'refused', why: 'there is no such order' };
      return order.status === 'cancelled' ? { outcome: 'refused', why: 'the order was cancelled' } : DONE;
    },
    undo: async (trx, command) => {
      await commands.cancelIn(trx, idOf(command.data), { key: command.id, epoch: null, causation: null, traceparent: null });
    },
  },
});
