import { createHash } from 'node:crypto';
import { Readable } from 'node:stream';

const PIECE = 16 * 1024;

const piece = (index: number, length: number): Buffer => {
  const block = Buffer.alloc(length, index & 0xff);
  if (length >= 4) block.writeUInt32BE(index, 0);
  return block;
};

/** `length` bytes that both sides can make for themselves; no two pieces are alike, so that a lost or doubled one shows. */
export const bytesOf = (length: number): Readable => {
  let at = 0;
  return new Readable({
    highWaterMark: PIECE,
    read() {
      if (at >= length) {
        this.push(null);
        return;
      }
      const size = Math.min(PIECE, length - at);
      this.push(piece(at / PIECE, size));
      at += size;
    },
  });
};

/** SHA-256 of the same, hex. */
export const digestOf = (length: number): string => {
  const hash = createHash('sha256');
  for (let at = 0; at < length; at += PIECE) hash.update(piece(at / PIECE, Math.min(PIECE, length - at)));
  return hash.digest('hex');
};
