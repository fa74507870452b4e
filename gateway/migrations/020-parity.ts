import type { Knex } from 'knex';

export const name = '020-parity';

/**
 * Evidence of the comparison. Counters are only ever added to, by any number of gateways at once; a stage change empties them for its context.
 * Pairs are exemplars, redacted before they get here; documents are `json`, not `jsonb`, because jsonb rewrites numbers (1e2 becomes 100).
 */
export const up = async (db: Knex): Promise<void> => {
  await db.raw(`
create table banyan.parity_window (
  context text primary key,
  since   timestamptz not null
);

create table banyan.parity_count (
  context text not null,
  route   text not null,
  -- requests, match, noise, mismatch, incomparable, dropped, skipped, probed, answers
  what    text not null,
  -- reason of incomparable, dropped and skipped; status class of answers; '' otherwise
  why     text not null,
  n       bigint not null,
  primary key (context, route, what, why)
);

create table banyan.parity_field (
  context text not null,
  route   text not null,
  -- field family: indexes as [*]
  field   text not null,
  kind    text not null,
  -- the noise rule that excused it; '' = nothing did
  rule    text not null,
  -- pairs in which it was seen
  n       bigint not null,
  last_at timestamptz not null,
  primary key (context, route, field, kind, rule)
);

-- triples (legacy twice, extracted once): how often only extracted, only the second legacy answer, or both differed from the first legacy answer
create table banyan.parity_probe (
  context        text not null,
  route          text not null,
  field          text not null,
  kind           text not null,
  only_extracted bigint not null,
  only_legacy    bigint not null,
  in_both        bigint not null,
  primary key (context, route, field, kind)
);

create table banyan.parity_pair (
  id               bigint generated always as identity primary key,
  context          text not null,
  route            text not null,
  request_id       text not null,
  at               timestamptz not null,
  verdict          text not null check (verdict in ('match', 'noise', 'mismatch', 'incomparable')),
  why              text,
  confirmed        boolean not null,
  primary_upstream text not null check (primary_upstream in ('legacy', 'extracted')),
  -- what it is an example of: its first difference's field family and kind, or its verdict
  field            text not null,
  method           text not null,
  target           text not null,
  -- {headers, legacy, extracted, differences, noise}
  detail           json not null
);
create index parity_pair_context on banyan.parity_pair (context, id desc);
create index parity_pair_request on banyan.parity_pair (request_id);
`);
};
