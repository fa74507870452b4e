import type { ShardState } from './shards.ts';

/** Who is registered for enhanced fan-out. */
export type StreamConsumer = { readonly name: string; readonly arn: string; readonly createdMs: number };

/** A stream as the log keeps it. `tags` are pairs, `createdMs` and `activeAt` milliseconds since the epoch. */
export type StreamState = {
  /** Unique per incarnation: an iterator of a deleted stream never reads its namesake. */
  readonly id: string;
  readonly name: string;
  readonly region: string;
  readonly mode: 'PROVISIONED' | 'ON_DEMAND';
  readonly createdMs: number;
  readonly activeAt: number;
  readonly retentionHours: number;
  readonly maxRecordKiB: number;
  readonly tags: readonly (readonly [string, string])[];
  /** Absent in files of before they existed. */
  readonly consumers?: readonly StreamConsumer[];
  readonly keyId?: string | null;
  readonly monitoring?: readonly string[];
  readonly nextShard: number;
  readonly shards: readonly ShardState[];
};

/** shard number, index, arrival in ms, partition key, data in base64 */
export type Row = readonly [shard: number, index: number, at: number, key: string, data: string];

/**
 * What the log holds. Every entry can be applied twice without a second effect, because a compaction may write the state that an entry
 * still waiting in the queue has led to. They are trusted when read: each carries a checksum and the file a magic with its version.
 */
export type Entry =
  | { readonly kind: 'create'; readonly stream: StreamState }
  | { readonly kind: 'delete'; readonly id: string }
  | { readonly kind: 'retention'; readonly id: string; readonly hours: number }
  | { readonly kind: 'tags'; readonly id: string; readonly tags: readonly (readonly [string, string])[] }
  | { readonly kind: 'consumers'; readonly id: string; readonly consumers: readonly StreamConsumer[] }
  | {
      readonly kind: 'settings';
      readonly id: string;
      readonly mode?: StreamState['mode'];
      readonly maxRecordKiB?: number;
      readonly keyId?: string | null;
      readonly monitoring?: readonly string[];
    }
  | {
      readonly kind: 'reshard';
      readonly id: string;
      readonly close: readonly { readonly number: number; readonly index: number; readonly at: number }[];
      readonly open: readonly ShardState[];
    }
  | { readonly kind: 'put'; readonly id: string; readonly rows: readonly Row[] };
