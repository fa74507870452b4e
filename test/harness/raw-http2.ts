import { connect, type Socket } from 'node:net';

/** HTTP/2 read and written frame by frame, without any HTTP library: for what a well-behaved client never sends. RFC 9113, RFC 7541. */

export const FRAME = { data: 0, headers: 1, priority: 2, reset: 3, settings: 4, ping: 6, goaway: 7, window: 8, continuation: 9 } as const;
export const FLAG = { endStream: 1, ack: 1, endHeaders: 4 } as const;
export const CODE = {
  none: 0,
  protocol: 1,
  internal: 2,
  flowControl: 3,
  closed: 5,
  refused: 7,
  cancel: 8,
  compression: 9,
  calm: 11,
} as const;

export type Frame = { readonly type: number; readonly flags: number; readonly stream: number; readonly payload: Buffer };

const frame = (type: number, flags: number, stream: number, payload: Buffer): Buffer => {
  const head = Buffer.alloc(9);
  head.writeUIntBE(payload.length, 0, 3);
  head[3] = type;
  head[4] = flags;
  head.writeUInt32BE(stream, 5);
  return Buffer.concat([head, payload]);
};

/** The preface and SETTINGS that set nothing. */
export const GREETING = Buffer.concat([Buffer.from('PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n', 'latin1'), frame(4, 0, 0, Buffer.alloc(0))]);

const prefixed = (bits: number, first: number, value: number): Buffer => {
  const most = 2 ** bits - 1;
  if (value < most) return Buffer.from([first | value]);
  const bytes = [first | most];
  let rest = value - most;
  for (; rest >= 128; rest = Math.floor(rest / 128)) bytes.push((rest % 128) | 128);
  return Buffer.from([...bytes, rest]);
};

const textOf = (value: string): Buffer => {
  const bytes = Buffer.from(value, 'latin1');
  return Buffer.concat([prefixed(7, 0, bytes.length), bytes]);
};

/** A field block of literals that are not indexed (RFC 7541 6.2.2), in this order and case. */
export const fieldBlock = (fields: readonly (readonly [string, string])[]): Buffer =>
  Buffer.concat(fields.map(([name, value]) => Buffer.concat([Buffer.from([0]), textOf(name), textOf(value)])));

/** The pseudo-fields of a GET, to be changed one by one. */
export const request = (path: string, changes: Readonly<Record<string, string | null>> = {}): [string, string][] => {
  const fields: Record<string, string | null> = {
    ':method': 'GET',
    ':scheme': 'http',
    ':authority': 'shop.test',
    ':path': path,
    ...changes,
  };
  return Object.entries(fields).filter((field): field is [string, string] => field[1] !== null);
};

/** A whole head in one frame. */
export const headersFrame = (stream: number, fields: readonly (readonly [string, string])[], end = true): Buffer =>
  frame(FRAME.headers, FLAG.endHeaders | (end ? FLAG.endStream : 0), stream, fieldBlock(fields));

const INDEXED = ['200', '204', '206', '304', '400', '404', '500'];

/** `:status`, which stands first in the block of every answer. Digits alone are simple in Huffman's code: 0-2 have five bits, the others six. */
const statusOf = (block: Buffer): number => {
  const first = block[0]!;
  if ((first & 0x80) !== 0) return Number(INDEXED[(first & 0x7f) - 8]);
  const length = block[1]!;
  const value = block.subarray(2, 2 + (length & 0x7f));
  if ((length & 0x80) === 0) return Number(value.toString('latin1'));
  const bits = [...value].map((byte) => byte.toString(2).padStart(8, '0')).join('');
  let digits = '';
  for (let at = 0; digits.length < 3; ) {
    const five = Number.parseInt(bits.slice(at, at + 5), 2);
    digits += five <= 2 ? five : Number.parseInt(bits.slice(at, at + 6), 2) - 0b011001 + 3;
    at += five <= 2 ? 5 : 6;
  }
  return Number(digits);
};

/** What became of one stream. */
export type StreamSeen = {
  readonly status: number | null;
  readonly body: string;
  /** The answer was ended by END_STREAM. */
  readonly ended: boolean;
  /** Code of RST_STREAM. */
  readonly reset: number | null;
};

type Progress = { status: number | null; readonly parts: Buffer[]; bytes: number; ended: boolean; reset: number | null };

/** The client's side of one HTTP/2 connection. */
export class RawHttp2 {
  readonly socket: Socket;
  readonly frames: Frame[] = [];
  #data: Buffer = Buffer.alloc(0);
  #closed = false;
  #greeted = false;
  #wake: (() => void)[] = [];
  readonly #streams = new Map<number, Progress>();

  constructor(socket: Socket) {
    this.socket = socket;
    socket.on('error', () => undefined);
    socket.on('data', (chunk) => {
      this.#data = Buffer.concat([this.#data, chunk]);
      for (;;) {
        if (this.#data.length < 9) break;
        const length = this.#data.readUIntBE(0, 3);
        if (this.#data.length < 9 + length) break;
        this.#take({
          type: this.#data[3]!,
          flags: this.#data[4]!,
          stream: this.#data.readUInt32BE(5),
          payload: this.#data.subarray(9, 9 + length),
        });
        this.#data = this.#data.subarray(9 + length);
      }
      this.#stir();
    });
    socket.on('close', () => {
      this.#closed = true;
      this.#stir();
    });
  }

  get closed(): boolean {
    return this.#closed;
  }

  write(...parts: readonly Buffer[]): this {
    this.socket.write(Buffer.concat(parts));
    return this;
  }

  /** The preface and SETTINGS. From then on SETTINGS and PING are acknowledged. */
  greet(): this {
    this.#greeted = true;
    return this.write(GREETING);
  }

  send(type: number, flags: number, stream: number, payload: Buffer | string = ''): this {
    return this.write(frame(type, flags, stream, typeof payload === 'string' ? Buffer.from(payload, 'latin1') : payload));
  }

  headers(stream: number, fields: readonly (readonly [string, string])[], end = true): this {
    return this.write(headersFrame(stream, fields, end));
  }

  data(stream: number, bytes: Buffer | string, end = false): this {
    return this.send(FRAME.data, end ? FLAG.endStream : 0, stream, bytes);
  }

  reset(stream: number, code: number): this {
    const payload = Buffer.alloc(4);
    payload.writeUInt32BE(code);
    return this.send(FRAME.reset, 0, stream, payload);
  }

  window(stream: number, bytes: number): this {
    const payload = Buffer.alloc(4);
    payload.writeUInt32BE(bytes);
    return this.send(FRAME.window, 0, stream, payload);
  }

  seen(stream: number): StreamSeen {
    const { status, parts, ended, reset } = this.#stream(stream);
    return { status, body: Buffer.concat(parts).toString('latin1'), ended, reset };
  }

  /** Bytes of body so far. */
  received(stream: number): number {
    return this.#stream(stream).bytes;
  }

  /** Code of the last GOAWAY. */
  get goaway(): number | null {
    return this.frames.findLast(({ type }) => type === FRAME.goaway)?.payload.readUInt32BE(4) ?? null;
  }

  /** Waits until it holds, or the connection is closed. */
  async until(holds: () => boolean): Promise<void> {
    while (!holds() && !this.#closed)
      await new Promise<void>((resolve) => {
        this.#wake.push(resolve);
      });
  }

  /** Waits for the end of a stream, whichever it is, or of the connection. */
  async outcome(stream: number): Promise<StreamSeen> {
    const one = this.#stream(stream);
    await this.until(() => one.ended || one.reset !== null);
    return this.seen(stream);
  }

  /** A PING and its answer: whatever was sent before has been dealt with. */
  async settled(): Promise<void> {
    const count = () => this.frames.filter(({ type, flags }) => type === FRAME.ping && flags === FLAG.ack).length;
    const before = count();
    this.send(FRAME.ping, 0, 0, Buffer.alloc(8));
    await this.until(() => count() > before);
  }

  destroy(): void {
    this.socket.destroy();
  }

  #stream(id: number): Progress {
    const known = this.#streams.get(id) ?? { status: null, parts: [], bytes: 0, ended: false, reset: null };
    this.#streams.set(id, known);
    return known;
  }

  #take(one: Frame): void {
    this.frames.push(one);
    const stream = this.#stream(one.stream);
    // The first block is the answer's unless it is an interim one; what comes behind is trailers.
    if (one.type === FRAME.headers && (stream.status === null || stream.status < 200)) stream.status = statusOf(one.payload);
    if (one.type === FRAME.data) {
      stream.parts.push(one.payload);
      stream.bytes += one.payload.length;
    }
    if (one.type === FRAME.data || one.type === FRAME.headers) stream.ended ||= (one.flags & FLAG.endStream) !== 0;
    if (one.type === FRAME.reset) stream.reset = one.payload.readUInt32BE();
    if (!this.#greeted) return;
    if (one.type === FRAME.settings && one.flags !== FLAG.ack) this.send(FRAME.settings, FLAG.ack, 0);
    if (one.type === FRAME.ping && one.flags !== FLAG.ack) this.send(FRAME.ping, FLAG.ack, 0, one.payload);
  }

  #stir(): void {
    for (const wake of this.#wake.splice(0)) wake();
  }
}

/** A connection to loopback; nothing has been sent yet. */
export const rawHttp2 = (port: number): Promise<RawHttp2> =>
  new Promise((resolve, reject) => {
    const socket = connect({ host: '127.0.0.1', port, noDelay: true });
    socket.once('error', reject);
    socket.once('connect', () => {
      socket.off('error', reject);
      resolve(new RawHttp2(socket));
    });
  });
