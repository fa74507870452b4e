import type { Knex } from 'knex';

export const name = '061-settle-many';

/**
 * The terminal commit in a few statements for all commands that were simply answered, which nearly all are; the others go one by one as before, by what was
 * `ledger_settle` until now. The function keeps its name and shape, so gateways of the version before gain too.
 */
export const up = async (db: Knex): Promise<void> => {
  await db.raw(`
-- how a context's facts are spread over the stream: null = by aggregate; {"slots": [0..15]} = by aggregate, over these lanes only; {"shards": n} = a subject over n keys, its order waived
alter table banyan.context add column partition jsonb;
-- null = the subject; else the facts of a subject are in no order on the stream
alter table banyan.outbox add column partition_key text;

create function banyan.partition_key(p_partition jsonb, p_subject text, p_sequence bigint) returns text language sql immutable as $$
  select case when jsonb_exists(p_partition, 'shards') then left(p_subject, 250) || '#' || p_sequence % (p_partition ->> 'shards')::integer end
$$;
create function banyan.lane_at(p_partition jsonb, p_subject text, p_sequence bigint) returns smallint language sql immutable as $$
  select case when jsonb_exists(p_partition, 'slots')
    then (p_partition -> 'slots' ->> (('x' || substr(md5(p_subject), 3, 4))::bit(16)::integer % jsonb_array_length(p_partition -> 'slots')))::smallint
    else banyan.lane_of(coalesce(banyan.partition_key(p_partition, p_subject, p_sequence), p_subject)) end
$$;

-- the bytes of a fact as they go to the stream
create function banyan.fact_envelope(
  p_id uuid, p_source text, p_type text, p_subject text, p_time timestamptz, p_sequence bigint, p_epoch integer, p_key text, p_phase text, p_origin text, p_causation text, p_traceparent text, p_data jsonb
) returns text language sql stable as $$
  select '{"specversion":"1.0","id":"' || p_id || '","source":' || to_json(p_source) || ',"type":' || to_json(p_type) || ',"subject":' || to_json(p_subject)
    || ',"time":"' || to_char(p_time at time zone 'UTC', 'YYYY-MM-DD"T"HH24:MI:SS.MS"Z"')
    || '","datacontenttype":"application/json","partitionkey":' || to_json(coalesce(p_key, p_subject)) || ',"sequence":"' || lpad(p_sequence::text, 18, '0') || '","epoch":' || p_epoch
    || coalesce(',"phase":' || to_json(p_phase), '') || ',"origin":"' || p_origin || '"' || coalesce(',"causationid":' || to_json(p_causation), '')
    || coalesce(',"traceparent":' || to_json(p_traceparent), '') || ',"data":' || p_data || '}'
$$;

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
  v_partition jsonb;
  v_key      text;
  v_sequence bigint;
  v_position bigint;
  v_envelope text;
begin
  if p_kind not in ('command', 'settle', 'capture') then raise exception 'append_fact: kind % is none of command, settle, capture', p_kind using errcode = '22023'; end if;
  if p_origin not in ('legacy', 'extracted') then raise exception 'append_fact: origin % is neither legacy nor extracted', p_origin using errcode = '22023'; end if;
  if p_subject is null or p_subject = '' or length(p_subject) > 256 then raise exception 'append_fact: subject must have 1 to 256 characters' using errcode = '22023'; end if;
  if jsonb_typeof(p_data) is distinct from 'object' then raise exception 'append_fact: data must be a JSON object' using errcode = '22023'; end if;

  perform pg_advisory_xact_lock_shared(banyan.context_lock(p_context));
  select c.frozen_by, c.owner, c.epoch, c.partition into v_frozen, v_owner, v_epoch, v_partition from banyan.context c where c.name = p_context;
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

  v_key := banyan.partition_key(v_partition, p_subject, v_sequence);
  v_envelope := banyan.fact_envelope(v_id, v_source, p_type, p_subject, coalesce(p_time, clock_timestamp()), v_sequence, v_epoch, v_key, p_phase, p_origin,
    coalesce(p_causation, p_ledger::text), p_traceparent, p_data);
  insert into banyan.outbox (id, context, source, type, subject, sequence, epoch, lane, partition_key, envelope, ledger_id)
    values (v_id, p_context, v_source, p_type, p_subject, v_sequence, v_epoch, banyan.lane_at(v_partition, p_subject, v_sequence), v_key, v_envelope, p_ledger)
    returning outbox.position into v_position;
  if p_origin = 'extracted' then
    insert into banyan.back_sync (fact_id, context, subject, position, envelope) values (v_id, p_context, p_subject, v_position, v_envelope);
  end if;
  return query select v_id, v_sequence, v_epoch, true;
end $$;

alter function banyan.ledger_settle(jsonb) rename to ledger_settle_each;

create function banyan.ledger_settle(p_rows jsonb) returns table (id uuid, state text, moved boolean) language plpgsql as $$
#variable_conflict use_column
declare
  v_all     uuid[];
  v_ids     uuid[];
  v_told    uuid[];
  v_context text;
begin
  -- plainly answered, nothing kept for it, nothing in question
  select array_agg((r ->> 'id')::uuid) into v_all from jsonb_array_elements(p_rows) r;
  select coalesce(array_agg(p.id), '{}') into v_ids from (
    select l.id from jsonb_to_recordset(p_rows) as x(id uuid, fence bigint, from_state text, event text, facts jsonb, park text, attests boolean)
      join banyan.ledger l on l.id = x.id
      where l.id = any (v_all) and x.from_state = 'sent' and x.event in ('ok', 'refused') and x.park is null and x.attests is not true
        and l.state = 'sent' and l.fence = x.fence and l.evidence = '[]' and l.tentative is null and l.attested is null
        -- what append_fact would refuse is left to it
        and not exists (select 1 from jsonb_to_recordset(case when jsonb_typeof(x.facts) = 'array' then x.facts else '[]' end) as f(subject text, data jsonb)
          where length(coalesce(f.subject, '')) not between 1 and 256 or jsonb_typeof(f.data) is distinct from 'object')
      order by l.id for update of l) p;

  if cardinality(v_ids) > 0 then
    for v_context in select distinct l.context from banyan.ledger l where l.id = any (v_ids) order by 1 loop
      perform pg_advisory_xact_lock_shared(banyan.context_lock(v_context));
      if not exists (select 1 from banyan.context c where c.name = v_context) then raise exception 'context % is not known to the store', v_context using errcode = 'BY404'; end if;
    end loop;

    with x as materialized (
      select x.* from jsonb_to_recordset(p_rows) as x(id uuid, event text, settled_by text, facts jsonb, error text, status integer, sealed_response text) where x.id = any (v_ids)
    ), moved as (
      update banyan.ledger l set state = case x.event when 'ok' then 'applied' else 'rejected' end, settled_by = coalesce(x.settled_by, l.settled_by), error = x.error, next_at = clock_timestamp(),
          response_status = coalesce(x.status, l.response_status), sealed_response = coalesce(decode(x.sealed_response, 'base64'), l.sealed_response),
          sealed_request = case when x.event = 'refused' and x.settled_by = 'answer' then null else l.sealed_request end,
          aggregate = coalesce(l.aggregate, case x.event when 'ok' then x.facts -> 0 ->> 'subject' end), updated_at = clock_timestamp()
        from x where l.id = any (v_ids) and l.id = x.id returning l.id, l.context, l.idempotency_key, l.traceparent, l.upstream, l.publisher
    ), facts as materialized (
      select banyan.uuid7() as id, m.id as ledger, m.context, m.idempotency_key as key, m.traceparent, '/banyan/' || m.context || '/legacy' as source, f.type, f.subject, f.data
        from moved m join x on x.id = m.id cross join lateral jsonb_to_recordset(case when jsonb_typeof(x.facts) = 'array' then x.facts else '[]' end) as f(type text, subject text, data jsonb)
        where x.event = 'ok' and m.upstream = 'legacy' and m.publisher = 'ledger'
    ), keyed as (
      -- a key publishes one fact of a type about a subject
      insert into banyan.fact_key (context, type, subject, key, fact_id)
        select f.context, f.type, f.subject, f.key, f.id from facts f order by 1, 2, 3, 4 on conflict do nothing returning fact_id
    ), fresh as materialized (
      select f.*, c.epoch, c.partition, row_number() over same as n, count(*) over (partition by f.source, f.subject) as of_subject
        from facts f join keyed k on k.fact_id = f.id join banyan.context c on c.name = f.context
        window same as (partition by f.source, f.subject order by f.ledger, f.type)
    ), heads as (
      -- the row lock makes commit order the order of sequences
      insert into banyan.subject_head as h (source, subject, epoch, sequence)
        select f.source, f.subject, f.epoch, count(*) from fresh f group by 1, 2, 3 order by 1, 2, 3
        on conflict (source, subject, epoch) do update set sequence = h.sequence + excluded.sequence returning h.source, h.subject, h.epoch, h.sequence
    ), appended as (
      insert into banyan.outbox (id, context, source, type, subject, sequence, epoch, lane, partition_key, envelope, ledger_id)
        select f.id, f.context, f.source, f.type, f.subject, p.sequence, f.epoch, banyan.lane_at(f.partition, f.subject, p.sequence), p.key,
            banyan.fact_envelope(f.id, f.source, f.type, f.subject, clock_timestamp(), p.sequence, f.epoch, p.key, null, 'legacy', f.ledger::text, f.traceparent, f.data), f.ledger
          from fresh f join heads h on h.source = f.source and h.subject = f.subject and h.epoch = f.epoch
            cross join lateral (select h.sequence - f.of_subject + f.n as sequence, banyan.partition_key(f.partition, f.subject, h.sequence - f.of_subject + f.n) as key) p
          order by f.source, f.subject, f.n
        returning ledger_id
    )
    select coalesce(array_agg(a.ledger_id), '{}') into v_told from appended a;

    -- nothing of it was news
    update banyan.ledger l set state = 'done', sealed_request = null, fact_id = coalesce(l.fact_id, (
          select k.fact_id from banyan.fact_key k where k.context = l.context and k.subject = l.aggregate and k.key = l.idempotency_key and k.type = any (l.event_types) limit 1))
      where l.id = any (v_ids) and l.state = 'applied' and l.id <> all (v_told);

    insert into banyan.pin (context, client, side, until)
      select distinct on (l.context, x.pin ->> 'client') l.context, x.pin ->> 'client', x.pin ->> 'side', clock_timestamp() + (x.pin ->> 'ms')::integer * interval '1 ms'
        from jsonb_to_recordset(p_rows) as x(id uuid, pin jsonb) join banyan.ledger l on l.id = x.id
        where l.id = any (v_ids) and jsonb_typeof(x.pin) = 'object' order by 1, 2, l.id desc
      on conflict (context, client) do update set side = excluded.side, until = excluded.until;

    return query select l.id, l.state, true from banyan.ledger l where l.id = any (v_ids);
  end if;

  if cardinality(v_ids) < jsonb_array_length(p_rows) then
    return query select e.* from banyan.ledger_settle_each(
      (select jsonb_agg(r) from jsonb_array_elements(p_rows) r where (r ->> 'id')::uuid <> all (v_ids))) e;
  end if;
end $$;

/*
 * A session keeps the plans of its functions: one that was made while a table held a page reads the whole table ever after, until the table is analyzed (12 ms
 * for one command instead of 1, once 13,000 had been there). All of them know their rows by key.
 */
do $$
declare v_function regprocedure;
begin
  for v_function in select p.oid::regprocedure from pg_proc p join pg_namespace n on n.oid = p.pronamespace join pg_language l on l.oid = p.prolang
      where n.nspname = 'banyan' and l.lanname = 'plpgsql' and p.prorettype <> 'trigger'::regtype
        and (p.proname like 'ledger\\_%' or p.proname in ('append_fact', 'observe_change', 'relay_mark_records')) loop
    execute format('alter function %s set enable_seqscan = off', v_function);
  end loop;
  alter function banyan.relay_mark_records set enable_hashjoin = off set enable_mergejoin = off;
end $$;
`);
};
