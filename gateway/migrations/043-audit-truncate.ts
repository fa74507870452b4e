import type { Knex } from 'knex';

export const name = '043-audit-truncate';

/** TRUNCATE fires no trigger of rows: it was the one way past the append-only audit. */
export const up = async (db: Knex): Promise<void> => {
  await db.raw(
    'create trigger audit_no_truncate before truncate on banyan.audit for each statement execute function banyan.audit_refuse()',
  );
};
