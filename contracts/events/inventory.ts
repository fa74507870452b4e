import { z } from 'zod';

const id = z.union([z.number().int(), z.string().min(1).max(128)]);

/** The whole of a product and its stock. Price in major units. */
const product = z.object({
  id,
  name: z.string().max(512),
  price: z.number().min(0),
  currency: z.string().length(3),
  stock: z.number().int(),
  active: z.boolean(),
});

/** Events of the context `inventory`, by type. */
export const inventoryEvents = {
  'inventory.imported.v1': product,
  /**
   * Product or stock changed on legacy: the whole new state, and by how many pieces this change moved the stock. Who also books orders of the
   * extracted side adds `stockDelta`: the absolute stock may or may not contain those orders already. Absent for a new product.
   */
  'inventory.changed.v1': product.extend({ stockDelta: z.number().int().optional() }),
  'inventory.deleted.v1': z.object({ id }),
} as const;

export type ProductState = z.infer<typeof product>;
