import { headerValues, type Observation } from './observation.ts';

/** How a body is compared. Anything that is neither JSON nor text is compared byte by byte. */
export type MediaClass = 'json' | 'text' | 'binary';

/** A `Content-Type` taken apart: type in lower case, charset in lower case or null. */
export type MediaType = { readonly type: string; readonly charset: string | null };

/** Reads `Content-Type` (RFC 9110, 8.3.1); null when absent or empty. */
export const mediaTypeOf = (observation: Pick<Observation, 'headers'>): MediaType | null => {
  const value = headerValues(observation, 'content-type').at(-1)?.trim();
  if (!value) return null;
  const type = (value.split(';', 1)[0] ?? '').trim().toLowerCase();
  const charset = /;\s*charset\s*=\s*"?([^";\s]+)/i.exec(value)?.[1]?.toLowerCase() ?? null;
  return { type, charset };
};

const TEXT =
  /^(?:text\/.*|application\/(?:xml|javascript|ecmascript|x-www-form-urlencoded|graphql|yaml|toml|x-ndjson|jsonl)|.*\+(?:xml|yaml))$/;

/** The class that a media type names; `sniff` decides when it names none. */
export const classOf = (media: MediaType | null, body: Uint8Array): MediaClass => {
  if (media === null) return sniff(body);
  if (media.type === 'application/json' || media.type === 'text/json' || media.type.endsWith('+json')) return 'json';
  return TEXT.test(media.type) ? 'text' : 'binary';
};

/** Without a type: a leading `{` or `[` is JSON, a NUL byte makes it binary, all else is text. */
const sniff = (body: Uint8Array): MediaClass => {
  const first = body.find((byte) => byte > 0x20);
  if (first === 0x7b || first === 0x5b) return 'json';
  return body.subarray(0, 1024).includes(0) ? 'binary' : 'text';
};

export type Decoded = { readonly text: string; readonly bom: boolean; readonly valid: boolean };

/** Bytes as text in the charset named (default and fallback UTF-8). `valid` is false when bytes had to be replaced. */
export const decodeText = (body: Uint8Array, charset: string | null): Decoded => {
  for (const label of [charset ?? 'utf-8', 'utf-8']) {
    for (const fatal of [true, false]) {
      try {
        const text = new TextDecoder(label, { fatal, ignoreBOM: true }).decode(body);
        const bom = text.startsWith('\uFEFF');
        return { text: bom ? text.slice(1) : text, bom, valid: fatal };
      } catch {
        // Not these bytes, or no such charset: the next, more lenient reading.
      }
    }
  }
  return { text: '', bom: false, valid: false };
};
