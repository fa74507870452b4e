import { randomUUID } from 'node:crypto';
import { AppError } from '@banyan/contracts/errors.ts';
import { HEADERS } from '@banyan/contracts/vocabulary.ts';
import type { ClientRequest, ClientResponse } from './client.ts';
import { isHopByHop, isIdentity, isInternal, isSpelling, namedByConnection, VIA, VIA_HTTP2, VIA_HTTP10, withHeaders } from './headers.ts';
import { normalisePath } from './path.ts';
import { clientAddressOf, type Peer, peerOf, type Trusted } from './peer.ts';

/** Told when the client goes before its answer is out. */
export type Leaver = { clientLeft(): void };

export type PrepareOptions = {
  readonly trusted: Trusted;
  /** A field in lower case that is nobody's to bring along: it says who is logged in. */
  readonly strip?: string | null;
  /** Default: a believed `X-Request-Id` of the client, else a random UUID. */
  readonly requestId?: () => string;
};

type CallFields = {
  readonly req: ClientRequest | null;
  readonly res: ClientResponse | null;
  readonly method: string;
  readonly target: string;
  readonly path: string | null;
  readonly query: string;
  readonly host: string;
  readonly headers: string[];
  readonly chunked: boolean;
  readonly contentLength: number | null;
  readonly expectContinue: boolean;
  readonly acceptsTrailers?: boolean;
  readonly clientAddress: string;
  readonly requestId: string;
  readonly asked?: AskedSide | null;
  readonly strip?: string | null;
};

/** What a client said in `banyan-override` and `banyan-override-token`; nothing is believed yet, and neither goes on. */
export type AskedSide = { readonly side: string; readonly token: string };

/** One request, ready to be sent on: what `forward` sends and what the rules look at. */
export class Call {
  /** Null on a copy, which belongs to no client. */
  readonly req: ClientRequest | null;
  readonly res: ClientResponse | null;
  readonly method: string;
  /** Origin-form or `*`, byte for byte, as a Latin-1 string; never decoded. */
  readonly target: string;
  /** Normalised for matching; null when it cannot be decoded (such a path belongs to legacy) or is `*`. */
  readonly path: string | null;
  /** After the first `?`, raw, without it. */
  readonly query: string;
  readonly host: string;
  /** Flat pairs, Host first; without framing, Expect and what belongs to the connection. Not to be changed in place. */
  readonly headers: readonly string[];
  /** The client framed the body by chunks. */
  readonly chunked: boolean;
  /** As the client said; null when it did not. */
  readonly contentLength: number | null;
  /** The client waits for `100 Continue` before it sends the body. */
  readonly expectContinue: boolean;
  /** The client said `TE: trailers`, which goes on only together with `Connection: TE` (RFC 9110 10.1.4) and so is not among `headers`. */
  readonly acceptsTrailers: boolean;
  readonly clientAddress: string;
  readonly requestId: string;
  readonly asked: AskedSide | null;
  /** A field that is nobody's to bring along, in a trailer neither. */
  readonly strip: string | null;
  #left = false;
  #leavers: Leaver[] | null = null;
  #abort: AbortController | null = null;

  constructor(fields: CallFields) {
    this.req = fields.req;
    this.res = fields.res;
    this.method = fields.method;
    this.target = fields.target;
    this.path = fields.path;
    this.query = fields.query;
    this.host = fields.host;
    this.headers = fields.headers;
    this.chunked = fields.chunked;
    this.contentLength = fields.contentLength;
    this.expectContinue = fields.expectContinue;
    this.acceptsTrailers = fields.acceptsTrailers ?? false;
    this.clientAddress = fields.clientAddress;
    this.requestId = fields.requestId;
    this.asked = fields.asked ?? null;
    this.strip = fields.strip ?? null;
  }

  get body(): 'none' | 'stream' {
    return this.req !== null && (this.chunked || (this.contentLength ?? 0) > 0) ? 'stream' : 'none';
  }

  /** The client went before its answer was out. */
  get left(): boolean {
    return this.#left;
  }

  /** Aborts when the client leaves. Made when first asked for: most requests need none. */
  get signal(): AbortSignal {
    if (this.#abort === null) {
      this.#abort = new AbortController();
      if (this.#left) this.#abort.abort();
    }
    return this.#abort.signal;
  }

  /** Calls `leaver.clientLeft()` once if the client goes, at once if it is gone. */
  onLeft(leaver: Leaver): void {
    if (this.#left) leaver.clientLeft();
    else if (this.#leavers === null) this.#leavers = [leaver];
    else this.#leavers.push(leaver);
  }

  leave(): void {
    if (this.#left) return;
    this.#left = true;
    this.#abort?.abort();
    const leavers = this.#leavers;
    this.#leavers = null;
    if (leavers !== null) for (const leaver of leavers) leaver.clientLeft();
  }

  /**
   * Relays an interim answer (1xx) to the client: not to one that speaks HTTP/1.0, and only while its answer has not begun. Written raw
   * on HTTP/1.1, because Node's own writers fold and re-encode fields.
   */
  inform(status: number, reason: string, rawHeaders: readonly string[]): void {
    const res = this.res;
    if (res === null || res.headersSent) return;
    const { stream } = res;
    if (stream === undefined && (res.socket === null || res.req.httpVersionMinor < 1)) return;
    if (status === 100) {
      if (!this.expectContinue || this.#continued) return;
      this.#continued = true;
      res.writeContinue();
      return;
    }
    if (stream !== undefined) {
      stream.inform(status, rawHeaders);
      return;
    }
    let head = `HTTP/1.1 ${status} ${reason}\r\n`;
    for (let i = 0; i + 1 < rawHeaders.length; i += 2) head += `${rawHeaders[i]}: ${rawHeaders[i + 1]}\r\n`;
    res.socket?.write(`${head}\r\n`, 'latin1');
  }
  #continued = false;
}

/** On the response itself: a WeakMap with an entry for every request makes each collection walk it. */
const CALL = Symbol('call');
type Prepared = ClientResponse & { [CALL]?: Call };

/** The call that this response belongs to, if it was prepared. */
export const callOf = (res: ClientResponse): Call | undefined => (res as Prepared)[CALL];

/** Shared by all responses: a closure per request costs more than the look-up. */
function onResponseClosed(this: ClientResponse): void {
  if (!this.writableFinished) callOf(this)?.leave();
}

const refuse = (why: string): never => {
  throw new AppError('bad-request', why);
};

/** RFC 3986 host and port as a Host field may carry it; empty is legal (RFC 9110 7.2). */
const HOST = /^(?:\[[0-9A-Fa-f:.]+\]|(?:[A-Za-z0-9\-._~!$&'()*+;=]|%[0-9A-Fa-f]{2})*)(?::\d{0,5})?$/;
const ABSOLUTE = /^https?:\/\/([^/?#]*)(.*)$/i;
const REQUEST_ID = /^[A-Za-z0-9._:@/+=-]{1,128}$/;

/**
 * Reads a request once and builds what goes upstream. Clients' X-Forwarded-*, Forwarded and `banyan-*` are dropped (believed and appended to
 * when the peer is trusted), Via and X-Request-Id added, an absolute-form target's authority replaces Host (RFC 9112 3.2.2).
 * `res` is null for an upgrade, which has none.
 * @throws AppError `bad-request` for a Host that is missing, repeated or malformed, or framing that two readers could read differently;
 * `expectation-failed` for an Expect other than 100-continue.
 */
export const prepare = (req: ClientRequest, res: ClientResponse | null, options: PrepareOptions): Call => {
  const peer = peerOf(req, options.trusted);
  const raw = req.rawHeaders;
  const headers: string[] = ['Host', ''];
  let host: string | undefined;
  let hosts = 0;
  let length: number | null = null;
  let transferEncoding: string | undefined;
  let expect = false;
  let unmet = false;
  let acceptsTrailers = false;
  let named: Set<string> | null = null;
  let requestId: string | undefined;
  let requestIds = 0;
  let identity: string[] | null = null;
  let side: string | undefined;
  let sideToken: string | undefined;
  const strip = options.strip ?? null;
  for (let i = 0; i < raw.length; i += 2) {
    const name = raw[i]!;
    const value = raw[i + 1]!;
    const lower = name.toLowerCase();
    switch (lower) {
      case 'host':
        host = value;
        hosts++;
        continue;
      case 'connection': {
        const more = namedByConnection(value);
        if (more !== null) named = named === null ? more : new Set([...named, ...more]);
        continue;
      }
      case 'content-length':
        if (length !== null || !/^\d{1,15}$/.test(value)) refuse('Content-Length must be one number');
        length = Number(value);
        continue;
      case 'transfer-encoding':
        transferEncoding = transferEncoding === undefined ? value : `${transferEncoding}, ${value}`;
        continue;
      case 'expect':
        if (value.toLowerCase() === '100-continue') expect = true;
        else unmet = true;
        continue;
      case 'te':
        acceptsTrailers ||= /(?:^|,)\s*trailers\s*(?:$|,|;)/i.test(value);
        continue;
      case 'max-forwards':
        headers.push(name, forwardsLeft(req.method, value));
        continue;
      case 'x-request-id':
        requestIds++;
        if (REQUEST_ID.test(value)) requestId ??= value;
        break;
    }
    const initial = lower.charCodeAt(0);
    if (isHopByHop(lower)) continue;
    if (initial === 98 && isInternal(lower)) {
      if (lower === HEADERS.override) side ??= value;
      else if (lower === HEADERS.overrideToken) sideToken ??= value;
      continue;
    }
    if (strip !== null && isSpelling(lower, strip)) continue;
    if ((initial === 120 || initial === 102) && isIdentity(lower)) {
      if (peer.trusted && !lower.includes('_')) {
        identity ??= [];
        identity.push(lower, value);
      }
      continue;
    }
    headers.push(name, value);
  }
  if (hosts > 1) refuse('Host must be given once');
  if (host !== undefined && !HOST.test(host)) refuse('Host is malformed');
  const http2 = req.viaHttp2 === true;
  const http10 = !http2 && req.httpVersionMinor === 0;
  if (host === undefined && !http10) refuse('Host is missing');
  // A request line may say HTTP/2.0 too, on a connection of HTTP/1.1.
  if (req.httpVersionMajor !== (http2 ? 2 : 1)) refuse('Only HTTP/1.0 and HTTP/1.1 are spoken here');
  if (transferEncoding !== undefined) {
    if (http10) refuse('Transfer-Encoding is not part of HTTP/1.0');
    if (transferEncoding.toLowerCase() !== 'chunked') refuse('The only Transfer-Encoding accepted is chunked');
    if (length !== null) refuse('Content-Length and Transfer-Encoding exclude each other');
  }

  let target = req.url ?? '/';
  if (target.charCodeAt(0) !== 47 && target !== '*') {
    const absolute = ABSOLUTE.exec(target) ?? refuse('The request target must be a path, an absolute http URL, or *');
    host = absolute[1]!;
    if (host === '' || host.startsWith(':') || !HOST.test(host)) refuse('The request target has no sound host');
    const rest = absolute[2]!;
    // RFC 9112 3.2.4: the last proxy makes `*` of it
    if (rest === '' && req.method === 'OPTIONS') target = '*';
    else target = rest.startsWith('/') ? rest : `/${rest}`;
  }
  if (target.includes('#')) refuse('The request target has a fragment');
  if (target === '*' && req.method !== 'OPTIONS') refuse('Only OPTIONS may have the target *');
  host ??= '';
  // Only now: this answer leaves the connection open, and the request may not be one.
  if (unmet) throw new AppError('expectation-failed', 'The only expectation met here is 100-continue');
  headers[1] = host;
  if (named !== null) dropNamed(headers, named);

  requestId ??= options.requestId?.() ?? randomUUID();
  const forwardedFor = addIdentity(headers, identity, peer, host);
  headers.push('Via', http2 ? VIA_HTTP2 : http10 ? VIA_HTTP10 : VIA);
  if (requestIds === 0) headers.push('X-Request-Id', requestId);
  else if (requestIds > 1 || named !== null || req.headers['x-request-id'] !== requestId) setRequestId(headers, requestId);

  const question = target.indexOf('?');
  const call = new Call({
    req,
    res,
    method: req.method ?? 'GET',
    target,
    path: target === '*' ? null : normalisePath(question === -1 ? target : target.slice(0, question)),
    query: question === -1 ? '' : target.slice(question + 1),
    host,
    headers,
    chunked: transferEncoding !== undefined,
    contentLength: length,
    expectContinue: expect && !http10,
    acceptsTrailers,
    clientAddress: clientAddressOf(peer, forwardedFor, options.trusted),
    requestId,
    strip,
    asked: side !== undefined && sideToken !== undefined ? { side, token: sideToken } : null,
  });
  if (res !== null) {
    (res as Prepared)[CALL] = call;
    res.on('close', onResponseClosed);
    if (res.destroyed) call.leave();
  }
  return call;
};

/** RFC 9110 7.6.2: each proxy on the way takes one off, for the two methods it is defined for. */
const forwardsLeft = (method: string | undefined, value: string): string =>
  (method === 'OPTIONS' || method === 'TRACE') && /^[1-9]\d{0,8}$/.test(value) ? String(Number(value) - 1) : value;

const dropNamed = (headers: string[], named: ReadonlySet<string>): void => {
  let kept = 2;
  for (let i = 2; i < headers.length; i += 2) {
    if (named.has(headers[i]!.toLowerCase())) continue;
    headers[kept++] = headers[i]!;
    headers[kept++] = headers[i + 1]!;
  }
  headers.length = kept;
};

const setRequestId = (headers: string[], requestId: string): void => {
  dropNamed(headers, new Set(['x-request-id']));
  headers.push('X-Request-Id', requestId);
};

const portOf = (host: string, scheme: Peer['scheme']): string => {
  const colon = host.lastIndexOf(':');
  if (colon > host.lastIndexOf(']') && colon < host.length - 1) return host.slice(colon + 1);
  return scheme === 'https' ? '443' : '80';
};

/** Appends X-Forwarded-* and Forwarded (RFC 7239); `believed` is what a trusted peer sent. Returns the believed X-Forwarded-For. */
const addIdentity = (headers: string[], believed: string[] | null, peer: Peer, host: string): string | undefined => {
  let forwardedFor: string | undefined;
  let forwarded: string | undefined;
  let proto: string | undefined;
  let forwardedHost: string | undefined;
  let port: string | undefined;
  if (believed !== null) {
    for (let i = 0; i < believed.length; i += 2) {
      const value = believed[i + 1]!;
      switch (believed[i]) {
        case 'x-forwarded-for':
          forwardedFor = forwardedFor === undefined ? value : `${forwardedFor}, ${value}`;
          break;
        case 'forwarded':
          forwarded = forwarded === undefined ? value : `${forwarded}, ${value}`;
          break;
        case 'x-forwarded-proto':
          proto ??= value;
          break;
        case 'x-forwarded-host':
          forwardedHost ??= value;
          break;
        case 'x-forwarded-port':
          port ??= value;
          break;
        default:
          headers.push(believed[i]!, value);
      }
    }
  }
  const element = `for=${peer.forwardedFor};host="${host}";proto=${peer.scheme}`;
  headers.push(
    'X-Forwarded-For',
    forwardedFor === undefined ? peer.address : `${forwardedFor}, ${peer.address}`,
    'X-Forwarded-Proto',
    proto ?? peer.scheme,
    'X-Forwarded-Host',
    forwardedHost ?? host,
    'X-Forwarded-Port',
    port ?? portOf(host, peer.scheme),
    'Forwarded',
    forwarded === undefined ? element : `${forwarded}, ${element}`,
  );
  return forwardedFor;
};

/** The same request without its client: for shadow and probe copies. It has no body of its own; `forward` takes one. */
export const copyOf = (call: Call): Call =>
  new Call({
    req: null,
    res: null,
    method: call.method,
    target: call.target,
    path: call.path,
    query: call.query,
    host: call.host,
    headers: [...call.headers],
    chunked: false,
    contentLength: null,
    expectContinue: false,
    clientAddress: call.clientAddress,
    requestId: call.requestId,
  });

/** The same call of the same client with `changes` applied to its fields, as `withHeaders` does. */
export const callWith = (call: Call, changes: readonly string[]): Call =>
  new Call({
    req: call.req,
    res: call.res,
    method: call.method,
    target: call.target,
    path: call.path,
    query: call.query,
    host: call.host,
    headers: withHeaders(call.headers, changes),
    chunked: call.chunked,
    contentLength: call.contentLength,
    expectContinue: call.expectContinue,
    acceptsTrailers: call.acceptsTrailers,
    strip: call.strip,
    clientAddress: call.clientAddress,
    requestId: call.requestId,
  });
