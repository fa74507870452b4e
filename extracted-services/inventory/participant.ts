import type { Action } from '@banyan/kit/participant.ts';
import { z } from 'zod';
import { bookingsOf, idOf } from './domain.ts';
import { release, reserve } from './store.ts';

const wishSchema = z.object({
  factId: z.string().min(1).max(64),
  items: z.array(z.object({ productId: z.union([z.number(), z.string()]), quantity: z.number().int().min(1) })).max(1000),
});

/** Stock's part in the saga: no piece is promised to two orders. */
export const inventoryActions: Readonly<Record<string, Action>> = {
  reserve: {
    kind: 'local',
    act: async (trx, { id, data }) => {
      const wish = wishSchema.safeParse(data);
      if (!wish.success) return { outcome: 'refused', why: 'nothing to reserve' };
      // one line per product
      const pieces = bookingsOf(
        wish.data.items.map((item) => ({ productId: idOf(item.productId), quantity: item.quantity })),
        1,
        '',
      );
      const lines = pieces.map(({ productId, delta }) => ({ productId, quantity: delta }));
      const reserved = await reserve(trx, id, wish.data.factId, lines);
      if (reserved.kind === 'done') return { outcome: 'done' };
      // what was set aside for the lines before goes back with them
      await release(trx, id);
      return reserved.kind === 'short'
        ? { outcome: 'refused', why: `too few of product ${reserved.productId}` }
        : { outcome: 'unknown', why: 'a product is not known yet' };
    },
    undo: (trx, { id }) => release(trx, id),
  },
};
