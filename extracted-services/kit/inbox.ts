import type { Envelope } from '@banyan/contracts/envelope.ts';
import { AppError } from '@banyan/contracts/errors.ts';
import type { Knex } from 'knex';
import { Fenced } from './failures.ts';
import type { Head } from './head-rule.ts';

/** A shard as one instance holds it: writes count only while the lease has this token. */
export type Hold = { readonly shardId: string; readonly owner: string; readonly token: string };

/** A fact and the JSON text that it came as. */
export type Fact = { readonly envelope: Envelope; readonly text: string };

export type DeadLetter = {
  /** `context/subject`; null for what is no envelope. */
  readonly key: string | null;
  readonly source: string;
  readonly eventId: string;
  readonly sequenceNumber: string;
  readonly text: string;
  /** null = waits behind another one of its key. */
  readonly error: string | null;
};

export type InboxOptions = { readonly schema: string; readonly consumer: string; readonly leaseMs: number };

/** The consumer's tables, each call on the transaction of the effects. */
export type Inbox = ReturnType<typeof createInbox>;

const pairOf = (fact: { source: string; subject: string }): string => `${fact.source} ${fact.subject}`;

export { pairOf };

export const createInbox = ({ schema, consumer, leaseMs }: InboxOptions) => ({
  /** Locks the lease row until the transaction ends and renews it. @throws Fenced when another instance has taken the shard */
  fence: async (trx: Knex, hold: Hold): Promise<void> => {
    const { rows } = await trx.raw<{ rows: unknown[] }>(
      `update ${schema}.lease set until = clock_timestamp() + ? * interval '1 millisecond'
       where consumer = ? and shard_id = ? and owner = ? and token = ? returning 1`,
      [leaseMs, consumer, hold.shardId, hold.owner, hold.token],
    );
    if (rows.length === 0) throw new Fenced(hold.shardId);
  },

  heads: async (trx: Knex, facts: readonly Envelope[]): Promise<Map<string, Head>> => {
    const { rows } = await trx.raw<{ rows: { source: string; subject: string; epoch: number; last_seq: string }[] }>(
      `select h.source, h.subject, h.epoch, h.last_seq from ${schema}.inbox_head h
       join (select distinct * from unnest(?::text[], ?::text[]) as k (source, subject)) k using (source, subject) where h.consumer = ?`,
      [facts.map((fact) => fact.source), facts.map((fact) => fact.subject), consumer],
    );
    return new Map(rows.map((row) => [pairOf(row), { epoch: row.epoch, sequence: BigInt(row.last_seq) }]));
  },

  saveHeads: async (trx: Knex, heads: readonly { source: string; subject: string; head: Head }[]): Promise<void> => {
    if (heads.length === 0) return;
    await trx.raw(
      `insert into ${schema}.inbox_head (consumer, source, subject, epoch, last_seq)
       select ?, * from unnest(?::text[], ?::text[], ?::int[], ?::bigint[])
       on conflict (consumer, source, subject) do update set epoch = excluded.epoch, last_seq = excluded.last_seq`,
      [
        consumer,
        heads.map((each) => each.source),
        heads.map((each) => each.subject),
        heads.map((each) => each.head.epoch),
        heads.map((each) => String(each.head.sequence)),
      ],
    );
  },

  /** Ids of those facts whose effects are committed already, as `source id`. */
  seen: async (trx: Knex, facts: readonly Envelope[]): Promise<Set<string>> => {
    const { rows } = await trx.raw<{ rows: { source: string; event_id: string }[] }>(
      `select i.source, i.event_id from ${schema}.inbox i
       join (select distinct * from unnest(?::text[], ?::text[]) as k (source, event_id)) k using (source, event_id) where i.consumer = ?`,
      [facts.map((fact) => fact.source), facts.map((fact) => fact.id), consumer],
    );
    return new Set(rows.map((row) => `${row.source} ${row.event_id}`));
  },

  remember: async (trx: Knex, facts: readonly Envelope[]): Promise<void> => {
    if (facts.length === 0) return;
    await trx.raw(
      `insert into ${schema}.inbox (consumer, source, event_id) select ?, * from unnest(?::text[], ?::text[]) on conflict do nothing`,
      [consumer, facts.map((fact) => fact.source), facts.map((fact) => fact.id)],
    );
  },

  /** Facts of these subjects that wait for a predecessor, by `source subject`, lowest first. */
  held: async (trx: Knex, facts: readonly Envelope[]): Promise<Map<string, string[]>> => {
    const { rows } = await trx.raw<{ rows: { source: string; subject: string; envelope: string }[] }>(
      `select h.source, h.subject, h.envelope from ${schema}.held h
       join (select distinct * from unnest(?::text[], ?::text[]) as k (source, subject)) k using (source, subject)
       where h.consumer = ? order by h.source, h.subject, h.epoch, h.sequence`,
      [facts.map((fact) => fact.source), facts.map((fact) => fact.subject), consumer],
    );
    const found = new Map<string, string[]>();
    for (const row of rows) found.set(pairOf(row), [...(found.get(pairOf(row)) ?? []), row.envelope]);
    return found;
  },

  hold: async (trx: Knex, { envelope, text }: Fact): Promise<void> => {
    await trx.raw(
      `insert into ${schema}.held (consumer, source, subject, epoch, sequence, event_id, envelope) values (?, ?, ?, ?, ?, ?, ?) on conflict do nothing`,
      [consumer, envelope.source, envelope.subject, envelope.epoch, String(BigInt(envelope.sequence)), envelope.id, text],
    );
  },

  /** Forgets what waited and is applied now, or is of an epoch that is over. */
  release: async (trx: Knex, source: string, subject: string, head: Head): Promise<void> => {
    await trx.raw(
      `delete from ${schema}.held where consumer = ? and source = ? and subject = ? and (epoch < ? or (epoch = ? and sequence <= ?))`,
      [consumer, source, subject, head.epoch, head.epoch, String(head.sequence)],
    );
  },

  quarantined: async (trx: Knex, keys: readonly string[]): Promise<Set<string>> => {
    const { rows } = await trx.raw<{ rows: { key: string }[] }>(
      `select distinct key from ${schema}.dlq where consumer = ? and key = any(?::text[])`,
      [consumer, [...new Set(keys)]],
    );
    return new Set(rows.map((row) => row.key));
  },

  bury: async (trx: Knex, shardId: string, letter: DeadLetter): Promise<void> => {
    await trx.raw(
      `insert into ${schema}.dlq (consumer, key, source, event_id, shard_id, sequence_number, envelope, error)
       values (?, ?, ?, ?, ?, ?, ?, ?) on conflict (consumer, source, event_id) do nothing`,
      [consumer, letter.key, letter.source, letter.eventId, shardId, letter.sequenceNumber, letter.text, letter.error],
    );
  },

  /** @throws AppError `overloaded` (retryable) when more than `limit` facts are held or quarantined: reading on would only pile up more */
  checkRoom: async (trx: Knex, limit: number): Promise<void> => {
    const { rows } = await trx.raw<{ rows: [{ full: boolean }] }>(
      `select (select count(*) from ${schema}.held where consumer = ?) + (select count(*) from ${schema}.dlq where consumer = ?) > ? as full`,
      [consumer, consumer, limit],
    );
    if (rows[0].full)
      throw new AppError('overloaded', `more than ${limit} facts are held or quarantined; nothing more is read`, { retryable: true });
  },

  checkpoint: async (
    trx: Knex,
    shardId: string,
    at: { sequenceNumber: string; subsequence: number } | null,
    ended: boolean,
  ): Promise<void> => {
    await trx.raw(
      `insert into ${schema}.checkpoint as c (consumer, shard_id, sequence_number, subsequence, ended) values (?, ?, ?, ?, ?)
       on conflict (consumer, shard_id) do update set sequence_number = coalesce(excluded.sequence_number, c.sequence_number),
         subsequence = case when excluded.sequence_number is null then c.subsequence else excluded.subsequence end, ended = excluded.ended`,
      [consumer, shardId, at?.sequenceNumber ?? null, at?.subsequence ?? 0, ended],
    );
  },
});
