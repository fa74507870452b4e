import { createHash, type Hash } from 'node:crypto';
import { AppError } from '@banyan/contracts/errors.ts';
import type { Answer, Sink } from './answer.ts';
import type { Call } from './call.ts';
import { clientLeft } from './failures.ts';

/** How long a body that is read before anything is sent on may stand still. */
const STALL_MS = 30_000;

/**
 * The whole body of a request, at most `limitBytes`; empty when it has none. Gives the client its `100 Continue`, so the call can then be sent
 * on with `forward(call, { body })` only.
 * @throws AppError `payload-too-large`, `client-left`, `request-timeout` when nothing comes for `stallMs`.
 */
export const readBody = (call: Call, limitBytes: number, stallMs = STALL_MS): Promise<Buffer> => {
  const { req } = call;
  if (req === null || call.body === 'none') return Promise.resolve(Buffer.alloc(0));
  if ((call.contentLength ?? 0) > limitBytes) return Promise.reject(tooLarge(limitBytes));
  call.inform(100, 'Continue', []);
  return new Promise((resolve, reject) => {
    const chunks: Buffer[] = [];
    let bytes = 0;
    const stall = setTimeout(() => {
      stop();
      req.pause();
      reject(new AppError('request-timeout', 'The body of the request stood still for too long'));
    }, stallMs);
    const stop = () => {
      clearTimeout(stall);
      req.off('data', onData).off('end', onEnd).off('close', onClose).off('error', onClose);
    };
    const onData = (chunk: Buffer) => {
      stall.refresh();
      bytes += chunk.length;
      if (bytes > limitBytes) {
        stop();
        req.pause();
        reject(tooLarge(limitBytes));
      } else chunks.push(chunk);
    };
    const onEnd = () => {
      stop();
      resolve(chunks.length === 1 ? chunks[0]! : Buffer.concat(chunks, bytes));
    };
    const onClose = () => {
      stop();
      // The listener must outlive us: a reset may still be reported on the stream.
      req.on('error', () => {});
      reject(clientLeft('no'));
    };
    req.on('data', onData).on('end', onEnd).on('close', onClose).on('error', onClose);
  });
};

const tooLarge = (limitBytes: number): AppError =>
  new AppError('payload-too-large', `The body is larger than ${limitBytes} bytes`, { details: { limitBytes } });

export type Collected = {
  /** Null when it is larger than the limit. */
  readonly body: Buffer | null;
  /** SHA-256 of all bytes that came, hex, when they are more than the limit; else null. */
  readonly digest: string | null;
  readonly bytes: number;
  readonly complete: boolean;
  readonly trailers: readonly string[];
  /** Why it is not complete. */
  readonly error: AppError | null;
};

class Collector implements Sink {
  readonly #limit: number;
  readonly #resolve: (collected: Collected) => void;
  #kept: Buffer[] = [];
  #bytes = 0;
  /** Only of what is too large to keep: a hash costs more than all the rest of a small answer. */
  #hash: Hash | null = null;

  constructor(limit: number, resolve: (collected: Collected) => void) {
    this.#limit = limit;
    this.#resolve = resolve;
  }

  data(chunk: Buffer): boolean {
    this.#bytes += chunk.length;
    if (this.#hash === null && this.#bytes <= this.#limit) {
      this.#kept.push(chunk);
      return true;
    }
    if (this.#hash === null) {
      this.#hash = createHash('sha256');
      for (const before of this.#kept) this.#hash.update(before);
      this.#kept = [];
    }
    this.#hash.update(chunk);
    return true;
  }

  end(trailers: readonly string[]): void {
    this.#settle(true, trailers, null);
  }

  fail(error: AppError): void {
    this.#settle(false, [], error);
  }

  #settle(complete: boolean, trailers: readonly string[], error: AppError | null): void {
    const kept = this.#kept;
    this.#resolve({
      body: this.#hash !== null ? null : kept.length === 1 ? kept[0]! : Buffer.concat(kept, this.#bytes),
      digest: this.#hash?.digest('hex') ?? null,
      bytes: this.#bytes,
      complete,
      trailers,
      error,
    });
  }
}

/** Reads an answer to its end, keeping at most `limitBytes`; what is larger is only hashed and counted. Never rejects. */
export const collect = (answer: Answer, limitBytes: number): Promise<Collected> =>
  new Promise((resolve) => answer.consume(new Collector(limitBytes, resolve)));
