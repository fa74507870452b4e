import { LEDGER_STATES } from '@banyan/contracts/vocabulary.ts';
import type { Knex } from 'knex';
import { movesAsRows } from '../core/ledger-moves.ts';

export const name = '015-ledger';

/**
 * The ledger of dual writes. Its moves come from `gateway/core/ledger-moves.ts`, and a trigger refuses every other change of state.
 * The functions are the whole of what happens in the two commits of a command: `ledger_begin` before the first byte, `ledger_settle` after the answer.
 * Error codes raised here: BY409 illegal move.
 */
export const up = async (db: Knex): Promise<void> => {
  await db.raw(`
create table banyan.ledger (
  id               uuid primary key,
  context          text not null,
  route            text not null,
  -- the events that the route's mapping names: what capture may correlate with this row
  event_types      text[] not null,
  idempotency_key  text not null,
  key_supplied     boolean not null,
  -- HMAC of who asked; '' = nobody can be told apart, and no stored answer is ever replayed
  scope            text not null,
  request_hash     text not null,
  method           text not null,
  target           text not null,
  aggregate        text,
  -- the command did not name its aggregate: it makes a new one
  creates          boolean not null default false,
  state            text not null check (state in (${LEDGER_STATES.map((state) => `'${state}'`).join(', ')})),
  attempts         integer not null default 0,
  upstream         text not null check (upstream in ('legacy', 'extracted')),
  publisher        text not null check (publisher in ('ledger', 'capture')),
  epoch            integer not null,
  owner            uuid not null,
  -- raised whenever the row changes hands; a settlement under an older one changes nothing
  fence            bigint not null default 1,
  sealed_request   bytea,
  response_status  integer,
  sealed_response  bytea,
  -- [{type, subject, data, change}]: captured changes that belong to this command
  evidence         jsonb not null default '[]',
  -- [{type, subject, data, id}]: tentative facts that wait for their confirmed or compensated one
  tentative        jsonb,
  fact_id          uuid,
  -- how the outcome became known: answer, not-sent, expire, absent, resolve, evidence, person
  settled_by       text,
  error            text,
  -- {as, reason, actor, at} once a person decided
  resolution       jsonb,
  traceparent      text,
  next_at          timestamptz not null default now(),
  settle_ms        integer not null,
  deadline_ms      integer not null,
  settle_after     timestamptz not null,
  deadline         timestamptz not null,
  created_at       timestamptz not null default clock_timestamp(),
  updated_at       timestamptz not null default clock_timestamp()
);
create unique index ledger_key on banyan.ledger (context, scope, idempotency_key) where scope <> '';
-- one command per aggregate; one whose outcome nobody knows, or waits for a person, holds its own aggregate, or later facts would overtake its fact
create unique index ledger_in_flight on banyan.ledger (context, aggregate) where state in ('intent', 'sent', 'unknown', 'parked') and aggregate is not null;
create index ledger_correlate_key on banyan.ledger (context, idempotency_key);
create index ledger_correlate_subject on banyan.ledger (context, aggregate, created_at) where aggregate is not null;
create index ledger_open on banyan.ledger (context, created_at) where state in ('sent', 'unknown');
create index ledger_recover on banyan.ledger (deadline) where state in ('intent', 'sent');
create index ledger_reconcile on banyan.ledger (next_at) where state = 'unknown';
create index ledger_parked on banyan.ledger (context, created_at) where state in ('unknown', 'parked');
create index ledger_final on banyan.ledger (updated_at) where state in ('done', 'rejected', 'expired', 'compensated');

create table banyan.ledger_moves (
  from_state text not null,
  event      text not null,
  to_state   text not null,
  primary key (from_state, event)
);

create function banyan.ledger_guard() returns trigger language plpgsql as $$
begin
  if tg_op = 'INSERT' then
    if new.state not in ('intent', 'sent') then raise exception 'a ledger entry cannot begin as %', new.state using errcode = 'BY409'; end if;
  elsif not exists (select 1 from banyan.ledger_moves m where m.from_state = old.state and m.to_state = new.state) then
    raise exception 'ledger entry %: no move leads from % to %', old.id, old.state, new.state using errcode = 'BY409';
  end if;
  return new;
end $$;
create trigger ledger_guard_insert before insert on banyan.ledger for each row execute function banyan.ledger_guard();
create trigger ledger_guard_update before update of state on banyan.ledger for each row when (old.state is distinct from new.state) execute function banyan.ledger_guard();

create function banyan.ledger_move(p_from text, p_event text) returns text language plpgsql stable as $$
declare v_to text;
begin
  select to_state into v_to from banyan.ledger_moves where from_state = p_from and event = p_event;
  if not found then raise exception 'a ledger entry in state % knows no event %', p_from, p_event using errcode = 'BY409'; end if;
  return v_to;
end $$;

/* Whether this side may take a command now: admitted, frozen, moved (owner or epoch differ) or unknown-context. Holds the context's lock, shared, to the end of the transaction. */
create function banyan.ledger_admit(p_context text, p_upstream text, p_epoch integer) returns text language plpgsql as $$
declare v_context banyan.context%rowtype;
begin
  perform pg_advisory_xact_lock_shared(banyan.context_lock(p_context));
  select * into v_context from banyan.context c where c.name = p_context;
  if not found then return 'unknown-context'; end if;
  if v_context.frozen_by is not null then return 'frozen'; end if;
  if v_context.owner <> p_upstream or v_context.epoch <> p_epoch then return 'moved'; end if;
  return 'admitted';
end $$;

/* Appends facts of one row ([{type, subject, data}]); answers how many were new. Sorted, so that two transactions lock subjects in one order. */
create function banyan.ledger_append(p_row banyan.ledger, p_facts jsonb, p_phase text) returns integer language plpgsql as $$
declare
  v_fact     record;
  v_appended record;
  v_count    integer := 0;
  v_cause    text;
  v_phase    text;
begin
  for v_fact in select x.type, x.subject, x.data from jsonb_to_recordset(p_facts) as x(type text, subject text, data jsonb) order by x.subject, x.type loop
    if p_row.tentative is not null then
      select t.id into v_cause from jsonb_to_recordset(p_row.tentative) as t(id text, type text, subject text)
        where t.type = v_fact.type and t.subject = v_fact.subject and t.id is not null limit 1;
    end if;
    v_phase := case when p_phase is not null then p_phase when v_cause is not null then 'confirmed' end;
    select * into v_appended from banyan.append_fact(p_row.context, 'legacy', v_fact.type, v_fact.subject, v_fact.data, 'settle',
      p_row.idempotency_key || case when v_phase = 'compensated' then '#compensated' else '' end, p_row.id, coalesce(v_cause, p_row.id::text), v_phase, p_row.traceparent);
    if v_appended.appended then v_count := v_count + 1; end if;
    -- a fact of its own is found through outbox.ledger_id: no need to write the row once more
    if not v_appended.appended or p_row.aggregate is null then
      update banyan.ledger set fact_id = coalesce(fact_id, v_appended.fact_id), aggregate = coalesce(aggregate, v_fact.subject) where id = p_row.id;
    end if;
  end loop;
  return v_count;
end $$;

/* The tentative facts of a row that goes to sent, in the transaction that sends it. */
create function banyan.ledger_tentative(p_row banyan.ledger) returns void language plpgsql as $$
declare
  v_fact jsonb;
  v_all  jsonb := '[]';
  v_id   uuid;
begin
  for v_fact in select value from jsonb_array_elements(p_row.tentative) loop
    select f.fact_id into v_id from banyan.append_fact(p_row.context, 'legacy', v_fact ->> 'type', v_fact ->> 'subject', v_fact -> 'data', 'command',
      p_row.idempotency_key || '#tentative', p_row.id, p_row.id::text, 'tentative', p_row.traceparent, p_row.epoch) f;
    v_all := v_all || jsonb_build_array(v_fact || jsonb_build_object('id', v_id));
  end loop;
  update banyan.ledger set tentative = v_all where id = p_row.id;
end $$;

/* Rejected or expired with tentative facts out: take each of them back, once. */
create function banyan.ledger_compensate(p_id uuid) returns text language plpgsql as $$
declare v_row banyan.ledger%rowtype;
begin
  select * into v_row from banyan.ledger where id = p_id for update;
  if v_row.state not in ('rejected', 'expired') or not exists (select 1 from jsonb_array_elements(coalesce(v_row.tentative, '[]')) t where jsonb_exists(t, 'id')) then return v_row.state; end if;
  update banyan.ledger set state = banyan.ledger_move(v_row.state, 'tentative-out'), updated_at = clock_timestamp() where id = p_id;
  perform banyan.ledger_append(v_row, (select jsonb_agg(t) from jsonb_array_elements(v_row.tentative) t where jsonb_exists(t, 'id')), 'compensated');
  return 'compensating';
end $$;

/*
 * A row in state applied gets its facts, unless another publisher has them. p_park: the facts cannot be built, and why.
 * Answers the state it ends in: applied (facts wait for the relay), done or parked.
 */
create function banyan.ledger_publish(p_row banyan.ledger, p_facts jsonb, p_park text) returns text language plpgsql as $$
declare v_event text;
begin
  if p_row.publisher = 'capture' or p_row.upstream = 'extracted' then v_event := 'nothing-due';
  elsif p_park is not null then v_event := 'unbuildable';
  elsif banyan.ledger_append(p_row, p_facts, null) = 0 then v_event := 'nothing-due';
  else return p_row.state;
  end if;
  update banyan.ledger set state = banyan.ledger_move(p_row.state, v_event), error = coalesce(case when v_event = 'unbuildable' then p_park end, error),
    sealed_request = case when v_event = 'nothing-due' then null else sealed_request end where id = p_row.id;
  return banyan.ledger_move(p_row.state, v_event);
end $$;

/* unknown, rejected or expired, and a captured change proves that it was applied: the evidence becomes the facts. */
create function banyan.ledger_prove(p_id uuid) returns text language plpgsql as $$
declare v_row banyan.ledger%rowtype;
begin
  select * into v_row from banyan.ledger where id = p_id for update;
  if v_row.state not in ('unknown', 'rejected', 'expired') or v_row.evidence = '[]' then return v_row.state; end if;
  update banyan.ledger set state = banyan.ledger_move(v_row.state, case v_row.state when 'unknown' then 'found' else 'seen' end), fence = fence + 1,
    settled_by = 'evidence', error = null, updated_at = clock_timestamp() where id = p_id returning * into v_row;
  return banyan.ledger_publish(v_row, v_row.evidence, null);
end $$;

/*
 * The pre-send commit of many commands. Rows: see LedgerBegin in gateway/dual-write/ledger.ts. Outcomes:
 *   sent      committed; the first byte may go out        held     committed as intent: the context is frozen
 *   exists    the key is known; the row is returned       reused   the key was used with another request
 *   busy      the aggregate has a command in flight       frozen, moved, unknown-context   not committed
 * resent and again are sent too, on the row that was there.
 */
create function banyan.ledger_begin(p_rows jsonb) returns table (
  input uuid, outcome text, id uuid, state text, fence bigint, response_status integer, sealed_response bytea, settled_by text
) language plpgsql as $$
#variable_conflict use_column
declare
  v_in     record;
  v_admits jsonb := '{}';
  v_place  text;
  v_admit  text;
  v_row    banyan.ledger%rowtype;
  v_event  text;
begin
  for v_in in select * from jsonb_to_recordset(p_rows) as x(
      id uuid, context text, route text, event_types text[], key text, key_supplied boolean, scope text, request_hash text, method text, target text, aggregate text,
      upstream text, publisher text, epoch integer, owner uuid, sealed_request text, settle_ms integer, deadline_ms integer, resend boolean, tentative jsonb, traceparent text)
      order by x.context, x.id loop
    v_place := v_in.context || '/' || v_in.upstream || '/' || v_in.epoch;
    if not jsonb_exists(v_admits, v_place) then v_admits := v_admits || jsonb_build_object(v_place, banyan.ledger_admit(v_in.context, v_in.upstream, v_in.epoch)); end if;
    v_admit := v_admits ->> v_place;

    if v_admit in ('admitted', 'frozen') then
      insert into banyan.ledger (id, context, route, event_types, idempotency_key, key_supplied, scope, request_hash, method, target, aggregate, creates, state, attempts, upstream, publisher,
          epoch, owner, sealed_request, tentative, traceparent, settle_ms, deadline_ms, settle_after, deadline)
        values (v_in.id, v_in.context, v_in.route, v_in.event_types, v_in.key, v_in.key_supplied, v_in.scope, v_in.request_hash, v_in.method, v_in.target, v_in.aggregate, v_in.aggregate is null,
          case v_admit when 'admitted' then 'sent' else 'intent' end, case v_admit when 'admitted' then 1 else 0 end, v_in.upstream, v_in.publisher, v_in.epoch, v_in.owner,
          decode(v_in.sealed_request, 'base64'), v_in.tentative, v_in.traceparent, v_in.settle_ms, v_in.deadline_ms,
          clock_timestamp() + v_in.settle_ms * interval '1 ms', clock_timestamp() + v_in.deadline_ms * interval '1 ms')
        on conflict do nothing returning * into v_row;
      if found then
        if v_admit = 'admitted' and v_in.tentative is not null then perform banyan.ledger_tentative(v_row); end if;
        return query select v_in.id, case v_admit when 'admitted' then 'sent' else 'held' end, v_row.id, v_row.state, v_row.fence, null::integer, null::bytea, null::text;
        continue;
      end if;
    end if;

    select * into v_row from banyan.ledger l where l.context = v_in.context and l.scope = v_in.scope and l.idempotency_key = v_in.key and v_in.scope <> '';
    if not found then
      return query select v_in.id, case v_admit when 'admitted' then 'busy' when 'frozen' then 'busy' else v_admit end, null::uuid, null::text, null::bigint, null::integer, null::bytea, null::text;
      continue;
    end if;
    if v_row.request_hash <> v_in.request_hash then
      return query select v_in.id, 'reused', null::uuid, null::text, null::bigint, null::integer, null::bytea, null::text;
      continue;
    end if;
    -- a re-send goes to the same upstream under the same epoch; what never was sent goes to whoever owns the writes now
    v_event := case
      when v_admit <> 'admitted' or v_row.response_status is not null then null
      when v_row.state = 'unknown' and v_in.resend and v_row.upstream = v_in.upstream and v_row.epoch = v_in.epoch then 'resent'
      when v_row.state = 'expired' or v_row.state = 'rejected' and v_row.settled_by = 'not-sent' then 'again'
      when v_row.state = 'rejected' and v_in.resend and v_row.upstream = v_in.upstream and v_row.epoch = v_in.epoch then 'again'
    end;
    if v_event is not null then
      begin
        update banyan.ledger l set state = banyan.ledger_move(v_row.state, v_event), fence = l.fence + 1, attempts = l.attempts + 1, owner = v_in.owner, upstream = v_in.upstream,
            publisher = v_in.publisher, epoch = v_in.epoch, settled_by = null, error = null,
            settle_ms = v_in.settle_ms, deadline_ms = v_in.deadline_ms,
            settle_after = clock_timestamp() + v_in.settle_ms * interval '1 ms', deadline = clock_timestamp() + v_in.deadline_ms * interval '1 ms', updated_at = clock_timestamp()
          where l.id = v_row.id and l.state = v_row.state and l.fence = v_row.fence returning * into v_row;
        if found then
          return query select v_in.id, v_event, v_row.id, v_row.state, v_row.fence, null::integer, null::bytea, null::text;
        else
          return query select v_in.id, 'busy', null::uuid, null::text, null::bigint, null::integer, null::bytea, null::text;
        end if;
      exception when unique_violation then
        return query select v_in.id, 'busy', null::uuid, null::text, null::bigint, null::integer, null::bytea, null::text;
      end;
      continue;
    end if;
    -- it never was sent, and nobody may send it at this moment: the caller waits for the flip and decides anew
    if v_admit <> 'admitted' and v_row.response_status is null and (v_row.state = 'expired' or v_row.state = 'rejected' and v_row.settled_by = 'not-sent') then
      return query select v_in.id, v_admit, null::uuid, null::text, null::bigint, null::integer, null::bytea, null::text;
      continue;
    end if;
    return query select v_in.id, 'exists', v_row.id, v_row.state, v_row.fence, v_row.response_status, v_row.sealed_response, v_row.settled_by;
  end loop;
end $$;

/* An intent row whose freeze may be over: sent, frozen (wait on), or moved/gone (the row expires; the caller decides anew). */
create function banyan.ledger_send(p_id uuid, p_fence bigint) returns text language plpgsql as $$
declare
  v_row   banyan.ledger%rowtype;
  v_admit text;
begin
  select * into v_row from banyan.ledger where id = p_id;
  if not found then return 'gone'; end if;
  v_admit := banyan.ledger_admit(v_row.context, v_row.upstream, v_row.epoch);
  select * into v_row from banyan.ledger where id = p_id for update;
  if not found or v_row.state <> 'intent' or v_row.fence <> p_fence then return 'gone'; end if;
  if v_admit = 'frozen' then return 'frozen'; end if;
  if v_admit <> 'admitted' then
    update banyan.ledger set state = banyan.ledger_move('intent', 'expire'), settled_by = 'expire', error = 'the ownership of writes moved while the command waited', updated_at = clock_timestamp() where id = p_id;
    return 'moved';
  end if;
  update banyan.ledger set state = banyan.ledger_move('intent', 'send'), attempts = attempts + 1, settle_after = clock_timestamp() + settle_ms * interval '1 ms',
    deadline = clock_timestamp() + deadline_ms * interval '1 ms', updated_at = clock_timestamp() where id = p_id;
  if v_row.tentative is not null then perform banyan.ledger_tentative(v_row); end if;
  return 'sent';
end $$;

/*
 * The terminal commit of many commands, and of what the reconciler and people find out. Rows: see LedgerSettle in gateway/dual-write/ledger.ts.
 * Answers the state each row ends in; moved = false: the row had changed hands or state, and nothing was done.
 */
create function banyan.ledger_settle(p_rows jsonb) returns table (id uuid, state text, moved boolean) language plpgsql as $$
#variable_conflict use_column
declare
  v_in    record;
  v_row   banyan.ledger%rowtype;
  v_state text;
  v_facts jsonb;
begin
  for v_in in select * from jsonb_to_recordset(p_rows) as x(
      id uuid, fence bigint, from_state text, event text, settled_by text, facts jsonb, park text, error text, status integer, sealed_response text, resolution jsonb, pin jsonb)
      order by x.id loop
    select * into v_row from banyan.ledger l where l.id = v_in.id for update;
    if not found or v_row.state <> v_in.from_state or v_row.fence <> v_in.fence then
      return query select v_in.id, v_row.state, false;
      continue;
    end if;
    v_state := banyan.ledger_move(v_row.state, v_in.event);
    update banyan.ledger l set state = v_state, settled_by = coalesce(v_in.settled_by, l.settled_by), error = v_in.error, next_at = clock_timestamp(),
        response_status = coalesce(v_in.status, l.response_status), sealed_response = coalesce(decode(v_in.sealed_response, 'base64'), l.sealed_response),
        -- a row that holds no answer may be sent again
        sealed_request = case when v_state = 'done' or v_state = 'rejected' and v_in.settled_by = 'answer' then null else l.sealed_request end,
        aggregate = coalesce(l.aggregate, case when v_state = 'applied' then v_in.facts -> 0 ->> 'subject' end),
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
      v_state := banyan.ledger_publish(v_row, v_facts, v_in.park);
    elsif v_state in ('unknown', 'rejected') and v_row.evidence <> '[]' then v_state := banyan.ledger_prove(v_in.id);
    elsif v_state = 'rejected' then v_state := banyan.ledger_compensate(v_in.id);
    end if;
    return query select v_in.id, v_state, true;
  end loop;
end $$;

/* Rows of dead owners, and rows that are too old: sent -> unknown (then evidence is looked at), intent -> expired. */
create function banyan.ledger_recover(p_dead_ms integer, p_limit integer) returns table (id uuid, state text) language plpgsql as $$
#variable_conflict use_column
declare
  v_row   banyan.ledger%rowtype;
  v_state text;
begin
  for v_row in select l.* from banyan.ledger l
      where l.state in ('intent', 'sent') and (l.deadline < clock_timestamp()
        or not exists (select 1 from banyan.member m where m.id = l.owner and m.heartbeat_at > clock_timestamp() - p_dead_ms * interval '1 ms'))
      order by l.id limit p_limit for update skip locked loop
    v_state := banyan.ledger_move(v_row.state, case v_row.state when 'sent' then 'lost' else 'expire' end);
    update banyan.ledger l set state = v_state, fence = l.fence + 1, next_at = clock_timestamp(), updated_at = clock_timestamp(),
      settled_by = case v_state when 'expired' then 'expire' end, error = 'the gateway that had it did not finish' where l.id = v_row.id;
    if v_state = 'unknown' and v_row.evidence <> '[]' then v_state := banyan.ledger_prove(v_row.id); end if;
    return query select v_row.id, v_state;
  end loop;
end $$;

-- what became of each captured change; first_at bounds what may still turn out to be its cause
create table banyan.change_seen (
  context   text not null,
  change_id text not null,
  first_at  timestamptz not null default clock_timestamp(),
  settled   boolean not null default false,
  primary key (context, change_id)
);
-- the captured change that this fact reports: a legacy row keeps its key over later changes, and each fact answers for one change only
alter table banyan.fact_key add column change_id text;
create index change_seen_age on banyan.change_seen (first_at);

-- the relays that live: lanes are shared among them
create table banyan.relay (
  member uuid primary key,
  at     timestamptz not null default clock_timestamp()
);

/* One row: what the relay says of the backlog. Capture waits while it is set (and the relay alive): its own log keeps what is to come. */
create table banyan.pressure (
  id             boolean primary key default true check (id),
  capture_paused boolean not null default false,
  at             timestamptz not null default now()
);
insert into banyan.pressure default values;

/*
 * A change seen in the legacy tables (docs/interfaces.md). Commit also after 'wait': it remembers since when the change has waited, so that commands
 * which begin later are not waited for.
 */
create function banyan.observe_change(
  p_context text, p_publisher text, p_kind text, p_type text, p_subject text, p_data jsonb, p_key text, p_change_id text
) returns text language plpgsql as $$
declare
  v_since   timestamptz := clock_timestamp();
  v_settled boolean := false;
  v_open    boolean;
  v_row     banyan.ledger%rowtype;
  v_fact    record;
  v_state   text;
  v_answer  text;
  v_change  text := coalesce(p_change_id, 'unnamed');
  v_entry   jsonb := jsonb_build_array(jsonb_build_object('type', p_type, 'subject', p_subject, 'data', p_data, 'change', p_change_id));
begin
  if p_publisher not in ('ledger', 'capture') then raise exception 'observe_change: publisher % is neither ledger nor capture', p_publisher using errcode = '22023'; end if;
  if p_kind not in ('change', 'snapshot') then raise exception 'observe_change: kind % is neither change nor snapshot', p_kind using errcode = '22023'; end if;
  if p_change_id is not null then
    insert into banyan.change_seen (context, change_id) values (p_context, p_change_id) on conflict do nothing;
    select s.first_at, s.settled into v_since, v_settled from banyan.change_seen s where s.context = p_context and s.change_id = p_change_id for update;
    if v_settled then return 'skipped'; end if;
  end if;
  if exists (select 1 from banyan.pressure p where p.capture_paused and p.at > clock_timestamp() - interval '60 s') then return 'wait'; end if;

  -- looked at before any match: a row that is terminal now is seen by every later statement with all that its commit wrote
  v_open := exists (select 1 from banyan.ledger l where l.context = p_context and l.upstream = 'legacy' and l.state in ('sent', 'unknown') and l.created_at <= v_since);

  if p_kind = 'snapshot' then
    -- a fact from a command on a subject that existed before (it named its aggregate) does not tell the subject's state: the snapshot still must
    if exists (select 1 from banyan.subject_head h where h.subject = p_subject and h.source in ('/banyan/' || p_context || '/legacy', '/banyan/' || p_context || '/extracted'))
        and (not exists (select 1 from banyan.outbox o where o.context = p_context and o.subject = p_subject)
          or exists (select 1 from banyan.outbox o left join banyan.ledger l on l.id = o.ledger_id
            where o.context = p_context and o.subject = p_subject and (l.id is null or l.creates))) then
      update banyan.change_seen s set settled = true where s.context = p_context and s.change_id = p_change_id;
      return 'skipped';
    end if;
    if v_open then return 'wait'; end if;
    perform banyan.append_fact(p_context, 'legacy', p_type, p_subject, p_data, 'capture');
    update banyan.change_seen s set settled = true where s.context = p_context and s.change_id = p_change_id;
    return 'published';
  end if;

  -- each row once per type; what a person closed without event stays closed; what was taken back on the stream stays taken back, and the change speaks for itself
  select l.* into v_row from banyan.ledger l
    where l.context = p_context and l.idempotency_key = p_key and p_type = any (l.event_types) and l.upstream = 'legacy'
      and l.state not in ('intent', 'compensating', 'compensated')
      and not exists (select 1 from jsonb_array_elements(l.evidence) e where e ->> 'type' = p_type)
    order by l.response_status is null or l.response_status < 400 desc, l.created_at limit 1 for update;
  if not found then
    select l.* into v_row from banyan.ledger l
      where l.context = p_context and l.aggregate = p_subject and p_type = any (l.event_types) and l.upstream = 'legacy' and l.created_at <= v_since
        -- without the key a row that legacy refused, or that never was sent, is no cause
        and (l.state in ('sent', 'unknown', 'applied', 'published', 'done', 'parked') or l.state = 'rejected' and l.response_status is null and l.settled_by = 'absent')
        and not exists (select 1 from jsonb_array_elements(l.evidence) e where e ->> 'type' = p_type)
      order by l.created_at limit 1 for update;
  end if;

  if v_row.id is null then
    if v_open then return 'wait'; end if;
    update banyan.fact_key k set change_id = v_change where k.context = p_context and k.type = p_type and k.subject = p_subject and k.key = p_key and k.change_id is null;
    if found then v_answer := 'correlated';
    else
      -- without the key: it may stand in the legacy row since an earlier change
      perform banyan.append_fact(p_context, 'legacy', p_type, p_subject, p_data, 'capture');
      v_answer := 'published';
    end if;
    update banyan.change_seen s set settled = true where s.context = p_context and s.change_id = p_change_id;
    return v_answer;
  end if;

  update banyan.ledger l set evidence = l.evidence || v_entry, updated_at = clock_timestamp() where l.id = v_row.id;
  v_answer := 'correlated';
  if p_publisher = 'capture' or v_row.publisher = 'capture' then
    select * into v_fact from banyan.append_fact(p_context, 'legacy', p_type, p_subject, p_data, 'capture', v_row.idempotency_key, v_row.id, null, null, v_row.traceparent);
    if v_fact.appended then v_answer := 'published'; end if;
    v_state := banyan.ledger_prove(v_row.id);
    update banyan.ledger l set fact_id = coalesce(l.fact_id, v_fact.fact_id),
      aggregate = coalesce(l.aggregate, case when v_state in ('applied', 'published', 'done') then p_subject end) where l.id = v_row.id;
  elsif v_row.state in ('unknown', 'rejected', 'expired') then perform banyan.ledger_prove(v_row.id);
  elsif v_row.state in ('applied', 'published', 'done') and v_row.resolution ->> 'as' is distinct from 'no-event'
      and not exists (select 1 from banyan.outbox o where o.ledger_id = v_row.id and o.type = p_type) then
    -- the answer, or an earlier change, spoke of another event: this one has no other publisher (the key keeps it from being a second)
    perform banyan.ledger_append(v_row, v_entry, null);
  end if;
  update banyan.fact_key k set change_id = v_change where k.context = p_context and k.type = p_type and k.subject = p_subject and k.key = v_row.idempotency_key and k.change_id is null;
  update banyan.change_seen s set settled = true where s.context = p_context and s.change_id = p_change_id;
  return v_answer;
end $$;

/*
 * Records sent: p_* are parallel arrays. Marks only rows of lanes that p_member still holds under the given token; moves their ledger rows on.
 * Answers the positions that were marked.
 */
create function banyan.relay_mark(p_member uuid, p_lanes smallint[], p_tokens bigint[], p_positions bigint[], p_row_lanes smallint[], p_shards text[], p_sequences text[])
returns setof bigint language plpgsql as $$
declare
  v_held    smallint[];
  v_ledgers uuid[];
begin
  select array_agg(h.lane) into v_held from (
    select l.lane from banyan.lane l join unnest(p_lanes, p_tokens) as t(lane, token) on t.lane = l.lane and t.token = l.token
      where l.owner = p_member order by l.lane for share of l) h;
  return query update banyan.outbox o set published_at = clock_timestamp(), shard = x.shard, sequence_number = x.sequence
    from unnest(p_positions, p_row_lanes, p_shards, p_sequences) as x(position, lane, shard, sequence)
    where o.position = x.position and o.lane = any (v_held) and o.published_at is null returning o.position;
  select array_agg(distinct o.ledger_id) into v_ledgers from banyan.outbox o where o.position = any (p_positions) and o.ledger_id is not null and o.published_at is not null;
  if v_ledgers is null then return; end if;
  perform 1 from banyan.ledger l where l.id = any (v_ledgers) order by l.id for update;
  -- acked: the first event of an applied row (a tentative one does not count: it was out before)
  update banyan.ledger l set state = 'published', updated_at = clock_timestamp() where l.id = any (v_ledgers) and l.state = 'applied'
    and exists (select 1 from banyan.outbox o where o.ledger_id = l.id and o.published_at is not null
      and (l.tentative is null or o.envelope::jsonb ->> 'phase' is distinct from 'tentative'));
  update banyan.ledger l set state = 'done', sealed_request = null, updated_at = clock_timestamp() where l.id = any (v_ledgers) and l.state = 'published'
    and not exists (select 1 from banyan.outbox o where o.ledger_id = l.id and o.published_at is null);
  update banyan.ledger l set state = 'compensated', sealed_request = null, updated_at = clock_timestamp() where l.id = any (v_ledgers) and l.state = 'compensating'
    and not exists (select 1 from banyan.outbox o where o.ledger_id = l.id and o.published_at is null);
end $$;
`);
  await db('banyan.ledger_moves').insert(movesAsRows().map((row) => ({ from_state: row.from, event: row.event, to_state: row.to })));
};
