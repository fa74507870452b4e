import type { Knex } from 'knex';

export const name = '051-parity-templates';

/** What was found of the names that routes hold (gateway/core/parity/route-names.ts); rows of all gateways are named by it. */
export const up = async (db: Knex): Promise<void> => {
  await db.raw(`
create table banyan.parity_template (
  context text not null,
  -- the template so far, e.g. GET /api/products for what stands behind it
  at      text not null,
  -- all names here but these are data; null = not so
  kept    text[],
  locale  boolean not null,
  primary key (context, at)
);
`);
};
