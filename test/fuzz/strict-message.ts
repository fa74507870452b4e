/** What requests and responses have in common, as RFC 9112 writes it. Bytes are Latin-1 strings throughout: one character is one byte. */
export type Field = readonly [name: string, value: string];

/** Why a message can be read in two ways or in none; also the names of classes in reports. */
export type Fault =
  | 'bare-lf'
  | 'bare-cr'
  | 'start-line'
  | 'version'
  | 'target'
  | 'fragment'
  | 'connect'
  | 'obs-fold'
  | 'field-name'
  | 'field-value'
  | 'host-missing'
  | 'host-repeated'
  | 'host-malformed'
  | 'length'
  | 'length-repeated'
  | 'coding'
  | 'coding-and-length'
  | 'coding-in-1.0'
  | 'chunk-size'
  | 'chunk-extension'
  | 'chunk-end'
  | 'trailer'
  | 'status'
  | 'switch-unasked';

/** Legal, but nobody has to take it; also the names of classes in reports. */
export type Doubt =
  | 'method-unknown'
  | 'target-high-bytes'
  | 'version-minor'
  | 'blank-lines'
  | 'host-odd'
  | 'expectation'
  | 'max-forwards'
  | 'head-size'
  | 'chunk-extension-space'
  | 'chunk-extension-size'
  | 'trailer-size'
  | 'trailer-framing'
  | 'line-spaces'
  | 'coding-tab'
  | 'chunk-extension-name'
  | 'status-odd'
  | 'reason-space'
  | 'length-without-body'
  | 'name-space'
  | 'chunk-extension-malformed'
  | 'interim-flood'
  | 'chunk-size-long';

export type Cursor = { readonly kind: 'done'; readonly next: number } | { readonly kind: 'more' } | Invalid;
export type Invalid = { readonly kind: 'invalid'; readonly why: Fault };
type Line = { readonly kind: 'line'; readonly text: string; readonly next: number } | { readonly kind: 'more' } | Invalid;

const MORE = { kind: 'more' } as const;
const invalid = (why: Fault): Invalid => ({ kind: 'invalid', why });

export const TOKEN = "[!#$%&'*+\\-.^_`|~0-9A-Za-z]+";
const NAME = new RegExp(`^${TOKEN}$`);
const VALUE = /^[\t\x20-\x7e\x80-\xff]*$/;
const QUOTED = '"(?:[\\t \\x21\\x23-\\x5b\\x5d-\\x7e\\x80-\\xff]|\\\\[\\t\\x20-\\x7e\\x80-\\xff])*"';
/** RFC 9112 7.1.1, bad whitespace and missing names and values included: no reader that keeps to lines could find another end. */
const EXTENSIONS = new RegExp(`^(?:[\\t ]*;[\\t ]*(?:${TOKEN})?(?:[\\t ]*=[\\t ]*(?:${TOKEN}|${QUOTED})?)?)*$`);
/** Far below what anybody sends and any reader's limit. */
const SMALL_BYTES = 4 * 1024;
const NAMELESS = /;[\t ]*(?:[=;]|$)|=[\t ]*(?:;|$)/;
const SPACED = /^[\t ]|[\t ]$|;[\t ]|[\t ];|[\t ]=|=[\t ]/;

/** Up to CRLF. A CR or LF alone is a fault (RFC 9112 2.2 allows a server to take LF; two readers in a row that differ in it are the problem). */
export const readLine = (text: string, at: number): Line => {
  const end = text.indexOf('\n', at);
  if (end === -1) {
    const cr = text.indexOf('\r', at);
    return cr !== -1 && cr !== text.length - 1 ? invalid('bare-cr') : MORE;
  }
  if (end === at || text[end - 1] !== '\r') return invalid('bare-lf');
  const line = text.slice(at, end - 1);
  return line.includes('\r') ? invalid('bare-cr') : { kind: 'line', text: line, next: end + 1 };
};

/**
 * Field lines up to and with the empty one; they are put into `fields`. `doubts` = of a response, where a proxy takes space before the colon
 * away (RFC 9112 5.1); in a request it is a fault.
 */
export const readFields = (text: string, at: number, fields: Field[], doubts: Doubt[] | null = null): Cursor => {
  for (;;) {
    const line = readLine(text, at);
    if (line.kind !== 'line') return line;
    at = line.next;
    if (line.text === '') return { kind: 'done', next: at };
    if (line.text[0] === ' ' || line.text[0] === '\t') return invalid('obs-fold');
    const colon = line.text.indexOf(':');
    let name = line.text.slice(0, colon);
    if (doubts !== null && /[\t ]$/.test(name)) {
      doubts.push('name-space');
      name = name.trimEnd();
    }
    if (colon === -1 || !NAME.test(name)) return invalid('field-name');
    const value = line.text.slice(colon + 1);
    if (!VALUE.test(value)) return invalid('field-value');
    fields.push([name, value.replace(/^[ \t]+|[ \t]+$/g, '')]);
  }
};

export type Content = {
  /** Decoded, as far as it came. */
  body: string;
  readonly trailers: Field[];
  readonly doubts: Doubt[];
};

/**
 * A chunked body with its trailers; what it holds so far is put into `content`, be it whole or not. What stands behind a size is dropped by a
 * proxy, so that in a response, which nobody shares a connection with, it may be malformed.
 */
export const readChunked = (text: string, at: number, content: Content, inResponse: boolean): Cursor => {
  for (;;) {
    const line = readLine(text, at);
    if (line.kind === 'more') return MORE;
    if (line.kind === 'invalid') return invalid('chunk-size');
    at = line.next;
    const digits = /^[0-9A-Fa-f]+/.exec(line.text)?.[0];
    if (digits === undefined) return invalid('chunk-size');
    if (digits.length > 12) content.doubts.push('chunk-size-long');
    const extensions = line.text.slice(digits.length);
    if (!EXTENSIONS.test(extensions.trimEnd())) {
      if (!inResponse || !/^[\t ]*(?:;|$)/.test(extensions) || !VALUE.test(extensions))
        return invalid(extensions.trimStart().startsWith(';') ? 'chunk-extension' : 'chunk-size');
      content.doubts.push('chunk-extension-malformed');
    }
    if (SPACED.test(extensions)) content.doubts.push('chunk-extension-space');
    if (NAMELESS.test(extensions)) content.doubts.push('chunk-extension-name');
    if (extensions.length > SMALL_BYTES) content.doubts.push('chunk-extension-size');
    // Beyond 2^53 nothing here is exact, and nothing of that size can be whole.
    const size = Math.min(Number.parseInt(digits, 16), Number.MAX_SAFE_INTEGER);
    if (size === 0) break;
    content.body += text.slice(at, Math.min(at + size, text.length));
    at += size;
    const end = text.slice(at, at + 2);
    if (end !== '\r\n'.slice(0, end.length)) return invalid('chunk-end');
    if (end.length < 2) return MORE;
    at += 2;
  }
  const trailers = readFields(text, at, content.trailers, inResponse ? content.doubts : null);
  if (trailers.kind === 'done' && trailers.next - at > SMALL_BYTES) content.doubts.push('trailer-size');
  if (content.trailers.some(([name]) => /^(?:content-length|transfer-encoding)$/i.test(name))) content.doubts.push('trailer-framing');
  return trailers.kind === 'invalid' ? invalid('trailer') : trailers;
};

export const valuesOf = (fields: readonly Field[], lowerName: string): string[] => {
  const values: string[] = [];
  for (const [name, value] of fields) if (name.length === lowerName.length && name.toLowerCase() === lowerName) values.push(value);
  return values;
};

/** The members of a list field, lower-case. */
export const listOf = (fields: readonly Field[], lowerName: string): string[] =>
  valuesOf(fields, lowerName)
    .flatMap((value) => value.split(','))
    .map((part) => part.replace(/^[\t ]+|[\t ]+$/g, '').toLowerCase())
    .filter((part) => part !== '');

export type Framing = { readonly framing: 'none' | 'length' | 'chunked'; readonly length: number };

/** One number, or one `chunked`, or neither: everything else two readers could take for different bodies (RFC 9112 6). */
export const framingOf = (fields: readonly Field[], minor: number): Framing | Invalid => {
  const lengths = valuesOf(fields, 'content-length');
  const codings = valuesOf(fields, 'transfer-encoding');
  if (codings.length > 0) {
    if (minor === 0) return invalid('coding-in-1.0');
    if (codings.length > 1 || codings[0]!.toLowerCase() !== 'chunked') return invalid('coding');
    return lengths.length > 0 ? invalid('coding-and-length') : { framing: 'chunked', length: 0 };
  }
  if (lengths.length === 0) return { framing: 'none', length: 0 };
  if (lengths.length > 1) return invalid('length-repeated');
  return /^\d{1,15}$/.test(lengths[0]!) ? { framing: 'length', length: Number(lengths[0]) } : invalid('length');
};
