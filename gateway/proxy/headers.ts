import { AppError } from '@banyan/contracts/errors.ts';

/** What we call ourselves in Via, Forwarded and Proxy-Status. */
export const PSEUDONYM = 'banyan';
/** RFC 9110 7.6.3: what the message came by; upstreams always answer by HTTP/1.1. */
export const VIA = `1.1 ${PSEUDONYM}`;
export const VIA_HTTP10 = `1.0 ${PSEUDONYM}`;
export const VIA_HTTP2 = `2.0 ${PSEUDONYM}`;
/** What Allow names where the gateway answers for itself; others may pass too. */
export const METHODS = 'GET, HEAD, POST, PUT, PATCH, DELETE, OPTIONS';

/** Fields of one connection (RFC 9110 7.6.1). `trailer` is not among them: trailers are forwarded. `te` is treated on its own. */
const HOP_BY_HOP: ReadonlySet<string> = new Set([
  'connection',
  'keep-alive',
  'proxy-connection',
  'transfer-encoding',
  'upgrade',
  'http2-settings',
]);

/** What Connection may not take away, because somebody behind us frames, routes or trusts by it. */
const NEVER_NAMED: ReadonlySet<string> = new Set(['host', 'content-length', 'via', 'forwarded', 'te', 'close', 'keep-alive']);

export const isHopByHop = (lowerName: string): boolean => HOP_BY_HOP.has(lowerName);

/** Names that a Connection value lists and that may be dropped for it; null when there are none, which is nearly always. */
export const namedByConnection = (value: string): Set<string> | null => {
  let named: Set<string> | null = null;
  for (const part of value.split(',')) {
    // not trim(), which takes 0xA0 for a space too
    const name = part.replace(/^[\t ]+|[\t ]+$/g, '').toLowerCase();
    if (name === '' || NEVER_NAMED.has(name) || isIdentity(name)) continue;
    named ??= new Set();
    named.add(name);
  }
  return named;
};

/**
 * Says who the client is or how it came, so that an upstream believes it: X-Forwarded-*, X-Real-IP, Forwarded, and their twins with
 * underscores, which CGI and WSGI servers cannot tell apart.
 */
export const isIdentity = (lowerName: string): boolean => {
  const c = lowerName.charCodeAt(0);
  if (c !== 120 && c !== 102) return false; // neither x nor f
  const name = lowerName.includes('_') ? lowerName.replaceAll('_', '-') : lowerName;
  return name === 'forwarded' || name === 'x-real-ip' || name.startsWith('x-forwarded-');
};

/** Banyan's own words between its processes; a client has no business sending them. */
export const isInternal = (lowerName: string): boolean => lowerName.startsWith('banyan-') || lowerName.startsWith('banyan_');

/** Is it this field, or its twin with underscores, which CGI and WSGI servers cannot tell apart? Both in lower case. */
export const isSpelling = (lowerName: string, field: string): boolean =>
  lowerName.length === field.length && (lowerName === field || lowerName.replaceAll('_', '-') === field.replaceAll('_', '-'));

/** Fields that frame, route or authenticate and so must not arrive late, in a trailer (RFC 9110 6.5.1). */
const NOT_IN_TRAILERS: ReadonlySet<string> = new Set([
  'authorization',
  'content-encoding',
  'content-length',
  'content-range',
  'content-type',
  'cookie',
  'expect',
  'host',
  'set-cookie',
  'te',
  'trailer',
  'www-authenticate',
]);

/** Trailers fit to be sent on: flat pairs in and out. @param strip a field in lower case that may not be among them */
export const filterTrailers = (raw: readonly string[], strip: string | null = null): string[] => {
  if (raw.length === 0) return [];
  const out: string[] = [];
  for (let i = 0; i + 1 < raw.length; i += 2) {
    const lower = raw[i]!.toLowerCase();
    if (NOT_IN_TRAILERS.has(lower) || HOP_BY_HOP.has(lower) || isIdentity(lower) || isInternal(lower)) continue;
    if (strip !== null && isSpelling(lower, strip)) continue;
    out.push(raw[i]!, raw[i + 1]!);
  }
  return out;
};

/** Flat pairs to the pairs that `addTrailers` takes; repeats stay repeats. */
export const pairsOf = (raw: readonly string[]): [string, string][] => {
  const pairs: [string, string][] = [];
  for (let i = 0; i + 1 < raw.length; i += 2) pairs.push([raw[i]!, raw[i + 1]!]);
  return pairs;
};

/** First value of a field in flat pairs, or undefined. `lowerName` is lower-case. */
export const headerOf = (raw: readonly string[], lowerName: string): string | undefined => {
  for (let i = 0; i + 1 < raw.length; i += 2) {
    const name = raw[i]!;
    if (name.length === lowerName.length && name.toLowerCase() === lowerName) return raw[i + 1];
  }
  return undefined;
};

/**
 * A copy of flat pairs with `changes` applied: each name in it replaces every field of that name, at the end; an empty
 * string removes it.
 */
export const withHeaders = (raw: readonly string[], changes: readonly string[]): string[] => {
  const names = new Set<string>();
  for (let i = 0; i < changes.length; i += 2) names.add(changes[i]!.toLowerCase());
  const out: string[] = [];
  for (let i = 0; i + 1 < raw.length; i += 2) {
    if (!names.has(raw[i]!.toLowerCase())) out.push(raw[i]!, raw[i + 1]!);
  }
  for (let i = 0; i + 1 < changes.length; i += 2) {
    if (changes[i + 1] !== '') out.push(changes[i]!, changes[i + 1]!);
  }
  return out;
};

/** Flat pairs without the fields of these names, which are in lower case. */
export const withoutNamed = (raw: readonly string[], named: ReadonlySet<string>): string[] => {
  const out: string[] = [];
  for (let i = 0; i + 1 < raw.length; i += 2) {
    if (!named.has(raw[i]!.toLowerCase())) out.push(raw[i]!, raw[i + 1]!);
  }
  return out;
};

/**
 * Fields of an upstream's answer as flat pairs: names, order and repeats as sent; what belongs to the connection removed. For what Node's client has read
 * (upgrades); the response parser does it on its way.
 * @throws AppError `upstream-protocol` when two Content-Length fields would let us and the client disagree about the end.
 */
export const responseHeaders = (raw: readonly string[]): string[] => {
  const out: string[] = [];
  const named = new Set<string>();
  let lengths = 0;
  for (let i = 0; i + 1 < raw.length; i += 2) {
    const lower = raw[i]!.toLowerCase();
    if (lower === 'connection') for (const name of namedByConnection(raw[i + 1]!) ?? []) named.add(name);
    if (lower === 'te' || isHopByHop(lower)) continue;
    if (lower === 'content-length') lengths++;
    out.push(raw[i]!, raw[i + 1]!);
  }
  if (lengths > 1) throw new AppError('upstream-protocol', 'The upstream sent more than one Content-Length', { sent: 'yes' });
  return named.size === 0 ? out : withoutNamed(out, named);
};

/** A reason phrase that Node will write: control characters become `?`. */
export const cleanReason = (reason: string): string => reason.replace(/[^\t\x20-\x7e\x80-\xff]/g, '?');
