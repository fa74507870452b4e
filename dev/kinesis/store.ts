import type { Entry, Row, StreamConsumer, StreamState } from './entries.ts';
import { ACCOUNT } from './errors.ts';
import type { Clock, Limits } from './limits.ts';
import type { Log } from './log.ts';
import { append, decodedLength, fromState, isOpen, memoryOf, oldest, retained, type Shard, seek, toState, trim } from './shards.ts';

/** A stream in memory. `shards` are ordered by number: open ones, and closed ones until their records have passed retention. */
export type Stream = {
  readonly id: string;
  readonly name: string;
  readonly arn: string;
  readonly region: string;
  mode: 'PROVISIONED' | 'ON_DEMAND';
  readonly createdMs: number;
  readonly activeAt: number;
  maxRecordKiB: number;
  /** By name. */
  consumers: Map<string, StreamConsumer>;
  /** The KMS key; null = not encrypted. */
  keyId: string | null;
  /** Shard-level metrics that are switched on. */
  monitoring: readonly string[];
  retentionHours: number;
  tags: Map<string, string>;
  nextShard: number;
  shards: Shard[];
};

export type { StreamConsumer };

export type StoreDeps = { readonly limits: Limits; readonly clock: Clock; readonly warn: (line: string) => void };

/**
 * All streams, in memory, behind one log. `record` writes an entry: changes of streams show at once (their answer waits for the disk),
 * records of a `put` become readable only when they are durable, so that no reader ever sees one that a kill takes back.
 */
export type Store = {
  readonly streams: () => Iterable<Stream>;
  readonly byName: (name: string) => Stream | undefined;
  readonly byId: (id: string) => Stream | undefined;
  readonly openShards: () => number;
  readonly record: (entry: Entry) => Promise<void>;
  /** `changed` hears of every record that becomes readable, of reshards, and with `true` of the stream's end. Gives back how to stop it. */
  readonly watch: (streamId: string, changed: (gone: boolean) => void) => () => void;
  /** Drops what is older than the stream's retention. */
  readonly expire: (stream: Stream) => void;
  /** Applies an entry read from the log at start. */
  readonly restore: (text: string) => void;
  /** Ends the reading phase; from here on `record` writes to `log`. */
  readonly attach: (log: Log) => Promise<void>;
};

/**
 * Numbers that an open shard skips at every start. Without fsync a power cut may take records that a reader has seen; their numbers are
 * then never given to other records.
 */
const INDEX_GAP = 2 ** 20;
/** Memory may exceed the cap by this share before it is trimmed back to it: one scan of the shards per many records. */
const SLACK = 1.02;

const HOUR_MS = 3_600_000;

const toStream = (state: StreamState): Stream => ({
  id: state.id,
  name: state.name,
  arn: `arn:aws:kinesis:${state.region}:${ACCOUNT}:stream/${state.name}`,
  region: state.region,
  mode: state.mode,
  createdMs: state.createdMs,
  activeAt: state.activeAt,
  maxRecordKiB: state.maxRecordKiB,
  consumers: new Map((state.consumers ?? []).map((consumer) => [consumer.name, consumer])),
  keyId: state.keyId ?? null,
  monitoring: state.monitoring ?? [],
  retentionHours: state.retentionHours,
  tags: new Map(state.tags),
  nextShard: state.nextShard,
  shards: state.shards.map(fromState),
});

const toStreamState = (stream: Stream): StreamState => ({
  id: stream.id,
  name: stream.name,
  region: stream.region,
  mode: stream.mode,
  createdMs: stream.createdMs,
  activeAt: stream.activeAt,
  retentionHours: stream.retentionHours,
  maxRecordKiB: stream.maxRecordKiB,
  tags: [...stream.tags],
  consumers: [...stream.consumers.values()],
  keyId: stream.keyId,
  monitoring: stream.monitoring,
  nextShard: stream.nextShard,
  shards: stream.shards.map(toState),
});

export const createStore = (d: StoreDeps): Store => {
  const names = new Map<string, Stream>();
  const ids = new Map<string, Stream>();
  const watchers = new Map<string, Set<(gone: boolean) => void>>();
  const tell = (id: string, gone: boolean): void => {
    for (const changed of watchers.get(id) ?? []) changed(gone);
  };
  let memory = 0;
  let overflowing = false;
  let log: Log | undefined;

  const trimmed = (shard: Shard, count: number): void => {
    memory -= trim(shard, count);
  };

  const expire = (stream: Stream): void => {
    const cutoff = d.clock() - stream.retentionHours * HOUR_MS;
    for (const shard of stream.shards) {
      const first = oldest(shard);
      if (first && first.at < cutoff) trimmed(shard, seek(shard, (record) => record.at >= cutoff) - shard.head);
    }
    const gone = (shard: Shard): boolean => shard.closed !== undefined && shard.closed.at < cutoff && retained(shard) === 0;
    if (stream.shards.some(gone)) stream.shards = stream.shards.filter((shard) => !gone(shard));
  };

  const enforceCap = (): void => {
    if (memory <= d.limits.memoryBytes * SLACK) return;
    for (const stream of ids.values()) expire(stream);
    let dropped = 0;
    while (memory > d.limits.memoryBytes) {
      let victim: Shard | undefined;
      for (const stream of ids.values())
        for (const shard of stream.shards) {
          const at = oldest(shard)?.at;
          if (at !== undefined && (victim === undefined || at < oldest(victim)!.at)) victim = shard;
        }
      if (!victim) return;
      const count = Math.min(256, Math.max(1, retained(victim) >> 4));
      trimmed(victim, count);
      dropped += count;
    }
    if (dropped > 0 && !overflowing) {
      d.warn(
        `records exceed ${Math.round(d.limits.memoryBytes / 1048576)} MiB of memory: the oldest are dropped before their retention ends (said once)`,
      );
      overflowing = true;
    }
  };

  const put = (stream: Stream, rows: readonly Row[]): void => {
    let shard: Shard | undefined;
    for (const [number, index, at, key, data] of rows) {
      if (shard?.number !== number) shard = stream.shards.find((candidate) => candidate.number === number);
      const record = { index, at, key, data, size: decodedLength(data) + Buffer.byteLength(key) };
      if (shard && append(shard, record)) memory += memoryOf(record);
    }
    enforceCap();
  };

  const remove = (stream: Stream): void => {
    for (const shard of stream.shards) trimmed(shard, retained(shard));
    ids.delete(stream.id);
    if (names.get(stream.name) === stream) names.delete(stream.name);
  };

  const apply = (entry: Entry): void => {
    if (entry.kind === 'create') {
      if (ids.has(entry.stream.id)) return;
      const stream = toStream(entry.stream);
      ids.set(stream.id, stream);
      names.set(stream.name, stream);
      return;
    }
    const stream = ids.get(entry.id);
    if (!stream) return;
    switch (entry.kind) {
      case 'put':
        put(stream, entry.rows);
        tell(stream.id, false);
        return;
      case 'delete':
        remove(stream);
        tell(stream.id, true);
        return;
      case 'retention':
        stream.retentionHours = entry.hours;
        return;
      case 'consumers':
        stream.consumers = new Map(entry.consumers.map((consumer) => [consumer.name, consumer]));
        return;
      case 'settings':
        stream.mode = entry.mode ?? stream.mode;
        stream.maxRecordKiB = entry.maxRecordKiB ?? stream.maxRecordKiB;
        stream.monitoring = entry.monitoring ?? stream.monitoring;
        if (entry.keyId !== undefined) stream.keyId = entry.keyId;
        return;
      case 'tags':
        stream.tags = new Map(entry.tags);
        return;
      case 'reshard':
        for (const { number, index, at } of entry.close) {
          const shard = stream.shards.find((candidate) => candidate.number === number);
          if (shard) shard.closed ??= { index, at };
        }
        for (const state of entry.open) {
          if (state.number < stream.nextShard) continue;
          stream.shards.push(fromState(state));
          stream.nextShard = state.number + 1;
        }
        tell(stream.id, false);
    }
  };

  function* snapshot(): Generator<string> {
    for (const stream of [...ids.values()]) {
      expire(stream);
      yield JSON.stringify({ kind: 'create', stream: toStreamState(stream) } satisfies Entry);
      for (const shard of stream.shards) {
        const records = shard.records.slice(shard.head);
        for (let from = 0; from < records.length; ) {
          const rows: Row[] = [];
          for (let bytes = 0; from < records.length && bytes < 1024 * 1024; from++) {
            const { index, at, key, data, size } = records[from]!;
            rows.push([shard.number, index, at, key, data]);
            bytes += size;
          }
          yield JSON.stringify({ kind: 'put', id: stream.id, rows } satisfies Entry);
        }
      }
    }
  }

  let compactFrom = d.limits.compactMinBytes;
  const compactIfMostlyTrimmed = async (target: Log): Promise<void> => {
    // `memory` counts more than a record's line in the file does, so the file holds at least half garbage here.
    if (target.bytes() < compactFrom || target.bytes() < memory * 2) return;
    compactFrom = Number.POSITIVE_INFINITY;
    try {
      await target.compact(snapshot);
    } finally {
      compactFrom = d.limits.compactMinBytes;
    }
  };

  return {
    streams: () => names.values(),
    byName: (name) => names.get(name),
    byId: (id) => ids.get(id),
    openShards: () => [...names.values()].reduce((sum, stream) => sum + stream.shards.filter(isOpen).length, 0),
    expire,
    restore: (text) => apply(JSON.parse(text) as Entry),
    attach: async (target) => {
      for (const stream of ids.values()) {
        expire(stream);
        for (const shard of stream.shards) if (isOpen(shard)) shard.nextIndex += INDEX_GAP;
      }
      await compactIfMostlyTrimmed(target);
      log = target;
    },
    watch: (streamId, changed) => {
      const all = watchers.get(streamId) ?? new Set();
      watchers.set(streamId, all);
      all.add(changed);
      return () => {
        all.delete(changed);
        if (all.size === 0) watchers.delete(streamId);
      };
    },
    record: async (entry) => {
      if (!log) throw new Error('the store has no log yet');
      const later = entry.kind === 'put';
      if (!later) apply(entry);
      await log.append(JSON.stringify(entry), () => {
        if (later) apply(entry);
      });
      void compactIfMostlyTrimmed(log);
    },
  };
};
