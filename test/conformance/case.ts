/** Bytes are Latin-1 strings throughout: one character is one byte. */
export type Bytes = string | { readonly fill: string; readonly times: number };

/** One thing a scripted client does, in order. */
export type ClientStep =
  | Bytes
  /** Reads interim answers, each noted, up to and with the final one; `head` = the answer to a HEAD. */
  | { readonly answer: 'final' | 'interim'; readonly head?: boolean }
  /** Only the head of the next answer; its body stays unread. */
  | { readonly answer: 'head' }
  /** Reads up to and with these bytes: a tunnel, or the first part of a stream. */
  | { readonly until: string }
  | { readonly await: string }
  | { readonly signal: string }
  /** A new connection; the old one stays open. */
  | 'reconnect'
  /** FIN. */
  | 'end'
  /** RST. */
  | 'reset'
  /** Waits until the proxy has closed the connection. */
  | 'closed';

/**
 * What the scripted upstream does with one request, once its head is there. `body` reads the request's body; what is left unread is read at
 * the end. `gone` waits until the proxy gives the connection up. Signals `head`, `message` and `gone` are given as these things happen.
 */
export type UpstreamStep =
  | Bytes
  | 'body'
  | 'gone'
  | 'end'
  | 'reset'
  | { readonly until: string }
  | { readonly await: string }
  | { readonly signal: string };

/** A string = exactly one such field with this value; a list = these values in this order; a pattern = one field that matches. */
export type FieldWanted = string | RegExp | readonly (string | RegExp)[];

export type MessageWanted = {
  readonly has?: Readonly<Record<string, FieldWanted>>;
  readonly lacks?: readonly string[];
  /** These names, in this case and order, others between them or not. */
  readonly order?: readonly string[];
  readonly body?: string | RegExp;
  readonly bytes?: number;
  readonly framing?: 'length' | 'chunked' | 'none' | 'close';
  readonly trailers?: readonly (readonly [string, string])[];
  /** Ended by its own framing. Default true; null = either. */
  readonly complete?: boolean | null;
};

export type AnswerWanted = MessageWanted & {
  readonly status: number | readonly number[];
  readonly line?: string | RegExp;
};

export type RequestWanted = MessageWanted & { readonly line?: string | RegExp };

export type Wanted = {
  /** Every answer the client read, interim ones too. `gone` = the connection ended instead. Default: one 200 with body `ok`. */
  readonly answers?: readonly (AnswerWanted | 'gone')[];
  /** Every request that an upstream was sent; `any` = not looked at. Default: one, whatever it looks like. */
  readonly seen?: readonly RequestWanted[] | 'any';
  /** Or nobody was sent anything, where that hangs on how the bytes arrive. */
  readonly orUnseen?: true;
};

/** `must` = a MUST of the cited text, or data loss; `should` = advice there; `own` = Banyan promises it, nobody else has to. */
export type Level = 'must' | 'should' | 'own';

export type Case = {
  readonly id: string;
  readonly level: Level;
  /** RFC section, CVE or issue. */
  readonly cite: string;
  /** What must hold, as a sentence about the proxy. */
  readonly it: string;
  /** Bytes of a single request whose final answer is read, … */
  readonly send?: Bytes;
  readonly head?: boolean;
  /** … or a whole script. */
  readonly client?: readonly ClientStep[];
  /** What the upstream does with the first, second, … request; the last one is repeated. Default: read it, answer `ok`. */
  readonly upstream?: readonly (readonly UpstreamStep[])[];
  readonly want?: Wanted;
  /** Other outcomes that the cited text allows too; held against foreign proxies only. */
  readonly or?: readonly Wanted[];
  /** A proxy that is set up otherwise: believes its peer's X-Forwarded-*, or has time-outs of half a second. Default `usual`. */
  readonly setup?: 'usual' | 'trusting' | 'impatient';
  /** Left out where another route's rules apply by design; says why. */
  readonly not?: { readonly mode: Mode; readonly because: string };
};

export type Mode = 'plain' | 'diverted' | 'shadowed';

export const HOST = 'Host: shop.test\r\n';
export const OK = 'HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok';

export const get = (target: string, fields = ''): string => `GET ${target} HTTP/1.1\r\n${HOST}${fields}\r\n`;
export const post = (fields: string, body: string): string => `POST /form HTTP/1.1\r\n${HOST}${fields}\r\n${body}`;
/** An answer with a length. */
export const answer = (body: string, fields = '', line = 'HTTP/1.1 200 OK'): string =>
  `${line}\r\n${fields}Content-Length: ${body.length}\r\n\r\n${body}`;

/** The upstream reads the request and sends this. */
export const replying = (bytes: string): readonly (readonly UpstreamStep[])[] => [['body', bytes]];

/** Refused, and nothing of it reached an upstream. */
export const refused = (...statuses: number[]): Wanted => ({
  answers: [{ status: statuses.length > 0 ? statuses : [400] }],
  seen: [],
});
/** Closed without a word, which is a refusal too. */
export const hungUp: Wanted = { answers: ['gone'], seen: [] };
/** Passed on like this. */
export const passed = (request: RequestWanted): Wanted => ({ seen: [request] });

/** A request that is not whole or not HTTP, then, pipelined, one that nobody may see. */
export const SMUGGLED = 'GET /smuggled HTTP/1.1\r\nHost: shop.test\r\n\r\n';
