import type { Knex } from 'knex';

export const name = '054-ledger-target';

/** The query of a command may hold secrets, and stood here in clear. Only the path is asked for; the sealed request has the whole target. */
export const up = async (db: Knex): Promise<void> => {
  await db.raw(`update banyan.ledger set target = split_part(target, '?', 1) where position('?' in target) > 0`);
};
