import type { Knex } from 'knex';

const LANES = 16;

export type LanesDeps = {
  readonly db: Knex;
  readonly memberId: string;
  /** A lane whose owner has been silent for so long is free. Default 4,000. */
  readonly ttlMs?: number;
};

/** Leases on lanes. Two relays may believe to hold a lane for a moment; only the one with the current token can mark rows. */
export type Lanes = {
  /** Renews, takes what is free, gives away what others should have. Rejects when the store is away. */
  readonly tick: () => Promise<void>;
  /** Lanes that may be worked on now, with their tokens. */
  readonly held: () => ReadonlyMap<number, string>;
  /** Lanes with a request under way are not given away. */
  readonly busy: (lanes: ReadonlySet<number>) => void;
  readonly releaseAll: () => Promise<void>;
};

type LaneRow = { lane: number; token: string };

export const createLanes = (deps: LanesDeps): Lanes => {
  const { db, memberId } = deps;
  const ttlMs = deps.ttlMs ?? 4_000;
  let mine = new Map<number, string>();
  let until = 0;
  let working: ReadonlySet<number> = new Set();
  let leaving: ReadonlySet<number> = new Set();

  const rows = async (sql: string, bindings: readonly unknown[]): Promise<LaneRow[]> =>
    ((await db.raw(sql, bindings as string[])) as { rows: LaneRow[] }).rows;
  const alive = `select 1 from banyan.relay r where r.member = l.owner and r.at > clock_timestamp() - ? * interval '1 ms'`;

  return {
    tick: async () => {
      const asked = Date.now();
      await db.raw(`insert into banyan.relay (member) values (?) on conflict (member) do update set at = clock_timestamp()`, [memberId]);
      const kept = await rows(
        `update banyan.lane set until = clock_timestamp() + ? * interval '1 ms' where owner = ? and not (lane = any (?)) returning lane, token`,
        [ttlMs, memberId, [...leaving]],
      );
      const count = (await db.raw(`select count(*)::int as n from banyan.relay where at > clock_timestamp() - ? * interval '1 ms'`, [
        ttlMs,
      ])) as { rows: { n: number }[] };
      const share = Math.ceil(LANES / Math.max(1, count.rows[0]!.n));
      const next = new Map(kept.map((row) => [row.lane, row.token]));
      if (next.size < share) {
        const taken = await rows(
          // materialized: planned as a join the limit would count once per outer row
          `with free as materialized (
             select l.lane from banyan.lane l where l.owner is null or l.until < clock_timestamp() or (l.owner <> ? and not exists (${alive}))
             order by random() limit ? for update skip locked)
           update banyan.lane t set owner = ?, token = token + 1, until = clock_timestamp() + ? * interval '1 ms' from free where t.lane = free.lane
           returning t.lane, t.token`,
          [memberId, ttlMs, share - next.size, memberId, ttlMs],
        );
        for (const row of taken) next.set(row.lane, row.token);
      }
      mine = next;
      until = asked + ttlMs;
      leaving = new Set([...next.keys()].slice(share));
      const away = [...leaving].filter((lane) => !working.has(lane));
      if (away.length > 0) {
        await db.raw('update banyan.lane set owner = null, until = clock_timestamp() where owner = ? and lane = any (?)', [memberId, away]);
        for (const lane of away) mine.delete(lane);
        leaving = new Set([...leaving].filter((lane) => working.has(lane)));
      }
    },
    held: () => (Date.now() < until ? new Map([...mine].filter(([lane]) => !leaving.has(lane))) : new Map()),
    busy: (lanes) => {
      working = lanes;
    },
    releaseAll: async () => {
      mine = new Map();
      await db.raw('update banyan.lane set owner = null, until = clock_timestamp() where owner = ?', [memberId]);
      await db.raw('delete from banyan.relay where member = ?', [memberId]);
    },
  };
};
