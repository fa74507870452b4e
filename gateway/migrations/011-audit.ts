import type { Knex } from 'knex';

export const name = '011-audit';

/** Append-only, hash-chained: each row's hash covers its content and the hash before it, so one edited row breaks the chain at its place. */
export const up = async (db: Knex): Promise<void> => {
  await db.raw(`
create table banyan.audit (
  id        bigint primary key,
  at        timestamptz not null,
  actor     text not null,
  action    text not null,
  context   text,
  before    jsonb,
  after     jsonb,
  reason    text not null,
  evidence  jsonb,
  prev_hash text not null,
  hash      text not null
);
create index audit_context on banyan.audit (context, id desc);

-- times enter as epoch seconds: their text form would depend on the session's time zone
create function banyan.audit_hash(a banyan.audit) returns text language sql immutable as $$
  select encode(sha256(convert_to(jsonb_build_array(a.id, extract(epoch from a.at)::text, a.actor, a.action, a.context, a.before, a.after, a.reason, a.evidence, a.prev_hash)::text, 'UTF8')), 'hex')
$$;

create function banyan.append_audit(p_actor text, p_action text, p_context text, p_before jsonb, p_after jsonb, p_reason text, p_evidence jsonb default null)
returns bigint language plpgsql as $$
declare
  v_row banyan.audit%rowtype;
begin
  perform pg_advisory_xact_lock(hashtextextended('banyan.audit', 0));
  select coalesce(max(id), 0) + 1 into v_row.id from banyan.audit;
  select coalesce((select hash from banyan.audit where id = v_row.id - 1), '') into v_row.prev_hash;
  v_row.at := clock_timestamp(); v_row.actor := p_actor; v_row.action := p_action; v_row.context := p_context;
  v_row.before := p_before; v_row.after := p_after; v_row.reason := p_reason; v_row.evidence := p_evidence;
  v_row.hash := banyan.audit_hash(v_row);
  insert into banyan.audit select v_row.*;
  return v_row.id;
end $$;

create function banyan.audit_refuse() returns trigger language plpgsql as $$
begin
  raise exception 'banyan.audit is append-only';
end $$;
create trigger audit_append_only before update or delete on banyan.audit for each row execute function banyan.audit_refuse();

-- ids of rows that are not what was written, or that do not follow their predecessor
create function banyan.verify_audit() returns table (id bigint, fault text) language sql stable as $$
  select a.id, case
      when a.hash <> banyan.audit_hash(a) then 'content does not match its hash'
      else 'does not follow the row before it' end
  from (select x.*, lag(x.hash, 1, '') over (order by x.id) as expected_prev, row_number() over (order by x.id) as n from banyan.audit x) w
  join banyan.audit a on a.id = w.id
  where a.hash <> banyan.audit_hash(a) or a.prev_hash <> w.expected_prev or w.n <> a.id
  order by a.id
$$;
`);
};
