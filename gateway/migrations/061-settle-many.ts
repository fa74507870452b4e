import type { Knex } from 'knex';

export const name = '061-settle-many';

/**
 * The terminal commit in a few statements for all commands that were simply answered, which nearly all are; the others go one by one as before, by what was
 * `ledger_settle` until now. The function keeps its name and shape, so gateways of the version before gain too.
 */
export const up = async (db: Knex): Promise<void> => {
  await db.raw(`
-- the bytes of a fact as they go to the stream
create function banyan.fact_envelope(
  p_id uuid, p_source text, p_type text, p_subject text, p_time timestamptz, p_sequence bigint, p_epoch integer, p_phase text, p_origin text, p_causation text, p_traceparent text, p_data jsonb
) returns text language sql stable as $$
  select '{"specversion":"1.0","id":"' || p_id || '","source":' || to_json(p_source) || ',"type":' || to_json(p_type) || ',"subject":' || to_json(p_subject)
    || ',"time":"' || to_char(p_time at time zone 'UTC', 'YYYY-MM-DD"T"HH24:MI:SS.MS"Z"')
    || '","datacontenttype":"application/json","partitionkey":' || to_json(p_subject) || ',"sequence":"' || lpad(p_sequence::text, 18, '0') || '","epoch":' || p_epoch
    || coalesce(',"phase":' || to_json(p_phase), '') || ',"origin":"' || p_origin || '"' || coalesce(',"causationid":' || to_json(p_causation), '')
    || coalesce(',"traceparent":' || to_json(p_traceparent), '') || ',"data":' || p_data || '}'
$$;

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
      select f.*, c.epoch, row_number() over same as n, count(*) over (partition by f.source, f.subject) as of_subject
        from facts f join keyed k on k.fact_id = f.id join banyan.context c on c.name = f.context
        window same as (partition by f.source, f.subject order by f.ledger, f.type)
    ), heads as (
      -- the row lock makes commit order the order of sequences
      insert into banyan.subject_head as h (source, subject, epoch, sequence)
        select f.source, f.subject, f.epoch, count(*) from fresh f group by 1, 2, 3 order by 1, 2, 3
        on conflict (source, subject, epoch) do update set sequence = h.sequence + excluded.sequence returning h.source, h.subject, h.epoch, h.sequence
    ), appended as (
      insert into banyan.outbox (id, context, source, type, subject, sequence, epoch, lane, envelope, ledger_id)
        select f.id, f.context, f.source, f.type, f.subject, h.sequence - f.of_subject + f.n, f.epoch, banyan.lane_of(f.subject),
            banyan.fact_envelope(f.id, f.source, f.type, f.subject, clock_timestamp(), h.sequence - f.of_subject + f.n, f.epoch, null, 'legacy', f.ledger::text, f.traceparent, f.data), f.ledger
          from fresh f join heads h on h.source = f.source and h.subject = f.subject and h.epoch = f.epoch order by f.source, f.subject, f.n
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
