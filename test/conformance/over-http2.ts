import type { AnswerWanted, Bytes, Case, ClientStep, FieldWanted, RequestWanted, Wanted } from './case.ts';

/** A request as a case's bytes say it, for a client that speaks another version. */
export type Spoken = {
  readonly method: string;
  readonly target: string;
  readonly host: string;
  /** Without Host and framing, names in lower case. */
  readonly fields: readonly (readonly [string, string])[];
  readonly body: 'none' | 'chunked' | { readonly length: number };
};

/** Why bytes mean nothing, or something else, in HTTP/2. */
class Unspeakable extends Error {}

const REQUEST_LINE = /^([!#$%&'*+\-.^_`|~0-9A-Za-z]+) (\/[\x21\x22\x24-\x7e]*|\*) HTTP\/1\.1$/;
const FIELD_LINE =
  /^([!#$%&'*+\-.^_`|~0-9A-Za-z]+):[ \t]*((?:[\x21-\x7e\x80-\xff](?:[\t\x20-\x7e\x80-\xff]*[\x21-\x7e\x80-\xff])?)?)[ \t]*$/;
/** Of a connection, or of framing that HTTP/2 does in its own way; `test/contract/proxy-http2.test.ts` sends them as they are. */
const CONNECTION = new Set(['connection', 'keep-alive', 'proxy-connection', 'upgrade', 'http2-settings', 'te']);

/** @throws Unspeakable */
const spokenOf = (head: string): Spoken => {
  const [line = '', ...rest] = head.slice(0, -4).split('\r\n');
  const found = REQUEST_LINE.exec(line);
  if (found === null) throw new Unspeakable('no request line of HTTP/1.1 with a path');
  const fields: [string, string][] = [];
  const hosts: string[] = [];
  const framing: string[] = [];
  let body: Spoken['body'] = 'none';
  for (const text of rest) {
    const field = FIELD_LINE.exec(text);
    if (field === null) throw new Unspeakable('a malformed field');
    const [name, value] = [field[1]!.toLowerCase(), field[2]!];
    if (CONNECTION.has(name)) throw new Unspeakable(`${name} belongs to the connection`);
    if (name === 'host') hosts.push(value);
    else if (name === 'transfer-encoding' || name === 'content-length') {
      framing.push(name);
      if (name === 'content-length' && /^\d{1,9}$/.test(value)) {
        body = { length: Number(value) };
        fields.push([name, value]);
      } else if (value.toLowerCase() === 'chunked') body = 'chunked';
      else throw new Unspeakable('a doubtful length');
    } else fields.push([name, value]);
  }
  if (framing.length > 1) throw new Unspeakable('two ways of framing');
  if (hosts.length !== 1 || !/^[\w.-]+(?::\d+)?$/.test(hosts[0]!)) throw new Unspeakable('no single sound Host');
  return { method: found[1]!, target: found[2]!, host: hosts[0]!, fields, body };
};

/** What bytes mean. */
export type Meaning = {
  request(spoken: Spoken): void;
  body(bytes: string): void;
  end(trailers: readonly (readonly [string, string])[]): void;
};

/** Reads the bytes that a client of HTTP/1.1 would send, and tells what they mean, piece by piece. */
export class Interpreter {
  #pending = '';
  #left: number | 'head' | 'size' | 'trailers' = 'head';
  #chunked = false;
  readonly #tell: Meaning;

  constructor(tell: Meaning) {
    this.#tell = tell;
  }

  /** A head was begun and is not there yet. */
  get half(): boolean {
    return this.#left === 'head' && this.#pending !== '';
  }

  /** @throws Unspeakable */
  write(bytes: string): void {
    this.#pending += bytes;
    while (this.#step());
  }

  #step(): boolean {
    if (typeof this.#left === 'number') return this.#body(this.#left);
    const bare = this.#left === 'trailers' && this.#pending.startsWith('\r\n');
    const mark = this.#left === 'size' || bare ? '\r\n' : '\r\n\r\n';
    const at = this.#pending.indexOf(mark);
    if (at === -1) return false;
    const whole = at + mark.length;
    const text = this.#pending.slice(0, whole);
    this.#pending = this.#pending.slice(whole);
    if (this.#left === 'head') this.#head(spokenOf(text));
    else if (this.#left === 'size') {
      if (!/^[0-9A-Fa-f]+(?:;[^\r\n]*)?\r\n$/.test(text)) throw new Unspeakable('a malformed chunk');
      const size = Number.parseInt(text, 16);
      this.#left = size === 0 ? 'trailers' : size;
    } else {
      const lines = text === '\r\n' ? [] : text.slice(0, -4).split('\r\n');
      this.#left = 'head';
      this.#tell.end(
        lines.map((line) => {
          const field = FIELD_LINE.exec(line);
          if (field === null) throw new Unspeakable('a malformed trailer');
          return [field[1]!.toLowerCase(), field[2]!];
        }),
      );
    }
    return this.#pending !== '';
  }

  #head(spoken: Spoken): void {
    this.#tell.request(spoken);
    this.#chunked = spoken.body === 'chunked';
    if (spoken.body === 'chunked') this.#left = 'size';
    else if (spoken.body !== 'none' && spoken.body.length > 0) this.#left = spoken.body.length;
  }

  #body(left: number): boolean {
    const piece = this.#pending.slice(0, left);
    if (this.#chunked && piece.length === left) {
      const end = this.#pending.slice(left, left + 2);
      if (end.length < 2) return false;
      if (end !== '\r\n') throw new Unspeakable('a chunk without its end');
      this.#tell.body(piece);
      this.#pending = this.#pending.slice(left + 2);
      this.#left = 'size';
      return this.#pending !== '';
    }
    this.#pending = this.#pending.slice(piece.length);
    if (piece !== '') this.#tell.body(piece);
    this.#left = left - piece.length;
    if (this.#left > 0) return false;
    this.#left = 'head';
    this.#tell.end([]);
    return this.#pending !== '';
  }
}

const textOf = (bytes: Bytes): string => (typeof bytes === 'string' ? bytes : bytes.fill.repeat(bytes.times));

const stepsOf = (one: Case): readonly ClientStep[] => one.client ?? [one.send ?? '', { answer: 'final', head: one.head ?? false }];

/** Right otherwise in HTTP/2. */
const APART: Readonly<Record<string, string>> = { 'field-cookies': 'crumbs are joined in HTTP/2 (RFC 9113 8.2.3)' };

/** Why a case cannot be told in HTTP/2; null = it can. */
export const whyNot = (one: Case): string | null => {
  let open = 0;
  const interpreter = new Interpreter({
    request: () => {
      if (++open > 1) throw new Unspeakable('pipelining');
    },
    body: () => undefined,
    end: () => undefined,
  });
  if (one.id in APART) return APART[one.id]!;
  try {
    for (const step of stepsOf(one)) {
      if (step === 'closed' || step === 'end') return 'the end of a connection';
      if (step === 'reconnect') open = 0;
      else if (typeof step === 'string' && step === 'reset') continue;
      else if (typeof step === 'string' || 'fill' in step) interpreter.write(textOf(step));
      else if ('answer' in step && step.answer === 'final') open = 0;
    }
  } catch (error) {
    if (error instanceof Unspeakable) return error.message;
    throw error;
  }
  return interpreter.half ? 'a head that does not end' : null;
};

const withoutFraming = (has: AnswerWanted['has']): AnswerWanted['has'] =>
  has === undefined
    ? undefined
    : Object.fromEntries(
        Object.entries(has).filter(([name]) => !['connection', 'keep-alive', 'transfer-encoding'].includes(name.toLowerCase())),
      );

const viaHttp2 = (value: FieldWanted): FieldWanted => {
  if (value instanceof RegExp) return new RegExp(value.source.replace('1\\.1', '2\\.0'));
  return typeof value === 'string' ? value.replace('1.1 banyan', '2.0 banyan') : value.map((one) => viaHttp2(one) as string | RegExp);
};

const answerOver = ({ line: _line, framing: _framing, order, has, ...rest }: AnswerWanted): AnswerWanted => ({
  ...rest,
  ...(has === undefined ? {} : { has: withoutFraming(has)! }),
  ...(order === undefined ? {} : { order: order.map((name) => name.toLowerCase()) }),
});

const requestOver = ({ order, has, ...rest }: RequestWanted): RequestWanted => ({
  ...rest,
  ...(has === undefined
    ? {}
    : { has: Object.fromEntries(Object.entries(has).map(([name, value]) => [name, name === 'via' ? viaHttp2(value) : value])) }),
  ...(order === undefined ? {} : { order: order.map((name) => name.toLowerCase()) }),
});

const wantedOver = (wanted: Wanted): Wanted => ({
  ...wanted,
  ...(wanted.answers === undefined ? {} : { answers: wanted.answers.map((one) => (one === 'gone' ? one : answerOver(one))) }),
  ...(wanted.seen === undefined || wanted.seen === 'any' ? {} : { seen: wanted.seen.map(requestOver) }),
});

/**
 * The same case for a client of HTTP/2: names are in lower case there (RFC 9113 8.2.1), reason phrases (8.3.2) and the fields of a connection
 * (8.2.2) do not exist, and Via says how the request came. A refusal may be a reset of the stream (8.1.1).
 */
export const overHttp2 = (one: Case): Case => {
  const { or: _or, want, ...rest } = one;
  if (want === undefined) return rest;
  const refused = want.orUnseen === true || (Array.isArray(want.seen) && want.seen.length === 0);
  return { ...rest, want: wantedOver(want), ...(refused ? { or: [{ ...want, answers: ['gone'] }] } : {}) };
};
