import { hash } from 'node:crypto';

/**
 * The aggregated record format of the Kinesis Producer Library, both ways: four magic bytes, a protobuf `AggregatedRecord`, the MD5 of the protobuf.
 * Format: https://github.com/awslabs/kinesis-aggregation/blob/master/potential_data_loss.md and `KinesisRecordAggregation.md` beside it.
 */
const MAGIC = Buffer.from([0xf3, 0x89, 0x9a, 0xc2]);
const DIGEST_BYTES = 16;

/** One user record. `explicitHashKey` is a decimal integer below 2^128. */
export type KplRecord = { readonly partitionKey: string; readonly explicitHashKey?: string; readonly data: Uint8Array };

const varintBytes = (value: number): number => {
  let bytes = 1;
  for (let rest = value; rest > 127; rest = Math.floor(rest / 128)) bytes += 1;
  return bytes;
};

/** Key tables keep the order of first use; a Map, because object keys that look like integers change their order. */
type Table = { readonly indexes: Map<string, number>; readonly sizes: number[] };
const table = (): Table => ({ indexes: new Map(), sizes: [] });

const fieldBytes = (length: number): number => 1 + varintBytes(length) + length;

/** Builds one aggregated record. Not reusable after `finish`. */
export type Aggregator = {
  /** False, and nothing added, when the record would push the whole beyond the limit (the first record is always taken). */
  readonly add: (record: KplRecord) => boolean;
  readonly count: () => number;
  /** Size in bytes of what `finish` would return now. */
  readonly size: () => number;
  readonly finish: () => Buffer;
};

/** @param limitBytes the largest size of the finished record, magic and digest included. */
export const createAggregator = (limitBytes: number): Aggregator => {
  const keys = table();
  const hashes = table();
  const records: { key: number; hash: number; inner: number; data: Uint8Array }[] = [];
  let size = MAGIC.length + DIGEST_BYTES;
  const look = (target: Table, text: string): { index: number; bytes: number; length: number } => {
    const known = target.indexes.get(text);
    if (known !== undefined) return { index: known, bytes: 0, length: 0 };
    const length = Buffer.byteLength(text);
    return { index: target.sizes.length, bytes: fieldBytes(length), length };
  };
  const remember = (target: Table, text: string, found: { bytes: number; length: number }) => {
    if (found.bytes === 0) return;
    target.indexes.set(text, target.sizes.length);
    target.sizes.push(found.length);
  };
  return {
    add: (record) => {
      const key = look(keys, record.partitionKey);
      const explicit = record.explicitHashKey === undefined ? undefined : look(hashes, record.explicitHashKey);
      const inner = 1 + varintBytes(key.index) + (explicit ? 1 + varintBytes(explicit.index) : 0) + fieldBytes(record.data.length);
      const more = key.bytes + (explicit?.bytes ?? 0) + fieldBytes(inner);
      if (records.length > 0 && size + more > limitBytes) return false;
      remember(keys, record.partitionKey, key);
      if (explicit && record.explicitHashKey !== undefined) remember(hashes, record.explicitHashKey, explicit);
      records.push({ key: key.index, hash: explicit ? explicit.index : -1, inner, data: record.data });
      size += more;
      return true;
    },
    count: () => records.length,
    size: () => size,
    finish: () => {
      const out = Buffer.allocUnsafe(size);
      let at = MAGIC.copy(out, 0);
      const varint = (value: number) => {
        let rest = value;
        while (rest > 127) {
          out[at++] = (rest % 128) | 128;
          rest = Math.floor(rest / 128);
        }
        out[at++] = rest;
      };
      const strings = (tag: number, source: Table) => {
        for (const [text, index] of source.indexes) {
          out[at++] = tag;
          varint(source.sizes[index]!);
          at += out.write(text, at, 'utf8');
        }
      };
      strings(0x0a, keys);
      strings(0x12, hashes);
      for (const record of records) {
        out[at++] = 0x1a;
        varint(record.inner);
        out[at++] = 0x08;
        varint(record.key);
        if (record.hash >= 0) {
          out[at++] = 0x10;
          varint(record.hash);
        }
        out[at++] = 0x1a;
        varint(record.data.length);
        out.set(record.data, at);
        at += record.data.length;
      }
      hash('md5', out.subarray(MAGIC.length, at), 'buffer').copy(out, at);
      return out;
    },
  };
};

/** All records as one aggregated record, whatever its size. */
export const aggregate = (records: readonly KplRecord[]): Buffer => {
  const aggregator = createAggregator(Number.POSITIVE_INFINITY);
  for (const record of records) aggregator.add(record);
  return aggregator.finish();
};

/** Reads a varint below 2^53; `at` is -1 after a malformed one. */
type Cursor = { at: number };
const readVarint = (data: Buffer, cursor: Cursor, end: number): number => {
  let value = 0;
  let scale = 1;
  for (let bytes = 0; bytes < 8; bytes += 1) {
    if (cursor.at >= end) throw new RangeError('varint is cut off');
    const byte = data[cursor.at++]!;
    value += (byte & 127) * scale;
    if (byte < 128) return value;
    scale *= 128;
  }
  throw new RangeError('varint is too long');
};

const skip = (data: Buffer, cursor: Cursor, wire: number, end: number): void => {
  if (wire === 0) readVarint(data, cursor, end);
  else if (wire === 1) cursor.at += 8;
  else if (wire === 5) cursor.at += 4;
  else if (wire === 2) cursor.at = readVarint(data, cursor, end) + cursor.at;
  else throw new RangeError(`wire type ${wire}`);
  if (cursor.at > end) throw new RangeError('field is cut off');
};

const chunk = (data: Buffer, cursor: Cursor, end: number): Buffer => {
  const length = readVarint(data, cursor, end);
  if (cursor.at + length > end) throw new RangeError('field is cut off');
  cursor.at += length;
  return data.subarray(cursor.at - length, cursor.at);
};

const parse = (data: Buffer, start: number, end: number): KplRecord[] => {
  const keys: string[] = [];
  const hashes: string[] = [];
  const raw: { key: number; hash: number; data: Buffer }[] = [];
  const cursor: Cursor = { at: start };
  while (cursor.at < end) {
    const tag = readVarint(data, cursor, end);
    if (tag === 0x0a) keys.push(chunk(data, cursor, end).toString('utf8'));
    else if (tag === 0x12) hashes.push(chunk(data, cursor, end).toString('utf8'));
    else if (tag === 0x1a) {
      const length = readVarint(data, cursor, end);
      const stop = cursor.at + length;
      if (stop > end) throw new RangeError('record is cut off');
      const record = { key: -1, hash: -1, data: data.subarray(stop, stop) };
      while (cursor.at < stop) {
        const field = readVarint(data, cursor, stop);
        if (field === 0x08) record.key = readVarint(data, cursor, stop);
        else if (field === 0x10) record.hash = readVarint(data, cursor, stop);
        else if (field === 0x1a) record.data = chunk(data, cursor, stop);
        else skip(data, cursor, field & 7, stop);
      }
      raw.push(record);
    } else skip(data, cursor, tag & 7, end);
  }
  return raw.map((record) => {
    const partitionKey = keys[record.key];
    if (partitionKey === undefined) throw new RangeError('a record names no partition key');
    if (record.hash < 0) return { partitionKey, data: record.data };
    const explicitHashKey = hashes[record.hash];
    if (explicitHashKey === undefined) throw new RangeError('a record names an unknown hash key');
    return { partitionKey, explicitHashKey, data: record.data };
  });
};

/**
 * The user records inside `data`, in order (views into it, nothing is copied); null when `data` is a plain record: no magic, a digest that does not
 * fit, or a body that is no AggregatedRecord. A reader treats null as one user record, as the KCL does.
 */
export const deaggregate = (data: Uint8Array): KplRecord[] | null => {
  const bytes = Buffer.from(data.buffer, data.byteOffset, data.byteLength);
  const end = bytes.length - DIGEST_BYTES;
  if (end < MAGIC.length || bytes.readUInt32BE(0) !== 0xf3899ac2) return null;
  if (!hash('md5', bytes.subarray(MAGIC.length, end), 'buffer').equals(bytes.subarray(end))) return null;
  try {
    return parse(bytes, MAGIC.length, end);
  } catch {
    return null;
  }
};
