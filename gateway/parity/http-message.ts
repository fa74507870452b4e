import { AppError } from '@banyan/contracts/errors.ts';
import type { Observation } from '../core/parity/observation.ts';

const STATUS_LINE = /^HTTP\/1\.[01] ([1-5][0-9]{2})(?: .*)?$/;
const FIELD = /^([!#$%&'*+.^_`|~0-9A-Za-z-]+):[ \t]*(.*?)[ \t]*$/;

/** First LF of an empty line: where the head ends and how many bytes part it from the body. */
const headEnd = (bytes: Buffer, from: number): { end: number; body: number } | null => {
  for (let at = bytes.indexOf(0x0a, from); at >= 0; at = bytes.indexOf(0x0a, at + 1)) {
    if (bytes[at + 1] === 0x0a) return { end: at, body: at + 2 };
    if (bytes[at + 1] === 0x0d && bytes[at + 2] === 0x0a) return { end: at, body: at + 3 };
  }
  return null;
};

type Framed = { readonly body: Buffer; readonly complete: boolean };

const unchunk = (bytes: Buffer): Framed | string => {
  const parts: Buffer[] = [];
  let at = 0;
  for (;;) {
    const line = bytes.indexOf(0x0a, at);
    if (line < 0) return { body: Buffer.concat(parts), complete: false };
    const size = /^([0-9a-fA-F]{1,8})[ \t]*(?:;.*)?\r?$/.exec(bytes.toString('latin1', at, line));
    if (!size) return `bad chunk size at byte ${at} of the body`;
    const length = Number.parseInt(size[1]!, 16);
    if (length === 0) return { body: Buffer.concat(parts), complete: true };
    if (line + 1 + length > bytes.length) return { body: Buffer.concat([...parts, bytes.subarray(line + 1)]), complete: false };
    parts.push(bytes.subarray(line + 1, line + 1 + length));
    at = line + 1 + length;
    if (bytes[at] === 0x0d) at++;
    if (at >= bytes.length) return { body: Buffer.concat(parts), complete: false };
    if (bytes[at] !== 0x0a) return `a chunk is longer than its size says, at byte ${at} of the body`;
    at++;
  }
};

/**
 * Reads a file that holds one HTTP/1.1 response as it came over the wire: interim 1xx answers are skipped, chunked and Content-Length
 * framing are taken off, a body that ends early makes the observation incomplete (`truncated`). Lines may end in LF alone, because
 * people edit such files. Content codings stay: see `decodeObservation`.
 * @throws AppError `unprocessable` when it is no HTTP response.
 */
export const parseHttpResponse = (bytes: Buffer): Observation => {
  const refuse = (why: string): never => {
    throw new AppError('unprocessable', `not an HTTP/1.1 response: ${why}`);
  };
  let from = 0;
  for (;;) {
    const head = headEnd(bytes, from);
    if (!head) return refuse('no empty line after the headers');
    const [first = '', ...lines] = bytes
      .toString('latin1', from, head.end)
      .split(/\r?\n/)
      .map((line) => line.replace(/\r$/, ''));
    const status = Number(
      STATUS_LINE.exec(first)?.[1] ?? refuse(`expected a status line such as HTTP/1.1 200 OK, found ${JSON.stringify(first.slice(0, 60))}`),
    );
    const headers = lines.map((line): [string, string] => {
      const field = FIELD.exec(line);
      return field ? [field[1]!, field[2]!] : refuse(`expected NAME: VALUE, found ${JSON.stringify(line.slice(0, 60))}`);
    });
    if (status < 200 && status !== 101) {
      from = head.body;
      continue;
    }
    const valuesOf = (name: string): string[] => headers.filter(([key]) => key.toLowerCase() === name).map(([, value]) => value);
    const rest = bytes.subarray(head.body);
    const framed = frame(rest, valuesOf('transfer-encoding'), valuesOf('content-length'), status);
    if (typeof framed === 'string') return refuse(framed);
    return { status, headers, body: framed.body, complete: framed.complete, ...(framed.complete ? {} : { why: 'truncated' }) };
  }
};

const frame = (rest: Buffer, transferEncoding: readonly string[], contentLength: readonly string[], status: number): Framed | string => {
  if (/(?:^|,)\s*chunked\s*$/i.test(transferEncoding.join(','))) return unchunk(rest);
  // An answer to HEAD, 204 and 304 announce a length and have no body.
  if (contentLength.length === 0 || status === 304 || rest.length === 0) return { body: rest, complete: true };
  const length = Number(contentLength[0]);
  if (!/^[0-9]+$/.test(contentLength[0]!) || new Set(contentLength).size > 1)
    return `Content-Length ${JSON.stringify(contentLength.join(', '))}`;
  return { body: rest.subarray(0, length), complete: rest.length >= length };
};
