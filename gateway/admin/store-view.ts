import type { Knex } from 'knex';
import type { StorePort } from './ports.ts';

/** More replicas than this are not listed. */
const MAX_REPLICAS = 1_000;

/** Whether the store answers, and who shares it. @param maxStaleMs a replica that has not beaten for so long has expired */
export const createStoreView = (db: Knex, maxStaleMs: () => number): StorePort => ({
  async ping() {
    await db.raw('select 1');
  },
  async replicas() {
    const { rows } = await db.raw<{ rows: { id: string; name: string; started_at: Date; heartbeat_at: Date; alive: boolean }[] }>(
      `select id, name, started_at, heartbeat_at, heartbeat_at > now() - ? * interval '1 millisecond' as alive
       from banyan.member order by started_at, id limit ?`,
      [maxStaleMs(), MAX_REPLICAS],
    );
    return rows.map((row) => ({ id: row.id, name: row.name, startedAt: row.started_at, heartbeatAt: row.heartbeat_at, alive: row.alive }));
  },
});
