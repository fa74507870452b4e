import type { Knex } from 'knex';

export const name = '062-outbox-hours';

/**
 * The outbox by the hour, so that what was published is dropped and never deleted row by row: dead rows would stand between the relay and what waits. A
 * position holds its hour in the bits above the lowest 40, so a look-up by position knows its part. What was there before is the first part.
 */
export const up = async (db: Knex): Promise<void> => {
  await db.raw(`
create sequence banyan.outbox_turn;
-- the first position of an hour
create function banyan.outbox_hour(p_at timestamptz) returns bigint language sql stable as $$
  select floor(extract(epoch from p_at) / 3600)::bigint << 40
$$;
create function banyan.outbox_position() returns bigint language sql volatile as $$
  select (floor(extract(epoch from clock_timestamp()) / 3600)::bigint << 40) | (nextval('banyan.outbox_turn') & 1099511627775)
$$;

-- the last fact of a series that stood in a part which is gone: the relay must see that the next one follows it
create table banyan.subject_sent (
  source   text not null,
  subject  text not null,
  epoch    integer not null,
  sequence bigint not null,
  primary key (source, subject, epoch)
);

alter table banyan.outbox rename to outbox_before;
alter table banyan.outbox_before alter column position drop identity;
alter table banyan.outbox_before drop constraint outbox_id_key;
alter table banyan.outbox_before drop constraint outbox_source_subject_epoch_sequence_key;
alter index banyan.outbox_pkey rename to outbox_before_pkey;
alter index banyan.outbox_waiting rename to outbox_before_waiting;
alter index banyan.outbox_context_due rename to outbox_before_context_due;
alter index banyan.outbox_ledger rename to outbox_before_ledger;

create table banyan.outbox (
  position        bigint not null default banyan.outbox_position(),
  id              uuid not null,
  context         text not null,
  source          text not null,
  type            text not null,
  subject         text not null,
  sequence        bigint not null,
  epoch           integer not null,
  -- 0..15: banyan.lane_at
  lane            smallint not null,
  partition_key   text,
  -- the record's bytes, as they go to the stream
  envelope        text not null,
  ledger_id       uuid,
  created_at      timestamptz not null default now(),
  published_at    timestamptz,
  shard           text,
  sequence_number text,
  primary key (position)
) partition by range (position);
create index outbox_waiting on banyan.outbox (lane, (position + 0)) where published_at is null;
create index outbox_context_due on banyan.outbox (context, created_at) where published_at is null;
create index outbox_ledger on banyan.outbox (ledger_id) where ledger_id is not null;
create index outbox_id on banyan.outbox (id);
-- subject_head gives each sequence once
create index outbox_series on banyan.outbox (source, subject, epoch, sequence);
-- rows of hours that nobody prepared: no gateway ran for days while others wrote
create table banyan.outbox_rest partition of banyan.outbox default;

/*
 * Prepares the next p_ahead hours and lets go of parts whose facts are all on the stream, the youngest since p_keep_ms. Answers what it did, in numbers. Never
 * waits long for a lock: what cannot be had now is tried again by the next call. One caller at a time.
 */
create function banyan.outbox_turn_over(p_ahead integer, p_keep_ms bigint) returns table (made integer, dropped integer) language plpgsql as $$
declare
  v_hour bigint := floor(extract(epoch from clock_timestamp()) / 3600);
  v_name text;
  v_part record;
  v_done boolean;
begin
  made := 0;
  dropped := 0;
  if not pg_try_advisory_xact_lock(hashtextextended('banyan.outbox', 0)) then return next; return; end if;
  set local lock_timeout = '250ms';
  for v_hour in select generate_series(v_hour, v_hour + p_ahead) loop
    v_name := 'outbox_' || v_hour;
    continue when to_regclass('banyan.' || v_name) is not null;
    begin
      execute format('create table banyan.%I (like banyan.outbox including defaults including constraints)', v_name);
      execute format('alter table banyan.outbox attach partition banyan.%I for values from (%s) to (%s)', v_name, v_hour << 40, (v_hour + 1) << 40);
      made := made + 1;
    exception
      -- rows of this hour stand in outbox_rest already, or the table is in use: they stay where they are
      when check_violation or lock_not_available or invalid_object_definition then null;
    end;
  end loop;
  for v_part in
    select c.relname as name from pg_inherits i join pg_class c on c.oid = i.inhrelid
      where i.inhparent = 'banyan.outbox'::regclass and c.relname <> 'outbox_rest'
        and (c.relname = 'outbox_before' or substr(c.relname, 8)::bigint < floor(extract(epoch from clock_timestamp()) / 3600) - 1)
      order by c.relname limit 50 loop
    execute format($q$select coalesce(max(published_at), 'epoch') < clock_timestamp() - $1 * interval '1 ms' and not exists (select 1 from banyan.%1$I where published_at is null)
      from banyan.%1$I$q$, v_part.name) into v_done using p_keep_ms;
    continue when not v_done;
    begin
      -- against a row that comes in between
      execute format('lock table banyan.%I in share mode', v_part.name);
      execute format('select not exists (select 1 from banyan.%I where published_at is null)', v_part.name) into v_done;
      if v_done then
        execute format($q$insert into banyan.subject_sent as s (source, subject, epoch, sequence) select source, subject, epoch, max(sequence) from banyan.%I group by 1, 2, 3
          on conflict (source, subject, epoch) do update set sequence = greatest(s.sequence, excluded.sequence)$q$, v_part.name);
        execute format('drop table banyan.%I', v_part.name);
        dropped := dropped + 1;
      end if;
    exception when lock_not_available then null;
    end;
  end loop;
  with gone as (
    delete from banyan.outbox_rest r where r.published_at < clock_timestamp() - p_keep_ms * interval '1 ms' returning r.source, r.subject, r.epoch, r.sequence
  )
  insert into banyan.subject_sent as s (source, subject, epoch, sequence) select g.source, g.subject, g.epoch, max(g.sequence) from gone g group by 1, 2, 3
    on conflict (source, subject, epoch) do update set sequence = greatest(s.sequence, excluded.sequence);
  return next;
end $$;
`);
  // a ledger row finds its facts in the parts since it began; those of rows from before this migration may stand in the first one
  await db.raw(`
do $$
begin
  execute format($f$create function banyan.outbox_since(p_at timestamptz) returns bigint language sql stable as
    $b$select case when p_at < %L::timestamptz then 0 else (floor(extract(epoch from p_at) / 3600)::bigint - 1) << 40 end$b$ $f$, clock_timestamp() + interval '1 hour');
  -- positions counted from 1 until now
  execute format('alter table banyan.outbox attach partition banyan.outbox_before for values from (minvalue) to (%s)', 1::bigint << 40);
end $$;
-- a few to begin with: gateways prepare more
select banyan.outbox_turn_over(3, 9223372036854);

create or replace function banyan.relay_mark_records(
  p_member uuid, p_lanes smallint[], p_tokens bigint[], p_record_lanes smallint[], p_shards text[], p_sequences text[], p_positions text[]
) returns integer language plpgsql as $$
declare
  v_held    smallint[];
  v_ledgers uuid[];
  v_marked  integer;
begin
  select array_agg(h.lane) into v_held from (
    select l.lane from banyan.lane l join unnest(p_lanes, p_tokens) as t(lane, token) on t.lane = l.lane and t.token = l.token
      where l.owner = p_member order by l.lane for share of l) h;
  with sent as materialized (
    select r.lane, r.shard, r.sequence, p.position from unnest(p_record_lanes, p_shards, p_sequences, p_positions) as r(lane, shard, sequence, positions)
      cross join lateral unnest(string_to_array(r.positions, ',')::bigint[]) as p(position)
    where r.lane = any (v_held)
  ), marked as (
    update banyan.outbox o set published_at = clock_timestamp(), shard = s.shard, sequence_number = s.sequence
      from sent s where o.position = s.position and o.published_at is null returning o.ledger_id
  )
  select count(*), array_agg(distinct m.ledger_id) filter (where m.ledger_id is not null) into v_marked, v_ledgers from marked m;
  if v_ledgers is null then return v_marked; end if;
  perform 1 from banyan.ledger l where l.id = any (v_ledgers) and l.state in ('applied', 'published', 'compensating') order by l.id for update;
  -- all of its facts are out: acked and all-acked in one step, since every version of a row costs a write of all its indexes
  update banyan.ledger l set state = case l.state when 'compensating' then 'compensated' else 'done' end, sealed_request = null, updated_at = clock_timestamp()
    where l.id = any (v_ledgers) and l.state in ('applied', 'published', 'compensating')
      -- a tentative fact that goes out late does not end what legacy still has to take back
      and (l.undo_state is null or l.undo_state = 'done')
      and not exists (select 1 from banyan.outbox o where o.ledger_id = l.id and o.published_at is null and o.position >= banyan.outbox_since(l.created_at));
  -- acked: the first event of an applied row (a tentative one does not count: it was out before)
  update banyan.ledger l set state = 'published', updated_at = clock_timestamp() where l.id = any (v_ledgers) and l.state = 'applied'
    and exists (select 1 from banyan.outbox o where o.ledger_id = l.id and o.published_at is not null and o.position >= banyan.outbox_since(l.created_at)
      and (l.tentative is null or o.envelope::jsonb ->> 'phase' is distinct from 'tentative'));
  return v_marked;
end $$;
alter function banyan.relay_mark_records set enable_seqscan = off set enable_hashjoin = off set enable_mergejoin = off;
`);
};
