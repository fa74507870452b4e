import { type AddressInfo, connect, createServer, type Server, type Socket } from 'node:net';

/** One HTTP/1.x message as bytes (Latin-1), read without any HTTP library. */
export type RawMessage = {
  /** Request or status line. */
  readonly line: string;
  /** Fields in order, as sent. */
  readonly fields: readonly (readonly [string, string])[];
  readonly body: Buffer;
  /** Head and body as they came. */
  readonly raw: string;
  readonly trailers: readonly (readonly [string, string])[];
  /** Ended by its own framing, or by a FIN where that is the framing. */
  readonly complete: boolean;
};

/** All values of a field, in order. */
export const valuesOf = (message: RawMessage, name: string): string[] =>
  message.fields.filter(([field]) => field.toLowerCase() === name.toLowerCase()).map(([, value]) => value);

export const statusOf = (message: RawMessage): number => Number(message.line.split(' ')[1]);

export type MessageOptions = {
  /** The answer to a HEAD: no body whatever the head says. */
  readonly head?: boolean;
};

/** A connection read and written byte by byte; either side of it. */
export class RawConnection {
  readonly socket: Socket;
  #data: Buffer = Buffer.alloc(0);
  #ended = false;
  #error: NodeJS.ErrnoException | null = null;
  #wake: (() => void) | null = null;
  /** Settles when the connection is gone; `reset` when by RST. */
  readonly closed: Promise<{ reset: boolean }>;

  constructor(socket: Socket) {
    this.socket = socket;
    socket.on('data', (chunk) => {
      this.#data = Buffer.concat([this.#data, chunk]);
      this.#stir();
    });
    socket.on('end', () => {
      this.#ended = true;
      this.#stir();
    });
    socket.on('error', (error: NodeJS.ErrnoException) => {
      this.#error = error;
    });
    this.closed = new Promise((resolve) => {
      socket.on('close', () => {
        this.#ended = true;
        this.#stir();
        resolve({ reset: this.#error?.code === 'ECONNRESET' });
      });
    });
  }

  write(text: string | Buffer): this {
    this.socket.write(typeof text === 'string' ? Buffer.from(text, 'latin1') : text);
    return this;
  }

  end(): void {
    this.socket.end();
  }

  destroy(): void {
    this.socket.destroy();
  }

  /** Not while a FIN is being sent: libuv refuses that, and Node 24 then never closes the socket. */
  reset(): void {
    if (this.socket.writableEnded && !this.socket.writableFinished) this.socket.destroy();
    else this.socket.resetAndDestroy();
  }

  /** What came and was not yet taken. */
  get pending(): string {
    return this.#data.toString('latin1');
  }

  /** Takes and gives all bytes up to and with `mark`. */
  async until(mark: string): Promise<string> {
    for (;;) {
      const at = this.#data.indexOf(mark, 0, 'latin1');
      if (at !== -1) return this.#take(at + mark.length).toString('latin1');
      if (!(await this.#more()))
        throw new Error(`The connection ended before ${JSON.stringify(mark)}; got ${JSON.stringify(this.pending)}`);
    }
  }

  async bytes(count: number): Promise<Buffer> {
    while (this.#data.length < count) {
      if (!(await this.#more())) throw new Error(`The connection ended after ${this.#data.length} of ${count} bytes`);
    }
    return this.#take(count);
  }

  /** Everything until the other side is done. */
  async rest(): Promise<string> {
    while (await this.#more());
    return this.#take(this.#data.length).toString('latin1');
  }

  /** Only the head of the next message. */
  async head(): Promise<Pick<RawMessage, 'line' | 'fields' | 'raw'>> {
    const raw = await this.until('\r\n\r\n');
    const [line, ...rest] = raw.slice(0, -4).split('\r\n');
    return { line: line!, fields: rest.map(fieldOf), raw };
  }

  /** The next whole message, interim answers too; a body that is cut short gives `complete: false`. */
  async message(options: MessageOptions = {}): Promise<RawMessage> {
    const { line, fields, raw } = await this.head();
    const value = (name: string) => fields.find(([field]) => field.toLowerCase() === name)?.[1];
    const isResponse = line.startsWith('HTTP/');
    const status = isResponse ? Number(line.split(' ')[1]) : 0;
    const bodyless = options.head === true || (isResponse && (status < 200 || status === 204 || status === 304));
    const done = (body: Buffer, wire: string, complete: boolean, trailers: RawMessage['trailers'] = []): RawMessage => ({
      line,
      fields,
      body,
      raw: raw + wire,
      trailers,
      complete,
    });
    if (bodyless) return done(Buffer.alloc(0), '', true);
    if (value('transfer-encoding')?.toLowerCase() === 'chunked') return this.#chunked(done);
    const length = value('content-length');
    if (length !== undefined) {
      while (this.#data.length < Number(length)) {
        if (!(await this.#more())) {
          const part = this.#take(this.#data.length);
          return done(part, part.toString('latin1'), false);
        }
      }
      const body = this.#take(Number(length));
      return done(body, body.toString('latin1'), true);
    }
    if (!isResponse) return done(Buffer.alloc(0), '', true);
    const body = Buffer.from(await this.rest(), 'latin1');
    return done(body, body.toString('latin1'), this.#error === null);
  }

  /** The next answer that is not interim. */
  async answer(options: MessageOptions = {}): Promise<RawMessage> {
    for (;;) {
      const message = await this.message(options);
      if (statusOf(message) >= 200) return message;
    }
  }

  async #chunked(
    done: (body: Buffer, wire: string, complete: boolean, trailers?: RawMessage['trailers']) => RawMessage,
  ): Promise<RawMessage> {
    const parts: Buffer[] = [];
    let wire = '';
    try {
      for (;;) {
        const size = await this.until('\r\n');
        wire += size;
        const length = Number.parseInt(size, 16);
        if (length === 0) break;
        const chunk = await this.bytes(length + 2);
        wire += chunk.toString('latin1');
        parts.push(chunk.subarray(0, length));
      }
      const trailers: [string, string][] = [];
      for (;;) {
        const line = await this.until('\r\n');
        wire += line;
        if (line === '\r\n') return done(Buffer.concat(parts), wire, true, trailers);
        trailers.push(fieldOf(line.slice(0, -2)));
      }
    } catch {
      return done(Buffer.concat(parts), wire, false);
    }
  }

  #take(count: number): Buffer {
    const taken = this.#data.subarray(0, count);
    this.#data = this.#data.subarray(count);
    return taken;
  }

  async #more(): Promise<boolean> {
    if (this.#ended) return false;
    const before = this.#data.length;
    await new Promise<void>((resolve) => {
      this.#wake = resolve;
    });
    return this.#data.length > before || !this.#ended;
  }

  #stir(): void {
    const wake = this.#wake;
    this.#wake = null;
    wake?.();
  }
}

const fieldOf = (line: string): [string, string] => {
  const colon = line.indexOf(':');
  return [line.slice(0, colon), line.slice(colon + 1).trim()];
};

/** A client connection to loopback. */
export const rawConnect = (port: number): Promise<RawConnection> =>
  new Promise((resolve, reject) => {
    const socket = connect({ host: '127.0.0.1', port, allowHalfOpen: true });
    socket.once('error', reject);
    socket.once('connect', () => {
      socket.off('error', reject);
      resolve(new RawConnection(socket));
    });
  });

export type RawServer = {
  readonly port: number;
  readonly url: string;
  /** Connections taken so far. */
  readonly connections: readonly RawConnection[];
  close(): Promise<void>;
};

/** A server on loopback that does with each connection what `script` says; errors of a script end its connection. Port 0 picks a free one. */
export const rawServer = async (
  script: (connection: RawConnection, index: number) => Promise<void>,
  listenPort = 0,
): Promise<RawServer> => {
  const connections: RawConnection[] = [];
  const server: Server = createServer({ allowHalfOpen: true }, (socket) => {
    const connection = new RawConnection(socket);
    connections.push(connection);
    script(connection, connections.length - 1).then(
      // A script that is done has no more to say to a peer that is done too.
      () => (socket.readableEnded ? socket.end() : socket.once('end', () => socket.end())),
      () => connection.destroy(),
    );
  });
  await new Promise<void>((resolve, reject) => {
    server.once('error', reject);
    server.listen(listenPort, '127.0.0.1', resolve);
  });
  const { port } = server.address() as AddressInfo;
  return {
    port,
    url: `http://127.0.0.1:${port}`,
    connections,
    close: () =>
      new Promise((resolve) => {
        server.close(() => resolve());
        for (const connection of connections) connection.destroy();
      }),
  };
};
