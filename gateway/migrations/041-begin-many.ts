import type { Knex } from 'knex';

export const name = '041-begin-many';

/**
 * The pre-send commit in one statement for all commands whose key is new, which nearly all are; the others go one by one as before, by what was
 * `ledger_begin` until now. The function keeps its name and shape, so gateways of the version before gain too.
 */
export const up = async (db: Knex): Promise<void> => {
  await db.raw(`
alter function banyan.ledger_begin(jsonb) rename to ledger_begin_each;

create function banyan.ledger_begin(p_rows jsonb) returns table (
  input uuid, outcome text, id uuid, state text, fence bigint, response_status integer, sealed_response bytea, settled_by text
) language plpgsql as $$
#variable_conflict use_column
declare
  v_place  record;
  v_open   text[] := '{}';
  v_ids    uuid[];
  v_fences bigint[];
begin
  for v_place in select distinct x.context, x.upstream, x.epoch from jsonb_to_recordset(p_rows) as x(context text, upstream text, epoch integer) order by 1, 2, 3 loop
    if banyan.ledger_admit(v_place.context, v_place.upstream, v_place.epoch) = 'admitted' then
      v_open := v_open || (v_place.context || '/' || v_place.upstream || '/' || v_place.epoch);
    end if;
  end loop;

  with begun as (
    insert into banyan.ledger (id, context, route, event_types, idempotency_key, key_supplied, scope, request_hash, method, target, aggregate, creates, state, attempts, upstream, publisher,
        epoch, owner, sealed_request, traceparent, settle_ms, deadline_ms, settle_after, deadline)
      select x.id, x.context, x.route, x.event_types, x.key, x.key_supplied, x.scope, x.request_hash, x.method, x.target, x.aggregate, x.aggregate is null, 'sent', 1, x.upstream, x.publisher,
        x.epoch, x.owner, decode(x.sealed_request, 'base64'), x.traceparent, x.settle_ms, x.deadline_ms,
        clock_timestamp() + x.settle_ms * interval '1 ms', clock_timestamp() + x.deadline_ms * interval '1 ms'
      from jsonb_to_recordset(p_rows) as x(
        id uuid, context text, route text, event_types text[], key text, key_supplied boolean, scope text, request_hash text, method text, target text, aggregate text,
        upstream text, publisher text, epoch integer, owner uuid, sealed_request text, settle_ms integer, deadline_ms integer, tentative jsonb, traceparent text)
      -- a tentative fact enters the outbox with its row
      where x.tentative is null and x.context || '/' || x.upstream || '/' || x.epoch = any (v_open)
      order by x.context, x.id
    on conflict do nothing returning id, fence
  )
  select coalesce(array_agg(b.id), '{}'), coalesce(array_agg(b.fence), '{}') into v_ids, v_fences from begun b;

  return query select b.id, 'sent'::text, b.id, 'sent'::text, b.fence, null::integer, null::bytea, null::text from unnest(v_ids, v_fences) as b(id, fence);
  if cardinality(v_ids) < jsonb_array_length(p_rows) then
    return query select e.* from banyan.ledger_begin_each(
      (select jsonb_agg(r) from jsonb_array_elements(p_rows) r where (r ->> 'id')::uuid <> all (v_ids))) e;
  end if;
end $$;
`);
};
