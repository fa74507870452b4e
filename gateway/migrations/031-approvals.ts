import type { Knex } from 'knex';

export const name = '031-approvals';

/** Promotions that wait until enough people have asked for the same. */
export const up = async (db: Knex): Promise<void> => {
  await db.raw(`
create table banyan.stage_ask (
  -- the first of the contexts that move as one
  context  text not null,
  actor    text not null,
  stage    text not null,
  share_bp integer not null,
  -- of the flag: what was asked for before it changed no longer counts
  version  bigint not null,
  reason   text not null,
  at       timestamptz not null default now(),
  primary key (context, actor)
);
`);
};
