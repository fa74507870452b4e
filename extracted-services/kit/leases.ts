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

export type Leases = ReturnType<typeof createLeases>;

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

  /**
   * Takes what this instance should read now: of the readable shards those that nobody holds, up to its fair share among the instances that hold any, and, when
   * nothing is free and it is still below its share, some of the instance that holds the most. A row that is locked is being written through: a free one is
   * left alone; a held one is waited for a moment, so that the holder's running page is in. The new token fences the former holder.
   */
  acquire: async (shardIds: readonly string[], mine: number): Promise<Hold[]> => {
    const { rows: owners } = await db.raw<{ rows: { owner: string; count: string }[] }>(
      `select owner, count(*) from ${schema}.lease l where consumer = ? and owner is not null and until >= clock_timestamp()
         and not exists (select from ${schema}.checkpoint c where c.consumer = l.consumer and c.shard_id = l.shard_id and c.ended)
       group by owner order by count(*) desc, owner`,
      [consumer],
    );
    const others = owners.filter((each) => each.owner !== owner);
    const members = others.length + 1;
    const held = others.reduce((sum, each) => sum + Number(each.count), mine);
    const share = Math.ceil(Math.max(shardIds.length, held) / members);
    if (mine >= share) return [];
    const { rows: taken } = await db.raw<{ rows: { shard_id: string; token: string }[] }>(
      `update ${schema}.lease l set owner = ?, token = token + 1, until = clock_timestamp() + ? * interval '1 millisecond'
       from (select shard_id from ${schema}.lease where consumer = ? and shard_id = any(?::text[]) and until < clock_timestamp()
             order by random() limit ? for update skip locked) free
       where l.consumer = ? and l.shard_id = free.shard_id returning l.shard_id, l.token`,
      [owner, leaseMs, consumer, [...shardIds], share - mine, consumer],
    );
    const holds = taken.map((row) => ({ shardId: row.shard_id, owner, token: row.token }));
    const fair = Math.floor(held / members);
    const richest = others[0];
    const missing = Math.min(fair - mine, Number(richest?.count ?? 0) - fair);
    if (holds.length > 0 || richest === undefined || missing <= 0) return holds;
    try {
      const stolen = await db.transaction(async (trx) => {
        await trx.raw(`select set_config('lock_timeout', ?, true)`, [`${Math.ceil(Math.min(leaseMs / 4, 2000))}ms`]);
        return trx.raw<{ rows: { shard_id: string; token: string }[] }>(
          `update ${schema}.lease l set owner = ?, token = token + 1, until = clock_timestamp() + ? * interval '1 millisecond'
           from (select shard_id from ${schema}.lease where consumer = ? and owner = ? order by random() limit ? for update) theirs
           where l.consumer = ? and l.shard_id = theirs.shard_id and l.owner = ? returning l.shard_id, l.token`,
          [owner, leaseMs, consumer, richest.owner, missing, consumer, richest.owner],
        );
      });
      return stolen.rows.map((row) => ({ shardId: row.shard_id, owner, token: row.token }));
    } catch (error) {
      // busy for longer than that: the next round tries again
      if ((error as { code?: string }).code === '55P03') return [];
      throw error;
    }
  },

  /** Renews what is still ours and notes how far behind each shard is. Gives back the shards that are ours; a running page renews its own lease. */
  renew: async (held: readonly { hold: Hold; behindMs: number | null; seenAgoMs: number }[]): Promise<Set<string>> => {
    if (held.length === 0) return new Set();
    const { rows } = await db.raw<{ rows: { shard_id: string }[] }>(
      `with h as materialized (select * from unnest(?::text[], ?::bigint[], ?::bigint[], ?::bigint[]) as h (shard_id, token, behind_ms, ago)),
       free as (select l.shard_id, h.behind_ms, h.ago from ${schema}.lease l join h using (shard_id, token)
         where l.consumer = ? and l.owner = ? for update of l skip locked),
       renewed as (
         update ${schema}.lease l set until = clock_timestamp() + ? * interval '1 millisecond', behind_ms = case when f.behind_ms < 0 then l.behind_ms else f.behind_ms end,
           seen_at = case when f.behind_ms < 0 then l.seen_at else clock_timestamp() - f.ago * interval '1 millisecond' end
         from free f where l.consumer = ? and l.shard_id = f.shard_id)
       select l.shard_id from ${schema}.lease l join h using (shard_id, token) where l.consumer = ? and l.owner = ?`,
      [
        held.map((each) => each.hold.shardId),
        held.map((each) => each.hold.token),
        held.map((each) => (each.behindMs === null ? -1 : Math.round(each.behindMs))),
        held.map((each) => Math.round(each.seenAgoMs)),
        consumer,
        owner,
        leaseMs,
        consumer,
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

  /** Where the reading of a shard goes on: after the record `after`, else at the time `from`, else at the oldest. */
  start: async (shardId: string): Promise<{ after: string | null; from: Date | null; replayUntil: bigint | null }> => {
    const { rows } = await db.raw<{ rows: { sequence_number: string | null; replay_from: Date | null; replay_until: string | null }[] }>(
      `select sequence_number, replay_from, replay_until from ${schema}.checkpoint where consumer = ? and shard_id = ?`,
      [consumer, shardId],
    );
    const until = rows[0]?.replay_until ?? null;
    return {
      after: rows[0]?.sequence_number ?? null,
      from: rows[0]?.replay_from ?? null,
      replayUntil: until === null ? null : BigInt(until),
    };
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
