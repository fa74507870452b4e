import { createHash, type Hash } from 'node:crypto';
import type { AppError } from '@banyan/contracts/errors.ts';
import type { Answer, Sink } from './answer.ts';
import { type Call, callOf, type Leaver } from './call.ts';
import type { ClientResponse } from './client.ts';
import { breakOff, closeAfterReply } from './connection.ts';
import { clientLeft } from './failures.ts';
import { pairsOf, VIA, withoutNamed } from './headers.ts';

export type ReplyOptions = {
  /** Flat pairs put behind the upstream's own. */
  readonly extraHeaders?: readonly string[];
  /** Keeps the body too, as long as it is no larger, in bytes; of a larger one only the SHA-256. */
  readonly tee?: { readonly limitBytes: number };
};

/** What became of an answer. */
export type Delivered = {
  /** The upstream's whole answer was handed to the client's connection. */
  readonly complete: boolean;
  /** Body bytes that came from the upstream. */
  readonly bytes: number;
  /** The whole body, when a tee was asked for, the answer is complete and it is within the limit. */
  readonly body: Buffer | undefined;
  /** SHA-256 of a body that was larger than the limit, hex; as `body` otherwise. */
  readonly digest: string | undefined;
  /** The upstream broke off in the middle. */
  readonly truncated: boolean;
  readonly clientLeft: boolean;
};

/** Whole bodies up to this go out as a string. */
const ONE_WRITE_BYTES = 16 * 1024;
const EMPTY = Buffer.alloc(0);

/**
 * Streams an answer to the client at the client's pace. Settles when it is out, cut off, or the client has left; never rejects for any of
 * these. Throws only before the head is sent (the answer has failed already, or Node refuses to write it), when the caller can still answer with
 * an error.
 */
export const reply = (res: ClientResponse, answer: Answer, options?: ReplyOptions): Promise<Delivered> =>
  new Promise((resolve, reject) => {
    const call = callOf(res);
    if (res.destroyed || call?.left === true) {
      answer.abort(clientLeft('yes'));
      resolve({ complete: false, bytes: 0, body: undefined, digest: undefined, truncated: false, clientLeft: true });
      return;
    }
    // Broken off before anything of it went out: whoever called can still say so.
    if (answer.error !== null) {
      reject(answer.error);
      return;
    }
    try {
      writeHead(res, answer, call, options?.extraHeaders);
    } catch (error) {
      answer.abort(clientLeft('yes'));
      reject(error);
      return;
    }
    const delivery = new Delivery(res, answer, options?.tee?.limitBytes ?? -1, resolve);
    if (call !== undefined) call.onLeft(delivery);
    else {
      res.on('close', () => {
        if (!res.writableFinished) delivery.clientLeft();
      });
    }
    answer.consume(delivery);
    delivery.flush();
  });

const writeHead = (res: ClientResponse, answer: Answer, call: Call | undefined, extra: readonly string[] | undefined): void => {
  const headers = answer.rawHeaders;
  headers.push('Via', VIA);
  if (extra !== undefined) headers.push(...extra);
  const req = res.req;
  if (call !== undefined && call.body === 'stream' && !req.complete) closeAfterReply(req, res);
  const already = res.getHeaderNames();
  if (already.length > 0) {
    // Fields set by whoever embeds us would turn the flat list below into a merged one.
    for (const name of already) {
      headers.push(name, String(res.getHeader(name)));
      res.removeHeader(name);
    }
  }
  try {
    res.writeHead(answer.status, answer.reason, headers);
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code !== 'ERR_HTTP_TRAILER_INVALID') throw error;
    // It announces trailers where none can follow: no chunks, no body, or an HTTP/1.0 client.
    res.writeHead(answer.status, answer.reason, withoutNamed(headers, new Set(['trailer'])));
  }
};

class Delivery implements Sink, Leaver {
  readonly #res: ClientResponse;
  readonly #answer: Answer;
  readonly #limit: number;
  readonly #resolve: (delivered: Delivered) => void;
  #kept: Buffer[] | null;
  #hash: Hash | null = null;
  #bytes = 0;
  #written = false;
  #draining = false;
  #over = false;
  /** One piece held back while the answer may turn out to be whole already: it then leaves with the head and the end in one write. */
  #first: Buffer | null = null;
  #consuming = true;

  constructor(res: ClientResponse, answer: Answer, limit: number, resolve: (delivered: Delivered) => void) {
    this.#res = res;
    this.#answer = answer;
    this.#limit = limit;
    this.#kept = limit >= 0 ? [] : null;
    this.#resolve = resolve;
  }

  data(chunk: Buffer): boolean {
    if (this.#over) return true;
    this.#bytes += chunk.length;
    if (this.#kept !== null) {
      this.#kept.push(chunk);
      if (this.#bytes > this.#limit) {
        this.#hash = createHash('sha256');
        for (const piece of this.#kept) this.#hash.update(piece);
        this.#kept = null;
      }
    } else this.#hash?.update(chunk);
    if (this.#consuming && this.#first === null && !this.#written) {
      this.#first = chunk;
      return true;
    }
    this.#release();
    return this.#write(chunk);
  }

  end(trailers: readonly string[]): void {
    if (this.#over) return;
    const res = this.#res;
    if (trailers.length > 0 && res.chunkedEncoding) {
      this.#release();
      res.addTrailers(pairsOf(trailers));
    }
    const first = this.#first;
    if (first === null) res.end();
    // One Latin-1 string with the head is one write; head and Buffer are a writev, which measured 20 us dearer (Node 24, 1 KiB body).
    else if (first.length <= ONE_WRITE_BYTES && !res.chunkedEncoding) res.end(first.toString('latin1'), 'latin1');
    else res.end(first);
    this.#first = null;
    this.#settle(true, false, false);
  }

  fail(error: AppError): void {
    if (this.#over) return;
    const left = error.code === 'client-left';
    if (this.#first !== null) this.#release();
    breakOff(this.#res);
    this.#settle(false, !left, left);
  }

  clientLeft(): void {
    if (this.#over) return;
    this.#settle(false, false, true);
    this.#answer.abort(clientLeft('yes'));
  }

  /** What is here goes out now, be it only the head: an event stream may say nothing for minutes. */
  flush(): void {
    this.#consuming = false;
    if (this.#over) return;
    if (this.#first !== null) this.#release();
    // An empty piece, because flushHeaders() writes the head as UTF-8 and so spoils Latin-1 values.
    else if (!this.#written) this.#res.write(EMPTY);
    this.#written = true;
  }

  #release(): void {
    const first = this.#first;
    if (first === null) return;
    this.#first = null;
    if (!this.#write(first)) this.#stall();
  }

  #write(chunk: Buffer): boolean {
    this.#written = true;
    if (this.#res.write(chunk)) return true;
    this.#stall();
    return false;
  }

  #stall(): void {
    if (this.#draining) return;
    this.#draining = true;
    this.#res.once('drain', () => {
      this.#draining = false;
      this.#answer.resume();
    });
  }

  #settle(complete: boolean, truncated: boolean, left: boolean): void {
    this.#over = true;
    const kept = this.#kept;
    const hash = this.#hash;
    this.#kept = null;
    this.#hash = null;
    this.#resolve({
      complete,
      bytes: this.#bytes,
      body: complete && kept !== null ? (kept.length === 1 ? kept[0]! : Buffer.concat(kept)) : undefined,
      digest: complete ? hash?.digest('hex') : undefined,
      truncated,
      clientLeft: left,
    });
  }
}
