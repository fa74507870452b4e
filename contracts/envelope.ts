import { z } from 'zod';
import { UPSTREAMS } from './vocabulary.ts';

/** 18 digits, contiguous from 1 per (source, subject, epoch); a string because JSON numbers are not safe everywhere. */
export const formatSequence = (sequence: bigint | number): string => String(sequence).padStart(18, '0');

/** `/banyan/{context}/{legacy|extracted}`: who executed the change that the fact reports. */
export const sourceOf = (context: string, origin: 'legacy' | 'extracted'): string => `/banyan/${context}/${origin}`;

const PHASES = ['tentative', 'confirmed', 'compensated'] as const;

/**
 * A fact on the stream: CloudEvents 1.0, structured JSON in the record's Data, with Banyan's extensions.
 * `source` + `id` is the identity; `sequence` orders facts of one (source, subject, epoch).
 */
export const envelopeSchema = z.object({
  specversion: z.literal('1.0'),
  /** UUID version 7 (RFC 9562). */
  id: z.string().min(1).max(64),
  source: z.string().regex(/^\/banyan\/[^/]+\/(legacy|extracted)$/),
  type: z.string().regex(/^[a-z][a-z0-9-]*(\.[a-z][a-z0-9-]*)+\.v[0-9]+$/, 'a past fact such as order.placed.v1'),
  /** The aggregate's id. */
  subject: z.string().min(1).max(256),
  time: z.string().datetime({ offset: true }),
  datacontenttype: z.literal('application/json'),
  data: z.record(z.string(), z.unknown()),
  partitionkey: z.string().min(1).max(256),
  sequence: z.string().regex(/^[0-9]{18}$/),
  epoch: z.number().int().min(0),
  phase: z.enum(PHASES).optional(),
  origin: z.enum(UPSTREAMS),
  causationid: z.string().optional(),
  traceparent: z.string().optional(),
});
export type Envelope = z.infer<typeof envelopeSchema>;
