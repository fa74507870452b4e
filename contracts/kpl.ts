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
  if (value < 128) return 1;
  if (value < 16_384) return 2;
  let bytes = 3;
  for (let rest = Math.floor(value / 2_097_152); rest > 0; rest = Math.floor(rest / 128)) bytes += 1;
  return bytes;
};

const fieldBytes = (length: number): number => 1 + varintBytes(length) + length;

/** Bytes that grow; writers make room first. */
type Area = { bytes: Uint8Array; end: number };

/** Room for the records of one PUT unit; a larger record grows it. */
const USUAL_BYTES = 25_600;
/** Areas of finished aggregators, used again: fresh memory costs more than what is written into it. */
const spare: Uint8Array[] = [];
const MAX_SPARE = 64;

const room = (area: Area, more: number): void => {
  const needed = area.end + more;
  if (needed <= area.bytes.length) return;
  const larger = new Uint8Array(Math.max(needed, area.bytes.length * 2));
  larger.set(area.bytes.subarray(0, area.end));
  area.bytes = larger;
};

const varint = (area: Area, value: number): void => {
  let rest = value;
  while (rest > 127) {
    area.bytes[area.end++] = (rest % 128) | 128;
    rest = Math.floor(rest / 128);
  }
  area.bytes[area.end++] = rest;
};

/** Keys in the order of their first use; a Map, because object keys that look like integers change their order. */
type Table = { readonly indexes: Map<string, number>; readonly written: Area; last: string; lastIndex: number };
const table = (bytes: number): Table => ({
  indexes: new Map(),
  written: { bytes: new Uint8Array(bytes), end: 0 },
  last: '',
  lastIndex: -1,
});

/** -1 when the text is new. Neighbours often share it, and comparing is cheaper than looking up. */
const indexIn = (target: Table, text: string): number => {
  if (target.lastIndex >= 0 && target.last === text) return target.lastIndex;
  return target.indexes.get(text) ?? -1;
};

const utf8 = (text: string): number => {
  for (let i = 0; i < text.length; i += 1) if (text.charCodeAt(i) > 127) return Buffer.byteLength(text);
  return text.length;
};

const append = (target: Table, tag: number, text: string, length: number): number => {
  const { written } = target;
  room(written, fieldBytes(length));
  written.bytes[written.end++] = tag;
  varint(written, length);
  if (length === text.length) for (let i = 0; i < length; i += 1) written.bytes[written.end++] = text.charCodeAt(i);
  else {
    written.bytes.set(Buffer.from(text), written.end);
    written.end += length;
  }
  const index = target.indexes.size;
  target.indexes.set(text, index);
  return index;
};

/** Builds one aggregated record. Not reusable after `finish`. */
export type Aggregator = {
  /** False, and nothing added, when the record would push the whole beyond the limit (the first record is always taken). */
  readonly add: (record: KplRecord) => boolean;
  readonly count: () => number;
  /** Size in bytes of what `finish` would return now. */
  readonly size: () => number;
  /** @param room gives the memory to write into, exactly as many bytes as asked for; default fresh */
  readonly finish: (room?: (bytes: number) => Buffer) => Buffer;
};

/** @param limitBytes the largest size of the finished record, magic and digest included. */
export const createAggregator = (limitBytes: number): Aggregator => {
  const keys = table(2_048);
  const hashes = table(64);
  const records: Area = { bytes: spare.pop() ?? new Uint8Array(USUAL_BYTES), end: 0 };
  let count = 0;
  let size = MAGIC.length + DIGEST_BYTES;
  return {
    add: ({ partitionKey, explicitHashKey, data }) => {
      let key = indexIn(keys, partitionKey);
      let hashed = explicitHashKey === undefined ? -1 : indexIn(hashes, explicitHashKey);
      const keyLength = key < 0 ? utf8(partitionKey) : 0;
      const hashLength = explicitHashKey !== undefined && hashed < 0 ? utf8(explicitHashKey) : 0;
      const hashIndex = explicitHashKey === undefined ? -1 : hashed < 0 ? hashes.indexes.size : hashed;
      const inner =
        1 + varintBytes(key < 0 ? keys.indexes.size : key) + (hashIndex < 0 ? 0 : 1 + varintBytes(hashIndex)) + fieldBytes(data.length);
      const more = (key < 0 ? fieldBytes(keyLength) : 0) + (hashIndex >= 0 && hashed < 0 ? fieldBytes(hashLength) : 0) + fieldBytes(inner);
      if (count > 0 && size + more > limitBytes) return false;
      if (key < 0) key = append(keys, 0x0a, partitionKey, keyLength);
      keys.last = partitionKey;
      keys.lastIndex = key;
      if (explicitHashKey !== undefined) {
        if (hashed < 0) hashed = append(hashes, 0x12, explicitHashKey, hashLength);
        hashes.last = explicitHashKey;
        hashes.lastIndex = hashed;
      }
      room(records, fieldBytes(inner));
      records.bytes[records.end++] = 0x1a;
      varint(records, inner);
      records.bytes[records.end++] = 0x08;
      varint(records, key);
      if (hashed >= 0) {
        records.bytes[records.end++] = 0x10;
        varint(records, hashed);
      }
      records.bytes[records.end++] = 0x1a;
      varint(records, data.length);
      records.bytes.set(data, records.end);
      records.end += data.length;
      count += 1;
      size += more;
      return true;
    },
    count: () => count,
    size: () => size,
    finish: (room = Buffer.allocUnsafe) => {
      const out = room(size);
      let at = MAGIC.copy(out, 0);
      for (const area of [keys.written, hashes.written, records]) {
        out.set(area.bytes.subarray(0, area.end), at);
        at += area.end;
      }
      hash('md5', out.subarray(MAGIC.length, at), 'buffer').copy(out, at);
      if (records.bytes.length === USUAL_BYTES && spare.length < MAX_SPARE) spare.push(records.bytes);
      // of no use any more, and another aggregator may have its bytes
      records.bytes = new Uint8Array(0);
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

/** Reads a varint below 2^53. */
type Cursor = { at: number };
const readVarint = (data: Uint8Array, cursor: Cursor, end: number): number => {
  if (cursor.at < end && data[cursor.at]! < 128) return data[cursor.at++]!;
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

const skip = (data: Uint8Array, cursor: Cursor, wire: number, end: number): void => {
  if (wire === 0) readVarint(data, cursor, end);
  else if (wire === 1) cursor.at += 8;
  else if (wire === 5) cursor.at += 4;
  else if (wire === 2) cursor.at = readVarint(data, cursor, end) + cursor.at;
  else throw new RangeError(`wire type ${wire}`);
  if (cursor.at > end) throw new RangeError('field is cut off');
};

/** Moves over a length-delimited field and answers where it starts; it ends at `cursor.at`. */
const span = (data: Uint8Array, cursor: Cursor, end: number): number => {
  const length = readVarint(data, cursor, end);
  const start = cursor.at;
  if (start + length > end) throw new RangeError('field is cut off');
  cursor.at = start + length;
  return start;
};

/** Where texts stand in the blob: pairs of start and end. */
const textsOf = (data: Buffer, spans: readonly number[]): string[] => {
  const from = spans[0] ?? 0;
  const to = spans.at(-1) ?? 0;
  // one call for all of them, since they stand together; one more for each that has a byte above 127
  const together = data.toString('latin1', from, to);
  const texts: string[] = [];
  for (let i = 0; i < spans.length; i += 2) {
    const start = spans[i]!;
    const end = spans[i + 1]!;
    let ascii = true;
    for (let at = start; ascii && at < end; at += 1) ascii = data[at]! < 128;
    texts.push(ascii ? together.slice(start - from, end - from) : data.toString('utf8', start, end));
  }
  return texts;
};

const parse = (data: Buffer, start: number, end: number): KplRecord[] => {
  const keySpans: number[] = [];
  const hashSpans: number[] = [];
  /** Four numbers a record: key, hash, where its data starts and ends. */
  const raw: number[] = [];
  const cursor: Cursor = { at: start };
  while (cursor.at < end) {
    const tag = readVarint(data, cursor, end);
    if (tag === 0x1a) {
      const length = readVarint(data, cursor, end);
      const stop = cursor.at + length;
      if (stop > end) throw new RangeError('record is cut off');
      let key = -1;
      let hashed = -1;
      let from = stop;
      let to = stop;
      while (cursor.at < stop) {
        const field = readVarint(data, cursor, stop);
        if (field === 0x08) key = readVarint(data, cursor, stop);
        else if (field === 0x10) hashed = readVarint(data, cursor, stop);
        else if (field === 0x1a) {
          from = span(data, cursor, stop);
          to = cursor.at;
        } else skip(data, cursor, field & 7, stop);
      }
      raw.push(key, hashed, from, to);
    } else if (tag === 0x0a || tag === 0x12) (tag === 0x0a ? keySpans : hashSpans).push(span(data, cursor, end), cursor.at);
    else skip(data, cursor, tag & 7, end);
  }
  const keys = textsOf(data, keySpans);
  const hashes = textsOf(data, hashSpans);
  const view = new Uint8Array(data.buffer, data.byteOffset, data.byteLength);
  const records: KplRecord[] = [];
  for (let i = 0; i < raw.length; i += 4) {
    const partitionKey = keys[raw[i]!];
    if (partitionKey === undefined) throw new RangeError('a record names no partition key');
    const part = view.subarray(raw[i + 2]!, raw[i + 3]!);
    if (raw[i + 1]! < 0) records.push({ partitionKey, data: part });
    else {
      const explicitHashKey = hashes[raw[i + 1]!];
      if (explicitHashKey === undefined) throw new RangeError('a record names an unknown hash key');
      records.push({ partitionKey, explicitHashKey, data: part });
    }
  }
  return records;
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
