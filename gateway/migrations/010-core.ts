import type { Knex } from 'knex';

export const name = '010-core';

/**
 * What every process of Banyan shares: who owns which context, who is alive, and the outbox with its one way in, `banyan.append_fact`.
 * Error codes raised here: BY001 frozen, BY002 not the owner, BY003 stale epoch, BY404 unknown context.
 */
export const up = async (db: Knex): Promise<void> => {
  await db.raw(`
create table banyan.context (
  name            text primary key,
  grp             text,
  stage           text not null check (stage in ('legacy', 'shadow', 'canary', 'cutover', 'retired')),
  canary_share_bp integer not null default 0 check (canary_share_bp between 0 and 10000),
  killed          boolean not null default false,
  -- the flip that holds the freeze; commands wait while it is set
  frozen_by       uuid,
  -- whose writes count; changes only inside a flip, together with the epoch
  owner           text not null default 'legacy' check (owner in ('legacy', 'extracted')),
  epoch           integer not null default 1,
  version         bigint not null default 1,
  -- the last change of stage: the window of the parity report
  since           timestamptz not null default now(),
  updated_at      timestamptz not null default now(),
  updated_by      text not null default 'config'
);

create table banyan.member (
  id           uuid primary key,
  name         text not null,
  started_at   timestamptz not null default now(),
  heartbeat_at timestamptz not null default now(),
  -- context name -> version of the flag that this process serves now
  seen         jsonb not null default '{}'
);

create table banyan.flip (
  id         uuid primary key,
  contexts   text[] not null,
  from_stage text not null,
  to_stage   text not null,
  state      text not null check (state in ('pending', 'freezing', 'draining', 'watermark', 'switching', 'done', 'undone')),
  detail     text,
  actor      text not null,
  reason     text not null,
  driver     uuid not null,
  created_at timestamptz not null default now(),
  updated_at timestamptz not null default now()
);

create table banyan.subject_head (
  source   text not null,
  subject  text not null,
  epoch    integer not null,
  sequence bigint not null,
  primary key (source, subject, epoch)
);

create table banyan.outbox (
  position        bigint generated always as identity primary key,
  id              uuid not null unique,
  context         text not null,
  source          text not null,
  type            text not null,
  subject         text not null,
  sequence        bigint not null,
  epoch           integer not null,
  -- 0..15: the top four bits of md5(subject), the same bits that choose the shard
  lane            smallint not null,
  -- the record's bytes, as they go to the stream
  envelope        text not null,
  ledger_id       uuid,
  created_at      timestamptz not null default now(),
  published_at    timestamptz,
  shard           text,
  sequence_number text,
  unique (source, subject, epoch, sequence)
);
create index outbox_due on banyan.outbox (lane, position) where published_at is null;
create index outbox_context_due on banyan.outbox (context, created_at) where published_at is null;
create index outbox_ledger on banyan.outbox (ledger_id) where ledger_id is not null;

-- a command's key publishes one fact of a type about a subject, however often and by whomever the key is used
create table banyan.fact_key (
  context text not null,
  type    text not null,
  subject text not null,
  key     text not null,
  fact_id uuid not null,
  at      timestamptz not null default now(),
  primary key (context, type, subject, key)
);

-- facts of origin extracted that the legacy tables have still to learn; back-sync deletes a row when it is applied
create table banyan.back_sync (
  fact_id    uuid primary key,
  context    text not null,
  subject    text not null,
  position   bigint not null,
  envelope   text not null,
  attempts   integer not null default 0,
  error      text,
  created_at timestamptz not null default now()
);
create index back_sync_due on banyan.back_sync (context, position);

create table banyan.lane (
  lane  smallint primary key check (lane between 0 and 15),
  owner uuid,
  -- fencing token: raised whenever the lane changes hands
  token bigint not null default 0,
  until timestamptz not null default 'epoch'
);
insert into banyan.lane (lane) select generate_series(0, 15);

create table banyan.pin (
  context    text not null,
  -- keyed hash of the sticky key: never the key itself
  client     text not null,
  side       text not null check (side in ('legacy', 'extracted')),
  until      timestamptz not null,
  primary key (context, client)
);
create index pin_until on banyan.pin (until);

create function banyan.uuid7() returns uuid language sql volatile as $$
  select encode(set_bit(set_bit(overlay(uuid_send(gen_random_uuid())
    placing substring(int8send(floor(extract(epoch from clock_timestamp()) * 1000)::bigint) from 3) from 1 for 6), 52, 1), 53, 1), 'hex')::uuid
$$;

create function banyan.lane_of(p_subject text) returns smallint language sql immutable as $$
  select (get_byte(decode(substr(md5(p_subject), 1, 2), 'hex'), 0) / 16)::smallint
$$;

-- Held shared by every append and exclusively by a flip's freeze and switch: after the exclusive lock was granted no transaction of the earlier epoch is open.
create function banyan.context_lock(p_context text) returns bigint language sql immutable as $$
  select hashtextextended('banyan.context:' || p_context, 0)
$$;

/*
 * The one way into the outbox, called in the transaction of the change it reports.
 *   p_kind  command  a new write: refused while frozen (BY001), from a side that does not own the context (BY002), under another epoch than p_epoch (BY003)
 *           settle   the outcome of a write that was admitted before: never refused
 *           capture  a change that was found in the legacy tables: never refused
 *   p_key   idempotency key: the second fact of this context, type, subject and key is not appended; the first one's identity is returned
 */
create function banyan.append_fact(
  p_context text, p_origin text, p_type text, p_subject text, p_data jsonb, p_kind text,
  p_key text default null, p_ledger uuid default null, p_causation text default null, p_phase text default null,
  p_traceparent text default null, p_epoch integer default null, p_time timestamptz default null
) returns table (fact_id uuid, fact_sequence bigint, fact_epoch integer, appended boolean) language plpgsql as $$
declare
  v_context  banyan.context%rowtype;
  v_source   text := '/banyan/' || p_context || '/' || p_origin;
  v_id       uuid := banyan.uuid7();
  v_sequence bigint;
  v_position bigint;
  v_envelope text;
begin
  if p_kind not in ('command', 'settle', 'capture') then raise exception 'append_fact: kind % is none of command, settle, capture', p_kind using errcode = '22023'; end if;
  if p_origin not in ('legacy', 'extracted') then raise exception 'append_fact: origin % is neither legacy nor extracted', p_origin using errcode = '22023'; end if;
  if p_subject is null or p_subject = '' or length(p_subject) > 256 then raise exception 'append_fact: subject must have 1 to 256 characters' using errcode = '22023'; end if;
  if jsonb_typeof(p_data) is distinct from 'object' then raise exception 'append_fact: data must be a JSON object' using errcode = '22023'; end if;

  perform pg_advisory_xact_lock_shared(banyan.context_lock(p_context));
  select * into v_context from banyan.context c where c.name = p_context;
  if not found then raise exception 'context % is not known to the store', p_context using errcode = 'BY404'; end if;
  if p_kind = 'command' then
    if v_context.frozen_by is not null then raise exception 'context % is frozen by flip %', p_context, v_context.frozen_by using errcode = 'BY001'; end if;
    if v_context.owner <> p_origin then raise exception 'context % is owned by %, not by %', p_context, v_context.owner, p_origin using errcode = 'BY002'; end if;
    if p_epoch is not null and p_epoch <> v_context.epoch then raise exception 'context % is at epoch %, the command came under %', p_context, v_context.epoch, p_epoch using errcode = 'BY003'; end if;
  end if;

  if p_key is not null then
    insert into banyan.fact_key (context, type, subject, key, fact_id) values (p_context, p_type, p_subject, p_key, v_id) on conflict do nothing;
    if not found then
      return query select k.fact_id, o.sequence, o.epoch, false from banyan.fact_key k left join banyan.outbox o on o.id = k.fact_id
        where k.context = p_context and k.type = p_type and k.subject = p_subject and k.key = p_key;
      return;
    end if;
  end if;

  -- the row lock makes commit order the order of sequences
  insert into banyan.subject_head as h (source, subject, epoch, sequence) values (v_source, p_subject, v_context.epoch, 1)
    on conflict (source, subject, epoch) do update set sequence = h.sequence + 1 returning h.sequence into v_sequence;

  v_envelope := jsonb_strip_nulls(jsonb_build_object(
    'specversion', '1.0', 'id', v_id, 'source', v_source, 'type', p_type, 'subject', p_subject,
    'time', to_char(coalesce(p_time, clock_timestamp()) at time zone 'UTC', 'YYYY-MM-DD"T"HH24:MI:SS.MS"Z"'),
    'datacontenttype', 'application/json', 'partitionkey', p_subject, 'sequence', lpad(v_sequence::text, 18, '0'), 'epoch', v_context.epoch,
    'phase', p_phase, 'origin', p_origin, 'causationid', coalesce(p_causation, p_ledger::text), 'traceparent', p_traceparent
  )) || jsonb_build_object('data', p_data);

  insert into banyan.outbox (id, context, source, type, subject, sequence, epoch, lane, envelope, ledger_id)
    values (v_id, p_context, v_source, p_type, p_subject, v_sequence, v_context.epoch, banyan.lane_of(p_subject), v_envelope, p_ledger)
    returning outbox.position into v_position;
  if p_origin = 'extracted' then
    insert into banyan.back_sync (fact_id, context, subject, position, envelope) values (v_id, p_context, p_subject, v_position, v_envelope);
  end if;
  return query select v_id, v_sequence, v_context.epoch, true;
end $$;
`);
};
