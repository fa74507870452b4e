import { METHODS } from 'node:http';
import {
  type Content,
  type Doubt,
  type Fault,
  type Field,
  framingOf,
  listOf,
  readChunked,
  readFields,
  readLine,
  TOKEN,
  valuesOf,
} from './strict-message.ts';

/** A request as the one reading has it that every strict reader shares. */
export type StrictRequest = Content & {
  readonly method: string;
  /** As sent. */
  readonly target: string;
  /** Origin-form or `*`: what goes to the origin (RFC 9112 3.2). */
  readonly path: string;
  /** Of the target if it names one, else of Host. */
  readonly host: string;
  readonly minor: number;
  readonly fields: readonly Field[];
  readonly framing: 'none' | 'length' | 'chunked';
  /** Nothing behind it is a request (RFC 9112 9.6). */
  readonly closes: boolean;
  /** It asks for another protocol, so that what is behind it may not be HTTP. */
  readonly upgrades: boolean;
  readonly expects: boolean;
};

export type RequestReading =
  | { readonly kind: 'request'; readonly request: StrictRequest; readonly next: number }
  /** Ends in the middle; `head` when that is whole, with as much of the body as came. */
  | { readonly kind: 'more'; readonly head: StrictRequest | null }
  | { readonly kind: 'invalid'; readonly why: Fault; readonly head: StrictRequest | null };

const REQUEST_LINE = new RegExp(`^(${TOKEN}) +([\\x21-\\x7e\\x80-\\xff]+) +HTTP/(\\d)\\.(\\d)$`);
const KNOWN: ReadonlySet<string> = new Set(METHODS);
/** RFC 3986 3.2.2 and 3.2.3 without userinfo; empty is legal in a Host field. */
const HOST = /^(?:\[[0-9A-Fa-f:.]+\]|(?:[A-Za-z0-9\-._~!$&'()*+,;=]|%[0-9A-Fa-f]{2})*)(?::\d*)?$/;
const PLAIN_HOST = /^(?:\[[0-9A-Fa-f:.]+\]|[A-Za-z0-9\-._~]*)(?::\d{0,5})?$/;
const ABSOLUTE = /^https?:\/\/([^/?#]*)(.*)$/i;
/** Legal white space that llhttp does not know to be white. */
const TAB_BEHIND_CODING = /\ntransfer-encoding:[^\r\n]*\t *\r\n/i;
const MAX_HEAD_BYTES = 60 * 1024;

type Target = { readonly path: string; readonly authority: string | null } | { readonly why: Fault };

const readTarget = (method: string, target: string): Target => {
  if (method === 'CONNECT') return { why: 'connect' };
  if (target.includes('#')) return { why: 'fragment' };
  if (target === '*') return method === 'OPTIONS' ? { path: target, authority: null } : { why: 'target' };
  if (target.startsWith('/')) return { path: target, authority: null };
  const absolute = ABSOLUTE.exec(target);
  if (absolute === null) return { why: 'target' };
  const [, authority = '', rest = ''] = absolute;
  if (authority === '' || authority.startsWith(':') || !HOST.test(authority)) return { why: 'target' };
  if (rest === '' && method === 'OPTIONS') return { path: '*', authority };
  return { path: rest.startsWith('/') ? rest : `/${rest}`, authority };
};

/** Reads one request from `at` on. Never throws. */
export const readRequest = (text: string, at = 0): RequestReading => {
  const refuse = (why: Fault): RequestReading => ({ kind: 'invalid', why, head: null });
  const doubts: Doubt[] = [];
  const start = at;
  while (text[at] === '\r' || text[at] === '\n') at++;
  // RFC 9112 2.2: at least one empty line is ignored
  if (at > start && text.slice(start, at) !== '\r\n') doubts.push('blank-lines');
  const first = readLine(text, at);
  if (first.kind === 'more') return { kind: 'more', head: null };
  if (first.kind === 'invalid') return refuse(first.why);
  const line = REQUEST_LINE.exec(first.text);
  if (line === null) return refuse('start-line');
  const [, method = '', target = '', major, minorDigit] = line;
  const minor = Number(minorDigit);
  if (major !== '1') return refuse('version');
  // RFC 9112 3 lets a reader take more than one space for one
  if (first.text.includes('  ')) doubts.push('line-spaces');
  if (minor > 1) doubts.push('version-minor');
  if (/[\x80-\xff]/.test(target)) doubts.push('target-high-bytes');
  const where = readTarget(method, target);
  if ('why' in where) return refuse(where.why);

  const fields: Field[] = [];
  const head = readFields(text, first.next, fields);
  if (head.kind === 'more') return { kind: 'more', head: null };
  if (head.kind === 'invalid') return refuse(head.why);
  if (head.next - at > MAX_HEAD_BYTES) doubts.push('head-size');
  if (TAB_BEHIND_CODING.test(text.slice(at, head.next))) doubts.push('coding-tab');
  const hosts = valuesOf(fields, 'host');
  if (hosts.length > 1) return refuse('host-repeated');
  if (hosts.length === 0 && minor > 0) return refuse('host-missing');
  if (hosts[0] !== undefined && !HOST.test(hosts[0])) return refuse('host-malformed');
  const host = where.authority ?? hosts[0] ?? '';
  if (!PLAIN_HOST.test(host) || !PLAIN_HOST.test(hosts[0] ?? '')) doubts.push('host-odd');
  const framing = framingOf(fields, minor);
  if ('kind' in framing) return refuse(framing.why);
  if (!KNOWN.has(method)) doubts.push('method-unknown');
  const expectations = valuesOf(fields, 'expect');
  if (expectations.some((value) => value.toLowerCase() !== '100-continue')) doubts.push('expectation');
  if ((method === 'OPTIONS' || method === 'TRACE') && valuesOf(fields, 'max-forwards').includes('0')) doubts.push('max-forwards');
  const connection = listOf(fields, 'connection');
  const request: StrictRequest = {
    method,
    target,
    path: where.path,
    host,
    minor,
    fields,
    framing: framing.framing,
    body: '',
    trailers: [],
    doubts,
    closes: connection.includes('close') || (minor === 0 && !connection.includes('keep-alive')),
    upgrades: connection.includes('upgrade') && valuesOf(fields, 'upgrade').length > 0,
    expects: expectations.length > 0,
  };
  if (framing.framing === 'chunked') {
    const body = readChunked(text, head.next, request, false);
    if (body.kind === 'more') return { kind: 'more', head: request };
    if (body.kind === 'invalid') return { kind: 'invalid', why: body.why, head: request };
    // no sender may put it there (RFC 9110 6.5.1), and who does gets what it asks for
    const closes = request.closes || listOf(request.trailers, 'connection').includes('close');
    return { kind: 'request', request: { ...request, closes }, next: body.next };
  }
  request.body = text.slice(head.next, head.next + framing.length);
  if (request.body.length < framing.length) return { kind: 'more', head: request };
  return { kind: 'request', request, next: head.next + framing.length };
};

/** A whole connection as a strict reader has it. */
export type Verdict = {
  readonly requests: readonly StrictRequest[];
  /** `closed`: the last request ends the connection, whatever stands behind it. */
  readonly end: 'clean' | 'closed' | 'incomplete' | Fault;
  /** The request that is not whole or broke off in its body, if its head is whole. */
  readonly tail: StrictRequest | null;
};

export const readConnection = (text: string): Verdict => {
  const requests: StrictRequest[] = [];
  let at = 0;
  for (;;) {
    if (/^[\r\n]*$/.test(text.slice(at))) return { requests, end: 'clean', tail: null };
    const reading = readRequest(text, at);
    if (reading.kind === 'more') return { requests, end: 'incomplete', tail: reading.head };
    if (reading.kind === 'invalid') return { requests, end: reading.why, tail: reading.head };
    requests.push(reading.request);
    if (reading.request.closes) return { requests, end: 'closed', tail: null };
    at = reading.next;
  }
};
