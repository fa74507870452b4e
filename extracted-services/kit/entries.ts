import type { _Record } from '@aws-sdk/client-kinesis';
import { type Envelope, envelopeSchema } from '@banyan/contracts/envelope.ts';
import { deaggregate } from '@banyan/contracts/kpl.ts';

/** One user record of the stream. `subsequence` counts inside an aggregated record, from 0. */
export type Entry = { readonly sequenceNumber: string; readonly subsequence: number } & (
  | { readonly kind: 'fact'; readonly envelope: Envelope; readonly text: string }
  | { readonly kind: 'malformed'; readonly why: string; readonly text: string }
);

const KEPT_BYTES = 48 * 1024;
const decoder = new TextDecoder('utf-8', { fatal: true });

type Read = { kind: 'fact'; envelope: Envelope; text: string } | { kind: 'malformed'; why: string; text: string };

const malformed = (data: Uint8Array, why: string): Read => ({
  kind: 'malformed',
  why,
  text: Buffer.from(data.buffer, data.byteOffset, Math.min(data.byteLength, KEPT_BYTES)).toString('base64'),
});

const readEnvelope = (data: Uint8Array): Read => {
  let text: string;
  let value: unknown;
  try {
    text = decoder.decode(data);
    value = JSON.parse(text);
  } catch {
    return malformed(data, 'not a JSON document in UTF-8');
  }
  const read = envelopeSchema.safeParse(value);
  if (!read.success) {
    const issue = read.error.issues[0]!;
    return malformed(data, `no envelope: ${issue.path.join('.') || '(root)'}: ${issue.message}`);
  }
  const { id, source, subject } = read.data;
  // PostgreSQL's text holds every character but this one
  if (`${id}${source}${subject}`.includes('\0')) return malformed(data, 'no envelope: a NUL in id, source or subject');
  return { kind: 'fact', envelope: read.data, text };
};

/** The user records of one stream record, in order; a record that is not aggregated, or not well, is one user record (as in the KCL). */
export const entriesOf = (record: _Record): Entry[] => {
  const data = record.Data ?? new Uint8Array();
  const sequenceNumber = record.SequenceNumber ?? '';
  const parts = deaggregate(data)?.map((part) => part.data) ?? [data];
  return parts.map((part, subsequence) => ({ sequenceNumber, subsequence, ...readEnvelope(part) }));
};

/** `/banyan/order/legacy` and subject 7 -> `order/7`. What is quarantined together: an aggregate, whoever reports about it. */
export const keyOf = (envelope: Pick<Envelope, 'source' | 'subject'>): string => `${envelope.source.split('/')[2]}/${envelope.subject}`;
