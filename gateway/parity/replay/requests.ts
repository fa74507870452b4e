import { AppError } from '@banyan/contracts/errors.ts';

/** A recorded request. */
export type Recorded = {
  /** Place in the recording, from 0: what `--resume` goes by. */
  readonly index: number;
  readonly method: string;
  /** Path and query. */
  readonly target: string;
  readonly headers: readonly (readonly [string, string])[];
  readonly body: Buffer | null;
};

export type Recording = {
  readonly requests: readonly Recorded[];
  /** Lines or entries that hold no request, and the first reason. */
  readonly unreadable: number;
  readonly firstFault: string | null;
};

type Raw = Omit<Recorded, 'index'>;

/** So many requests are held in memory at most. */
const MAX_REQUESTS = 1_000_000;
const METHOD = /^[A-Z][A-Z-]{0,19}$/;

const record = (value: unknown): Record<string, unknown> =>
  typeof value === 'object' && value !== null && !Array.isArray(value) ? (value as Record<string, unknown>) : {};

/** Path and query of a URL or a target. @throws Error when it is neither */
const targetOf = (text: unknown): string => {
  if (typeof text !== 'string' || text === '') throw new Error('no url');
  const at = /^https?:\/\/[^/?#]*/i.exec(text);
  const rest = (at ? text.slice(at[0].length) : text).split('#', 1)[0]!;
  const target = rest.startsWith('?') || rest === '' ? `/${rest}` : rest;
  // Control characters and blanks could smuggle a second request.
  if (!target.startsWith('/') || /[\s\u0000-\u0020\u007f]/.test(target)) throw new Error(`no path: ${JSON.stringify(text.slice(0, 80))}`);
  return target.replace(/[^\u0021-\u007e]/g, (c) => encodeURIComponent(c));
};
const methodOf = (value: unknown): string => {
  const method = typeof value === 'string' ? value.toUpperCase() : 'GET';
  if (!METHOD.test(method)) throw new Error(`no method: ${JSON.stringify(String(value).slice(0, 40))}`);
  return method;
};

const FIELD_NAME = /^[!#$%&'*+.^_`|~0-9A-Za-z-]+$/;
/** Pseudo headers of HTTP/2 (`:path`) and what cannot be sent are left out. */
const headersOf = (value: unknown): [string, string][] => {
  const pairs: unknown[] = Array.isArray(value) ? value : Object.entries(record(value));
  return pairs.flatMap((pair): [string, string][] => {
    const [name, content] = Array.isArray(pair) ? (pair as unknown[]) : [record(pair).name, record(pair).value];
    return typeof name === 'string' && typeof content === 'string' && FIELD_NAME.test(name) && !/[\r\n\u0000]/.test(content)
      ? [[name, content]]
      : [];
  });
};

const bodyOf = (text: unknown, encoding: unknown): Buffer | null =>
  typeof text === 'string' && text !== '' ? Buffer.from(text, encoding === 'base64' ? 'base64' : 'utf8') : null;

/** One entry of an HTTP Archive (HAR 1.2). */
const fromHar = (entry: unknown): Raw => {
  const request = record(record(entry).request);
  const post = record(request.postData);
  return {
    method: methodOf(request.method),
    target: targetOf(request.url),
    headers: headersOf(request.headers),
    body: bodyOf(post.text, post.encoding),
  };
};

/** One line of a capture: `{"method","target"|"url","headers","body"|"bodyBase64"}`. */
const fromLine = (line: string): Raw => {
  const value = record(JSON.parse(line));
  return {
    method: methodOf(value.method),
    target: targetOf(value.target ?? value.url ?? value.path),
    headers: headersOf(value.headers),
    body: bodyOf(value.body ?? value.bodyBase64, value.bodyBase64 === undefined ? 'utf8' : 'base64'),
  };
};

const REQUEST_LINE = /"([A-Za-z-]+) (\S+)(?: HTTP\/[\d.]+)?"/;
const BARE = /^(?:([A-Z-]+)\s+)?((?:https?:\/\/|\/)\S*)(?:\s+HTTP\/[\d.]+)?$/;

/** One line of an access log (common and combined format), or `[METHOD] URL`. */
const fromLog = (line: string): Raw => {
  const found = REQUEST_LINE.exec(line) ?? BARE.exec(line.trim());
  if (!found) throw new Error(`no request line: ${JSON.stringify(line.slice(0, 80))}`);
  return { method: methodOf(found[1]), target: targetOf(found[2]), headers: [], body: null };
};

/**
 * Reads a recording: `*.har`, `*.jsonl` or `*.ndjson`, anything else as an access log or a list of URLs.
 * @throws AppError `unprocessable` when a HAR is none, `payload-too-large` beyond a million requests
 */
export const readRecording = (name: string, text: string): Recording => {
  const requests: Recorded[] = [];
  let [unreadable, firstFault]: [number, string | null] = [0, null];
  const take = (read: () => Raw, where: string): void => {
    try {
      requests.push({ index: requests.length + unreadable, ...read() });
    } catch (error) {
      unreadable++;
      firstFault ??= `${where}: ${error instanceof Error ? error.message : String(error)}`;
    }
    if (requests.length > MAX_REQUESTS) throw new AppError('payload-too-large', `${name}: more than ${MAX_REQUESTS} requests`);
  };
  if (/\.har$/i.test(name)) {
    let document: unknown;
    try {
      document = JSON.parse(text);
    } catch (error) {
      throw new AppError('unprocessable', `${name}: not a HAR file: ${(error as Error).message}`);
    }
    const entries = record(record(document).log).entries;
    if (!Array.isArray(entries)) throw new AppError('unprocessable', `${name}: not a HAR file: no log.entries`);
    for (const [i, entry] of entries.entries()) take(() => fromHar(entry), `entry ${i + 1}`);
  } else {
    const read = /\.(?:jsonl|ndjson)$/i.test(name) ? fromLine : fromLog;
    for (const [i, line] of text.split(/\r?\n/).entries()) if (line.trim() !== '') take(() => read(line), `line ${i + 1}`);
  }
  return { requests, unreadable, firstFault };
};
