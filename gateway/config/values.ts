import {
  DURATION,
  type Parsed,
  parseAddress,
  parseDuration,
  parsePercent,
  parseShare,
  parseSize,
  SHARE,
  SIZE,
} from '@banyan/contracts/config-values.ts';
import { z } from 'zod';
import {
  COMPENSATE,
  parseCompensate,
  parseEventCondition,
  parsePathPattern,
  parseRulePath,
  parseSelector,
  type SelectorKind,
} from './syntax.ts';

/** Scalars of the configuration as zod schemas: the input is what one writes, the output a number, boolean or parsed value. */

const input = (expected: string) => z.union([z.string(), z.number()], { error: expected });

/** A scalar read by one of our parsers; a refusal says what was expected (zod's issue carries it in `params.expected`). */
const scalar = <T>(expected: string, parse: (raw: string | number) => Parsed<T>) =>
  input(expected).transform((raw, context): T => {
    const parsed = parse(raw);
    if (parsed.ok) return parsed.value;
    context.addIssue({ code: 'custom', message: 'does not fit', params: { expected: parsed.expected } });
    return z.NEVER;
  });

/** `5s` to milliseconds. */
export const duration = () => scalar(DURATION, parseDuration);
/** `1MiB` to bytes. */
export const size = () => scalar(SIZE, parseSize);
/** `12.5%` to basis points 0..10000. */
export const share = () => scalar(SHARE, parseShare);
/** `12.5` (percent) to basis points 0..10000. */
export const percent = () => scalar('a percentage from 0 to 100, such as 12.5', parsePercent);

/** A whole number in a range; also as text, because variables expand to text. */
export const whole = (min: number, max: number) => {
  const expected = `a whole number from ${min} to ${max}`;
  return scalar(expected, (raw) => {
    const value = typeof raw === 'number' ? raw : /^\s*-?\d{1,15}\s*$/.test(raw) ? Number(raw) : Number.NaN;
    return Number.isInteger(value) && value >= min && value <= max ? { ok: true, value } : { ok: false, expected };
  });
};

/** A finite number in a range; also as text. */
export const decimal = (min: number, max: number) => {
  const expected = `a number from ${min} to ${max}`;
  return scalar(expected, (raw) => {
    const value = typeof raw === 'number' ? raw : /^\s*-?\d{1,15}(\.\d{1,15})?\s*$/.test(raw) ? Number(raw) : Number.NaN;
    return Number.isFinite(value) && value >= min && value <= max ? { ok: true, value } : { ok: false, expected };
  });
};

/** true or false; also as text. */
export const yesNo = () =>
  z.union([z.boolean(), z.enum(['true', 'false'])], { error: 'true or false' }).transform((raw): boolean => raw === true || raw === 'true');

/** Text that is not empty. */
export const text = (max = 4_096) =>
  z
    .string({ error: 'text' })
    .min(1, { error: 'text that is not empty' })
    .max(max, { error: `text of at most ${max} characters` });

const textual = <T>(expected: string, parse: (raw: string) => Parsed<T>) =>
  z.string({ error: expected }).transform((raw, context): T => {
    const parsed = parse(raw);
    if (parsed.ok) return parsed.value;
    context.addIssue({ code: 'custom', message: 'does not fit', params: { expected: parsed.expected } });
    return z.NEVER;
  });

const urlOf =
  (protocols: readonly string[], bareOrigin: boolean, expected: string) =>
  (raw: string): Parsed<string> => {
    const value = raw.trim();
    if (!URL.canParse(value)) return { ok: false, expected };
    const url = new URL(value);
    if (!protocols.includes(url.protocol) || url.hostname === '') return { ok: false, expected };
    if (bareOrigin && (url.search !== '' || url.hash !== '')) return { ok: false, expected: `${expected}, without ? and #` };
    if (bareOrigin && url.pathname !== '/') return { ok: false, expected: `${expected}, without a path: paths are forwarded unchanged` };
    return { ok: true, value: bareOrigin ? url.href.replace(/\/$/, '') : value };
  };

/** An http(s) origin such as `http://127.0.0.1:3000`, given back without a trailing slash. */
export const origin = () => {
  const expected = 'an address such as http://127.0.0.1:3000';
  return textual(expected, urlOf(['http:', 'https:'], true, expected));
};

/** What an upstream's address looks like. */
export const UPSTREAM_URL = 'an address such as http://127.0.0.1:3000, https://shop.internal or unix:/run/shop.sock';

/** Longest path that fits into `sockaddr_un` on Linux, with its final NUL. */
const MAX_SOCKET_PATH_BYTES = 107;

/** `http://host:port`, `https://host:port` or `unix:/absolute/path.sock`, given back without a trailing slash. */
export const upstreamUrl = () => {
  const read = urlOf(['http:', 'https:'], true, UPSTREAM_URL);
  return textual(UPSTREAM_URL, (raw) => {
    const value = raw.trim();
    if (!value.startsWith('unix:')) return read(raw);
    const path = value.slice('unix:'.length);
    if (!/^\/[^\0]*[^/\0]$/.test(path)) return { ok: false, expected: 'unix: and an absolute path, such as unix:/run/shop.sock' };
    if (Buffer.byteLength(path) > MAX_SOCKET_PATH_BYTES)
      return { ok: false, expected: `a socket's path of at most ${MAX_SOCKET_PATH_BYTES} bytes` };
    return { ok: true, value: `unix:${path}` };
  });
};

/** `200-399`, or one status, to its two ends. */
export const statusRange = () => {
  const expected = 'a status or a range of them, such as 200-399';
  return scalar(expected, (raw) => {
    const found = /^([1-5]\d\d)(?:\s*-\s*([1-5]\d\d))?$/.exec(String(raw).trim());
    const from = Number(found?.[1]);
    const to = Number(found?.[2] ?? found?.[1]);
    return found !== null && from <= to ? { ok: true, value: { from, to } } : { ok: false, expected };
  });
};

/** A PostgreSQL URL; empty text (an unset variable with an empty default) means none and gives null. */
export const postgresUrl = () => {
  const expected = 'a database address such as postgres://user:password@127.0.0.1:5432/banyan';
  const read = urlOf(['postgres:', 'postgresql:'], false, expected);
  return textual<string | null>(expected, (raw) => (raw.trim() === '' ? { ok: true, value: null } : read(raw)));
};

/** An origin, or empty text for none. */
export const originOrNone = () => {
  const expected = 'an address such as http://127.0.0.1:4567';
  const read = urlOf(['http:', 'https:'], true, expected);
  return textual<string | null>(expected, (raw) => (raw.trim() === '' ? { ok: true, value: null } : read(raw)));
};

/** `HOST:PORT` to its two parts. */
export const address = () => textual('HOST:PORT such as 127.0.0.1:8080', parseAddress);

/** A path pattern: literal segments, `:name`, and `**` for zero or more segments. Given back as written. */
export const pathPattern = () => textual('a path pattern such as /api/orders/:id or /api/orders/**', parsePathPattern);

const choices = (kinds: readonly SelectorKind[]): string =>
  `one of ${kinds.map((kind) => (kind === 'json' ? 'a JSONPath such as $.items[0].id' : kind === 'status' ? 'status' : `${kind}:NAME`)).join(', ')}`;

/** Where a value stands: JSONPath, `header:NAME`, `query:NAME`, `cookie:NAME` or `status`. Given back as written (names in lower case for headers). */
export const selector = (kinds: readonly SelectorKind[]) => textual(choices(kinds), (raw) => parseSelector(raw, kinds));

/** The same with the narrower JSONPath of comparison and redaction rules. */
export const ruleSelector = (kinds: readonly SelectorKind[]) => textual(choices(kinds), (raw) => parseSelector(raw, kinds, parseRulePath));

/** `POST /api/orders 2xx`. */
export const eventCondition = () => textual('METHOD PATTERN STATUS such as POST /api/orders 2xx', parseEventCondition);

/** `POST /api/orders/{aggregate}/cancel`, or `adapter`. */
export const compensation = () => textual(COMPENSATE, parseCompensate);

export { textual };
