import type { Clock, Limits } from './limits.ts';
import type { Shard } from './shards.ts';

type Bucket = { tokens: number; at: number };

const refill = (bucket: Bucket, perSecond: number, now: number): void => {
  const elapsed = Math.max(0, now - bucket.at);
  bucket.tokens = Math.min(perSecond, bucket.tokens + (elapsed * perSecond) / 1000);
  bucket.at = now;
};

type Buckets = { writeBytes: Bucket; writeRecords: Bucket; readBytes: Bucket; reads: Bucket };

/** The per-shard rates of a stream. Every bucket holds one second's worth. */
export type Throttle = {
  /** Takes one record of `bytes` (data and key), or takes nothing and says false. */
  readonly admitWrite: (shard: Shard, bytes: number) => boolean;
  /** Takes one GetRecords call, or says false when the calls or the bytes of the last ones are used up. */
  readonly admitRead: (shard: Shard) => boolean;
  /** Charges what a GetRecords call returned; it may leave a debt, so that 10 MiB block the shard for the next 4-5 s as on AWS. */
  readonly chargeRead: (shard: Shard, bytes: number) => void;
};

export const createThrottle = (limits: Limits, clock: Clock): Throttle => {
  if (!limits.throttle) return { admitWrite: () => true, admitRead: () => true, chargeRead: () => undefined };
  // Weak, so that a deleted stream takes its buckets along.
  const all = new WeakMap<Shard, Buckets>();
  const of = (shard: Shard): Buckets => {
    const now = clock();
    const known = all.get(shard);
    if (known) {
      refill(known.writeBytes, limits.writeBytesPerSecond, now);
      refill(known.writeRecords, limits.writeRecordsPerSecond, now);
      refill(known.readBytes, limits.readBytesPerSecond, now);
      refill(known.reads, limits.readsPerSecond, now);
      return known;
    }
    const full: Buckets = {
      writeBytes: { tokens: limits.writeBytesPerSecond, at: now },
      writeRecords: { tokens: limits.writeRecordsPerSecond, at: now },
      readBytes: { tokens: limits.readBytesPerSecond, at: now },
      reads: { tokens: limits.readsPerSecond, at: now },
    };
    all.set(shard, full);
    return full;
  };
  return {
    admitWrite: (shard, bytes) => {
      const { writeBytes, writeRecords } = of(shard);
      // A record larger than a second's worth (streams may allow 10 MiB) passes when the bucket is full and leaves a debt.
      if (writeRecords.tokens < 1 || writeBytes.tokens < Math.min(bytes, limits.writeBytesPerSecond)) return false;
      writeRecords.tokens -= 1;
      writeBytes.tokens -= bytes;
      return true;
    },
    admitRead: (shard) => {
      const { reads, readBytes } = of(shard);
      if (reads.tokens < 1 || readBytes.tokens <= 0) return false;
      reads.tokens -= 1;
      return true;
    },
    chargeRead: (shard, bytes) => {
      of(shard).readBytes.tokens -= bytes;
    },
  };
};
