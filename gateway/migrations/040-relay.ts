import type { Knex } from 'knex';

export const name = '040-relay';

/**
 * The outbox, cheaper: an envelope is put together as text, without the spaces that jsonb prints (a record holds a twentieth more facts), and the relay marks
 * whole records. `banyan.relay_mark` stays for gateways of the version before.
 */
export const up = async (db: Knex): Promise<void> => {
  await db.raw(`
-- what waits, per lane in order. An expression, because by position alone the planner may choose the primary key and walk over every fact that was ever
-- published (74 ms for 8,000 rows at first, 396 ms when 40,000 were)
create index outbox_waiting on banyan.outbox (lane, (position + 0)) where published_at is null;
drop index banyan.outbox_due;

create or replace function banyan.append_fact(
  p_context text, p_origin text, p_type text, p_subject text, p_data jsonb, p_kind text,
  p_key text default null, p_ledger uuid default null, p_causation text default null, p_phase text default null,
  p_traceparent text default null, p_epoch integer default null, p_time timestamptz default null
) returns table (fact_id uuid, fact_sequence bigint, fact_epoch integer, appended boolean) language plpgsql as $$
declare
  v_frozen   uuid;
  v_owner    text;
  v_epoch    integer;
  v_source   text := '/banyan/' || p_context || '/' || p_origin;
  v_id       uuid := banyan.uuid7();
  v_subject  text := to_json(p_subject)::text;
  v_sequence bigint;
  v_position bigint;
  v_envelope text;
begin
  if p_kind not in ('command', 'settle', 'capture') then raise exception 'append_fact: kind % is none of command, settle, capture', p_kind using errcode = '22023'; end if;
  if p_origin not in ('legacy', 'extracted') then raise exception 'append_fact: origin % is neither legacy nor extracted', p_origin using errcode = '22023'; end if;
  if p_subject is null or p_subject = '' or length(p_subject) > 256 then raise exception 'append_fact: subject must have 1 to 256 characters' using errcode = '22023'; end if;
  if jsonb_typeof(p_data) is distinct from 'object' then raise exception 'append_fact: data must be a JSON object' using errcode = '22023'; end if;

  perform pg_advisory_xact_lock_shared(banyan.context_lock(p_context));
  select c.frozen_by, c.owner, c.epoch into v_frozen, v_owner, v_epoch from banyan.context c where c.name = p_context;
  if not found then raise exception 'context % is not known to the store', p_context using errcode = 'BY404'; end if;
  if p_kind = 'command' then
    if v_frozen is not null then raise exception 'context % is frozen by flip %', p_context, v_frozen using errcode = 'BY001'; end if;
    if v_owner <> p_origin then raise exception 'context % is owned by %, not by %', p_context, v_owner, p_origin using errcode = 'BY002'; end if;
    if p_epoch is not null and p_epoch <> v_epoch then raise exception 'context % is at epoch %, the command came under %', p_context, v_epoch, p_epoch using errcode = 'BY003'; end if;
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
  insert into banyan.subject_head as h (source, subject, epoch, sequence) values (v_source, p_subject, v_epoch, 1)
    on conflict (source, subject, epoch) do update set sequence = h.sequence + 1 returning h.sequence into v_sequence;

  v_envelope := '{"specversion":"1.0","id":"' || v_id || '","source":' || to_json(v_source) || ',"type":' || to_json(p_type) || ',"subject":' || v_subject
    || ',"time":"' || to_char(coalesce(p_time, clock_timestamp()) at time zone 'UTC', 'YYYY-MM-DD"T"HH24:MI:SS.MS"Z"')
    || '","datacontenttype":"application/json","partitionkey":' || v_subject || ',"sequence":"' || lpad(v_sequence::text, 18, '0') || '","epoch":' || v_epoch
    || coalesce(',"phase":' || to_json(p_phase), '') || ',"origin":"' || p_origin || '"' || coalesce(',"causationid":' || to_json(coalesce(p_causation, p_ledger::text)), '')
    || coalesce(',"traceparent":' || to_json(p_traceparent), '') || ',"data":' || p_data || '}';

  insert into banyan.outbox (id, context, source, type, subject, sequence, epoch, lane, envelope, ledger_id)
    values (v_id, p_context, v_source, p_type, p_subject, v_sequence, v_epoch, banyan.lane_of(p_subject), v_envelope, p_ledger)
    returning outbox.position into v_position;
  if p_origin = 'extracted' then
    insert into banyan.back_sync (fact_id, context, subject, position, envelope) values (v_id, p_context, p_subject, v_position, v_envelope);
  end if;
  return query select v_id, v_sequence, v_epoch, true;
end $$;

/*
 * Records sent: the p_record_* and p_positions are parallel arrays, the positions of a record separated by commas. Marks only rows of lanes that p_member
 * still holds under the given token; moves their ledger rows on.
 */
create function banyan.relay_mark_records(
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
      and not exists (select 1 from banyan.outbox o where o.ledger_id = l.id and o.published_at is null);
  -- acked: the first event of an applied row (a tentative one does not count: it was out before)
  update banyan.ledger l set state = 'published', updated_at = clock_timestamp() where l.id = any (v_ledgers) and l.state = 'applied'
    and exists (select 1 from banyan.outbox o where o.ledger_id = l.id and o.published_at is not null
      and (l.tentative is null or o.envelope::jsonb ->> 'phase' is distinct from 'tentative'));
  return v_marked;
end $$;
`);
};
