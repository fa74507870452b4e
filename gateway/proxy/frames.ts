import { randomBytes } from 'node:crypto';

const CLOSE = 0x8;
const FIN = 0x80;
const MASKED = 0x80;

/**
 * Follows one direction of a WebSocket (RFC 6455 5.2) by frame headers alone: it keeps no byte, unmasks nothing and counts payloads off, so that
 * it is known at any moment whether a frame of our own may be put in between. Bytes that are no frames merely never come to a boundary.
 */
export class FrameTracker {
  /** Bytes of the running header that have come, and how many it has. */
  #head = 0;
  #headLength = 2;
  #opcode = 0;
  #length = 0;
  #lengthBytes = 0;
  /** Payload that is still to come. */
  #left = 0;
  #closed = false;

  /** Between two frames; also in the middle of a fragmented message, where control frames are allowed (RFC 6455 5.4). */
  get atBoundary(): boolean {
    return this.#head === 0 && this.#left === 0;
  }

  /** A whole Close frame has gone by: this side has said its last word (RFC 6455 5.5.1). */
  get closed(): boolean {
    return this.#closed;
  }

  /** Reads what passes; with `stop` only to the next boundary. Returns how many bytes it has read. */
  read(chunk: Uint8Array, stop = false): number {
    const { length } = chunk;
    let at = 0;
    while (at < length) {
      if (this.#left > 0) {
        const step = Math.min(this.#left, length - at);
        at += step;
        this.#left -= step;
      } else this.#header(chunk[at++]!);
      if (this.#left > 0 || this.#head > 0) continue;
      if (this.#opcode === CLOSE) this.#closed = true;
      if (stop) break;
    }
    return at;
  }

  #header(byte: number): void {
    const index = this.#head++;
    if (index === 0) {
      this.#opcode = byte & 0x0f;
      return;
    }
    if (index === 1) {
      const short = byte & 0x7f;
      this.#lengthBytes = short === 126 ? 2 : short === 127 ? 8 : 0;
      this.#length = this.#lengthBytes === 0 ? short : 0;
      this.#headLength = 2 + this.#lengthBytes + ((byte & MASKED) === 0 ? 0 : 4);
    } else if (index < 2 + this.#lengthBytes) this.#length = this.#length * 256 + byte;
    if (this.#head < this.#headLength) return;
    this.#head = 0;
    // no such frame ever ends
    this.#left = Number.isSafeInteger(this.#length) ? this.#length : Number.POSITIVE_INFINITY;
  }
}

/** A Close frame. @param masked as frames of a client must be, and those of a server must not (RFC 6455 5.1) @param reason ASCII, at most 123 characters */
export const closeFrame = (code: number, reason: string, masked: boolean): Buffer => {
  const payload = Buffer.alloc(2 + reason.length);
  payload.writeUInt16BE(code, 0);
  payload.write(reason, 2, 'latin1');
  const head = Buffer.from([FIN | CLOSE, (masked ? MASKED : 0) | payload.length]);
  if (!masked) return Buffer.concat([head, payload]);
  const mask = randomBytes(4);
  for (let i = 0; i < payload.length; i++) payload[i]! ^= mask[i % 4]!;
  return Buffer.concat([head, mask, payload]);
};
