import type { IncomingHttpHeaders } from 'node:http';
import type { Socket } from 'node:net';

/**
 * The client's side of one request, as far as the pipeline looks at it. HTTP/1.1 brings Node's own IncomingMessage and ServerResponse; HTTP/2 brings
 * `http2/request.ts` and `http2/response.ts`.
 */
export type ClientRequest = {
  /** It came on a stream; a request line of HTTP/1.1 may lie about its version. */
  readonly viaHttp2?: boolean;
  readonly httpVersionMajor: number;
  readonly httpVersionMinor: number;
  readonly method?: string | undefined;
  /** As the client sent it, Latin-1. */
  readonly url?: string | undefined;
  /** Flat pairs, repeats kept. */
  readonly rawHeaders: readonly string[];
  readonly headers: IncomingHttpHeaders;
  /** Flat pairs; filled when the body has ended. */
  readonly rawTrailers: readonly string[];
  /** The whole body has been read. */
  readonly complete: boolean;
  readonly socket: Socket;
  on(event: 'data', listener: (chunk: Buffer) => void): ClientRequest;
  on(event: 'end' | 'close', listener: () => void): ClientRequest;
  on(event: 'error', listener: (error: Error) => void): ClientRequest;
  off(event: 'data', listener: (chunk: Buffer) => void): ClientRequest;
  off(event: 'end' | 'close', listener: () => void): ClientRequest;
  off(event: 'error', listener: (error: Error) => void): ClientRequest;
  pause(): unknown;
  resume(): unknown;
};

/** What an HTTP/2 stream does for itself where HTTP/1.1 writes to the connection or ends it. */
export type ClientStream = {
  /** Sends an interim answer; does nothing once the answer has begun. */
  inform(status: number, rawHeaders: readonly string[]): void;
  /** What was written goes out, then the stream is reset: a cut answer never looks whole. */
  breakOff(): void;
};

export type ClientResponse = {
  /** Only on HTTP/2. */
  readonly stream?: ClientStream;
  readonly req: ClientRequest;
  readonly socket: Socket | null;
  readonly statusCode: number;
  readonly headersSent: boolean;
  readonly writableEnded: boolean;
  /** All of it was handed to the connection. */
  readonly writableFinished: boolean;
  readonly destroyed: boolean;
  /** Trailers can follow. */
  readonly chunkedEncoding: boolean;
  shouldKeepAlive: boolean;
  /** Of fields set ahead of `writeHead`, by whoever embeds the gateway. */
  getHeaderNames(): string[];
  getHeader(name: string): number | string | string[] | undefined;
  removeHeader(name: string): void;
  /** Flat pairs. @throws when a field cannot be sent */
  writeHead(status: number, reason: string, headers: string[]): unknown;
  writeContinue(): void;
  /** False asks to wait for `drain`. */
  write(chunk: Buffer): boolean;
  addTrailers(pairs: [string, string][]): void;
  end(): unknown;
  end(chunk: Buffer): unknown;
  end(chunk: string, encoding: 'latin1'): unknown;
  on(event: 'close', listener: () => void): unknown;
  once(event: 'drain' | 'close', listener: () => void): unknown;
  destroy(): unknown;
};
