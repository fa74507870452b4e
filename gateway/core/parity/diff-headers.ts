import { type Difference, headerValues, type Observation } from './observation.ts';

/**
 * Headers that never count, because they describe the connection, the moment or the machine and not the answer:
 * - hop-by-hop and framing (RFC 9110, 7.6.1; RFC 9112): connection, keep-alive, proxy-connection, te, trailer, transfer-encoding, upgrade, content-length
 * - the content coding: bodies are compared decoded
 * - the moment: date, age
 * - the machine: server, via, x-powered-by, alt-svc, proxy-status
 * - this one request: request and trace ids, timings, rate limits left
 * - the gateway's own
 */
const NEVER = new Set(
  (
    'connection keep-alive proxy-connection te trailer transfer-encoding upgrade content-length content-encoding date age server via x-powered-by alt-svc ' +
    'proxy-status x-request-id request-id x-correlation-id correlation-id x-trace-id traceparent tracestate baggage x-amzn-trace-id x-amzn-requestid ' +
    'x-b3-traceid x-b3-spanid x-runtime x-response-time server-timing ratelimit ratelimit-remaining ratelimit-reset x-ratelimit-remaining x-ratelimit-reset banyan-route'
  ).split(' '),
);

/** Lists whose order means nothing. */
const LISTS = new Set(
  (
    'cache-control pragma vary allow link accept-ranges accept-patch accept-post accept-ch content-language access-control-allow-methods ' +
    'access-control-allow-headers access-control-expose-headers clear-site-data'
  ).split(' '),
);

/** Clock skew and rounding between two answers, in ms, when absolute times are compared relative to each answer's `Date`. */
const CLOCK_SLACK_MS = 2_000;

type Side = { readonly observation: Observation; readonly dateMs: number | null };

/** `dateMs` is looked up when something asks for it, which is rare. */
const sideOf = (observation: Observation): Side => ({
  observation,
  get dateMs() {
    const at = Date.parse(headerValues(observation, 'date')[0] ?? '');
    return Number.isNaN(at) ? null : at;
  },
});

/** Splits at commas outside quotes and angle brackets. */
const splitList = (value: string): string[] => {
  if (value === '') return [];
  const items: string[] = [];
  let [item, quotes, angle] = ['', false, false];
  for (let i = 0; i < value.length; i++) {
    const c = value.charAt(i);
    if (quotes && c === '\\') item += c + value.charAt(++i);
    else if (c === ',' && !quotes && !angle) {
      items.push(item);
      item = '';
    } else {
      if (c === '"') quotes = !quotes;
      else if (!quotes && (c === '<' || c === '>')) angle = c === '<';
      item += c;
    }
  }
  return [...items, item].map((part) => part.trim()).filter((part) => part !== '');
};

const listKey = (name: string, values: readonly string[]): string =>
  splitList(values.join(','))
    .map((item) => (name === 'link' ? item.replace(/\s*;\s*/g, ';') : item.toLowerCase().replace(/\s*([;=])\s*/g, '$1')))
    .sort()
    .join(',');

/** Seconds from an answer's `Date` to an absolute time; an unreadable time (`Expires: 0`) means already over. */
const untilExpiry = (value: string, { dateMs }: Side): number | null => {
  const at = Date.parse(value);
  if (Number.isNaN(at)) return Number.NEGATIVE_INFINITY;
  return dateMs === null ? null : at - dateMs;
};

const sameExpiry = (a: string, b: string, sides: readonly [Side, Side]): boolean => {
  const [left, right] = [untilExpiry(a, sides[0]), untilExpiry(b, sides[1])];
  if (left === null || right === null) return a === b || Math.abs(Date.parse(a) - Date.parse(b)) <= CLOCK_SLACK_MS;
  return (left <= 0 && right <= 0) || Math.abs(left - right) <= CLOCK_SLACK_MS;
};

/** Path, query and fragment, when the host is the application's own; the whole otherwise. */
const normalLocation = (value: string, { observation }: Side): string => {
  let url: URL;
  try {
    url = new URL(value, 'http://own.invalid/');
  } catch {
    return value;
  }
  const own = url.host === 'own.invalid' || observation.ownHosts === undefined || observation.ownHosts.includes(url.host);
  // A relative reference without a leading slash depends on the request's path, which both sides share: it is compared as it is.
  if (!/^(?:[a-z][a-z0-9+.-]*:|\/)/i.test(value)) return value;
  return own && /^https?:$/.test(url.protocol) ? `${url.pathname}${url.search}${url.hash}` : url.href;
};

const normalContentType = (value: string): string => {
  const [type = '', ...parameters] = value.split(';').map((part) => part.trim());
  const normal = parameters
    .filter((parameter) => parameter !== '')
    .map((parameter) => parameter.replace(/\s*=\s*/, '=').replaceAll('"', ''))
    .map((parameter) => (/^charset=/i.test(parameter) ? parameter.toLowerCase() : parameter))
    // Boundaries are made anew for each answer; JSON is UTF-8 whether it says so or not (RFC 8259, 8.1).
    .filter((parameter) => !/^boundary=/i.test(parameter) && !(parameter === 'charset=utf-8' && /json$/i.test(type)))
    .sort();
  return [type.toLowerCase(), ...normal].join(';');
};

type Cookie = { readonly name: string; readonly attributes: ReadonlyMap<string, string>; readonly deletes: boolean };

const cookieOf = (line: string, { dateMs }: Side): Cookie => {
  const [pair = '', ...rest] = line.split(';');
  const equals = pair.indexOf('=');
  const attributes = new Map(
    rest.map((part): [string, string] => {
      const at = part.indexOf('=');
      return at < 0 ? [part.trim().toLowerCase(), ''] : [part.slice(0, at).trim().toLowerCase(), part.slice(at + 1).trim()];
    }),
  );
  const expires = attributes.get('expires');
  const deletes = attributes.has('max-age')
    ? Number(attributes.get('max-age')) <= 0
    : expires !== undefined && Date.parse(expires) <= (dateMs ?? Date.parse('2000-01-01'));
  return { name: (equals < 0 ? pair : pair.slice(0, equals)).trim(), attributes, deletes };
};

const sameCookie = (a: Cookie, b: Cookie, sides: readonly [Side, Side]): boolean => {
  if (a.deletes || b.deletes) return a.deletes === b.deletes;
  const names = new Set([...a.attributes.keys(), ...b.attributes.keys()]);
  // Max-Age wins over Expires (RFC 6265, 5.3), so a side that sends both says nothing more with Expires.
  if (a.attributes.has('max-age') && b.attributes.has('max-age')) names.delete('expires');
  return [...names].every((name) => {
    const [left, right] = [a.attributes.get(name), b.attributes.get(name)];
    if (left === undefined || right === undefined) return false;
    if (name === 'expires') return sameExpiry(left, right, sides);
    return name === 'path' ? left === right : left.toLowerCase().replace(/^\./, '') === right.toLowerCase().replace(/^\./, '');
  });
};

/** A cookie without its value, which is a secret and each side's own. */
const shown = (cookie: Cookie): string =>
  [cookie.name, ...[...cookie.attributes].map(([name, value]) => (value === '' ? name : `${name}=${value}`))].join('; ');

/** Cookies meet by name; values are each side's own (sessions, tokens) and not compared, attributes and whether the cookie is deleted are. */
const diffCookies = (lines: readonly [readonly string[], readonly string[]], sides: readonly [Side, Side]): Difference[] => {
  const path = 'header:set-cookie';
  const [legacy, extracted] = [0, 1].map(
    (i) => new Map(lines[i]!.map((line) => cookieOf(line, sides[i]!)).map((cookie) => [cookie.name, cookie])),
  ) as [Map<string, Cookie>, Map<string, Cookie>];
  const out: Difference[] = [];
  for (const [name, ours] of legacy) {
    const theirs = extracted.get(name);
    if (!theirs) out.push({ path, kind: 'missing', legacy: shown(ours) });
    else if (!sameCookie(ours, theirs, sides)) out.push({ path, kind: 'header', legacy: shown(ours), extracted: shown(theirs) });
  }
  for (const [name, theirs] of extracted) if (!legacy.has(name)) out.push({ path, kind: 'extra', extracted: shown(theirs) });
  return out;
};

const weak = (tag: string): boolean => /^W\//.test(tag);

/**
 * ETags are opaque and each implementation makes its own. A weak one only saves bytes (it cannot guard a write: RFC 9110, 13.1.1),
 * so it never counts. A strong one does where it says something new: when it is gone, or when it differs although the bytes are equal,
 * for then `If-Match` fails on the other side. When the bodies differ the tag only repeats that.
 */
const etagCounts = (values: readonly [string | undefined, string | undefined], sameBytes: boolean): boolean => {
  const [a, b] = values;
  if ((a !== undefined && weak(a)) || (b !== undefined && weak(b))) return false;
  return a === undefined || b === undefined || sameBytes;
};

const same = (name: string, a: readonly string[], b: readonly string[], sides: readonly [Side, Side]): boolean => {
  if (a.length === b.length && a.every((value, i) => value === b[i])) return true;
  if (LISTS.has(name)) return listKey(name, a) === listKey(name, b);
  if (name === 'location' || name === 'content-location')
    return a.length === b.length && a.every((value, i) => normalLocation(value, sides[0]) === normalLocation(b[i]!, sides[1]));
  if (name === 'content-type') return a.map(normalContentType).join() === b.map(normalContentType).join();
  if (name === 'expires') return a.length === b.length && a.every((value, i) => sameExpiry(value, b[i]!, sides));
  if (name === 'last-modified') return Date.parse(a.join()) === Date.parse(b.join());
  return a.join(', ') === b.join(', ');
};

const show = (values: readonly string[]): string | readonly string[] => (values.length === 1 ? values[0]! : values);

/** A field name as somebody spells it: in lower case, and whether it ever counts. */
type Field = { readonly name: string; readonly never: boolean };

/** Told apart once: servers send the same dozen names all day. */
const fields = new Map<string, Field>();
const MAX_FIELDS = 1_000;

const fieldNamed = (spelled: string): Field => {
  const known = fields.get(spelled);
  if (known !== undefined) return known;
  const name = spelled.toLowerCase();
  const field = { name, never: NEVER.has(name) };
  if (fields.size < MAX_FIELDS && spelled.length <= 64) fields.set(spelled, field);
  return field;
};

/**
 * Do both answers have the same fields in the same order, with the same values wherever they count? Cookies are never plainly the same: their
 * Expires is seen from each answer's own Date.
 */
const plainlySame = (a: Observation['headers'], b: Observation['headers']): boolean => {
  if (a.length !== b.length) return false;
  for (let i = 0; i < a.length; i++) {
    const [ours, theirs] = [a[i]!, b[i]!];
    const field = fieldNamed(ours[0]);
    if (ours[0] !== theirs[0] && field.name !== fieldNamed(theirs[0]).name) return false;
    if (field.name === 'set-cookie' || (ours[1] !== theirs[1] && !field.never)) return false;
  }
  return true;
};

type Groups = Map<string, string[]>;

const grouped = (headers: Observation['headers']): Groups => {
  const groups: Groups = new Map();
  for (const pair of headers) {
    const field = fieldNamed(pair[0]);
    if (field.never && field.name !== 'connection') continue;
    const group = groups.get(field.name);
    if (group) group.push(pair[1]);
    else groups.set(field.name, [pair[1]]);
  }
  return groups;
};

/** Headers that an answer names in Connection belong to that hop alone. */
const namedForHop = (ours: Groups, theirs: Groups): ReadonlySet<string> | null => {
  const values = [...(ours.get('connection') ?? []), ...(theirs.get('connection') ?? [])];
  return values.length === 0 ? null : new Set(values.flatMap((value) => splitList(value.toLowerCase())));
};

/** Every header that differs in meaning. `sameBytes`: are the decoded bodies byte for byte equal? */
export const diffHeaders = (legacy: Observation, extracted: Observation, sameBytes: boolean): Difference[] => {
  if (plainlySame(legacy.headers, extracted.headers)) return [];
  const sides = [sideOf(legacy), sideOf(extracted)] as const;
  const [ours, theirs] = [grouped(legacy.headers), grouped(extracted.headers)];
  const hop = namedForHop(ours, theirs);
  const out: Difference[] = [];
  const compare = (name: string, a: string[] | undefined, b: string[] | undefined): void => {
    if (name === 'connection' || hop?.has(name)) return;
    if (name === 'set-cookie') out.push(...diffCookies([a ?? [], b ?? []], sides));
    else if (name === 'etag' && !etagCounts([a?.[0], b?.[0]], sameBytes)) return;
    else if (!b) out.push({ path: `header:${name}`, kind: 'missing', legacy: show(a!) });
    else if (!a) out.push({ path: `header:${name}`, kind: 'extra', extracted: show(b) });
    else if (!same(name, a, b, sides)) out.push({ path: `header:${name}`, kind: 'header', legacy: show(a), extracted: show(b) });
  };
  for (const [name, values] of ours) compare(name, values, theirs.get(name));
  for (const [name, values] of theirs) if (!ours.has(name)) compare(name, undefined, values);
  return out;
};
