import { z } from 'zod';

/**
 * A command on the stream `order-commands`: CloudEvents 1.0, structured JSON in the record's Data. Its id is what an Idempotency-Key is over HTTP: one effect, however often and on
 * whichever of the two ways it comes. Commands under one partition key are run in their order.
 */
export const commandSchema = z.object({
  specversion: z.literal('1.0'),
  id: z.string().min(1).max(255),
  /** Who asks, for the log. */
  source: z.string().min(1).max(256),
  type: z.string().regex(/^[a-z][a-z0-9-]*(\.[a-z][a-z0-9-]*)+\.v[0-9]+$/, 'a wish such as order.place.v1'),
  time: z.string().datetime({ offset: true }).optional(),
  datacontenttype: z.literal('application/json').optional(),
  data: z.record(z.string(), z.unknown()),
  traceparent: z.string().optional(),
});
