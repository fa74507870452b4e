import { createHmac } from 'node:crypto';
import { JsonObject, type JsonValue, parseJson, printable, spelled } from '../core/parity/json.ts';
import { charsetOf, classOf, decodeText, type MediaType, mediaTypeOf, readMediaType } from '../core/parity/media.ts';
import { splitMultipart } from '../core/parity/multipart.ts';
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
/** An excerpt may end inside a secret, which nobody would recognise any more: what touches its edge goes. */
const withoutTornEnds = (text: string): string => {
  const from = text.startsWith('…') ? text.replace(/^…[^\s"'<>&;,]*/, '…') : text;
  return from.endsWith('…') && from.length > 1 ? from.replace(/[^\s"'<>&;,]*…$/, '…') : from;
};
/** Secrets shorter than this would replace innocent text all over a page. */
const MIN_ECHO = 8;

/** Member names, in lower case, that the JSONPaths of a `redact:` list end in. */
export const redactedMembers = (list: readonly string[]): Set<string> =>
  new Set(
    list.flatMap((item) => {
      const parsed = item.startsWith('$') ? parsePattern(item) : undefined;
      const last = parsed?.ok ? parsed.segments.at(-1) : undefined;
      return last?.kind === 'key' ? [last.key.toLowerCase()] : [];
    }),
  );

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
  /** Also the short ones: a value that is nothing but a secret is one wherever it stands. */
  const whole = new Set<string>();
  /** Member names that the list's JSONPaths end in: forms, parts and markup know no paths, their fields are named alike. */
  const members = redactedMembers(list);
  const fieldNames = new Set([...members, ...queryNames]);

  const mark = (secret: string): string => {
    if (secret.length >= MIN_ECHO) secrets.add(secret);
    if (secret !== '') whole.add(secret);
    return `[redacted:${createHmac('sha256', key).update(secret).digest('hex').slice(0, 16)}]`;
  };
  const scrub = (text: string): string => {
    if (whole.has(text)) return mark(text);
    let out = withoutTornEnds(text).replace(JWT, mark);
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

  const parameters = (query: string, names: ReadonlySet<string> = queryNames): string =>
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
        return at >= 0 && names.has(name.replaceAll('+', ' ').toLowerCase()) ? `${pair.slice(0, at)}=${mark(pair.slice(at + 1))}` : pair;
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
          /^(?:content-)?location$|^referer$|^link$/i.test(name)
            ? scrub(value.replace(/(?<=\?)[^\s>#"]*/g, (query) => parameters(query)))
            : scrub(value),
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

  /** One JSON text, or null: named places cannot be found in a broken one, so none of it is kept. */
  const jsonText = (text: string): string | null => {
    const parsed = parseJson(text);
    return parsed.ok ? spelled(redactJson(parsed.value, start)) : null;
  };

  /** Elements, attributes and form fields with a listed name: `<password>…</password>`, `password="…"`, `<input name="password" value="…">`. */
  const markup = (text: string): string => {
    if (members.size === 0) return scrub(text);
    const name = `(?:[\\w.-]+:)?(?:${[...members].map((member) => member.replace(/[^\w-]/g, '\\$&')).join('|')})`;
    const value = `"[^"]*"|'[^']*'|[^\\s>"']+`;
    const marked = (found: string): string => {
      const quote = /^["']/.test(found) ? found.charAt(0) : '';
      return `${quote}${mark(quote === '' ? found : found.slice(1, -1))}${quote}`;
    };
    return scrub(
      text
        .replace(new RegExp(`(<(${name})(?:\\s[^>]*)?>)([\\s\\S]*?)(?=</\\2\\s*>)`, 'gi'), (_, open: string, _name, inner: string) => {
          // Known by itself as well: a difference shows the text without its tags.
          for (const part of inner.replace(/<!\[CDATA\[|\]\]>/g, '\u0000').split(/<[^>]*>|\u0000/)) mark(part.trim());
          return `${open}${inner.trim() === '' ? inner : mark(inner)}`;
        })
        .replace(new RegExp(`([\\s<]${name}\\s*=\\s*)(${value})`, 'gi'), (_, head: string, found: string) => `${head}${marked(found)}`)
        .replace(/<input\s[^>]*>/gi, (tag) =>
          new RegExp(`\\s(?:name|id)\\s*=\\s*["']?${name}["'\\s/>]|\\stype\\s*=\\s*["']?password`, 'i').test(tag)
            ? tag.replace(new RegExp(`(\\svalue\\s*=\\s*)(${value})`, 'i'), (_, head: string, found: string) => `${head}${marked(found)}`)
            : tag,
        ),
    );
  };

  /** Parts one after the other, each with its headers; null when the body is no multipart. */
  const multipartText = (boundary: string, body: Uint8Array, depth: number): string | null => {
    const parts = splitMultipart(body, boundary);
    return (
      parts
        ?.map((part) => {
          const field = /;\s*name="?([^";]*)/i.exec(part.headers.find(([name]) => name === 'content-disposition')?.[1] ?? '')?.[1] ?? '';
          const media = readMediaType(part.headers.find(([name]) => name === 'content-type')?.[1] ?? 'text/plain');
          const secret = fieldNames.has(field.toLowerCase());
          const text = secret ? mark(decodeText(part.body, media?.charset ?? null).text) : bodyText(media, part.body, depth + 1);
          const head = headers(part.headers).map(([name, value]) => `${name}: ${value}`);
          return [...head, '', text ?? `(${part.body.length} bytes)`].join('\n');
        })
        .join('\n--\n') ?? null
    );
  };

  const bodyText = (media: MediaType | null, body: Uint8Array, depth: number): string | null => {
    const kind = classOf(media, body);
    if (kind === 'binary') return null;
    if (kind === 'multipart') return depth > 2 ? null : multipartText(media?.boundary ?? '', body, depth);
    const { text } = decodeText(body, charsetOf(media, kind, body));
    switch (kind) {
      case 'json':
        return jsonText(text);
      case 'ndjson': {
        const lines = text.split('\n').map((line) => (line.trim() === '' ? line : jsonText(line.replace(/^\u001e/, ''))));
        return lines.includes(null) ? null : lines.join('\n');
      }
      case 'form':
        return scrub(parameters(text, fieldNames));
      case 'html':
      case 'xml':
        return markup(text);
      case 'text':
        return jsonText(text) ?? scrub(text);
    }
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
    return kept(bodyText(mediaTypeOf(observation), body, 0));
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
