import type { Knex } from 'knex';

export const name = '040-parity-noise';

/** What looks at the triples of a field have shown (gateway/core/parity/noise.ts): how many were taken, and the smallest p-value of any, corrected for looks. */
export const up = async (db: Knex): Promise<void> => {
  await db.raw(`
alter table banyan.parity_probe
  add column looks int not null default 0,
  add column p double precision not null default 1;
`);
};
