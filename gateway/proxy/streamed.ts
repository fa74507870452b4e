import { type Agent, type ClientRequest, type IncomingMessage, request as requestOf } from 'node:http';
import { AppError } from '@banyan/contracts/errors.ts';
import { Answer, type Source } from './answer.ts';
import type { Call, Leaver } from './call.ts';
import type { Connector } from './connect.ts';
import { clientLeft, failureOf } from './failures.ts';
import { cleanReason, filterTrailers, pairsOf, responseHeaders } from './headers.ts';
import type { Information, Load } from './pooled.ts';

/** How long a client that asked for `100 Continue` waits for the upstream's before we give ours (RFC 9110 10.1.1 lets it send anyway). */
const CONTINUE_MS = 1000;

export type StreamedOptions = {
  readonly connector: Connector;
  /** Null = a connection of its own, for a second try that must not meet another stale one. */
  readonly agent: Agent | null;
  readonly headers: readonly string[];
  /** Sent instead of the client's body, which was read. */
  readonly body: Buffer | undefined;
  readonly connectMs: number;
  readonly responseMs: number;
  readonly idleMs: number;
  readonly maxHeaderBytes: number;
  readonly information: Information | null;
};

/**
 * One request through Node's own client: bodies that stream (undici holds the head back until their first byte), request trailers, Expect,
 * `OPTIONS *`, and fresh-connection retries. Same contract as a pooled exchange.
 */
/** Methods for which Node's client leaves a request without a body unframed. */
const BODILESS: ReadonlySet<string> = new Set(['GET', 'HEAD', 'DELETE', 'OPTIONS', 'TRACE', 'CONNECT']);

export class StreamedExchange implements Leaver, Source {
  readonly #call: Call;
  readonly #load: Load;
  readonly #options: StreamedOptions;
  readonly #resolve: (answer: Answer) => void;
  readonly #reject: (error: AppError) => void;
  readonly #request: ClientRequest;
  #response: IncomingMessage | null = null;
  #answer: Answer | null = null;
  #timer: NodeJS.Timeout | null = null;
  #continueTimer: NodeJS.Timeout | null = null;
  #uploading = false;
  #uploaded = false;
  #over = false;
  #paused = false;
  started = false;
  begun = false;
  /** The connection had served before. */
  get reused(): boolean {
    return this.#request.reusedSocket;
  }

  get headed(): boolean {
    return this.#answer !== null;
  }

  constructor(call: Call, load: Load, options: StreamedOptions, resolve: (answer: Answer) => void, reject: (error: AppError) => void) {
    this.#call = call;
    this.#load = load;
    this.#options = options;
    this.#resolve = resolve;
    this.#reject = reject;
    this.#request = this.#open();
    load.open++;
    this.#watch(options.responseMs, 'UND_ERR_HEADERS_TIMEOUT');
    if (call.body === 'stream' && options.body === undefined) this.#sendHead();
    else {
      this.#uploaded = true;
      this.#request.end(options.body);
    }
  }

  clientLeft(): void {
    this.abort(clientLeft(this.begun ? 'yes' : this.started ? 'maybe' : 'no'));
  }

  cancel(error: AppError): void {
    this.abort(error);
  }

  pause(): void {
    this.#paused = true;
    this.#response?.pause();
    this.#stopTimer();
  }

  resume(): void {
    this.#paused = false;
    this.#response?.resume();
    this.#watch(this.#options.idleMs, 'UND_ERR_BODY_TIMEOUT');
  }

  abort(reason: Error): void {
    if (this.#over) return;
    this.#request.destroy();
    this.#fail(reason instanceof AppError ? reason : clientLeft('maybe'));
  }

  #open(): ClientRequest {
    const { connector, agent, maxHeaderBytes } = this.#options;
    const request = requestOf({
      method: this.#call.method,
      path: this.#call.target,
      headers: this.#framedHeaders(),
      setHost: false,
      ...(agent === null ? { createConnection: () => connector.open() } : { agent }),
      maxHeaderSize: maxHeaderBytes,
    });
    // With Expect, Node has the head ready for the wire by now, as UTF-8, and so spoils Latin-1 values.
    for (const piece of (request as unknown as { outputData: { encoding: string }[] }).outputData) piece.encoding = 'latin1';
    request.on('socket', (socket) => {
      if (!socket.connecting) {
        this.#connected();
        return;
      }
      this.#watch(this.#options.connectMs, 'UND_ERR_CONNECT_TIMEOUT');
      socket.once(connector.ready, () => this.#connected());
    });
    request.on('information', (info) => {
      this.begun = true;
      if (info.statusCode === 100) this.#startUpload(true);
      else this.#inform(info.statusCode, info.statusMessage, responseHeaders(info.rawHeaders));
    });
    request.on('response', (response) => this.#respond(response));
    request.on('upgrade', (_response, socket) => {
      socket.destroy();
      this.#fail(new AppError('upstream-protocol', 'The upstream switched protocols unasked', { sent: 'yes' }));
    });
    request.on('error', (error) => this.#fail(failureOf(error, this)));
    request.on('close', () => this.#fail(failureOf(new Error('closed'), this)));
    return request;
  }

  #framedHeaders(): string[] {
    const { body, headers } = this.#options;
    const call = this.#call;
    const out = [...headers];
    if (body !== undefined) out.push('Content-Length', String(body.length));
    else if (call.req !== null) {
      if (call.chunked) out.push('Transfer-Encoding', 'chunked');
      else if (call.contentLength !== null) out.push('Content-Length', String(call.contentLength));
      // Node would frame no body at all as an empty chunked one.
      else if (!BODILESS.has(call.method)) out.push('Content-Length', '0');
      if (call.expectContinue) out.push('Expect', '100-continue');
      if (call.acceptsTrailers) out.push('TE', 'trailers', 'Connection', 'TE');
    }
    return out;
  }

  #connected(): void {
    this.started = true;
    this.#stopTimer();
    if (this.#uploaded) this.#watch(this.#options.responseMs, 'UND_ERR_HEADERS_TIMEOUT');
    else if (this.#uploading) this.#watchUpload();
    else if (this.#call.expectContinue) {
      // Asked for and not answered: the client must not wait for ever for an upstream that never heard of Expect.
      this.#continueTimer = setTimeout(() => this.#startUpload(true), CONTINUE_MS);
    }
  }

  #sendHead(): void {
    // An empty write flushes the head as Latin-1; flushHeaders() would encode it as UTF-8.
    this.#request.write(Buffer.alloc(0));
    if (!this.#call.expectContinue) this.#startUpload(false);
  }

  /** Moves the client's body up, at the pace of the slower side. */
  #startUpload(tellClient: boolean): void {
    if (this.#continueTimer !== null) clearTimeout(this.#continueTimer);
    this.#continueTimer = null;
    if (this.#uploading || this.#uploaded || this.#over) return;
    this.#uploading = true;
    if (tellClient) this.#inform(100, 'Continue', []);
    const request = this.#request;
    const source = this.#call.req!;
    source.on('data', (chunk: Buffer) => {
      if (this.#over) return;
      if (!request.write(chunk)) source.pause();
      if (this.#response === null) this.#watchUpload();
    });
    request.on('drain', () => source.resume());
    source.on('end', () => {
      this.#uploaded = true;
      if (this.#over) return;
      const trailers = this.#call.chunked ? filterTrailers(source.rawTrailers) : [];
      if (trailers.length > 0) request.addTrailers(pairsOf(trailers));
      request.end();
      if (this.#response === null) this.#watch(this.#options.responseMs, 'UND_ERR_HEADERS_TIMEOUT');
    });
    source.on('error', () => this.clientLeft());
    this.#watchUpload();
  }

  #inform(status: number, reason: string, headers: readonly string[]): void {
    const { information } = this.#options;
    if (information !== null) information(status, cleanReason(reason), headers);
    else this.#call.inform(status, cleanReason(reason), headers);
  }

  #respond(response: IncomingMessage): void {
    this.begun = true;
    this.#response = response;
    if (this.#continueTimer !== null) clearTimeout(this.#continueTimer);
    let headers: string[];
    try {
      headers = responseHeaders(response.rawHeaders);
    } catch (error) {
      this.#request.destroy();
      this.#fail(failureOf(error, this));
      return;
    }
    const answer = new Answer(response.statusCode ?? 502, cleanReason(response.statusMessage ?? ''), headers, this);
    this.#answer = answer;
    response.on('data', (chunk: Buffer) => {
      if (!this.#paused) this.#watch(this.#options.idleMs, 'UND_ERR_BODY_TIMEOUT');
      answer.push(chunk);
    });
    response.on('end', () => {
      if (response.complete) this.#finish(answer, response);
    });
    response.on('error', (error) => this.#fail(failureOf(error, this)));
    response.on('close', () => this.#fail(failureOf(new Error('closed'), this)));
    this.#watch(this.#options.idleMs, 'UND_ERR_BODY_TIMEOUT');
    this.#resolve(answer);
    // Whole with their head; what a confused upstream sends behind it is nobody's body.
    if (this.#call.method === 'HEAD' || response.statusCode === 204 || response.statusCode === 304) this.#finish(answer, response);
  }

  #finish(answer: Answer, response: IncomingMessage): void {
    if (this.#over) return;
    this.#over = true;
    this.#load.open--;
    this.#stopTimer();
    // An early answer: the upstream wants no more of the body, and this connection cannot carry another request.
    if (!this.#uploaded) {
      this.#call.req?.resume();
      this.#request.destroy();
    }
    answer.finish(filterTrailers(response.rawTrailers));
  }

  #watch(ms: number, code: string): void {
    this.#stopTimer();
    if (this.#over) return;
    this.#timer = setTimeout(() => {
      this.#request.destroy();
      this.#fail(failureOf(Object.assign(new Error('timed out'), { code }), this));
    }, ms);
  }

  /** A body that stands still is the fault of whoever does not move. */
  #watchUpload(): void {
    this.#stopTimer();
    if (this.#over) return;
    this.#timer = setTimeout(() => {
      if (this.#request.writableNeedDrain) {
        this.#request.destroy();
        this.#fail(new AppError('upstream-timeout', 'The upstream stopped taking the body', { sent: 'yes' }));
      } else {
        this.#request.destroy();
        this.#fail(new AppError('request-timeout', 'The body of the request stood still for too long', { sent: 'yes' }));
      }
    }, this.#options.idleMs);
  }

  #stopTimer(): void {
    if (this.#timer !== null) clearTimeout(this.#timer);
    this.#timer = null;
  }

  #fail(error: AppError): void {
    if (this.#over) return;
    this.#over = true;
    this.#load.open--;
    this.#stopTimer();
    if (this.#continueTimer !== null) clearTimeout(this.#continueTimer);
    if (this.#uploading && !this.#uploaded) this.#call.req?.resume();
    if (this.#answer !== null) this.#answer.break(error);
    else this.#reject(error);
  }
}
