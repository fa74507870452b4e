import { lastHeader, type Observation } from './observation.ts';

/** How a body is compared. Anything that has no structure is compared as text or byte by byte. */
export type MediaClass = 'json' | 'ndjson' | 'html' | 'xml' | 'form' | 'multipart' | 'text' | 'binary';

/** A `Content-Type` taken apart: type in lower case, charset in lower case or null, boundary as sent or null, and the class that the type names. */
export type MediaType = {
  readonly type: string;
  readonly charset: string | null;
  readonly boundary: string | null;
  readonly named: MediaClass;
};

/** Values as servers send them, read once. */
const known = new Map<string, MediaType | null>();
const MAX_KNOWN = 500;

/** Reads a `Content-Type` value (RFC 9110, 8.3.1); null when empty. */
export const readMediaType = (value: string): MediaType | null => {
  const before = known.get(value);
  if (before !== undefined) return before;
  const media = parseMediaType(value);
  // boundaries are new each time
  if (known.size < MAX_KNOWN && value.length <= 200 && media?.boundary == null) known.set(value, media);
  return media;
};

const parseMediaType = (value: string): MediaType | null => {
  const type = (value.split(';', 1)[0] ?? '').trim().toLowerCase();
  if (value.trim() === '') return null;
  const charset = /;\s*charset\s*=\s*"?([^";\s]+)/i.exec(value)?.[1]?.toLowerCase() ?? null;
  const [, quoted, plain] = /;\s*boundary\s*=\s*(?:"([^"]*)"|([^";\s]+))/i.exec(value) ?? [];
  return { type, charset, boundary: quoted ?? plain ?? null, named: CLASSES.find(([, pattern]) => pattern.test(type))?.[0] ?? 'binary' };
};

/** The media type of an observation; null when absent or empty. */
export const mediaTypeOf = (observation: Pick<Observation, 'headers'>): MediaType | null =>
  readMediaType(lastHeader(observation, 'content-type') ?? '');

const CLASSES: readonly (readonly [MediaClass, RegExp])[] = [
  ['ndjson', /^application\/(?:x-)?(?:ndjson|jsonlines?|jsonl|json-seq|stream\+json)$/],
  ['json', /^(?:application|text)\/json$|\+json$/],
  ['html', /^text\/html$/],
  ['xml', /^(?:application|text)\/xml$|^application\/xhtml\+xml$|\+xml$/],
  ['form', /^application\/x-www-form-urlencoded$/],
  ['multipart', /^multipart\//],
  ['text', /^text\/|^application\/(?:javascript|ecmascript|x-javascript|graphql|yaml|x-yaml|toml|sql)$|\+yaml$/],
];

/** The class that a media type names; `sniff` decides when it names none. */
export const classOf = (media: MediaType | null, body: Uint8Array): MediaClass => {
  if (media === null || media.type === '') return sniff(body);
  return media.named;
};

/** Without a type: a leading `{` or `[` is JSON, `<?xml` is XML, a NUL byte makes it binary, all else is text. */
const sniff = (body: Uint8Array): MediaClass => {
  const from = body.findIndex((byte) => byte > 0x20);
  const first = body[from];
  if (first === 0x7b || first === 0x5b) return 'json';
  if (['<', '?', 'x', 'm', 'l'].every((c, i) => body[from + i] === c.charCodeAt(0))) return 'xml';
  return body.subarray(0, 1024).includes(0) ? 'binary' : 'text';
};

const DECLARED: Partial<Record<MediaClass, RegExp>> = {
  xml: /^<\?xml\s[^>]*?encoding\s*=\s*["']([A-Za-z0-9._-]{1,40})["']/,
  html: /<meta\s[^>]{0,200}?charset\s*=\s*["']?([A-Za-z0-9._-]{1,40})/i,
};

/** A byte order mark says more than any header, a header more than the document itself (HTML, 13.2.3.2; RFC 7303, 3). Null = UTF-8. */
export const charsetOf = (media: MediaType | null, kind: MediaClass, body: Uint8Array): string | null => {
  if (body[0] === 0xff && body[1] === 0xfe) return 'utf-16le';
  if (body[0] === 0xfe && body[1] === 0xff) return 'utf-16be';
  if (media?.charset) return media.charset;
  const pattern = DECLARED[kind];
  return pattern?.exec(String.fromCharCode(...body.subarray(0, 1024)))?.[1]?.toLowerCase() ?? null;
};

export type Decoded = {
  readonly text: string;
  readonly bom: boolean;
  readonly valid: boolean;
  /** The bytes, where each of them is one character of the text; else undefined. */
  readonly codes: Uint8Array | undefined;
};

/** A decoder costs ten times what it does for a small body. The platform knows some 40 charsets, under 220 names. */
type Decoder = InstanceType<typeof TextDecoder>;
const decoders = new Map<string, Decoder>();

/** @throws RangeError when there is no such charset */
const decoderOf = (label: string, fatal: boolean): Decoder => {
  const key = fatal ? label : `${label} lenient`;
  const made = decoders.get(key) ?? new TextDecoder(label, { fatal, ignoreBOM: true });
  decoders.set(key, made);
  return made;
};

/** Bytes as text in the charset named (default and fallback UTF-8). `valid` is false when bytes had to be replaced. */
export const decodeText = (body: Uint8Array, charset: string | null): Decoded => {
  for (const label of [charset ?? 'utf-8', 'utf-8']) {
    for (const fatal of [true, false]) {
      try {
        const text = decoderOf(label, fatal).decode(body);
        const bom = text.startsWith('\uFEFF');
        // As many characters as bytes is only possible in UTF-8 when no character takes two.
        const codes = label === 'utf-8' && text.length === body.length ? body : undefined;
        return { text: bom ? text.slice(1) : text, bom, valid: fatal, codes };
      } catch {
        // Not these bytes, or no such charset: the next, more lenient reading.
      }
    }
  }
  return { text: '', bom: false, valid: false, codes: undefined };
};
