import { constants, performServerHandshake, type ServerHttp2Session, type ServerHttp2Stream } from 'node:http2';
import type { Socket } from 'node:net';
import { AppError } from '@banyan/contracts/errors.ts';
import { METHODS } from '../headers.ts';
import { sendProblem } from '../problem.ts';
import { Http2Request } from './request.ts';
import { Http2Response } from './response.ts';

export type Http2Options = {
  readonly handler: (req: Http2Request, res: Http2Response) => void;
  readonly limits: {
    /** Streams that a client may have open at once on one connection. */
    readonly maxStreams: number;
    /** As RFC 9113 6.5.2 counts them; more is 431, twice as much ENHANCE_YOUR_CALM. */
    readonly maxHeaderBytes: number;
    /** From the connection to the client's SETTINGS. */
    readonly headerTimeoutMs: number;
    /** A connection without a stream is closed after it. */
    readonly idleTimeoutMs: number;
  };
};

/** The HTTP/2 side of a listener: connections that some server took in and that speak HTTP/2. */
export type Http2Front = {
  /** Takes a connection over. */
  accept(socket: Socket): void;
  /** GOAWAY to each client; what is under way goes on, and each connection closes with its last stream. */
  drain(): void;
  /** Open on all connections. */
  readonly streams: number;
  /** Ends the supervision. Connections are the listener's to destroy. */
  stop(): void;
};

/** What is counted is counted for so long, then afresh. */
const WINDOW_MS = 10_000;
/** PINGs in a window; clients that measure their bandwidth send some for every answer they read. */
const MAX_PINGS = 2_000;
const MAX_SETTINGS = 100;
/** Unfinished streams reset in a window, as a multiple of those that may be open at once (CVE-2023-44487, CVE-2025-8671). */
const RESETS_PER_STREAM = 4;
const MIN_RESETS = 100;
/** How often connections are looked at. */
const SWEEP_MS = 500;
/** How long a client may take to read the first GOAWAY before no more streams are taken. */
const NOTICE_MS = 1_000;
/** Largest head of an answer, encoded; above what an upstream may send. */
const SEND_HEADERS_BYTES = 512 * 1024;
/** The highest stream there can be: a GOAWAY that refuses nothing yet (RFC 9113 6.8). */
const LAST_STREAM = 2 ** 31 - 1;

/** One client connection. */
class Http2Connection {
  readonly #session: ServerHttp2Session;
  readonly #socket: Socket;
  readonly #options: Http2Options;
  readonly #maxResets: number;
  #open = 0;
  #greeted = false;
  #idleSince = performance.now();
  /** Set once it is to close. */
  #finish: (() => void) | null = null;
  #windowStart = 0;
  #resets = 0;
  #pings = 0;
  #settings = 0;

  constructor(socket: Socket, options: Http2Options, closed: (connection: Http2Connection) => void) {
    const { limits } = options;
    this.#socket = socket;
    this.#options = options;
    this.#maxResets = Math.max(MIN_RESETS, RESETS_PER_STREAM * limits.maxStreams);
    const session = performServerHandshake(socket, {
      settings: { maxConcurrentStreams: limits.maxStreams, maxHeaderListSize: 2 * limits.maxHeaderBytes },
      maxHeaderListPairs: Math.ceil((2 * limits.maxHeaderBytes) / 32),
      maxSendHeaderBlockLength: SEND_HEADERS_BYTES,
      // nghttp2 counts resets too, and answers INTERNAL_ERROR. It also sees those that Node refuses a stream, which never get here.
      streamResetBurst: 8 * this.#maxResets,
      streamResetRate: this.#maxResets,
      // An upstream's repeated fields go through as they are.
      strictSingleValueFields: false,
    });
    this.#session = session;
    session.on('error', () => undefined);
    session.on('close', () => closed(this));
    // Half a connection is of no use to HTTP/2; one with streams may still be read by its client.
    socket.on('end', () => {
      if (this.#open === 0) socket.destroy();
    });
    session.on('remoteSettings', () => {
      this.#greeted = true;
      this.#settings++;
      this.#judge();
    });
    session.on('ping', () => {
      this.#pings++;
      this.#judge();
    });
    session.on('stream', (stream, headers, _flags, rawHeaders) => this.#begin(stream, headers, rawHeaders));
  }

  get streams(): number {
    return this.#open;
  }

  /** Closes what has nothing to say. */
  sweep(now: number): void {
    if (this.#open > 0) return;
    const { headerTimeoutMs, idleTimeoutMs } = this.#options.limits;
    const idle = now - this.#idleSince;
    if (!this.#greeted && idle > headerTimeoutMs) this.#socket.destroy();
    else if (idle > idleTimeoutMs + NOTICE_MS) this.#socket.destroy();
    else if (idle > idleTimeoutMs) this.close();
  }

  close(): void {
    const session = this.#session;
    if (this.#finish !== null || session.destroyed || session.closed) return;
    const finish = (): void => {
      clearTimeout(timer);
      if (!session.destroyed) session.close();
    };
    this.#finish = finish;
    const timer = setTimeout(finish, NOTICE_MS);
    // nghttp2 reads no more once a GOAWAY is out and no stream is open.
    if (this.#open === 0) {
      finish();
      return;
    }
    session.goaway(constants.NGHTTP2_NO_ERROR, LAST_STREAM);
    // What the client sent before it read this has arrived when it answers.
    session.ping(finish);
  }

  #begin(stream: ServerHttp2Stream, headers: Http2Request['headers'], rawHeaders: readonly string[]): void {
    this.#open++;
    stream.on('close', () => {
      this.#open--;
      this.#idleSince = performance.now();
      if (this.#open === 0) this.#finish?.();
      if (stream.rstCode === constants.NGHTTP2_NO_ERROR || res.writableEnded) return;
      this.#resets++;
      this.#judge();
    });
    const req = new Http2Request(stream, headers, rawHeaders, this.#socket);
    const res = new Http2Response(stream, req);
    // Opened and reset in one breath: nobody is asked.
    if (stream.destroyed || stream.closed) return;
    if (req.malformed !== null) sendProblem(req, res, faultOf(req.malformed));
    else this.#options.handler(req, res);
  }

  #judge(): void {
    const now = performance.now();
    if (now - this.#windowStart > WINDOW_MS) {
      this.#windowStart = now;
      this.#resets = Math.min(this.#resets, 1);
      this.#pings = Math.min(this.#pings, 1);
      this.#settings = Math.min(this.#settings, 1);
      return;
    }
    if (this.#resets > this.#maxResets || this.#pings > MAX_PINGS || this.#settings > MAX_SETTINGS)
      this.#session.destroy(new Error('too many resets, PINGs or SETTINGS'), constants.NGHTTP2_ENHANCE_YOUR_CALM);
  }
}

const faultOf = (malformed: NonNullable<Http2Request['malformed']>): AppError =>
  malformed.connect
    ? new AppError('method-not-allowed', malformed.why, { details: { allow: METHODS } })
    : new AppError('bad-request', malformed.why);

/** HTTP/2 for the connections of one listener. */
export const createHttp2Front = (options: Http2Options): Http2Front => {
  const connections = new Set<Http2Connection>();
  let draining = false;
  const sweeper = setInterval(() => {
    const now = performance.now();
    for (const connection of connections) connection.sweep(now);
  }, SWEEP_MS);
  sweeper.unref();
  return {
    accept(socket) {
      const connection = new Http2Connection(socket, options, (closed) => connections.delete(closed));
      connections.add(connection);
      if (draining) connection.close();
    },
    drain() {
      draining = true;
      for (const connection of connections) connection.close();
    },
    get streams() {
      let sum = 0;
      for (const connection of connections) sum += connection.streams;
      return sum;
    },
    stop: () => clearInterval(sweeper),
  };
};
