import type { Socket } from 'node:net';
import { AppError } from '@banyan/contracts/errors.ts';
import { Answer, type Source } from './answer.ts';
import type { Call, Leaver } from './call.ts';
import type { Connection, Pool } from './client-pool.ts';
import { clientLeft, failureOf } from './failures.ts';
import { filterTrailers, withHeaders } from './headers.ts';
import { type HostRecord, isHostFault } from './hosts.ts';

/** Flat pairs, Latin-1. */
export type Information = (status: number, reason: string, rawHeaders: readonly string[]) => void;

export type ForwardOptions = {
  /** Sent as the body, with its length; a client's own body then stays untouched. */
  readonly body?: Buffer;
  /** Flat pairs that replace fields of the same name; an empty value removes. */
  readonly headers?: readonly string[];
  readonly signal?: AbortSignal;
  /** Interim answers go here instead of to the client. */
  readonly onInformation?: Information;
  /** Instead of `responseMs`. */
  readonly timeoutMs?: number;
};

/** One host of an upstream. */
export type Host = HostRecord & {
  readonly pool: Pool;
  /** Its own name, where it is to see that instead of the client's Host; else null. */
  readonly hostHeader: string | null;
};

/** What exchanges of one upstream have in common. */
export type Owner = {
  /** From the request sent to the head of the answer. */
  readonly responseMs: number;
  /** Between two pieces of a body, either way. */
  readonly idleMs: number;
  /** It failed before an answer began: true = it was sent once more. */
  again(exchange: Exchange, host: Host, error: AppError): boolean;
  /** Learns how the hosts do; null = there is nothing to choose. */
  readonly watch: { succeeded(host: Host): void; failed(host: Host): void } | null;
};

/** Safe methods (RFC 9110 9.2.1): a second try changes nothing. */
const SAFE: ReadonlySet<string> = new Set(['GET', 'HEAD', 'OPTIONS', 'TRACE', 'PROPFIND', 'REPORT', 'SEARCH']);
/** Those that say `Content-Length: 0` when they have no body (RFC 9110 8.6). */
const EXPECTS_BODY: ReadonlySet<string> = new Set(['POST', 'PUT', 'PATCH']);
/** How long a client that asked for `100 Continue` waits for the upstream's before we give ours (RFC 9110 10.1.1 lets it send anyway). */
const CONTINUE_MS = 1000;

/** What would end a line or a message early. Node's parser lets none through; this holds whoever made the call. */
const SPLITTING = /[\0\r\n]/;
const NOT_A_TARGET = /[^\x21-\x7e\x80-\xff]/;

/** What is waited for. */
type Phase = 'connection' | 'continue' | 'upload' | 'response' | 'body' | 'client';

/**
 * One call on its way to an upstream and back: over a pooled connection, again on a new one or another host as long as `again` says so.
 * Methods instead of closures, and no timer of its own: this is the hot path.
 */
export class Exchange implements Leaver, Source {
  readonly #call: Call;
  readonly #forward: ForwardOptions;
  readonly #owner: Owner;
  readonly #resolve: (answer: Answer) => void;
  readonly #reject: (error: AppError) => void;
  #host!: Host;
  #connection: Connection | null = null;
  #answer: Answer | null = null;
  #phase: Phase = 'connection';
  #head = '';
  #over = false;
  #uploading = false;
  /** The whole request is written. */
  uploaded = false;
  /** Bytes may have been written. */
  started = false;
  /** Bytes of a response have come. */
  begun = false;
  /** The connection had served before. */
  reused = false;
  /** A connection was opened for it. */
  attempted = false;
  /** Tick of the pool at which `expire` is due. */
  deadline = Number.POSITIVE_INFINITY;
  /** Hosts that failed it; null = none yet. */
  tried: Host[] | null = null;
  /** It was sent to a second host though the first may have seen it. */
  replayed = false;

  constructor(call: Call, forward: ForwardOptions, owner: Owner, resolve: (answer: Answer) => void, reject: (error: AppError) => void) {
    this.#call = call;
    this.#forward = forward;
    this.#owner = owner;
    this.#resolve = resolve;
    this.#reject = reject;
  }

  get safe(): boolean {
    return SAFE.has(this.#call.method);
  }

  /** Not begun and not given up. */
  get waits(): boolean {
    return !this.#over && this.#connection === null;
  }

  /** It has a body, so that it is not known how much of it the upstream took. */
  get bodied(): boolean {
    return this.#forward.body !== undefined || this.#call.body !== 'none';
  }

  /** @throws AppError `bad-request` when it cannot be written as one HTTP/1.1 request */
  send(host: Host, fresh: boolean): void {
    this.#host = host;
    this.#head = this.#headOf(host.hostHeader, fresh);
    this.#phase = 'connection';
    this.started = false;
    this.reused = false;
    this.attempted = false;
    const { pool } = host;
    this.deadline = pool.deadline(this.#responseMs);
    pool.open++;
    pool.send(this, fresh);
  }

  /** For the pool: here is the connection. */
  begin(connection: Connection): void {
    const { socket } = connection;
    const call = this.#call;
    const { body } = this.#forward;
    this.#connection = connection;
    this.started = true;
    this.reused = connection.served > 0;
    connection.carry(this, call.method === 'HEAD');
    this.#await('response', this.#responseMs);
    if (body === undefined && call.body === 'stream') {
      socket.write(this.#head, 'latin1');
      if (call.expectContinue) this.#await('continue', CONTINUE_MS);
      else this.#upload(false);
    } else {
      this.uploaded = true;
      if (body === undefined || body.length === 0) socket.write(this.#head, 'latin1');
      else {
        socket.cork();
        socket.write(this.#head, 'latin1');
        socket.write(body);
        socket.uncork();
      }
    }
    this.#head = '';
  }

  interim(status: number, reason: string, rawHeaders: string[]): void {
    if (status === 100 && !this.uploaded) {
      this.#upload(true);
      return;
    }
    this.#inform(status, reason, rawHeaders);
  }

  head(status: number, reason: string, rawHeaders: string[]): void {
    if (status >= 500) this.#owner.watch?.failed(this.#host);
    this.#await('body', this.#owner.idleMs);
    this.#answer = new Answer(status, reason, rawHeaders, this);
    this.#resolve(this.#answer);
  }

  data(chunk: Buffer): void {
    if (this.#phase === 'body') this.deadline = this.#host.pool.deadline(this.#owner.idleMs);
    this.#answer!.push(chunk);
  }

  finish(trailers: readonly string[]): void {
    if (this.#over) return;
    this.#over = true;
    this.#host.pool.open--;
    this.#connection = null;
    // An early answer: the upstream wants no more of the body.
    if (!this.uploaded) this.#call.req?.resume();
    const answer = this.#answer!;
    if (answer.status < 500) this.#owner.watch?.succeeded(this.#host);
    answer.finish(trailers);
  }

  /** The socket takes bytes again. */
  drained(): void {
    if (this.#uploading && !this.uploaded) this.#call.req?.resume();
  }

  pause(): void {
    this.#await('client', this.#owner.idleMs);
    this.#connection?.socket.pause();
  }

  resume(): void {
    const connection = this.#connection;
    if (connection === null) return;
    this.#await('body', this.#owner.idleMs);
    connection.socket.resume();
  }

  clientLeft(): void {
    this.abort(clientLeft(this.begun ? 'yes' : this.started ? 'maybe' : 'no'));
  }

  /** Ends it for a reason of our own. */
  abort(reason: Error): void {
    if (this.#over) return;
    this.fail(reason instanceof AppError ? reason : clientLeft('maybe'));
  }

  /** The connection broke under it, or could not be opened. */
  broke(error: unknown): void {
    if (this.#over) return;
    const failure = failureOf(error, this);
    if (!this.stale(failure)) this.#blame(failure);
    this.#connection = null;
    this.#host.pool.open--;
    if (this.#answer === null && !this.#call.left && this.#owner.again(this, this.#host, failure)) return;
    this.#host.pool.open++;
    this.fail(failure);
  }

  /** RFC 9112 9.3.1: the server may close an idle connection just as we reuse it; that is nobody's fault. */
  stale(error: AppError): boolean {
    return this.reused && !this.begun && error.code === 'upstream-reset';
  }

  fail(error: AppError): void {
    if (this.#over) return;
    this.#over = true;
    this.#host.pool.open--;
    const connection = this.#connection;
    this.#connection = null;
    if (this.#uploading && !this.uploaded) this.#call.req?.resume();
    if (connection !== null) connection.destroy(error);
    else this.#host.pool.forget(this);
    if (this.#answer !== null) this.#answer.break(error);
    else this.#reject(error);
  }

  /** Its deadline has passed. */
  expire(): void {
    if (this.#over) return;
    switch (this.#phase) {
      case 'continue':
        // Asked for and not answered: the client must not wait for ever for an upstream that never heard of Expect.
        this.#upload(true);
        return;
      case 'connection':
        this.fail(new AppError('upstream-timeout', 'No connection to the upstream became free in time', { retryable: true }));
        return;
      case 'upload':
        // A body that stands still is the fault of whoever does not move.
        if (this.#connection?.socket.writableNeedDrain === true)
          this.#late(new AppError('upstream-timeout', 'The upstream stopped taking the body', { sent: 'yes' }));
        else this.fail(new AppError('request-timeout', 'The body of the request stood still for too long', { sent: 'yes' }));
        return;
      case 'response':
        this.#late(
          new AppError('upstream-timeout', 'The upstream did not answer in time', { sent: this.begun ? 'yes' : 'maybe', retryable: true }),
        );
        return;
      case 'body':
        this.#late(new AppError('upstream-timeout', 'The upstream fell silent', { sent: 'yes', cause: { code: 'IDLE' } }));
        return;
      case 'client':
        this.fail(new AppError('client-left', 'The client stopped reading', { sent: 'yes' }));
        return;
    }
  }

  #late(error: AppError): void {
    this.#blame(error);
    this.fail(error);
  }

  /** An answer of 500 and above has been counted with its head. */
  #blame(error: AppError): void {
    const { watch } = this.#owner;
    if (watch !== null && isHostFault(error) && (this.#answer === null || this.#answer.status < 500)) watch.failed(this.#host);
  }

  #await(phase: Phase, ms: number): void {
    this.#phase = phase;
    this.deadline = this.#host.pool.deadline(ms);
  }

  get #responseMs(): number {
    return this.#forward.timeoutMs ?? this.#owner.responseMs;
  }

  #inform(status: number, reason: string, rawHeaders: readonly string[]): void {
    const { onInformation } = this.#forward;
    if (onInformation !== undefined) onInformation(status, reason, rawHeaders);
    else this.#call.inform(status, reason, rawHeaders);
  }

  #headOf(host: string | null, fresh: boolean): string {
    const call = this.#call;
    const { body, headers: changes } = this.#forward;
    const headers = changes === undefined ? call.headers : withHeaders(call.headers, changes);
    const { method, target } = call;
    if (NOT_A_TARGET.test(target)) refuse();
    let head = `${method} ${target} HTTP/1.1\r\n`;
    let from = 0;
    if (host !== null) {
      head += `Host: ${host}\r\n`;
      from = 2;
    }
    for (let i = from; i < headers.length; i += 2) {
      const value = headers[i + 1]!;
      if (SPLITTING.test(value)) refuse();
      head += `${headers[i]!}: ${value}\r\n`;
    }
    if (body !== undefined) {
      if (body.length > 0 || EXPECTS_BODY.has(method)) head += `Content-Length: ${body.length}\r\n`;
    } else if (call.req !== null) {
      if (call.chunked) head += 'Transfer-Encoding: chunked\r\n';
      else if (call.contentLength !== null) head += `Content-Length: ${call.contentLength}\r\n`;
      else if (EXPECTS_BODY.has(method)) head += 'Content-Length: 0\r\n';
      if (call.expectContinue) head += 'Expect: 100-continue\r\n';
      if (call.acceptsTrailers) head += fresh ? 'TE: trailers\r\nConnection: TE, close\r\n' : 'TE: trailers\r\nConnection: TE\r\n';
      else if (fresh) head += 'Connection: close\r\n';
    }
    return `${head}\r\n`;
  }

  /** Moves the client's body up, at the pace of the slower side. */
  #upload(tellClient: boolean): void {
    if (this.#uploading || this.uploaded || this.#over) return;
    this.#uploading = true;
    this.#await('upload', this.#owner.idleMs);
    if (tellClient) this.#inform(100, 'Continue', []);
    const source = this.#call.req!;
    const { socket } = this.#connection!;
    source.on('data', (chunk: Buffer) => {
      if (this.#over || chunk.length === 0) return;
      if (!this.#writePiece(socket, chunk)) source.pause();
      if (this.#answer === null) this.#await('upload', this.#owner.idleMs);
    });
    source.on('end', () => {
      if (this.#over) return;
      this.uploaded = true;
      if (this.#call.chunked) socket.write(`0\r\n${trailerLines(source.rawTrailers, this.#call.strip)}\r\n`, 'latin1');
      if (this.#answer === null) this.#await('response', this.#responseMs);
    });
    source.on('error', () => this.clientLeft());
  }

  #writePiece(socket: Socket, chunk: Buffer): boolean {
    if (!this.#call.chunked) return socket.write(chunk);
    socket.cork();
    socket.write(`${chunk.length.toString(16)}\r\n`, 'latin1');
    socket.write(chunk);
    const wanted = socket.write('\r\n', 'latin1');
    socket.uncork();
    return wanted;
  }
}

const refuse = (): never => {
  throw new AppError('bad-request', 'The request cannot be sent on as it is');
};

const trailerLines = (raw: readonly string[], strip: string | null): string => {
  const trailers = filterTrailers(raw, strip);
  let lines = '';
  for (let i = 0; i < trailers.length; i += 2) lines += `${trailers[i]}: ${trailers[i + 1]}\r\n`;
  return lines;
};
