import { DONE, type Outcome } from '@banyan/kit/participant.ts';
import { z } from 'zod';

/** What the saga asks to be shipped. */
const wishSchema = z.object({ orderId: z.string().min(1).max(128) });

export const SHIPMENT_STATES = ['handed-over', 'called-back'] as const;
export type ShipmentState = (typeof SHIPMENT_STATES)[number];

/** The order that a command is about; null = it names none. */
export const orderIn = (data: unknown): string | null => {
  const wish = wishSchema.safeParse(data);
  return wish.success && !wish.data.orderId.includes('\0') ? wish.data.orderId : null;
};

/** One parcel an order, also when it was called back: a saga that was taken back is over. @param before the state of the order's parcel, null = it has none */
export const mayShip = (before: ShipmentState | null): Outcome => {
  switch (before) {
    case null:
      return DONE;
    case 'handed-over':
      return { outcome: 'refused', why: 'a parcel of this order is on its way' };
    case 'called-back':
      return { outcome: 'refused', why: 'the parcel of this order was called back' };
  }
};
