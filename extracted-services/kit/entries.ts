import type { _Record } from '@aws-sdk/client-kinesis';
import { commandSchema } from '@banyan/contracts/command.ts';
import { type Envelope, envelopeSchema, formatSequence } from '@banyan/contracts/envelope.ts';
import { deaggregate } from '@banyan/contracts/kpl.ts';
import { ZodError } from 'zod';
import type { Belongs } from './hash-range.ts';

/** One user record of the stream. `subsequence` counts inside an aggregated record, from 0. */
export type Entry = { readonly sequenceNumber: string; readonly subsequence: number } & (
  | { readonly kind: 'fact'; readonly envelope: Envelope; readonly text: string }
  | { readonly kind: 'malformed'; readonly why: string; readonly text: string }
  /** It was packed for another shard, and comes again there. */
  | { readonly kind: 'foreign' }
);

const KEPT_BYTES = 48 * 1024;
const decoder = new TextDecoder('utf-8', { fatal: true });

type Read = { kind: 'fact'; envelope: Envelope; text: string } | { kind: 'malformed'; why: string; text: string };

const malformed = (data: Uint8Array, why: string): Read => ({
  kind: 'malformed',
  why,
  text: Buffer.from(data.buffer, data.byteOffset, Math.min(data.byteLength, KEPT_BYTES)).toString('base64'),
});

/** What the JSON of a user record stands for. @throws ZodError */
export type Parse = (value: unknown) => Envelope;

export const parseFact: Parse = (value) => envelopeSchema.parse(value);

/**
 * A command in the shape of a fact, so that inbox, dead letters and checkpoints serve both. Each is a subject of its own: commands have no predecessors.
 * @param name of the consumer
 */
export const parseCommand =
  (name: string): Parse =>
  (value) => {
    const { id, type, time, data, traceparent } = commandSchema.parse(value);
    return {
      specversion: '1.0',
      id,
      source: `/banyan/${name}/extracted`,
      type,
      subject: id,
      time: time ?? new Date(0).toISOString(),
      datacontenttype: 'application/json',
      data,
      partitionkey: id,
      sequence: formatSequence(1),
      epoch: 0,
      origin: 'extracted',
      ...(traceparent === undefined ? {} : { traceparent }),
    };
  };

const readRecord = (data: Uint8Array, parse: Parse): Read => {
  let text: string;
  let value: unknown;
  try {
    text = decoder.decode(data);
    value = JSON.parse(text);
  } catch {
    return malformed(data, 'not a JSON document in UTF-8');
  }
  let envelope: Envelope;
  try {
    envelope = parse(value);
  } catch (error) {
    if (!(error instanceof ZodError)) throw error;
    const issue = error.issues[0]!;
    return malformed(data, `no envelope: ${issue.path.join('.') || '(root)'}: ${issue.message}`);
  }
  const { id, source, subject } = envelope;
  // PostgreSQL's text holds every character but this one
  if (`${id}${source}${subject}`.includes('\0')) return malformed(data, 'no envelope: a NUL in id, source or subject');
  return { kind: 'fact', envelope, text };
};

/** The user records of one stream record, in order, those of an aggregated one by the rule of `belongsTo`; a record that is not aggregated, or not well, is one user record (as in the KCL). */
export const entriesOf = (record: _Record, parse: Parse = parseFact, belongs?: Belongs): Entry[] => {
  const data = record.Data ?? new Uint8Array();
  const sequenceNumber = record.SequenceNumber ?? '';
  const members = deaggregate(data);
  if (!members) return [{ sequenceNumber, subsequence: 0, ...readRecord(data, parse) }];
  return members.map((member, subsequence) => ({
    sequenceNumber,
    subsequence,
    ...(belongs && !belongs(member) ? { kind: 'foreign' } : readRecord(member.data, parse)),
  }));
};

/** `/banyan/order/legacy` and subject 7 -> `order/7`. What is quarantined together: an aggregate, whoever reports about it. */
export const keyOf = (envelope: Pick<Envelope, 'source' | 'subject'>): string => `${envelope.source.split('/')[2]}/${envelope.subject}`;
