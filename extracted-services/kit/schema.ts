import type { Knex } from 'knex';

/** A step of a service's schema; forward only, each once, in the given order. `schema` is the name to use, a safe SQL identifier. */
export type Migration = { readonly name: string; up(trx: Knex.Transaction, schema: string): Promise<void> };

/** @throws Error for a name that would need quoting: it is put into SQL as it is */
export const identifier = (schema: string): string => {
  if (!/^[a-z_][a-z0-9_]{0,62}$/.test(schema)) throw new Error(`"${schema}" is no schema name: expected lower case letters, digits and _`);
  return schema;
};

/** What the consumer keeps; one set of tables per service, beside its own. */
const consumerTables: Migration = {
  name: '001-consumer',
  up: async (trx, schema) => {
    await trx.raw(`
create table ${schema}.checkpoint (
  consumer        text not null,
  shard_id        text not null,
  -- the last record whose effects are committed; null = none yet, start at the oldest
  sequence_number text,
  subsequence     integer not null default 0,
  -- a closed shard that was read to its end: its children may be read
  ended           boolean not null default false,
  -- an operator asked to read again: up to here nobody reacts
  replay_until    text,
  primary key (consumer, shard_id)
);
create table ${schema}.lease (
  consumer  text not null,
  shard_id  text not null,
  owner     text,
  -- fencing token: raised whenever the shard changes hands
  token     bigint not null default 0,
  until     timestamptz not null default 'epoch',
  -- how far behind the newest record the owner was, and when it looked
  behind_ms bigint,
  seen_at   timestamptz,
  primary key (consumer, shard_id)
);
create table ${schema}.inbox (
  consumer text not null,
  source   text not null,
  event_id text not null,
  at       timestamptz not null default now(),
  primary key (consumer, source, event_id)
);
create index inbox_at on ${schema}.inbox using brin (at);
create table ${schema}.inbox_head (
  consumer text not null,
  source   text not null,
  subject  text not null,
  epoch    integer not null,
  last_seq bigint not null,
  primary key (consumer, source, subject)
);
-- facts that came before their predecessor
create table ${schema}.held (
  consumer text not null,
  source   text not null,
  subject  text not null,
  epoch    integer not null,
  sequence bigint not null,
  event_id text not null,
  envelope text not null,
  held_at  timestamptz not null default now(),
  primary key (consumer, source, subject, epoch, sequence)
);
-- facts that cannot be applied, and in order behind them the later ones of the same key
create table ${schema}.dlq (
  position        bigint generated always as identity primary key,
  consumer        text not null,
  -- context/subject; null for a record that is no envelope
  key             text,
  source          text not null,
  event_id        text not null,
  shard_id        text not null,
  sequence_number text not null,
  envelope        text not null,
  -- null = nothing wrong with this one, it waits behind another
  error           text,
  at              timestamptz not null default now(),
  unique (consumer, source, event_id)
);
create index dlq_key on ${schema}.dlq (consumer, key);
`);
  },
};

const positions: Migration = {
  name: '002-replay-from',
  up: async (trx, schema) => {
    await trx.raw(`
-- an operator asked to read again from here; null = from the oldest record
alter table ${schema}.checkpoint add column replay_from timestamptz;
-- heads are overwritten all the time: room for the new version beside the old one spares the index
alter table ${schema}.inbox_head set (fillfactor = 70);
-- facts that an operator gave up, and why
create table ${schema}.dlq_skipped (
  position  bigint primary key,
  consumer  text not null,
  key       text,
  source    text not null,
  event_id  text not null,
  envelope  text not null,
  error     text,
  reason    text not null,
  actor     text not null,
  at        timestamptz not null default now()
);`);
  },
};

/** Makes and completes a service's schema: the consumer's tables, then `migrations`. Safe to call from many processes at once. */
export const migrateSchema = (db: Knex, name: string, migrations: readonly Migration[] = []): Promise<void> =>
  db.transaction(async (trx) => {
    const schema = identifier(name);
    await trx.raw('select pg_advisory_xact_lock(hashtextextended(?, 0))', [`banyan.service:${schema}`]);
    await trx.raw(`create schema if not exists ${schema}`);
    await trx.raw(`create table if not exists ${schema}.migration (name text primary key, at timestamptz not null default now())`);
    const done = new Set((await trx<{ name: string }>(`${schema}.migration`).select('name')).map((row) => row.name));
    for (const migration of [consumerTables, positions, ...migrations]) {
      if (done.has(migration.name)) continue;
      await migration.up(trx, schema);
      await trx(`${schema}.migration`).insert({ name: migration.name });
    }
  });
