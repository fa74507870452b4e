import { EventEmitter } from 'node:events';
import { constants, type ServerHttp2Stream } from 'node:http2';
import type { Socket } from 'node:net';
import { AppError } from '@banyan/contracts/errors.ts';
import type { ClientResponse, ClientStream } from '../client.ts';
import type { Http2Request } from './request.ts';

/** How long the bytes ahead of a reset may take to leave. */
const LINGER_MS = 2_000;

/**
 * One answer on an HTTP/2 stream in the form that the pipeline writes. Reason phrases do not exist there (RFC 9113 8.3.2) and are dropped; a status
 * that HTTP/2 cannot carry is refused.
 */
export class Http2Response extends EventEmitter implements ClientResponse, ClientStream {
  readonly req: Http2Request;
  readonly socket: Socket;
  statusCode = 200;
  /** Means nothing here: a connection ends by GOAWAY. */
  shouldKeepAlive = true;
  readonly #stream: ServerHttp2Stream;
  #headersSent = false;
  #ended = false;
  #broken = false;
  #bodyless = false;
  #chunked = false;
  #trailers: Record<string, string[]> | null = null;
  /** Writes that have not left yet, and who waits for the last of them. */
  #leaving = 0;
  #onceOut: (() => void) | null = null;

  constructor(stream: ServerHttp2Stream, req: Http2Request) {
    super();
    this.req = req;
    this.socket = req.socket;
    this.#stream = stream;
    stream.on('drain', () => this.emit('drain'));
    stream.on('close', () => this.emit('close'));
    // A paused upload would put off the close until somebody reads its end. Later, because Node is in the middle of closing.
    stream.on('aborted', () => process.nextTick(() => stream.destroy()));
  }

  get stream(): ClientStream {
    return this;
  }

  get headersSent(): boolean {
    return this.#headersSent;
  }

  get writableEnded(): boolean {
    return this.#ended;
  }

  get writableFinished(): boolean {
    return this.#ended && !this.#broken && this.#stream.writableFinished;
  }

  get destroyed(): boolean {
    return this.#stream.destroyed || this.#stream.closed;
  }

  get chunkedEncoding(): boolean {
    return this.#chunked;
  }

  getHeaderNames(): string[] {
    return [];
  }

  getHeader(): undefined {
    return undefined;
  }

  removeHeader(): void {}

  /** @throws AppError `upstream-protocol` for a status outside 200..599 */
  writeHead(status: number, _reason: string, headers: readonly string[]): this {
    if (status < 200 || status > 599) throw new AppError('upstream-protocol', 'The upstream gave a status that HTTP/2 cannot carry');
    const stream = this.#stream;
    if (this.destroyed) return this;
    this.#bodyless = this.req.method === 'HEAD' || status === 204 || status === 205 || status === 304;
    const fields = [':status', String(status)];
    let sized = false;
    for (let i = 0; i + 1 < headers.length; i += 2) {
      const name = headers[i]!;
      if (name.length === 14 && name.toLowerCase() === 'content-length') {
        // RFC 9110 8.6 forbids it, and clients of HTTP/2 reset the stream for it.
        if (status === 204) continue;
        sized = true;
      }
      fields.push(name, headers[i + 1]!);
    }
    this.#chunked = !this.#bodyless && !sized;
    if (this.#chunked) stream.on('wantTrailers', () => stream.sendTrailers(this.#trailers ?? {}));
    stream.respond(fields, { waitForTrailers: this.#chunked });
    this.statusCode = status;
    this.#headersSent = true;
    return this;
  }

  writeContinue(): void {
    this.inform(100, []);
  }

  inform(status: number, rawHeaders: readonly string[]): void {
    if (this.#headersSent || this.destroyed) return;
    this.#stream.additionalHeaders({ ':status': status, ...grouped(rawHeaders) });
  }

  write(chunk: Buffer): boolean {
    if (this.#bodyless || this.#ended || this.destroyed || chunk.length === 0) return true;
    this.#leaving++;
    return this.#stream.write(chunk, this.#onWritten);
  }

  addTrailers(pairs: readonly [string, string][]): void {
    this.#trailers = grouped(pairs.flat());
  }

  end(chunk?: Buffer | string, encoding?: 'latin1'): this {
    if (this.#ended) return this;
    this.#ended = true;
    const stream = this.#stream;
    if (this.destroyed) return this;
    if (!this.req.complete) {
      if (stream.writableFinished) this.#stopUpload();
      else stream.once('finish', () => this.#stopUpload());
    }
    if (this.#bodyless || chunk === undefined || chunk.length === 0) stream.end();
    else if (typeof chunk === 'string') stream.end(chunk, encoding ?? 'latin1');
    else stream.end(chunk);
    return this;
  }

  breakOff(): void {
    const stream = this.#stream;
    if (this.#broken || this.#ended || this.destroyed) return;
    // Whole with its head, whatever the upstream did behind it.
    if (this.#headersSent && this.#bodyless) {
      this.end();
      return;
    }
    this.#broken = true;
    // Not by close(): that ends the writable side first, which makes a cut answer to a GET look whole.
    const reset = (): void => void stream.destroy(new Error('the answer broke off'));
    if (this.#leaving === 0) {
      reset();
      return;
    }
    this.#onceOut = reset;
    const timer = setTimeout(reset, LINGER_MS);
    stream.once('close', () => clearTimeout(timer));
  }

  destroy(): this {
    this.#broken = true;
    this.#stream.destroy(new Error('nobody answers'));
    return this;
  }

  readonly #onWritten = (): void => {
    if (--this.#leaving === 0) this.#onceOut?.();
  };

  /** The answer is out and the client still sends: it may stop (RFC 9113 8.1). */
  #stopUpload(): void {
    if (!this.req.complete) this.#stream.close(constants.NGHTTP2_NO_ERROR);
  }
}

/** The form that Node takes fields in; repeats stay repeats. */
const grouped = (raw: readonly string[]): Record<string, string[]> => {
  const fields: Record<string, string[]> = Object.create(null);
  for (let i = 0; i + 1 < raw.length; i += 2) {
    const name = raw[i]!.toLowerCase();
    fields[name] ??= [];
    fields[name].push(raw[i + 1]!);
  }
  return fields;
};
