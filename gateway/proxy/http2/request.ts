import { EventEmitter } from 'node:events';
import { METHODS } from 'node:http';
import type { IncomingHttpHeaders, ServerHttp2Stream } from 'node:http2';
import type { Socket } from 'node:net';
import type { ClientRequest } from '../client.ts';

/** A message that is no request: its stream is answered 400, or 405 for CONNECT. */
export type Malformed = { readonly why: string; readonly connect: boolean };

/** The same as of HTTP/1.1, so that no upstream sees by one way what it does not by the other. */
const KNOWN: ReadonlySet<string> = new Set(METHODS);

const DEFAULT_PORT = /:(?:80|443)?$/;

/** Do two authorities name one host? (RFC 9113 8.3.1) */
const agree = (authority: string, host: string): boolean =>
  authority === host || authority.toLowerCase().replace(DEFAULT_PORT, '') === host.toLowerCase().replace(DEFAULT_PORT, '');

/**
 * One request of an HTTP/2 stream in the form that the pipeline reads: pseudo-fields turned into method, target and Host, cookie crumbs
 * joined (RFC 9113 8.2.3), and a body without a length announced as chunked, which is what it is on the way upstream.
 */
export class Http2Request extends EventEmitter implements ClientRequest {
  readonly viaHttp2 = true;
  readonly httpVersionMajor = 2;
  readonly httpVersionMinor = 0;
  readonly method: string;
  readonly url: string;
  readonly rawHeaders: readonly string[];
  readonly headers: IncomingHttpHeaders;
  readonly socket: Socket;
  /** Name and value of every field with 32 bytes for each, as RFC 9113 6.5.2 counts. */
  readonly headBytes: number;
  readonly malformed: Malformed | null;
  rawTrailers: readonly string[] = [];
  readonly #stream: ServerHttp2Stream;
  #complete: boolean;
  #flowing = false;

  /** `rawHeaders` and `headers` as the `stream` event of a session gives them. */
  constructor(stream: ServerHttp2Stream, headers: IncomingHttpHeaders, rawHeaders: readonly string[], socket: Socket) {
    super();
    this.#stream = stream;
    this.headers = headers;
    this.socket = socket;
    this.#complete = stream.endAfterHeaders;
    let method = '';
    let path: string | undefined;
    let scheme = '';
    let authority: string | undefined;
    let host: string | undefined;
    let cookies: string | undefined;
    let framed = stream.endAfterHeaders;
    let bytes = 0;
    const flat: string[] = ['host', ''];
    for (let i = 0; i + 1 < rawHeaders.length; i += 2) {
      const name = rawHeaders[i]!;
      const value = rawHeaders[i + 1]!;
      bytes += name.length + value.length + 32;
      switch (name) {
        case ':method':
          method = value;
          continue;
        case ':path':
          path = value;
          continue;
        case ':scheme':
          scheme = value;
          continue;
        case ':authority':
          authority = value;
          continue;
        case 'host':
          // A second one stays, and is refused like one of HTTP/1.1.
          if (host !== undefined) break;
          host = value;
          continue;
        case 'cookie':
          cookies = cookies === undefined ? value : `${cookies}; ${value}`;
          continue;
        case 'content-length':
          framed = true;
          break;
      }
      flat.push(name, value);
    }
    flat[1] = authority ?? host ?? '';
    if (authority !== undefined && host !== undefined && !agree(authority, host)) flat.push('host', host);
    if (cookies !== undefined) flat.push('cookie', cookies);
    if (!framed) flat.push('transfer-encoding', 'chunked');
    this.method = method;
    this.url = path ?? '';
    this.rawHeaders = flat;
    this.headBytes = bytes;
    if (method === 'CONNECT') this.malformed = { why: 'CONNECT is not offered here', connect: true };
    else if (!KNOWN.has(method)) this.malformed = { why: 'This method is not known here', connect: false };
    else if (scheme !== 'http' && scheme !== 'https') this.malformed = { why: 'The scheme must be http or https', connect: false };
    else if (path === undefined || path === '') this.malformed = { why: 'The path is missing', connect: false };
    else this.malformed = null;
    stream.on('error', () => undefined);
    if (!this.#complete) this.#listen();
  }

  get complete(): boolean {
    return this.#complete;
  }

  pause(): void {
    this.#stream.pause();
  }

  resume(): void {
    if (!this.#flowing) {
      this.#flowing = true;
      this.#stream.on('data', (chunk: Buffer) => this.emit('data', chunk));
    }
    this.#stream.resume();
  }

  #listen(): void {
    const stream = this.#stream;
    let gone = false;
    // As of any stream: bytes flow from when somebody listens for them.
    this.on('newListener', (event) => {
      if (event === 'data') this.resume();
    });
    stream.on('aborted', () => {
      gone = true;
    });
    stream.on('trailers', (_headers: unknown, _flags: number, raw: readonly string[]) => {
      this.rawTrailers = raw;
    });
    stream.on('end', () => {
      // RST_STREAM(NO_ERROR) ends the readable side as if the body were whole.
      if (gone || stream.aborted) return;
      this.#complete = true;
      this.emit('end');
    });
    stream.on('close', () => this.emit('close'));
  }
}
