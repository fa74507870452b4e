import type { Knex } from 'knex';

export const name = '050-parity-aliases';

/** Ids under which the two sides know one entity, learned from answers to commands; all gateways read what any of them has learned. */
export const up = async (db: Knex): Promise<void> => {
  await db.raw(`
create table banyan.parity_alias (
  context   text not null,
  -- what kind of entity it is, such as order; '' = not told
  word      text not null,
  legacy    text not null,
  extracted text not null,
  at        timestamptz not null default now(),
  primary key (context, word, legacy)
);
create index parity_alias_at on banyan.parity_alias (at);
create index parity_alias_context on banyan.parity_alias (context, at);
`);
};
