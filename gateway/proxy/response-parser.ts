import { AppError } from '@banyan/contracts/errors.ts';
import { filterTrailers, isHopByHop, namedByConnection, withoutNamed } from './headers.ts';

/** What a parser says of one response, in this order: any number of `interim`, `head`, any number of `data`, `end`. Fields are flat pairs, Latin-1, without what belongs to the connection. */
export type ResponseEvents = {
  /** 1xx but 101. */
  interim(status: number, reason: string, rawHeaders: string[]): void;
  head(status: number, reason: string, rawHeaders: string[]): void;
  /** A view of the bytes that were pushed; not empty. */
  data(chunk: Buffer): void;
  /** @param reusable the connection may carry another request: it is persistent, and nothing came behind the message */
  end(trailers: readonly string[], reusable: boolean): void;
};

/** The stages of one message; `over` also before the first. */
type State = 'over' | 'head' | 'length' | 'close' | 'chunk-size' | 'chunk-data' | 'chunk-end' | 'trailers';

const CR = 13;
const LF = 10;
const CRLF = '\r\n';
const HEAD_END = '\r\n\r\n';

const STATUS_LINE = /^HTTP\/1\.([01]) ([1-9]\d\d)(?: ([\t\x20-\x7e\x80-\xff]*))?$/;
const TOKEN = /^[!#$%&'*+\-.^_`|~0-9A-Za-z]+$/;
/** Of a field value, its ends trimmed (RFC 9110 5.5). */
const CONTROL = /[^\t\x20-\x7e\x80-\xff]/;
const CHUNK_SIZE = /^([0-9A-Fa-f]{1,13})[\t ]*(?:;[\t\x20-\x7e\x80-\xff]*)?$/;
const KEEP_ALIVE = /(?:^|[,;\t ])timeout=(\d{1,6})(?:$|[,;\t ])/i;
const LENGTH_FIELD: ReadonlySet<string> = new Set(['content-length']);
const LENGTH = /^\d{1,15}$/;

/** A chunk size with its extensions, bytes; whoever sends more wants something else than to send chunks. */
const MAX_CHUNK_LINE = 4096;
/** Of one response. */
const MAX_INTERIM = 100;

const refuse = (why: string): never => {
  throw new AppError('upstream-protocol', 'The upstream sent something that is not HTTP', {
    sent: 'yes',
    cause: Object.assign(new Error(why), { code: 'PROTOCOL' }),
  });
};

/**
 * Reads the responses on one upstream connection, strictly: what two readers could end at different places is no response (RFC 9112). The one
 * leniency is space before a field's colon, which a proxy has to remove (RFC 9112 5.1).
 * Why it is our own: docs/adr/0006-own-http-client.md.
 */
export class ResponseParser {
  readonly #events: ResponseEvents;
  readonly #maxHeaderBytes: number;
  #state: State = 'over';
  #toHead = false;
  #interims = 0;
  #persistent = false;
  /** Bytes of the body, or of the present chunk, that have not come. */
  #left = 0;
  /** Part of a head or a line, kept until the rest is here. */
  #kept: Buffer | null = null;
  #keptBytes = 0;
  #trailers: string[] = [];
  #trailerBytes = 0;
  /** What the server last said in `Keep-Alive: timeout=`; null = nothing. */
  keepAliveMs: number | null = null;

  constructor(events: ResponseEvents, maxHeaderBytes: number) {
    this.#events = events;
    this.#maxHeaderBytes = maxHeaderBytes;
  }

  /** A request was sent; its response comes next. @param toHead it has no body, whatever its fields say */
  expect(toHead: boolean): void {
    this.#state = 'head';
    this.#toHead = toHead;
    this.#interims = 0;
  }

  /** Nothing is expected: what comes now belongs to nobody. */
  get over(): boolean {
    return this.#state === 'over';
  }

  /** @throws AppError `upstream-protocol`; the parser is then of no more use. */
  push(chunk: Buffer): void {
    let at = 0;
    // `over` ends the loop too: `end` has told that bytes came behind it
    while (at < chunk.length && this.#state !== 'over') {
      switch (this.#state) {
        case 'head':
          at = this.#head(chunk, at);
          break;
        case 'length':
        case 'chunk-data': {
          const end = Math.min(chunk.length, at + this.#left);
          this.#left -= end - at;
          const piece = at === 0 && end === chunk.length ? chunk : chunk.subarray(at, end);
          at = end;
          this.#events.data(piece);
          if (this.#left > 0) break;
          if (this.#state === 'length') this.#end([], at < chunk.length);
          else this.#state = 'chunk-end';
          break;
        }
        case 'close':
          this.#events.data(at === 0 ? chunk : chunk.subarray(at));
          return;
        case 'chunk-end': {
          if (this.#left === 0 && chunk[at] === CR) {
            this.#left = 1;
            at++;
          } else if (this.#left === 1 && chunk[at] === LF) {
            this.#left = 0;
            at++;
            this.#state = 'chunk-size';
          } else refuse('a chunk that is longer than its size');
          break;
        }
        case 'chunk-size':
        case 'trailers':
          at = this.#line(chunk, at);
          break;
      }
    }
  }

  /**
   * The upstream has closed. True = that was the end of the message, which `end` has told; false = it is cut short, or nothing of it came.
   */
  close(): boolean {
    if (this.#state !== 'close') return false;
    this.#persistent = false;
    this.#end([], false);
    return true;
  }

  #end(trailers: readonly string[], more: boolean): void {
    this.#state = 'over';
    this.#events.end(trailers, this.#persistent && !more);
  }

  /** Reads a head that ends in this chunk, or keeps what is here of it. Returns where to go on. */
  #head(chunk: Buffer, at: number): number {
    if (this.#kept === null) {
      const end = chunk.indexOf(HEAD_END, at, 'latin1');
      if (end !== -1) {
        if (end - at > this.#maxHeaderBytes) refuse('a head beyond the limit');
        this.#readHead(chunk.toString('latin1', at, end), end + 4 < chunk.length);
        return end + 4;
      }
      this.#keep(chunk, at, chunk.length, this.#maxHeaderBytes);
      this.#looksLikeHead();
      return chunk.length;
    }
    const before = this.#keptBytes;
    const take = Math.min(chunk.length, at + this.#maxHeaderBytes + 4 - before);
    this.#keep(chunk, at, take, this.#maxHeaderBytes + 4);
    const end = this.#kept.subarray(0, this.#keptBytes).indexOf(HEAD_END, Math.max(0, before - 3), 'latin1');
    if (end === -1) {
      if (take < chunk.length) refuse('a head beyond the limit');
      this.#looksLikeHead();
      return chunk.length;
    }
    const next = at + (end + 4 - before);
    const head = this.#kept.toString('latin1', 0, end);
    this.#drop();
    this.#readHead(head, next < chunk.length);
    return next;
  }

  /** Tells garbage from the beginning of a head early: nobody should wait for its end. */
  #looksLikeHead(): void {
    const kept = this.#kept!.subarray(0, this.#keptBytes);
    const start = kept.toString('latin1', 0, Math.min(7, kept.length));
    if (!'HTTP/1.'.startsWith(start)) refuse('no status line');
    for (let lf = kept.indexOf(LF); lf !== -1; lf = kept.indexOf(LF, lf + 1)) if (kept[lf - 1] !== CR) refuse('a bare LF');
  }

  #keep(chunk: Buffer, from: number, to: number, most: number): void {
    const more = to - from;
    if (this.#keptBytes + more > most) refuse('a head or line beyond the limit');
    if (this.#kept === null || this.#keptBytes + more > this.#kept.length) {
      const grown = Buffer.allocUnsafe(Math.min(most + 4, Math.max(1024, 2 * (this.#keptBytes + more))));
      this.#kept?.copy(grown, 0, 0, this.#keptBytes);
      this.#kept = grown;
    }
    chunk.copy(this.#kept, this.#keptBytes, from, to);
    this.#keptBytes += more;
  }

  #drop(): void {
    this.#kept = null;
    this.#keptBytes = 0;
  }

  #readHead(text: string, more: boolean): void {
    let lineEnd = text.indexOf(CRLF);
    if (lineEnd === -1) lineEnd = text.length;
    const line = STATUS_LINE.exec(text.slice(0, lineEnd)) ?? refuse('a malformed status line');
    const status = Number(line[2]);
    const reason = line[3] ?? '';
    let persistent = line[1] === '1';
    let closes = false;
    let length = -1;
    let chunked = false;
    let named: Set<string> | null = null;
    const out: string[] = [];
    for (let at = lineEnd + 2; at < text.length; at = lineEnd + 2) {
      lineEnd = text.indexOf(CRLF, at);
      if (lineEnd === -1) lineEnd = text.length;
      const colon = text.indexOf(':', at);
      if (colon === -1 || colon > lineEnd) refuse('a field without a colon');
      const name = fieldName(text, at, colon);
      const value = fieldValue(text, colon + 1, lineEnd);
      switch (name.length) {
        case 6: // nothing to a client, but Node would send a head with it as UTF-8
          if (name.toLowerCase() === 'expect') continue;
          break;
        case 2: // te
        case 7: // upgrade
        case 10: // connection, keep-alive
        case 14: // content-length, http2-settings
        case 16: // proxy-connection
        case 17: {
          // transfer-encoding
          const lower = name.toLowerCase();
          if (lower === 'content-length') {
            if (length !== -1 || !LENGTH.test(value)) refuse('a doubtful Content-Length');
            length = Number(value);
            break;
          }
          if (lower === 'transfer-encoding') {
            if (chunked || value.toLowerCase() !== 'chunked') refuse('a transfer coding other than chunked');
            chunked = true;
          } else if (lower === 'connection') {
            const options = value.toLowerCase().split(/[\t ]*,[\t ]*/);
            // close comes before keep-alive, in whichever line it stands (RFC 9112 9.3)
            closes ||= options.includes('close');
            persistent ||= options.includes('keep-alive');
            const these = namedByConnection(value);
            if (these !== null) named = named === null ? these : new Set([...named, ...these]);
          } else if (lower === 'keep-alive') {
            const seconds = KEEP_ALIVE.exec(value);
            if (seconds !== null) this.keepAliveMs = Number(seconds[1]) * 1000;
          }
          if (lower === 'te' || isHopByHop(lower)) continue;
          break;
        }
      }
      out.push(name, value);
    }
    const fields = named === null ? out : withoutNamed(out, named);
    if (status < 200) {
      if (status === 101) refuse('101 without being asked to switch');
      // RFC 9110 8.6, RFC 9112 6.1: neither may stand here, and who reads a body into it reads the next head otherwise than we do
      if (chunked || length > 0) refuse('an interim answer with a body');
      if (++this.#interims > MAX_INTERIM) refuse('too many interim answers');
      this.#events.interim(status, reason, length === 0 ? withoutNamed(fields, LENGTH_FIELD) : fields);
      return;
    }
    // RFC 9112 6.3, in its order
    const bodiless = this.#toHead || status === 204 || status === 304;
    if (chunked && length !== -1) refuse('both Content-Length and Transfer-Encoding');
    if (chunked && line[1] === '0') refuse('Transfer-Encoding in HTTP/1.0');
    this.#persistent = persistent && !closes;
    if (bodiless || length === 0) {
      this.#state = 'over';
      this.#events.head(status, reason, fields);
      this.#end([], more);
      return;
    }
    if (chunked) {
      this.#state = 'chunk-size';
      this.#trailers = [];
      this.#trailerBytes = 0;
    } else if (length !== -1) {
      this.#state = 'length';
      this.#left = length;
    } else this.#state = 'close';
    this.#events.head(status, reason, fields);
  }

  /** Reads one line of a chunked body's frame. Returns where to go on. */
  #line(chunk: Buffer, at: number): number {
    const lf = chunk.indexOf(LF, at);
    const most = this.#state === 'trailers' ? this.#maxHeaderBytes : MAX_CHUNK_LINE;
    if (lf === -1) {
      this.#keep(chunk, at, chunk.length, most);
      return chunk.length;
    }
    let line: string;
    if (this.#kept === null) {
      if (lf - at > most) refuse('a line beyond the limit');
      line = chunk.toString('latin1', at, lf);
    } else {
      this.#keep(chunk, at, lf, most);
      line = this.#kept.toString('latin1', 0, this.#keptBytes);
      this.#drop();
    }
    if (line.charCodeAt(line.length - 1) !== CR) refuse('a bare LF');
    line = line.slice(0, -1);
    if (this.#state === 'chunk-size') this.#chunkSize(line);
    else if (line !== '') this.#trailer(line);
    else {
      const trailers = this.#trailers.length === 0 ? this.#trailers : filterTrailers(this.#trailers);
      this.#end(trailers, lf + 1 < chunk.length);
    }
    return lf + 1;
  }

  #chunkSize(line: string): void {
    const size = CHUNK_SIZE.exec(line) ?? refuse('a malformed chunk size');
    this.#left = Number.parseInt(size[1]!, 16);
    this.#state = this.#left === 0 ? 'trailers' : 'chunk-data';
  }

  #trailer(line: string): void {
    this.#trailerBytes += line.length + 2;
    if (this.#trailerBytes > this.#maxHeaderBytes) refuse('trailers beyond the limit');
    const colon = line.indexOf(':');
    if (colon === -1) refuse('a trailer without a colon');
    this.#trailers.push(fieldName(line, 0, colon), fieldValue(line, colon + 1, line.length));
  }
}

const fieldName = (text: string, from: number, colon: number): string => {
  const name = text.slice(from, colon);
  if (TOKEN.test(name)) return name;
  const trimmed = name.replace(/[\t ]+$/, '');
  return TOKEN.test(trimmed) ? trimmed : refuse('a malformed field name');
};

const isSpace = (code: number): boolean => code === 32 || code === 9;

const fieldValue = (text: string, from: number, to: number): string => {
  let start = from;
  let end = to;
  while (start < end && isSpace(text.charCodeAt(start))) start++;
  while (end > start && isSpace(text.charCodeAt(end - 1))) end--;
  const value = text.slice(start, end);
  return CONTROL.test(value) ? refuse('a control character in a field') : value;
};
