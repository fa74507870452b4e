import type { Knex } from 'knex';

export const name = '032-flip-kill';

/** Tells the hand-over after a kill from a move that somebody asked for: the one overtakes the other, never the other way round. */
export const up = async (db: Knex): Promise<void> => {
  await db.raw('alter table banyan.flip add column kill boolean not null default false');
};
