import type { Knex } from 'knex';
import { movesAsRows } from '../core/ledger-moves.ts';

export const name = '060-compensation';

/**
 * Taking back what legacy did (`writes.compensate`), and writes whose transaction tells the ledger itself (`idempotency: database`).
 * Error codes raised here: BY404 unknown entry, BY409 the entry does not take it.
 */
export const up = async (db: Knex): Promise<void> => {
  await db.raw(`
alter table banyan.ledger
  -- {to, method, path, repeat}: the request that makes up for this command, as it is to be sent
  add column undo jsonb,
  -- due; sent = it may have gone out; done
  add column undo_state text check (undo_state in ('due', 'sent', 'done')),
  add column undo_attempts integer not null default 0,
  -- {status, facts}: written by the transaction that executed the command, which commits with it or not at all
  add column attested jsonb;

-- a command that is being taken back holds its aggregate: the next one must find what it leaves behind
drop index banyan.ledger_in_flight;
create unique index ledger_in_flight on banyan.ledger (context, aggregate)
  where aggregate is not null and (state in ('intent', 'sent', 'unknown', 'parked') or undo_state in ('due', 'sent'));
create index ledger_undo on banyan.ledger (next_at) where undo_state in ('due', 'sent');

/*
 * A row in state applied gets its facts, unless another publisher has them. p_park: the facts cannot be built, and why; p_undo: then what legacy did is to
 * be taken back. A tentative fact that the answer does not speak of is taken back too. Answers the state it ends in: applied (facts wait for the relay),
 * done, compensating or parked.
 */
drop function banyan.ledger_publish(banyan.ledger, jsonb, text);
create function banyan.ledger_publish(p_row banyan.ledger, p_facts jsonb, p_park text, p_undo jsonb default null) returns text language plpgsql as $$
declare
  v_event text;
  v_left  jsonb;
  v_count integer;
begin
  if p_row.publisher = 'capture' or p_row.upstream = 'extracted' then v_event := 'nothing-due';
  elsif p_park is not null then v_event := case when p_undo is null then 'unbuildable' else 'take-back' end;
  else
    if p_row.tentative is not null then
      select jsonb_agg(t) into v_left from jsonb_array_elements(p_row.tentative) t where jsonb_exists(t, 'id')
        and not exists (select 1 from jsonb_array_elements(p_facts) f where f ->> 'type' = t ->> 'type' and f ->> 'subject' = t ->> 'subject');
    end if;
    v_count := banyan.ledger_append(p_row, p_facts, null);
    if v_left is not null then v_count := v_count + banyan.ledger_append(p_row, v_left, 'compensated'); end if;
    if v_count > 0 then return p_row.state; end if;
    v_event := 'nothing-due';
  end if;
  update banyan.ledger set state = banyan.ledger_move(p_row.state, v_event), error = coalesce(case when v_event <> 'nothing-due' then p_park end, error),
    undo = case when v_event = 'take-back' then p_undo else undo end, undo_state = case when v_event = 'take-back' then 'due' else undo_state end,
    sealed_request = case when v_event = 'nothing-due' then null else sealed_request end where id = p_row.id;
  return banyan.ledger_move(p_row.state, v_event);
end $$;

/*
 * The terminal commit of many commands, and of what the reconciler and people find out. Rows: see LedgerSettle in gateway/dual-write/ledger.ts.
 * Answers the state each row ends in; moved = false: the row had changed hands or state, and nothing was done.
 */
create or replace function banyan.ledger_settle(p_rows jsonb) returns table (id uuid, state text, moved boolean) language plpgsql as $$
#variable_conflict use_column
declare
  v_in    record;
  v_row   banyan.ledger%rowtype;
  v_state text;
  v_facts jsonb;
begin
  for v_in in select * from jsonb_to_recordset(p_rows) as x(
      id uuid, fence bigint, from_state text, event text, settled_by text, facts jsonb, park text, undo jsonb, attests boolean, error text, status integer, sealed_response text,
      resolution jsonb, pin jsonb)
      order by x.id loop
    select * into v_row from banyan.ledger l where l.id = v_in.id for update;
    if not found or v_row.state <> v_in.from_state or v_row.fence <> v_in.fence then
      return query select v_in.id, v_row.state, false;
      continue;
    end if;
    if v_row.attested is not null then
      -- the transaction that did it has committed: whatever a later attempt was answered, it was applied
      if v_in.event in ('absent', 'exhausted') then
        return query select v_in.id, v_row.state, false;
        continue;
      elsif v_in.event in ('refused', 'not-sent') then
        v_in.event := 'lost'; v_in.settled_by := null; v_in.status := null; v_in.sealed_response := null;
      elsif v_in.event in ('ok', 'found') and jsonb_typeof(v_row.attested -> 'facts') = 'array' then
        v_in.facts := v_row.attested -> 'facts'; v_in.park := null;
      end if;
    elsif v_in.event = 'ok' and v_in.attests then
      v_in.undo := null;
      v_in.park := 'unattested: it was answered as done, but no transaction told the ledger so (banyan.ledger_attest): an unknown outcome of this route would be taken for not done';
    end if;
    if v_in.event = 'as-compensate' and v_in.undo is null then raise exception 'ledger entry %: there is no request that takes it back', v_in.id using errcode = 'BY409'; end if;
    v_state := banyan.ledger_move(v_row.state, v_in.event);
    update banyan.ledger l set state = v_state, settled_by = coalesce(v_in.settled_by, l.settled_by), error = v_in.error, next_at = clock_timestamp(),
        response_status = coalesce(v_in.status, l.response_status), sealed_response = coalesce(decode(v_in.sealed_response, 'base64'), l.sealed_response),
        -- a row that holds no answer may be sent again
        sealed_request = case when v_state = 'done' or v_state = 'rejected' and v_in.settled_by = 'answer' then null else l.sealed_request end,
        aggregate = coalesce(l.aggregate, case when v_state = 'applied' then v_in.facts -> 0 ->> 'subject' end),
        undo = case v_in.event when 'as-compensate' then v_in.undo else l.undo end,
        undo_state = case when v_in.event = 'as-compensate' then 'due' when v_in.from_state = 'parked' then null else l.undo_state end,
        undo_attempts = case v_in.event when 'as-compensate' then 0 else l.undo_attempts end,
        resolution = coalesce(v_in.resolution, l.resolution), updated_at = clock_timestamp()
      where l.id = v_in.id returning * into v_row;
    if v_in.pin is not null then
      insert into banyan.pin (context, client, side, until)
        values (v_row.context, v_in.pin ->> 'client', v_in.pin ->> 'side', clock_timestamp() + (v_in.pin ->> 'ms')::integer * interval '1 ms')
        on conflict (context, client) do update set side = excluded.side, until = excluded.until;
    end if;
    if v_state = 'applied' then
      -- a captured change of a type that the answer does not speak of was held for this row: nobody else publishes it
      v_facts := coalesce(v_in.facts, '[]');
      if v_row.evidence <> '[]' then
        v_facts := v_facts || (select coalesce(jsonb_agg(e), '[]') from jsonb_array_elements(v_row.evidence) e
          where not exists (select 1 from jsonb_array_elements(v_facts) f where f ->> 'type' = e ->> 'type'));
      end if;
      v_state := banyan.ledger_publish(v_row, v_facts, v_in.park, v_in.undo);
    elsif v_state in ('unknown', 'rejected') and v_row.evidence <> '[]' then v_state := banyan.ledger_prove(v_in.id);
    elsif v_state = 'rejected' then v_state := banyan.ledger_compensate(v_in.id);
    end if;
    return query select v_in.id, v_state, true;
  end loop;
end $$;

/*
 * Called by whoever executes a command of a route with idempotency: database, in the transaction of its change, with the id from the header banyan-write:
 * the ledger then knows of the change if and only if it committed. p_facts: [{type, subject, data}], the events it is due; null = the route's mapping says.
 * Raises, and so undoes the change, when the entry is settled already (an attempt that comes too late) or another attempt has done it.
 */
create function banyan.ledger_attest(p_id uuid, p_status integer default 200, p_facts jsonb default null) returns void language plpgsql as $$
declare v_row banyan.ledger%rowtype;
begin
  if p_status not between 200 and 399 then raise exception 'ledger_attest: status % says of no change', p_status using errcode = '22023'; end if;
  if p_facts is not null and jsonb_typeof(p_facts) <> 'array' then raise exception 'ledger_attest: facts must be an array of {type, subject, data}' using errcode = '22023'; end if;
  select * into v_row from banyan.ledger where id = p_id for update;
  if not found then raise exception 'ledger_attest: there is no ledger entry %', p_id using errcode = 'BY404'; end if;
  if v_row.upstream <> 'legacy' then raise exception 'ledger_attest: ledger entry % is for the extracted side, which publishes by append_fact', p_id using errcode = 'BY409'; end if;
  if v_row.attested is not null then raise exception 'ledger_attest: ledger entry % was done by another attempt', p_id using errcode = 'BY409'; end if;
  if v_row.state not in ('sent', 'unknown') then raise exception 'ledger_attest: ledger entry % is % already: this attempt comes too late', p_id, v_row.state using errcode = 'BY409'; end if;
  if exists (select 1 from jsonb_to_recordset(p_facts) as f(type text, subject text, data jsonb)
      where f.type is null or f.subject is null or length(f.subject) not between 1 and 256 or jsonb_typeof(f.data) is distinct from 'object') then
    raise exception 'ledger_attest: every fact needs a type, a subject of 1 to 256 characters and an object as data' using errcode = '22023';
  end if;
  update banyan.ledger set attested = jsonb_build_object('status', p_status, 'facts', p_facts), updated_at = clock_timestamp() where id = p_id;
end $$;

/*
 * What became of an unknown entry whose execution attests. attested: settle it as found. absent: it is rejected now, and an attempt that is still under
 * way can no longer commit. busy: its transaction is open. gone: it is in other hands.
 */
create function banyan.ledger_decide(p_id uuid, p_fence bigint) returns text language plpgsql as $$
declare v_row banyan.ledger%rowtype;
begin
  select * into v_row from banyan.ledger where id = p_id for update skip locked;
  if not found then return case when exists (select 1 from banyan.ledger where id = p_id) then 'busy' else 'gone' end; end if;
  if v_row.state <> 'unknown' or v_row.fence <> p_fence then return 'gone'; end if;
  if v_row.attested is not null then return 'attested'; end if;
  perform banyan.ledger_settle(jsonb_build_array(jsonb_build_object('id', p_id, 'fence', p_fence, 'from_state', 'unknown', 'event', 'absent', 'settled_by', 'absent',
    'error', 'no transaction told the ledger of it')));
  return 'absent';
end $$;

/*
 * Entries whose compensating request is due, taken for p_lease_ms: the commit before its first byte. was = sent: an earlier attempt may have gone out.
 * Nothing is sent while the context is frozen; one that legacy does not own any more waits for a person.
 */
create function banyan.ledger_undo_claim(p_owner uuid, p_lease_ms integer, p_limit integer)
returns table (id uuid, fence bigint, context text, route text, idempotency_key text, aggregate text, undo jsonb, attempts integer, was text) language plpgsql as $$
#variable_conflict use_column
declare
  v_row    banyan.ledger%rowtype;
  v_frozen uuid;
  v_owner  text;
begin
  for v_row in select l.* from banyan.ledger l where l.undo_state in ('due', 'sent') and l.state = 'compensating' and l.next_at <= clock_timestamp()
      order by l.next_at limit p_limit for update skip locked loop
    perform pg_advisory_xact_lock_shared(banyan.context_lock(v_row.context));
    select c.frozen_by, c.owner into v_frozen, v_owner from banyan.context c where c.name = v_row.context;
    if v_frozen is not null then
      update banyan.ledger l set next_at = clock_timestamp() + interval '250 ms' where l.id = v_row.id;
    elsif v_owner is distinct from 'legacy' then
      update banyan.ledger l set state = banyan.ledger_move(l.state, 'exhausted'), error = 'not taken back: the writes moved to the other side first', updated_at = clock_timestamp() where l.id = v_row.id;
    else
      update banyan.ledger l set undo_state = 'sent', undo_attempts = l.undo_attempts + 1, fence = l.fence + 1, owner = p_owner, next_at = clock_timestamp() + p_lease_ms * interval '1 ms'
        where l.id = v_row.id;
      return query select v_row.id, v_row.fence + 1, v_row.context, v_row.route, v_row.idempotency_key, v_row.aggregate, v_row.undo, v_row.undo_attempts + 1, v_row.undo_state;
    end if;
  end loop;
end $$;

/*
 * What came of a compensating request. p_as: done = legacy took it back, and every tentative fact gets its compensated one; due = it did not go out, sent =
 * nobody knows, both tried again in p_delay_ms; parked = it cannot be done. Answers the state, or null when the entry is in other hands.
 */
create function banyan.ledger_undo_end(p_id uuid, p_fence bigint, p_as text, p_delay_ms integer, p_error text) returns text language plpgsql as $$
declare
  v_row   banyan.ledger%rowtype;
  v_facts jsonb;
begin
  select * into v_row from banyan.ledger where id = p_id for update;
  if not found or v_row.state <> 'compensating' or v_row.fence <> p_fence or v_row.undo_state is distinct from 'sent' then return null; end if;
  if p_as = 'done' then
    select jsonb_agg(t) into v_facts from jsonb_array_elements(coalesce(v_row.tentative, '[]')) t where jsonb_exists(t, 'id');
    update banyan.ledger set undo_state = 'done', state = case when v_facts is null then banyan.ledger_move(state, 'acked') else state end,
      sealed_request = null, updated_at = clock_timestamp() where id = p_id returning * into v_row;
    if v_facts is not null then perform banyan.ledger_append(v_row, v_facts, 'compensated'); end if;
  elsif p_as = 'parked' then
    update banyan.ledger set state = banyan.ledger_move(state, 'exhausted'), error = p_error, updated_at = clock_timestamp() where id = p_id returning * into v_row;
  else
    update banyan.ledger set undo_state = p_as, error = p_error, next_at = clock_timestamp() + p_delay_ms * interval '1 ms' where id = p_id returning * into v_row;
  end if;
  return v_row.state;
end $$;

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
      and not exists (select 1 from banyan.outbox o where o.ledger_id = l.id and o.published_at is null);
  -- acked: the first event of an applied row (a tentative one does not count: it was out before)
  update banyan.ledger l set state = 'published', updated_at = clock_timestamp() where l.id = any (v_ledgers) and l.state = 'applied'
    and exists (select 1 from banyan.outbox o where o.ledger_id = l.id and o.published_at is not null
      and (l.tentative is null or o.envelope::jsonb ->> 'phase' is distinct from 'tentative'));
  return v_marked;
end $$;

-- nobody calls it since 040; it would end what has still to be taken back
drop function banyan.relay_mark(uuid, smallint[], bigint[], bigint[], smallint[], text[], text[]);
`);
  await db('banyan.ledger_moves')
    .insert(movesAsRows().map((row) => ({ from_state: row.from, event: row.event, to_state: row.to })))
    .onConflict()
    .ignore();
};
