import type { Knex } from 'knex';

export const name = '042-kill-once';

/**
 * Kills the store has heard of. One kill reaches it from many gateways (each was told by the one that was asked), some of them late because they
 * could not reach the store: one that comes after the revive must not kill again.
 */
export const up = async (db: Knex): Promise<void> => {
  await db.raw(`
create table banyan.kill_heard (
  id      uuid not null,
  context text not null,
  at      timestamptz not null default now(),
  primary key (id, context)
)`);
};
