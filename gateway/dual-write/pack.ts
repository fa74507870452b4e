import { createAggregator } from '@banyan/contracts/kpl.ts';
import type { StreamRecord } from './stream.ts';

/** An outbox row; bigints as text. */
export type OutboxRow = {
  readonly position: string;
  readonly lane: number;
  readonly source: string;
  readonly subject: string;
  readonly epoch: number;
  readonly sequence: string;
  readonly envelope: string;
};

/** A record and the rows inside it, all of one lane. */
export type Packed = { readonly lane: number; readonly rows: readonly OutboxRow[]; readonly record: StreamRecord; readonly bytes: number };

export type PackResult = {
  readonly packed: readonly Packed[];
  /** Rows that no stream takes: their subjects wait for a person. */
  readonly oversize: readonly OutboxRow[];
  /** Subjects whose next sequence is missing. By construction none; a relay never skips. */
  readonly gaps: readonly OutboxRow[];
};

/** The hash of all records of a lane: the middle of its slot, so that one shard has the whole lane however the stream is split, and order per key holds. */
export const hashKeyOf = (lane: number): string => ((BigInt(lane) << 124n) + (1n << 123n)).toString();

/** What one sequence counts: source, subject and epoch. */
export const seriesOf = (row: OutboxRow): string => `${row.source}\n${row.subject}\n${row.epoch}`;

/** One PUT unit. */
const BLOB_BYTES = 25_600;
const RECORD_BYTES = 1_048_576;
/** PutRecords: API reference of Kinesis Data Streams. */
const REQUEST_RECORDS = 500;
const REQUEST_BYTES = 5 * 1_048_576;

type Blob = {
  readonly lane: number;
  readonly rows: OutboxRow[];
  bytes: number;
  readonly add: (row: OutboxRow, data: Buffer) => boolean;
  readonly build: () => StreamRecord;
};

const openBlob = (lane: number): Blob => {
  const explicitHashKey = hashKeyOf(lane);
  const aggregator = createAggregator(BLOB_BYTES);
  const rows: OutboxRow[] = [];
  let first: Buffer = Buffer.alloc(0);
  const blob: Blob = {
    lane,
    rows,
    bytes: 0,
    add: (row, data) => {
      // each member carries the hash too: a reader that checks members against its shard's range drops none
      if (!aggregator.add({ partitionKey: row.subject, explicitHashKey, data })) return false;
      if (rows.length === 0) first = data;
      rows.push(row);
      blob.bytes = aggregator.size() + Buffer.byteLength(rows[0]!.subject);
      return true;
    },
    build: () => ({ partitionKey: rows[0]!.subject, explicitHashKey, data: rows.length === 1 ? first : aggregator.finish() }),
  };
  return blob;
};

/**
 * Rows, ordered by lane and position, as the records of one PutRecords request. All rows of a subject go into one record: requests fail record by record,
 * and with two in one request the second could overtake the first (131 of 200 keys at 1 % failures). What does not fit waits for the next request.
 * @param aggregate false = one row per record.
 * @param orphans positions of rows whose predecessor is neither here nor on the stream.
 */
export const pack = (rows: readonly OutboxRow[], aggregate: boolean, orphans: ReadonlySet<string> = new Set()): PackResult => {
  const blobs: Blob[] = [];
  const current = new Map<number, Blob>();
  const blobOf = new Map<string, Blob>();
  const waiting = new Set<string>();
  const last = new Map<string, bigint>();
  const oversize: OutboxRow[] = [];
  const gaps: OutboxRow[] = [];
  let bytes = 0;

  const put = (blob: Blob, row: OutboxRow, data: Buffer): boolean => {
    const before = blob.bytes;
    if (!aggregate && blob.rows.length > 0) return false;
    if (bytes + data.length + row.subject.length * 4 + 64 > REQUEST_BYTES || !blob.add(row, data)) return false;
    bytes += blob.bytes - before;
    return true;
  };
  const place = (key: string, row: OutboxRow, data: Buffer): boolean => {
    const own = blobOf.get(key);
    if (own) return put(own, row, data);
    const open = current.get(row.lane);
    if (open && put(open, row, data)) {
      blobOf.set(key, open);
      return true;
    }
    if (blobs.length >= REQUEST_RECORDS) return false;
    const fresh = openBlob(row.lane);
    if (!put(fresh, row, data)) return false;
    blobs.push(fresh);
    current.set(row.lane, fresh);
    blobOf.set(key, fresh);
    return true;
  };

  for (const row of rows) {
    const key = `${row.lane}/${row.subject}`;
    if (waiting.has(key)) continue;
    const sequence = BigInt(row.sequence);
    const series = seriesOf(row);
    const before = last.get(series);
    const data = Buffer.from(row.envelope);
    if (orphans.has(row.position) || (before !== undefined && sequence !== before + 1n)) {
      gaps.push(row);
      waiting.add(key);
    } else if (data.length + Buffer.byteLength(row.subject) > RECORD_BYTES) {
      oversize.push(row);
      waiting.add(key);
    } else if (place(key, row, data)) last.set(series, sequence);
    else waiting.add(key);
  }
  return { packed: blobs.map((blob) => ({ lane: blob.lane, rows: blob.rows, record: blob.build(), bytes: blob.bytes })), oversize, gaps };
};
