/** Raised whenever the functions or triggers below change: an adapter then replaces what an earlier one installed. */
export const CAPTURE_VERSION = 2;

/**
 * Schema `banyan_capture` in the legacy database. `change` keeps every change until it is settled; `snapshot`, `sync_map` and `compensation` are the
 * adapter's memory of what it has read and written; `lost` counts changes that could not be kept, in a sequence because a sequence survives rollbacks.
 */
export const SCHEMA_SQL = `
create schema if not exists banyan_capture;

create table if not exists banyan_capture.meta (
  only_row    boolean primary key default true check (only_row),
  -- new for every installation, so that change ids never mean something else after a removal
  database_id uuid not null default gen_random_uuid()
);
insert into banyan_capture.meta default values on conflict do nothing;

create table if not exists banyan_capture.change (
  id      bigint generated always as identity primary key,
  xid     xid8 not null default pg_current_xact_id(),
  context text not null,
  -- the aggregate's id
  subject text not null,
  tbl     text not null,
  op      text not null check (op in ('I', 'U', 'D', 'S')),
  key     jsonb not null,
  before  jsonb,
  after   jsonb,
  at      timestamptz not null default clock_timestamp()
);
create index if not exists change_subject on banyan_capture.change (context, subject, id);

create table if not exists banyan_capture.captured_table (
  tbl        text primary key,
  context    text not null,
  definition text not null
);

create table if not exists banyan_capture.snapshot (
  context    text primary key,
  -- key of the last row that was appended; null = before the first
  after_key  jsonb,
  rows       bigint not null default 0,
  started_at timestamptz not null default now(),
  done_at    timestamptz
);

create table if not exists banyan_capture.sync_map (
  context    text not null,
  subject    text not null,
  source     text not null,
  epoch      integer not null,
  sequence   bigint not null,
  applied_at timestamptz not null default now(),
  primary key (context, subject, source)
);

-- keys under which something was taken back: each does it once
create table if not exists banyan_capture.compensation (
  key     text primary key,
  context text not null,
  subject text not null,
  at      timestamptz not null default clock_timestamp()
);
create index if not exists compensation_age on banyan_capture.compensation (at);

create sequence if not exists banyan_capture.lost minvalue 0 start 0;

create or replace function banyan_capture.pick(p_row jsonb, p_columns text[]) returns jsonb
language sql immutable set search_path = pg_catalog, pg_temp as $$
  select coalesce(jsonb_object_agg(c, p_row -> c), '{}') from unnest(p_columns) as c
$$;

/*
 * After each statement, not each row: one subtransaction (for the exception) per statement stays within PostgreSQL's cache of 64 per transaction.
 * Arguments: context, primary key columns as an array literal, the column with the aggregate's id.
 * security definer: the monolith's role needs no grants. The monolith's write succeeds whatever happens here; a change that cannot be kept is counted.
 */
create or replace function banyan_capture.note() returns trigger
language plpgsql security definer set search_path = pg_catalog, pg_temp set timezone = 'UTC' set bytea_output = 'hex' as $$
declare
  v_context text := tg_argv[0];
  v_pk      text[] := tg_argv[1]::text[];
  v_link    text := tg_argv[2];
begin
  if current_setting('banyan.origin', true) = 'back-sync' then return null; end if;
  begin
    if tg_op = 'INSERT' then
      insert into banyan_capture.change (context, subject, tbl, op, key, after)
        select v_context, n.r ->> v_link, tg_table_name, 'I', banyan_capture.pick(n.r, v_pk), n.r
        from (select to_jsonb(x) as r from new_rows x) n where n.r ->> v_link is not null;
    elsif tg_op = 'DELETE' then
      insert into banyan_capture.change (context, subject, tbl, op, key, before)
        select v_context, o.r ->> v_link, tg_table_name, 'D', banyan_capture.pick(o.r, v_pk), o.r
        from (select to_jsonb(x) as r from old_rows x) o where o.r ->> v_link is not null;
    elsif tg_op = 'UPDATE' then
      -- a changed key, or a row that moved to another aggregate, is a deletion and an insertion
      insert into banyan_capture.change (context, subject, tbl, op, key, before, after)
        select v_context, coalesce(n.s, o.s), tg_table_name, case when o.k is null then 'I' when n.k is null then 'D' else 'U' end,
               coalesce(n.k, o.k), o.r, n.r
        from (select to_jsonb(x) as r, banyan_capture.pick(to_jsonb(x), v_pk) as k, to_jsonb(x) ->> v_link as s from old_rows x) o
        full join (select to_jsonb(x) as r, banyan_capture.pick(to_jsonb(x), v_pk) as k, to_jsonb(x) ->> v_link as s from new_rows x) n
          on n.k = o.k and n.s = o.s
        where o.r is distinct from n.r and coalesce(n.s, o.s) is not null
        order by n.k is not null, coalesce(n.k, o.k);
    end if;
  exception when others then
    perform nextval('banyan_capture.lost');
    raise warning 'banyan capture of % on %.% failed: %', tg_op, tg_table_schema, tg_table_name, sqlerrm;
  end;
  return null;
exception when others then
  return null;
end $$;

-- truncate has no transition table: the rows are read before they go
create or replace function banyan_capture.note_truncate() returns trigger
language plpgsql security definer set search_path = pg_catalog, pg_temp set timezone = 'UTC' set bytea_output = 'hex' as $$
begin
  if current_setting('banyan.origin', true) = 'back-sync' then return null; end if;
  begin
    execute format('insert into banyan_capture.change (context, subject, tbl, op, key, before)
      select $1, r ->> $3, $4, ''D'', banyan_capture.pick(r, $2), r from (select to_jsonb(x) as r from %I.%I x) t where r ->> $3 is not null', tg_table_schema, tg_table_name)
      using tg_argv[0], tg_argv[1]::text[], tg_argv[2], tg_table_name;
  exception when others then
    perform nextval('banyan_capture.lost');
    raise warning 'banyan capture of truncate on %.% failed: %', tg_table_schema, tg_table_name, sqlerrm;
  end;
  return null;
exception when others then
  return null;
end $$;
`;

/** Triggers of one table by name: what follows `create trigger NAME`. `??` is not used here, so all names come in quoted. */
export const triggersOf = (table: string, args: string): Readonly<Record<string, string>> => ({
  banyan_capture_insert: `after insert on ${table} referencing new table as new_rows for each statement execute function banyan_capture.note(${args})`,
  banyan_capture_update: `after update on ${table} referencing old table as old_rows new table as new_rows for each statement execute function banyan_capture.note(${args})`,
  banyan_capture_delete: `after delete on ${table} referencing old table as old_rows for each statement execute function banyan_capture.note(${args})`,
  banyan_capture_truncate: `before truncate on ${table} for each statement execute function banyan_capture.note_truncate(${args})`,
});
