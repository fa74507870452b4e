import { type Aggregator, createAggregator } from '@banyan/contracts/kpl.ts';
import type { OutboxRow } from './outbox.ts';
import type { Series, Subject } from './series.ts';
import type { StreamRecord } from './stream.ts';

/** A record and the rows inside it, all of one lane. */
export type Packed = { readonly lane: number; readonly rows: readonly OutboxRow[]; readonly record: StreamRecord; readonly bytes: number };

export type PackResult = {
  readonly packed: readonly Packed[];
  /** Rows that no stream takes: their subjects wait for a person. */
  readonly oversize: readonly OutboxRow[];
  /** Subjects whose next sequence is missing. By construction none; a relay never skips. */
  readonly gaps: readonly OutboxRow[];
};

type Room = (bytes: number) => Buffer;

/** The hash of all records of a lane: the middle of its slot, so that one shard has the whole lane however the stream is split, and order per key holds. */
export const hashKeyOf = (lane: number): string => ((BigInt(lane) << 124n) + (1n << 123n)).toString();

/** One PUT unit. */
const BLOB_BYTES = 25_600;
const RECORD_BYTES = 1_048_576;
/** PutRecords: API reference of Kinesis Data Streams. */
const REQUEST_RECORDS = 500;
const REQUEST_BYTES = 5 * 1_048_576;

/** What a lane's hash costs to write down is little against asking BigInt for it again and again. */
const HASH_KEYS = Array.from({ length: 16 }, (_, lane) => hashKeyOf(lane));

type Blob = {
  readonly lane: number;
  readonly rows: OutboxRow[];
  bytes: number;
  readonly add: (row: OutboxRow) => boolean;
  readonly build: (room: Room) => StreamRecord;
};

/** A view, no copy. */
const bufferOf = (data: Uint8Array): Buffer => Buffer.from(data.buffer, data.byteOffset, data.byteLength);

const NONE = createAggregator(0);

const openBlob = (lane: number): Blob => {
  const explicitHashKey = HASH_KEYS[lane]!;
  let aggregator: Aggregator = NONE;
  const rows: OutboxRow[] = [];
  let keyBytes = 0;
  const blob: Blob = {
    lane,
    rows,
    bytes: 0,
    add: (row) => {
      if (rows.length === 0) {
        // what is billed is the record with its key, which is that of the first row
        keyBytes = Buffer.byteLength(row.series.subject.name);
        aggregator = createAggregator(BLOB_BYTES - keyBytes);
      }
      // each member carries the hash too: a reader that checks members against its shard's range drops none
      if (!aggregator.add({ partitionKey: row.series.subject.name, explicitHashKey, data: row.data })) return false;
      rows.push(row);
      blob.bytes = aggregator.size() + keyBytes;
      return true;
    },
    build: (room) => ({
      partitionKey: rows[0]!.series.subject.name,
      explicitHashKey,
      data: rows.length === 1 ? bufferOf(rows[0]!.data) : aggregator.finish(room),
    }),
  };
  return blob;
};

/** Bytes of a partition key at most, so that most are never counted: PostgreSQL holds 256 characters of at most four. */
const MAX_KEY_BYTES = 1_024;

/**
 * Rows, ordered by lane and position, as the records of one PutRecords request. All rows of a subject go into one record: requests fail record by record,
 * and with two in one request the second could overtake the first (131 of 200 keys at 1 % failures). What does not fit waits for the next request.
 * @param aggregate false = one row per record.
 * @param orphans positions of rows whose predecessor is neither here nor on the stream.
 * @param room memory for the records; they are valid as long as it is.
 */
export const pack = (
  rows: readonly OutboxRow[],
  aggregate: boolean,
  orphans: ReadonlySet<string> = new Set(),
  room: Room = Buffer.allocUnsafe,
): PackResult => {
  const blobs: Blob[] = [];
  const current = new Map<number, Blob>();
  const blobOf = new Map<Subject, Blob>();
  const waiting = new Set<Subject>();
  const last = new Map<Series, number>();
  const oversize: OutboxRow[] = [];
  const gaps: OutboxRow[] = [];
  let bytes = 0;

  const put = (blob: Blob, row: OutboxRow): boolean => {
    const before = blob.bytes;
    if (!aggregate && blob.rows.length > 0) return false;
    if (bytes + row.data.length + row.series.subject.name.length * 4 + 64 > REQUEST_BYTES || !blob.add(row)) return false;
    bytes += blob.bytes - before;
    return true;
  };
  const place = (subject: Subject, row: OutboxRow): boolean => {
    const own = blobOf.get(subject);
    if (own) return put(own, row);
    const open = current.get(subject.lane);
    if (open && put(open, row)) {
      blobOf.set(subject, open);
      return true;
    }
    if (blobs.length >= REQUEST_RECORDS) return false;
    const fresh = openBlob(subject.lane);
    if (!put(fresh, row)) return false;
    blobs.push(fresh);
    current.set(subject.lane, fresh);
    blobOf.set(subject, fresh);
    return true;
  };

  for (const row of rows) {
    const { series, sequence, ordered, data } = row;
    const { subject } = series;
    if (waiting.size > 0 && waiting.has(subject)) continue;
    const before = last.get(series);
    if (ordered && ((before !== undefined && sequence !== before + 1) || (orphans.size > 0 && orphans.has(row.position)))) {
      gaps.push(row);
      waiting.add(subject);
    } else if (data.length > RECORD_BYTES - MAX_KEY_BYTES && data.length + Buffer.byteLength(subject.name) > RECORD_BYTES) {
      oversize.push(row);
      waiting.add(subject);
    } else if (place(subject, row)) last.set(series, sequence);
    else waiting.add(subject);
  }
  return {
    packed: blobs.map((blob) => ({ lane: blob.lane, rows: blob.rows, record: blob.build(room), bytes: blob.bytes })),
    oversize,
    gaps,
  };
};
