import type { Knex } from 'knex';

export const name = '052-parity-hours';

/** The counters of 020-parity by the hour (UTC). A change of stage leaves them; `parity.retention` ends them. */
export const up = async (db: Knex): Promise<void> => {
  await db.raw(`
create table banyan.parity_hour_count (
  context text not null,
  hour    timestamptz not null,
  route   text not null,
  what    text not null,
  why     text not null,
  n       bigint not null,
  primary key (context, hour, route, what, why)
);
create table banyan.parity_hour_field (
  context text not null,
  hour    timestamptz not null,
  route   text not null,
  field   text not null,
  kind    text not null,
  rule    text not null,
  n       bigint not null,
  primary key (context, hour, route, field, kind, rule)
);
`);
};
