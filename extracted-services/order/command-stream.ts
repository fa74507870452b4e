import { type Handler, react } from '@banyan/kit/handlers.ts';
import type { Knex } from 'knex';
import type { CommandContext, Commands } from './commands.ts';
import { idOf, type Order, OrderRefused, readOrderRequest } from './domain.ts';
import { type CommandOutcome, findOutcome, putOutcome } from './store.ts';

const done = (order: Order): CommandOutcome => ({ outcome: 'done', status: 200, orderId: order.id, detail: null });

/** @throws OrderRefused 404 for what cannot be the number of an order */
const orderIdOf = (value: unknown): number => {
  try {
    if (typeof value === 'number' || typeof value === 'string') return idOf(value);
  } catch {
    // said below
  }
  throw new OrderRefused(404, 'order not found');
};

/**
 * The second way in: `order.place.v1 {userId, items}` and `order.cancel.v1 {id}` from the stream, run by what also answers HTTP, with the command's id as the
 * key. What became of one is kept, since nobody waits for an answer. While this service does not own the context they wait.
 */
export const commandHandlers = (commands: Commands): readonly Handler[] => {
  const run = (
    type: string,
    work: (trx: Knex.Transaction, data: Record<string, unknown>, context: CommandContext) => Promise<Order>,
  ): Handler =>
    react({
      types: [type],
      apply: async (trx, { id, data, traceparent }) => {
        if (await findOutcome(trx, id)) return;
        const context: CommandContext = { key: id, epoch: null, causation: null, traceparent: traceparent ?? null };
        let outcome: CommandOutcome;
        try {
          // what was begun before a refusal is undone
          outcome = done(await trx.transaction((inner) => work(inner, data, context)));
        } catch (error) {
          if (!(error instanceof OrderRefused)) throw error;
          outcome = { outcome: 'refused', status: error.status, orderId: null, detail: error.message };
        }
        await putOutcome(trx, id, type, outcome);
      },
    });
  return [
    run('order.place.v1', (trx, data, context) => commands.placeIn(trx, readOrderRequest(data), context)),
    run('order.cancel.v1', (trx, data, context) => commands.cancelIn(trx, orderIdOf(data.id), context)),
  ];
};
