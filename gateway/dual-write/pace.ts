import { createDecay } from './decay.ts';

/** A shard takes 1 MB/s; below this nothing is learnt any more. Bytes per second. */
const LEAST = 64 * 1_024;
/** A shard that takes so much has no limit that matters. */
const MOST = 16 * 1_048_576;
/** Of what a shard took while it throttled: a little less, so that most requests are taken whole. */
const EASE = 0.97;
/** Per second without throttling: a shard that was split takes more. */
const GROWTH_PER_SECOND = 0.05;
/** What may go out at once, in seconds of the rate. */
const BURST_SECONDS = 0.25;
/** A PUT unit: less is not worth a record. */
const UNIT = 25_600;

type Shard = { rate: number; tokens: number; at: number; readonly taken: ReturnType<typeof createDecay> };

/**
 * How fast each shard takes records, learnt from its throttling: unlimited until the first record is refused, then what it took in the last second, growing
 * again by 5 % a second. Lanes share the rate of the shard that they go to. Times in ms.
 */
export type Pace = {
  /** Bytes that this lane may send now; 0 = not yet. */
  readonly budget: (lane: number, nowMs: number) => number;
  readonly taken: (lane: number, shard: string, bytes: number, nowMs: number) => void;
  readonly throttled: (lane: number, nowMs: number) => void;
  /** Bytes per second of the slowest shard; null = none is limited. */
  readonly slowest: () => number | null;
};

export const createPace = (): Pace => {
  const shards = new Map<string, Shard>();
  const shardOf = new Map<number, string>();

  const now = (lane: number, nowMs: number): Shard | undefined => {
    const name = shardOf.get(lane);
    const shard = name === undefined ? undefined : shards.get(name);
    if (!shard) return undefined;
    const seconds = Math.max(0, nowMs - shard.at) / 1_000;
    shard.at = nowMs;
    if (shard.rate === Number.POSITIVE_INFINITY) return shard;
    shard.rate *= 1 + GROWTH_PER_SECOND * seconds;
    if (shard.rate > MOST) shard.rate = Number.POSITIVE_INFINITY;
    else shard.tokens = Math.min(shard.rate * BURST_SECONDS, shard.tokens + shard.rate * seconds);
    return shard;
  };
  return {
    budget: (lane, nowMs) => {
      const shard = now(lane, nowMs);
      if (!shard || shard.rate === Number.POSITIVE_INFINITY) return Number.POSITIVE_INFINITY;
      if (shard.tokens <= 0) return 0;
      const name = shardOf.get(lane);
      const sharing = [...shardOf.values()].filter((other) => other === name).length;
      return Math.max(UNIT, Math.floor(shard.tokens / sharing));
    },
    taken: (lane, name, bytes, nowMs) => {
      if (shardOf.get(lane) !== name) {
        shardOf.set(lane, name);
        // shards that nobody goes to any more were split or merged
        for (const known of shards.keys()) if (![...shardOf.values()].includes(known)) shards.delete(known);
        if (!shards.has(name)) shards.set(name, { rate: Number.POSITIVE_INFINITY, tokens: 0, at: nowMs, taken: createDecay(500) });
      }
      const shard = now(lane, nowMs)!;
      shard.taken.add(bytes, nowMs);
      shard.tokens -= bytes;
    },
    throttled: (lane, nowMs) => {
      const shard = now(lane, nowMs);
      if (!shard) return;
      shard.rate = Math.max(LEAST, Math.min(shard.rate, shard.taken.perSecond(nowMs) * EASE));
      shard.tokens = Math.min(0, shard.tokens);
    },
    slowest: () => {
      const rates = [...shards.values()].map(({ rate }) => rate).filter((rate) => rate !== Number.POSITIVE_INFINITY);
      return rates.length === 0 ? null : Math.round(Math.min(...rates));
    },
  };
};
