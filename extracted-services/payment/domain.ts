import type { Outcome } from '@banyan/kit/participant.ts';
import { z } from 'zod';
import type { Charge } from './provider.ts';

/** What the saga asks to be paid. Major units. */
export const paymentSchema = z.object({ amount: z.number().min(0).max(1e9), currency: z.string().length(3) });

/** What a charge means for the saga. A charge that was given back counts as refused: it must not be taken again. */
export const outcomeOf = (charge: Charge): Outcome => {
  switch (charge.state) {
    case 'charged':
      return { outcome: 'done' };
    case 'refused':
      return { outcome: 'refused', why: 'the card was refused' };
    case 'refunded':
    case 'void':
      return { outcome: 'refused', why: 'given back' };
  }
};
