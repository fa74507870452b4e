/** One part of a multipart body: headers with names in lower case, the body's bytes. */
export type Part = { readonly headers: readonly (readonly [name: string, value: string])[]; readonly body: Uint8Array };

/** More parts than this are no answer anybody reads. */
const MAX_PARTS = 1_000;
const latin1 = (bytes: Uint8Array): string => {
  let text = '';
  for (const byte of bytes) text += String.fromCharCode(byte);
  return text;
};
const bytesOf = (text: string): Uint8Array => Uint8Array.from(text, (c) => c.charCodeAt(0));

/** First position of `needle` at or after `from`, or -1. */
const indexOf = (haystack: Uint8Array, needle: Uint8Array, from: number): number => {
  const last = haystack.length - needle.length;
  for (let at = haystack.indexOf(needle[0]!, from); at >= 0 && at <= last; at = haystack.indexOf(needle[0]!, at + 1)) {
    let i = 1;
    while (i < needle.length && haystack[at + i] === needle[i]) i++;
    if (i === needle.length) return at;
  }
  return -1;
};

const headersOf = (head: Uint8Array): [string, string][] =>
  latin1(head)
    .replace(/\r?\n[ \t]+/g, ' ')
    .split(/\r?\n/)
    .filter((line) => line.includes(':'))
    .map((line) => [line.slice(0, line.indexOf(':')).trim().toLowerCase(), line.slice(line.indexOf(':') + 1).trim()]);

/** Where the head of a part ends and its body begins, from `at`. */
const headEnd = (body: Uint8Array, at: number, end: number): [number, number] | null => {
  for (let i = at; i < end; i++) {
    if (body[i] !== 0x0a) continue;
    if (i === at || (i === at + 1 && body[at] === 0x0d)) return [at, i + 1];
    if (body[i + 1] === 0x0a) return [i, i + 2];
    if (body[i + 1] === 0x0d && body[i + 2] === 0x0a) return [i, i + 3];
  }
  return null;
};

/**
 * Splits a multipart body (RFC 2046, 5.1) at its boundary; preamble and epilogue are left out. Never throws.
 * @returns null when the boundary is missing, the body never ends with it, or there are more than 1,000 parts.
 */
export const splitMultipart = (body: Uint8Array, boundary: string): Part[] | null => {
  if (boundary === '' || boundary.length > 200) return null;
  const delimiter = bytesOf(`--${boundary}`);
  const parts: Part[] = [];
  let at = indexOf(body, delimiter, 0);
  while (at >= 0 && !(at === 0 || body[at - 1] === 0x0a)) at = indexOf(body, delimiter, at + 1);
  for (;;) {
    if (at < 0) return null;
    const after = at + delimiter.length;
    if (body[after] === 0x2d && body[after + 1] === 0x2d) return parts;
    if (parts.length >= MAX_PARTS) return null;
    const line = body.indexOf(0x0a, after);
    if (line < 0) return null;
    let next = indexOf(body, delimiter, line);
    while (next >= 0 && body[next - 1] !== 0x0a) next = indexOf(body, delimiter, next + 1);
    if (next < 0) return null;
    // The line break before a boundary belongs to the boundary.
    const end = body[next - 2] === 0x0d ? next - 2 : next - 1;
    const head = headEnd(body, line + 1, end + 1);
    const [headStop, start] = head ?? [line + 1, line + 1];
    parts.push({
      headers: headersOf(body.subarray(line + 1, headStop)),
      body: body.subarray(Math.min(start, Math.max(end, line + 1)), Math.max(end, line + 1)),
    });
    at = next;
  }
};
