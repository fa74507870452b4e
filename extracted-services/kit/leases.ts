import type { Knex } from 'knex';
import type { Hold } from './inbox.ts';

export type LeaseOptions = {
  readonly db: Knex;
  readonly schema: string;
  readonly consumer: string;
  readonly owner: string;
  readonly leaseMs: number;
};

type ShardRow = {
  shard_id: string;
  sequence_number: string | null;
  ended: boolean;
  behind_ms: string | null;
  seen_ms: string | null;
  owned: boolean;
};

/** One row per shard; who may read it, until when. All times are the database's, so that clocks of machines do not matter. */
export const createLeases = ({ db, schema, consumer, owner, leaseMs }: LeaseOptions) => ({
  /** Makes rows for shards that are new. */
  know: async (shardIds: readonly string[]): Promise<void> => {
    await db.raw(`insert into ${schema}.lease (consumer, shard_id) select ?, * from unnest(?::text[]) on conflict do nothing`, [
      consumer,
      [...shardIds],
    ]);
  },

  ended: async (): Promise<Set<string>> => {
    const { rows } = await db.raw<{ rows: { shard_id: string }[] }>(
      `select shard_id from ${schema}.checkpoint where consumer = ? and ended`,
      [consumer],
    );
    return new Set(rows.map((row) => row.shard_id));
  },

  /** Takes those of `shardIds` that nobody holds. Waits for a running transaction of the holder before, so its effects are in. */
  take: async (shardIds: readonly string[]): Promise<Hold[]> => {
    if (shardIds.length === 0) return [];
    const { rows } = await db.raw<{ rows: { shard_id: string; token: string }[] }>(
      `update ${schema}.lease set owner = ?, token = token + 1, until = clock_timestamp() + ? * interval '1 millisecond'
       where consumer = ? and shard_id = any(?::text[]) and until < clock_timestamp() returning shard_id, token`,
      [owner, leaseMs, consumer, [...shardIds]],
    );
    return rows.map((row) => ({ shardId: row.shard_id, owner, token: row.token }));
  },

  /** Renews what is still ours and notes how far behind each shard is. Gives back the shards that are ours. */
  renew: async (held: readonly { hold: Hold; behindMs: number | null; seenAgoMs: number }[]): Promise<Set<string>> => {
    if (held.length === 0) return new Set();
    const { rows } = await db.raw<{ rows: { shard_id: string }[] }>(
      `update ${schema}.lease l set until = clock_timestamp() + ? * interval '1 millisecond', behind_ms = case when h.behind_ms < 0 then l.behind_ms else h.behind_ms end,
         seen_at = case when h.behind_ms < 0 then l.seen_at else clock_timestamp() - h.ago * interval '1 millisecond' end
       from unnest(?::text[], ?::bigint[], ?::bigint[], ?::bigint[]) as h (shard_id, token, behind_ms, ago)
       where l.consumer = ? and l.shard_id = h.shard_id and l.owner = ? and l.token = h.token returning l.shard_id`,
      [
        leaseMs,
        held.map((each) => each.hold.shardId),
        held.map((each) => each.hold.token),
        held.map((each) => (each.behindMs === null ? -1 : Math.round(each.behindMs))),
        held.map((each) => Math.round(each.seenAgoMs)),
        consumer,
        owner,
      ],
    );
    return new Set(rows.map((row) => row.shard_id));
  },

  /** Hands shards back, so that another instance need not wait for the lease to run out. */
  release: async (holds: readonly Hold[]): Promise<void> => {
    if (holds.length === 0) return;
    await db.raw(
      `update ${schema}.lease l set owner = null, until = 'epoch' from unnest(?::text[], ?::bigint[]) as h (shard_id, token)
       where l.consumer = ? and l.shard_id = h.shard_id and l.owner = ? and l.token = h.token`,
      [holds.map((hold) => hold.shardId), holds.map((hold) => hold.token), consumer, owner],
    );
  },

  /** Where the reading of a shard goes on. */
  start: async (shardId: string): Promise<{ after: string | null; replayUntil: bigint | null }> => {
    const { rows } = await db.raw<{ rows: { sequence_number: string | null; replay_until: string | null }[] }>(
      `select sequence_number, replay_until from ${schema}.checkpoint where consumer = ? and shard_id = ?`,
      [consumer, shardId],
    );
    const until = rows[0]?.replay_until ?? null;
    return { after: rows[0]?.sequence_number ?? null, replayUntil: until === null ? null : BigInt(until) };
  },

  /** All shards that are known, whoever reads them. */
  shards: async (): Promise<ShardRow[]> => {
    const { rows } = await db.raw<{ rows: ShardRow[] }>(
      `select l.shard_id, c.sequence_number, coalesce(c.ended, false) as ended, l.behind_ms, l.until > clock_timestamp() as owned,
         round(extract(epoch from clock_timestamp() - l.seen_at) * 1000)::bigint as seen_ms
       from ${schema}.lease l left join ${schema}.checkpoint c using (consumer, shard_id) where l.consumer = ? order by l.shard_id`,
      [consumer],
    );
    return rows;
  },
});
