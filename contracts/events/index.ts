import type { z } from 'zod';
import { AppError } from '../errors.ts';
import { inventoryEvents } from './inventory.ts';
import { orderEvents } from './order.ts';

/** Every event type that has a published schema. */
const eventSchemas: Readonly<Record<string, z.ZodType>> = { ...orderEvents, ...inventoryEvents };

/**
 * Checks `data` against the schema of `type`. A type without a schema here is the user's own: it must only be an object.
 * @throws AppError `unprocessable` naming the type, the path and what was expected.
 */
export const checkEventData = (type: string, data: unknown): Record<string, unknown> => {
  if (typeof data !== 'object' || data === null || Array.isArray(data))
    throw new AppError('unprocessable', `${type}: data must be a JSON object`);
  const schema = eventSchemas[type];
  if (schema) {
    const result = schema.safeParse(data);
    if (!result.success) {
      const issue = result.error.issues[0]!;
      throw new AppError('unprocessable', `${type}: data.${issue.path.join('.') || '(root)'}: ${issue.message}`);
    }
  }
  return data as Record<string, unknown>;
};
