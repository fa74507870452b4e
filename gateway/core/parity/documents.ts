import { parseForm } from './form.ts';
import { parseHtml } from './html.ts';
import { JsonObject, type JsonValue, type ParseResult, parseJson } from './json.ts';
import { charsetOf, classOf, decodeText, type MediaClass, type MediaType, readMediaType } from './media.ts';
import { splitMultipart } from './multipart.ts';
import { parseXml } from './xml.ts';

/** Classes whose bodies become a document of the JSON model. */
export type DocumentClass = Exclude<MediaClass, 'text' | 'binary' | 'multipart'>;

/** One JSON text per line; blank lines and the record separator of RFC 7464 mean nothing. */
const parseLines = (text: string): ParseResult => {
  const values: JsonValue[] = [];
  let at = 0;
  for (const line of text.split('\n')) {
    const json = line.replace(/^\u001e/, '');
    if (json.trim() !== '') {
      const parsed = parseJson(json);
      if (!parsed.ok) return { ok: false, at: at + parsed.at, why: `line ${values.length + 1}: ${parsed.why}` };
      values.push(parsed.value);
    }
    at += line.length + 1;
  }
  return { ok: true, value: values };
};

/** Reads a text as a document of its class. Never throws. */
export const parseDocument = (kind: DocumentClass, text: string): ParseResult => {
  switch (kind) {
    case 'json':
      return parseJson(text);
    case 'ndjson':
      return parseLines(text);
    case 'html':
      return parseHtml(text);
    case 'xml':
      return parseXml(text);
    case 'form':
      return { ok: true, value: parseForm(text) };
  }
};

const hex = (bytes: Uint8Array): string => {
  let text = '';
  for (const byte of bytes) text += byte.toString(16).padStart(2, '0');
  return text;
};

/** Multipart inside multipart is mail, not an API; deeper than this it stays bytes. */
const MAX_NESTING = 3;

/** Headers of a part that say nothing about what it holds. */
const PART_IGNORED = new Set(['content-length', 'content-transfer-encoding', 'date']);

const partValue = (headers: readonly (readonly [string, string])[], body: Uint8Array, depth: number): JsonObject => {
  const type = headers.find(([name]) => name === 'content-type')?.[1];
  const kept = headers
    .filter(([name]) => !PART_IGNORED.has(name))
    .map(([name, value]): [string, string] => [name, name === 'content-type' ? (readMediaType(value)?.type ?? '') : value])
    .sort(([a], [b]) => (a < b ? -1 : a > b ? 1 : 0));
  // RFC 2046, 5.1: a part without a type is plain text.
  const media = readMediaType(type ?? 'text/plain');
  return new JsonObject(
    ['headers', 'body'],
    [
      new JsonObject(
        kept.map(([name]) => name),
        kept.map(([, value]) => value),
      ),
      bodyValue(media, body, depth),
    ],
  );
};

/** A part's body: its document, its text, or `bytes HEX`. */
const bodyValue = (media: MediaType | null, body: Uint8Array, depth: number): JsonValue => {
  const kind = classOf(media, body);
  if (kind === 'multipart' && depth < MAX_NESTING) {
    const inner = parseMultipart(media?.boundary ?? '', body, depth + 1);
    if (inner.ok) return inner.value;
  }
  if (kind === 'binary' || kind === 'multipart') return `bytes ${hex(body)}`;
  const { text, valid } = decodeText(body, charsetOf(media, kind, body));
  if (!valid) return `bytes ${hex(body)}`;
  if (kind === 'text') return text;
  const parsed = parseDocument(kind, text);
  return parsed.ok ? parsed.value : text;
};

/** A multipart body as an array of `{headers, body}`: the boundary itself, preamble, epilogue and lengths do not count. Never throws. */
export const parseMultipart = (boundary: string, body: Uint8Array, depth = 0): ParseResult => {
  const parts = splitMultipart(body, boundary);
  if (parts === null) return { ok: false, at: 0, why: 'the parts are not ended by their boundary' };
  return { ok: true, value: parts.map((part) => partValue(part.headers, part.body, depth)) };
};
