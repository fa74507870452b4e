import type { AppError } from '@banyan/contracts/errors.ts';

/** Takes a body as it comes. `data` returns false to ask for a pause; `Answer.resume()` ends it. Exactly one of `end` and `fail` comes last. */
export type Sink = {
  data(chunk: Buffer): boolean;
  /** Trailers as flat pairs. */
  end(trailers: readonly string[]): void;
  /** The upstream broke off: what came so far is not the whole. */
  fail(error: AppError): void;
};

/** Where the bytes come from. */
export type Source = { pause(): void; resume(): void; abort(reason: Error): void };

/** Bytes held while nobody consumes; the source is paused beyond it. One read from a socket is at most this much. */
const HELD_BYTES = 64 * 1024;

/**
 * What one upstream answered: the head at once, the body by `consume`, exactly once. A body that nobody consumes must be dropped by `abort()`.
 * Push-based rather than a Readable because most answers are complete when their head is looked at, and a stream would cost more than they do.
 */
export class Answer {
  readonly status: number;
  readonly reason: string;
  /** Flat pairs as sent, without what belongs to the connection. */
  readonly rawHeaders: string[];
  /** Held until a sink comes. */
  #held: Buffer[] = [];
  #heldBytes = 0;
  #source: Source | null;
  #sink: Sink | null = null;
  #paused = false;
  #trailers: readonly string[] | null = null;
  #error: AppError | null = null;
  #waiting: (() => void)[] | null = null;

  constructor(status: number, reason: string, rawHeaders: string[], source: Source) {
    this.status = status;
    this.reason = reason;
    this.rawHeaders = rawHeaders;
    this.#source = source;
  }

  /** `open` while bytes may come, then `complete` or `failed`. */
  get state(): 'open' | 'complete' | 'failed' {
    if (this.#error !== null) return 'failed';
    return this.#trailers === null ? 'open' : 'complete';
  }

  get error(): AppError | null {
    return this.#error;
  }

  /** Did the whole body come? Settles at its end; never rejects. */
  get complete(): Promise<boolean> {
    return this.#settled(() => this.#error === null);
  }

  /** Trailer fields as flat pairs, once the body has ended; empty when it broke off. */
  trailers(): Promise<readonly string[]> {
    return this.#settled(() => this.#trailers ?? []);
  }

  /** Starts the flow into `sink`; what is already here comes before this returns. */
  consume(sink: Sink): void {
    if (this.#sink !== null) throw new Error('An answer can be consumed once');
    this.#sink = sink;
    const held = this.#held;
    this.#held = [];
    let wanted = true;
    for (const chunk of held) wanted = sink.data(chunk) && wanted;
    if (this.#error !== null) sink.fail(this.#error);
    else if (this.#trailers !== null) sink.end(this.#trailers);
    else if (wanted) this.resume();
    else this.#pause();
  }

  resume(): void {
    if (!this.#paused || this.#source === null) return;
    this.#paused = false;
    this.#source.resume();
  }

  /** Nobody wants the rest: ends the exchange with the upstream. Safe at any time, any number of times. */
  abort(reason: Error): void {
    const source = this.#source;
    this.#held = [];
    if (this.state === 'open') source?.abort(reason);
  }

  /** For the source only. */
  push(chunk: Buffer): void {
    if (this.#sink !== null) {
      if (!this.#sink.data(chunk)) this.#pause();
      return;
    }
    this.#held.push(chunk);
    this.#heldBytes += chunk.length;
    if (this.#heldBytes >= HELD_BYTES) this.#pause();
  }

  /** For the source only. */
  finish(trailers: readonly string[]): void {
    if (this.state !== 'open') return;
    this.#trailers = trailers;
    this.#over();
    this.#sink?.end(trailers);
  }

  /** For the source only. */
  break(error: AppError): void {
    if (this.state !== 'open') return;
    this.#error = error;
    this.#over();
    this.#sink?.fail(error);
  }

  #pause(): void {
    if (this.#paused || this.#source === null) return;
    this.#paused = true;
    this.#source.pause();
  }

  #over(): void {
    this.#source = null;
    const waiting = this.#waiting;
    this.#waiting = null;
    if (waiting !== null) for (const wake of waiting) wake();
  }

  #settled<T>(value: () => T): Promise<T> {
    if (this.state !== 'open') return Promise.resolve(value());
    return new Promise((resolve) => {
      this.#waiting ??= [];
      this.#waiting.push(() => resolve(value()));
    });
  }
}
