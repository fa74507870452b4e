import type { AppError } from '@banyan/contracts/errors.ts';
import { type buildConnector, Client, type Dispatcher, Pool } from 'undici';
import { Answer } from './answer.ts';
import type { Call, Leaver } from './call.ts';
import type { Connector } from './connect.ts';
import { clientLeft, failureOf } from './failures.ts';
import { cleanReason, filterTrailers, responseHeaders } from './headers.ts';

/** Flat pairs, Latin-1. */
export type Information = (status: number, reason: string, rawHeaders: readonly string[]) => void;

/** Exchanges with one host that have not ended. */
export type Load = { open: number };

/** Knows whether its present connection has already served: only a reused one can have gone stale. */
class CountingClient extends Client {
  served = 0;
  constructor(origin: string | URL, options: Client.Options) {
    super(origin, options);
    this.on('connect', () => {
      this.served = 0;
    });
  }
  override dispatch(options: Dispatcher.DispatchOptions, handler: Dispatcher.DispatchHandler): boolean {
    if (handler instanceof Exchange) handler.client = this;
    return super.dispatch(options, handler);
  }
}

export type PoolOptions = { readonly connections: number; readonly connectMs: number; readonly maxHeaderBytes: number };

/** A pool of keep-alive connections to one host. HTTP/1.1 only; pipelining off. */
export const createPool = (connector: Connector, options: PoolOptions): Pool =>
  new Pool('http://upstream', {
    connections: options.connections,
    connect: dial(connector, options.connectMs),
    maxHeaderSize: options.maxHeaderBytes,
    pipelining: 1,
    allowH2: false,
    factory: (url, poolOptions) => new CountingClient(url, poolOptions as Client.Options),
  });

/** undici asks for a connection by origin; there is one host only. */
const dial =
  (connector: Connector, ms: number): buildConnector.connector =>
  (_options, callback) => {
    const socket = connector.open();
    const timer = setTimeout(() => {
      socket.destroy(Object.assign(new Error('no connection in time'), { code: 'UND_ERR_CONNECT_TIMEOUT' }));
    }, ms);
    const failed = (error: Error): void => {
      clearTimeout(timer);
      callback(error, null);
    };
    socket.once('error', failed);
    socket.once(connector.ready, () => {
      clearTimeout(timer);
      socket.off('error', failed);
      callback(null, socket);
    });
  };

/** One request over a pooled connection; undici calls it as it goes. Methods instead of closures: this is the hot path. */
export class Exchange implements Dispatcher.DispatchHandler, Leaver {
  readonly #call: Call;
  readonly #load: Load;
  readonly #information: Information | null;
  readonly #resolve: (answer: Answer) => void;
  readonly #reject: (error: AppError) => void;
  #controller: Dispatcher.DispatchController | null = null;
  #answer: Answer | null = null;
  #over = false;
  #left = false;
  client: CountingClient | null = null;
  /** Bytes may have been written. */
  started = false;
  /** Bytes of a response have come. */
  begun = false;
  get headed(): boolean {
    return this.#answer !== null;
  }

  /** The connection had served before. */
  reused = false;

  constructor(
    call: Call,
    load: Load,
    information: Information | null,
    resolve: (answer: Answer) => void,
    reject: (error: AppError) => void,
  ) {
    this.#call = call;
    this.#load = load;
    load.open++;
    this.#information = information;
    this.#resolve = resolve;
    this.#reject = reject;
  }

  clientLeft(): void {
    this.cancel(clientLeft(this.begun ? 'yes' : this.started ? 'maybe' : 'no'));
  }

  /** Ends the exchange for a reason of our own. */
  cancel(error: AppError): void {
    if (this.#over) return;
    this.#left = true;
    this.#controller?.abort(error);
    this.#fail(error);
  }

  onRequestStart(controller: Dispatcher.DispatchController): void {
    // Thrown, not aborted: undici then gives the request up but keeps the connection, which nothing was written to.
    if (this.#left) throw clientLeft('no');
    this.#controller = controller;
    this.started = true;
    this.reused = this.client !== null && this.client.served > 0;
  }

  onResponseStarted(): void {
    this.begun = true;
  }

  onResponseStart(controller: Dispatcher.DispatchController, status: number, _headers: unknown, reason?: string): void {
    this.begun = true;
    const headers = responseHeaders((controller.rawHeaders ?? []) as (Buffer | string)[]);
    const phrase = cleanReason(reason ?? '');
    if (status < 200) {
      if (this.#information !== null) this.#information(status, phrase, headers);
      else this.#call.inform(status, phrase, headers);
      return;
    }
    this.#answer = new Answer(status, phrase, headers, controller);
    this.#resolve(this.#answer);
  }

  onResponseData(_controller: Dispatcher.DispatchController, chunk: Buffer): void {
    this.#answer?.push(chunk);
  }

  onResponseEnd(controller: Dispatcher.DispatchController): void {
    this.#over = true;
    this.#load.open--;
    if (this.client !== null) this.client.served++;
    const raw = (controller.rawTrailers ?? []) as (Buffer | string)[];
    this.#answer?.finish(raw.length === 0 ? [] : filterTrailers(raw.map((part) => part.toString('latin1'))));
  }

  onResponseError(_controller: Dispatcher.DispatchController, error: Error): void {
    this.#fail(failureOf(error, this));
  }

  #fail(error: AppError): void {
    if (this.#over) return;
    this.#over = true;
    this.#load.open--;
    if (this.#answer !== null) this.#answer.break(error);
    else this.#reject(error);
  }
}
