import { createHmac } from 'node:crypto';
import { JsonObject, type JsonValue, parseJson, printable } from '../core/parity/json.ts';
import { classOf, decodeText, mediaTypeOf } from '../core/parity/media.ts';
import type { Difference, Observation } from '../core/parity/observation.ts';
import { type Cursor, cursorAt, descend, parsePattern } from '../core/parity/path.ts';

/** One side of a stored pair: body as text (JSON reprinted), or null with its size when it is binary, absent or unfit to be searched for secrets. */
export type StoredAnswer = {
  readonly status: number;
  readonly headers: readonly (readonly [string, string])[];
  readonly body: string | null;
  readonly bytes: number | null;
  readonly complete: boolean;
  readonly truncated: boolean;
};

export type Redactor = {
  /** Path and query with the values of named query parameters replaced. */
  readonly target: (target: string) => string;
  readonly headers: (headers: readonly (readonly [string, string])[]) => (readonly [string, string])[];
  readonly answer: (observation: Observation, maxBytes: number) => StoredAnswer;
  /** Differences with values at, or holding, named places replaced. */
  readonly differences: <D extends Difference>(differences: readonly D[]) => D[];
};

/** JSON Web Tokens are replaced wherever they stand: they carry sessions in URLs and pages that no list names. */
const JWT = /eyJ[A-Za-z0-9_-]{5,}\.[A-Za-z0-9_-]{5,}\.[A-Za-z0-9_-]*/g;
/** Secrets shorter than this would replace innocent text all over a page. */
const MIN_ECHO = 8;

/**
 * Replaces what `list` names (`header:NAME`, `query:NAME`, `cookie:NAME`, JSONPath) with `[redacted:HMAC]`: equal secrets stay equal, different
 * ones different, and nobody learns them. A value seen once is also replaced where it is echoed in text. One redactor serves one pair.
 * @param key for the HMAC; 32 random bytes, kept out of the store
 */
export const createRedactor = (list: readonly string[], key: Uint8Array): Redactor => {
  const named = (prefix: string): Set<string> =>
    new Set(list.filter((item) => item.startsWith(prefix)).map((item) => item.slice(prefix.length).toLowerCase()));
  const [headerNames, queryNames, cookieNames] = [named('header:'), named('query:'), named('cookie:')];
  const start: Cursor<true> = cursorAt(
    list.flatMap((item) => {
      const parsed = item.startsWith('$') ? parsePattern(item) : undefined;
      return parsed?.ok ? [{ segments: parsed.segments, rule: true as const }] : [];
    }),
  );
  const secrets = new Set<string>();

  const mark = (secret: string): string => {
    if (secret.length >= MIN_ECHO) secrets.add(secret);
    return `[redacted:${createHmac('sha256', key).update(secret).digest('hex').slice(0, 16)}]`;
  };
  const scrub = (text: string): string => {
    let out = text.replace(JWT, mark);
    for (const secret of secrets) out = out.replaceAll(secret, () => mark(secret));
    return out;
  };

  const cookieHeader = (value: string): string =>
    value
      .split(';')
      .map((pair) => {
        const [name = '', ...rest] = pair.split('=');
        return cookieNames.has(name.trim().toLowerCase()) ? `${name}=${mark(rest.join('=').trim())}` : pair;
      })
      .join(';');

  const headerValue = (name: string, value: string): string => {
    const whole = headerNames.has(name);
    if (name === 'set-cookie') {
      const [pair = '', ...attributes] = value.split(';');
      const at = pair.indexOf('=');
      const cookie = pair.slice(0, at).trim();
      // Name and attributes are what a reader needs; they are no secret.
      return whole || cookieNames.has(cookie.toLowerCase())
        ? [`${cookie}=${mark(pair.slice(at + 1).trim())}`, ...attributes].join(';')
        : value;
    }
    if (whole) {
      if (name === 'authorization') mark(value.replace(/^\S+\s+/, ''));
      if (name === 'cookie') for (const pair of value.split(';')) mark(pair.slice(pair.indexOf('=') + 1).trim());
      return mark(value);
    }
    return name === 'cookie' ? cookieHeader(value) : value;
  };

  const parameters = (query: string): string =>
    query
      .split('&')
      .map((pair) => {
        const at = pair.indexOf('=');
        let name = at < 0 ? pair : pair.slice(0, at);
        try {
          name = decodeURIComponent(name);
        } catch {
          // A broken escape: the name is compared as it was sent.
        }
        return at >= 0 && queryNames.has(name.toLowerCase()) ? `${pair.slice(0, at)}=${mark(pair.slice(at + 1))}` : pair;
      })
      .join('&');

  const target = (text: string): string => {
    const at = text.indexOf('?');
    return scrub(at < 0 ? text : `${text.slice(0, at)}?${parameters(text.slice(at + 1))}`);
  };

  const headers: Redactor['headers'] = (pairs) => {
    const marked = pairs.map(([name, value]) => [name, headerValue(name.toLowerCase(), value)] as const);
    return marked.map(
      ([name, value]) =>
        [
          name,
          /^(?:content-)?location$|^referer$|^link$/i.test(name) ? scrub(value.replace(/(?<=\?)[^\s>#"]*/g, parameters)) : scrub(value),
        ] as const,
    );
  };

  /** A document with named places replaced. */
  const redactJson = (value: JsonValue, cursor: Cursor<true>): JsonValue => {
    if (cursor.here.length > 0) return mark(typeof value === 'string' ? value : JSON.stringify(printable(value)));
    if (typeof value === 'string') return scrub(value);
    if (value instanceof JsonObject)
      return new JsonObject(
        value.keys,
        value.values.map((member, i) => redactJson(member, descend(cursor, value.keys[i]!))),
      );
    return Array.isArray(value) ? value.map((item, i) => redactJson(item, descend(cursor, i))) : value;
  };

  const answer: Redactor['answer'] = (observation, maxBytes) => {
    const { status, body, complete } = observation;
    // Headers first: a session that Set-Cookie names may be echoed in the body.
    const marked = headers(observation.headers);
    const kept = (text: string | null): StoredAnswer => {
      const cut = text !== null && text.length > maxBytes;
      return {
        status,
        headers: marked,
        body: cut ? text.slice(0, maxBytes) : text,
        bytes: body?.length ?? null,
        complete,
        truncated: cut,
      };
    };
    if (body === null || observation.encodingFault !== undefined) return kept(null);
    const media = mediaTypeOf(observation);
    const kind = classOf(media, body);
    if (kind === 'binary') return kept(null);
    const { text } = decodeText(body, media?.charset ?? null);
    if (media?.type === 'application/x-www-form-urlencoded') return kept(scrub(parameters(text)));
    const parsed = parseJson(text);
    if (parsed.ok) return kept(JSON.stringify(printable(redactJson(parsed.value, start))));
    // Named places cannot be found in broken JSON, so none of it is kept.
    return kept(kind === 'json' ? null : scrub(text));
  };

  /** A cursor for a difference's path, or `true` when the path itself is named or lies below a named place. */
  const cursorFor = (path: string): Cursor<true> | true => {
    const parsed = parsePattern(path);
    let cursor = start;
    for (const segment of parsed.ok ? parsed.segments : []) {
      if (cursor.here.length > 0) return true;
      if (segment.kind === 'key') cursor = descend(cursor, segment.key);
      else if (segment.kind === 'index') cursor = descend(cursor, segment.index);
    }
    return cursor.here.length > 0 ? true : cursor;
  };

  const redactValue = (difference: Difference, value: unknown): unknown => {
    const text = JSON.stringify(value);
    const header = /^header:(.*)$/.exec(difference.path)?.[1];
    if (header !== undefined) {
      // Set-Cookie differences carry no values.
      if (header !== 'set-cookie' && headerNames.has(header))
        return Array.isArray(value) ? value.map((item) => mark(String(item))) : mark(String(value));
      return Array.isArray(value)
        ? headers(value.map((item) => [header, String(item)])).map(([, item]) => item)
        : headers([[header, String(value)]])[0]![1];
    }
    const cursor = cursorFor(difference.path);
    if (cursor === true) return mark(typeof value === 'string' ? value : text);
    // Excerpts of broken JSON cannot be searched for named places.
    if (difference.kind === 'unparsable') return mark(text);
    const parsed = parseJson(text);
    return parsed.ok ? printable(redactJson(parsed.value, cursor)) : mark(text);
  };

  return {
    target,
    headers,
    answer,
    differences: (differences) =>
      differences.map((difference) => ({
        ...difference,
        ...('legacy' in difference ? { legacy: redactValue(difference, difference.legacy) } : {}),
        ...('extracted' in difference ? { extracted: redactValue(difference, difference.extracted) } : {}),
      })),
  };
};
