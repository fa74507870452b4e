import { closeSync, fstatSync, openSync, readSync } from 'node:fs';
import { crc32 } from 'node:zlib';

/** First bytes of a data file: a wrong file given by mistake is refused, never truncated. */
export const MAGIC = Buffer.from('banyan-kinesis/1');
const HEADER_BYTES = 8;
const CHUNK_BYTES = 4 * 1024 * 1024;
/** Larger than any request's entry; a larger length in the file is damage. */
const MAX_FRAME_BYTES = 64 * 1024 * 1024;

/** One entry on disk: length (u32, little endian), CRC-32 of the payload (u32), payload. */
export const frame = (payload: string): Buffer => {
  const bytes = Buffer.byteLength(payload);
  const buffer = Buffer.allocUnsafe(HEADER_BYTES + bytes);
  buffer.writeUInt32LE(bytes, 0);
  buffer.write(payload, HEADER_BYTES);
  buffer.writeUInt32LE(crc32(buffer.subarray(HEADER_BYTES)), 4);
  return buffer;
};

/**
 * `end` = bytes of the file that hold whole entries. `tail`: nothing follows; `torn`: an unfinished last entry, as a kill in the middle of a
 * write leaves it; `damaged`: a bad entry with more bytes behind it.
 */
export type Scan = { readonly end: number; readonly size: number; readonly tail: 'none' | 'torn' | 'damaged' };

/** Reads every whole entry of the file at `path` from after the magic, in order. Blocks: it runs before anything is served. */
export const scan = (path: string, entry: (payload: Buffer) => void): Scan => {
  const fd = openSync(path, 'r');
  try {
    const size = fstatSync(fd).size;
    let buffer: Buffer = Buffer.alloc(0);
    let end = MAGIC.length;
    let readUpTo = MAGIC.length;
    const have = (bytes: number): boolean => {
      while (buffer.length < bytes && readUpTo < size) {
        const chunk = Buffer.allocUnsafe(Math.min(size - readUpTo, Math.max(CHUNK_BYTES, bytes - buffer.length)));
        const read = readSync(fd, chunk, 0, chunk.length, readUpTo);
        if (read === 0) break;
        readUpTo += read;
        buffer = Buffer.concat([buffer, chunk.subarray(0, read)]);
      }
      return buffer.length >= bytes;
    };
    while (end < size) {
      if (!have(HEADER_BYTES)) return { end, size, tail: 'torn' };
      const bytes = buffer.readUInt32LE(0);
      const whole = HEADER_BYTES + bytes;
      if (bytes === 0 || bytes > MAX_FRAME_BYTES) return { end, size, tail: 'damaged' };
      if (!have(whole)) return { end, size, tail: 'torn' };
      const payload = buffer.subarray(HEADER_BYTES, whole);
      if (crc32(payload) !== buffer.readUInt32LE(4)) return { end, size, tail: end + whole >= size ? 'torn' : 'damaged' };
      entry(payload);
      buffer = buffer.subarray(whole);
      end += whole;
    }
    return { end, size, tail: 'none' };
  } finally {
    closeSync(fd);
  }
};
