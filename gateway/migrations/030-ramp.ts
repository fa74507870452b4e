import type { Knex } from 'knex';

export const name = '030-ramp';

/** The ramp: where each one stands, and what members saw of both sides while a context is in canary. */
export const up = async (db: Knex): Promise<void> => {
  await db.raw(`
create table banyan.ramp (
  -- 'context:order', or 'group:sales' for contexts that move as one
  unit            text primary key,
  contexts        text[] not null,
  state           text not null check (state in ('running', 'waiting-approval', 'paused', 'done', 'rolled-back', 'aborted')),
  -- the canary share of the step; 0 = shadow
  share_bp        integer not null check (share_bp between 0 and 10000),
  -- context -> version of its flag as the ramp left it: another one means that a person moved it
  flag_versions   jsonb not null,
  since           timestamptz not null,
  -- since when evidence counts: the step's begin, or when another version of the service showed up
  evidence_since  timestamptz not null,
  -- context -> version of the extracted service; absent = not asked for
  service_versions jsonb not null default '{}',
  -- how often the evidence was judged
  looks           integer not null default 0,
  -- {base, older, newer, reference}: readings of the counters that later ones are compared with
  marks           jsonb not null,
  outcome         text not null default 'hold' check (outcome in ('advance', 'hold', 'rollback')),
  reasons         jsonb not null default '[]',
  -- [{actor, at, reason}] for the step that waits
  approvals       jsonb not null default '[]',
  -- {by, at, reason}
  paused          jsonb,
  next_at         timestamptz,
  started_by      text not null,
  started_at      timestamptz not null,
  -- raised with every write: of two who decide on the same row, the second changes nothing
  rev             bigint not null default 1,
  updated_at      timestamptz not null default now()
);

-- only ever added to, by any number of members at once; a step has rows of its own, by the 'since' of the flag under which they were seen
create table banyan.ramp_sample (
  context  text not null,
  since    timestamptz not null,
  upstream text not null check (upstream in ('legacy', 'extracted')),
  -- 0..480: a bucket of latencies; -1: failed answers; -2: an open breaker was seen
  bucket   smallint not null,
  n        bigint not null,
  primary key (context, since, upstream, bucket)
);

-- requests that show what the figures mean; the newest few
create table banyan.ramp_example (
  id         bigint generated always as identity primary key,
  context    text not null,
  since      timestamptz not null,
  kind       text not null check (kind in ('failed', 'slow')),
  request_id text not null,
  route      text not null,
  ms         real not null,
  at         timestamptz not null default now()
);
create index ramp_example_context on banyan.ramp_example (context, id desc);
`);
};
