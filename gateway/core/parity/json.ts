/**
 * A lossless JSON model (RFC 8259). `JSON.parse` rounds 9007199254740993, turns 10.00 into 10 and forgets a repeated key;
 * a comparer must not. Strings, booleans and null are themselves, arrays are arrays, numbers keep their token, objects keep every member.
 */
export type JsonValue = string | boolean | null | JsonNumber | JsonObject | readonly JsonValue[];

export class JsonNumber {
  readonly raw: string;
  constructor(raw: string) {
    this.raw = raw;
  }
}

/** Members in the order sent, repeats included: parallel arrays, because most objects are compared without ever looking a key up. */
export class JsonObject {
  readonly keys: readonly string[];
  readonly values: readonly JsonValue[];
  /** Where it stands in the text that it was read from: [from, to); 0, 0 when it was made otherwise. */
  readonly from: number;
  readonly to: number;
  constructor(keys: readonly string[], values: readonly JsonValue[], from = 0, to = 0) {
    this.keys = keys;
    this.values = values;
    this.from = from;
    this.to = to;
  }
}

export type JsonType = 'null' | 'boolean' | 'number' | 'string' | 'array' | 'object';

export const typeOfJson = (value: JsonValue): JsonType => {
  if (value === null) return 'null';
  if (typeof value === 'string') return 'string';
  if (typeof value === 'boolean') return 'boolean';
  if (value instanceof JsonNumber) return 'number';
  return value instanceof JsonObject ? 'object' : 'array';
};

/** Deeper documents are `unparsable`: every walk over the model recurses once per level, and must fit the stack. */
export const MAX_DEPTH = 500;

export type ParseResult =
  | { readonly ok: true; readonly value: JsonValue }
  | { readonly ok: false; readonly at: number; readonly why: string };

/** The member of an object at this place, if it has this name. */
const likeMember = (like: JsonObject, place: number, key: string): JsonValue | undefined =>
  like.keys[place] === key ? like.values[place] : undefined;

class Fault extends Error {
  readonly at: number;
  constructor(at: number, why: string) {
    super(why);
    this.at = at;
  }
}

const ESCAPES: Readonly<Record<string, string>> = { '"': '"', '\\': '\\', '/': '/', b: '\b', f: '\f', n: '\n', r: '\r', t: '\t' };
const HEX4 = /^[0-9a-fA-F]{4}$/;

/** A text that was read before, and what it says. */
export type Twin = { readonly text: string; readonly value: JsonValue };

/** Deeper objects are not looked for in the twin: each level may compare all that lies below it. */
const MAX_TWIN_DEPTH = 16;

/** Of the numbers 0 to 9999, which most numbers are, there is one object each. */
const MAX_SMALL_DIGITS = 4;
const SMALL = new Array<JsonNumber | undefined>(10 ** MAX_SMALL_DIGITS);
const smallNumber = (value: number): JsonNumber => {
  const known = SMALL[value] ?? new JsonNumber(String(value));
  SMALL[value] = known;
  return known;
};

/** What `parseJson` may be told beside the text. */
export type ParseHints = {
  /** The text as numbers, one for each of its characters: its bytes, when it has no other than ASCII. */
  readonly codes?: Codes | undefined;
  /**
   * The other side's text, which most of the time says the same: an object that stands there word for word at the same place is not read again but
   * shared, so that comparing it costs nothing.
   */
  readonly twin?: Twin | undefined;
  /** Default `MAX_DEPTH`. */
  readonly maxDepth?: number;
};

/** A number for each character. Looking at them takes less than half the time of `charCodeAt`. */
type Codes = Uint8Array | Uint16Array;

const utf8 = new TextEncoder();
const codesOf = (text: string): Codes => {
  const bytes = utf8.encode(text);
  if (bytes.length === text.length) return bytes;
  const codes = new Uint16Array(text.length);
  for (let i = 0; i < codes.length; i++) codes[i] = text.charCodeAt(i);
  return codes;
};

/** The keys of the object last read at some depth, and where each of them, with its quotes, stands in the text: [from, to) of the first, of the second … */
type Shape = { readonly keys: readonly string[]; readonly spans: readonly number[] };
const NO_SHAPE: Shape = { keys: [], spans: [] };

/** Longer lists are left to grow: a guess that fails costs as much as it is long. */
const MAX_GUESS = 32;
/** A list that is likely to get this long. Left to grow, one of three elements takes room for seventeen. */
const roomFor = (length: number): JsonValue[] => (length > 0 && length <= MAX_GUESS ? new Array<JsonValue>(length) : []);

/**
 * Parses strict JSON. Never throws: NaN, Infinity, trailing commas, comments, a BOM, depth over `maxDepth` come back as `ok: false` with the offset.
 */
export const parseJson = (text: string, hints: ParseHints = {}): ParseResult => {
  const { twin, maxDepth = MAX_DEPTH, codes = codesOf(text) } = hints;
  let at = 0;
  const shapeAt: Shape[] = [];
  /** Of the array last read at each depth. */
  const lengthAt: number[] = [];

  // Loops run on a variable of their own and set `at` once: a fifth less time than moving the shared one along. Behind the end there is undefined, which is
  // equal to no code and neither more nor less than one.
  const space = (): number => {
    let i = at;
    let code = codes[i]!;
    if (code > 0x20) return code;
    while (code === 0x20 || code === 0x0a || code === 0x0d || code === 0x09) code = codes[++i]!;
    at = i;
    return code;
  };

  const escaped = (): string => {
    const kind = text.charAt(at++);
    if (kind === 'u') {
      const hex = text.slice(at, at + 4);
      if (!HEX4.test(hex)) throw new Fault(at, 'bad \\u escape');
      at += 4;
      return String.fromCharCode(Number.parseInt(hex, 16));
    }
    const plain = ESCAPES[kind];
    if (plain === undefined) throw new Fault(at - 1, 'bad escape');
    return plain;
  };

  const string = (): string => {
    const start = at + 1;
    let i = start;
    let code = codes[i]!;
    // Most characters are small letters, which one look tells.
    while (code > 0x5c || (code >= 0x20 && code !== 0x22 && code !== 0x5c)) code = codes[++i]!;
    at = i + 1;
    return code === 0x22 ? text.slice(start, i) : stringWithEscapes(start, i);
  };

  /** The rest of a string that is plain up to `i`, where it has an escape or a fault. */
  const stringWithEscapes = (start: number, stop: number): string => {
    let [from, i, out] = [start, stop, ''];
    for (;;) {
      const code = codes[i]!;
      if (code === 0x22) {
        at = i + 1;
        return out + text.slice(from, i);
      }
      if (code === 0x5c) {
        out += text.slice(from, i);
        at = i + 1;
        out += escaped();
        from = i = at;
      } else if (code >= 0x20) i++;
      else throw new Fault(i, i >= text.length ? 'string without an end' : 'control character in a string');
    }
  };

  /** The end of one or more digits that begin at `from`. */
  const digitsEnd = (from: number): number => {
    let i = from;
    let code = codes[i]!;
    while (code >= 0x30 && code <= 0x39) code = codes[++i]!;
    if (i === from) throw new Fault(i, i >= text.length ? 'unexpected end' : 'unexpected character');
    return i;
  };

  // By hand: a sticky expression took a fifth of all parsing.
  const number = (): JsonNumber => {
    const from = at;
    const negative = codes[from] === 0x2d;
    let i = negative ? from + 1 : from;
    i = codes[i] === 0x30 ? i + 1 : digitsEnd(i);
    let code = codes[i]!;
    if (code === 0x2e) {
      i = digitsEnd(i + 1);
      code = codes[i]!;
    } else if (i - from <= MAX_SMALL_DIGITS && !negative && code !== 0x65 && code !== 0x45) {
      at = i;
      let value = 0;
      for (let digit = from; digit < i; digit++) value = value * 10 + codes[digit]! - 0x30;
      return smallNumber(value);
    }
    if (code === 0x65 || code === 0x45) {
      const sign = codes[i + 1];
      i = digitsEnd(sign === 0x2b || sign === 0x2d ? i + 2 : i + 1);
    }
    at = i;
    return new JsonNumber(text.slice(from, i));
  };

  const word = (expected: string): void => {
    if (!text.startsWith(expected, at)) throw new Fault(at, 'unexpected character');
    at += expected.length;
  };

  /** Reads past what stands at [from, to) too, when it stands here. */
  const passes = (from: number, to: number): boolean => {
    let i = to - 1;
    // Most names differ in length, or at their ends.
    for (let here = at + i - from; i >= from; i--, here--) if (codes[i] !== codes[here]) return false;
    at += to - from;
    return true;
  };

  /** Stands this object of the twin here, word for word? */
  const standsHere = ({ from, to }: JsonObject): boolean => {
    const end = at + to - from;
    return codes[end - 1] === 0x7d && text.slice(at, end) === twin!.text.slice(from, to);
  };

  const object = (depth: number, like: JsonObject | undefined): JsonObject => {
    const from = at;
    at++;
    if (space() === 0x7d) {
      at++;
      return new JsonObject([], [], from, at);
    }
    // Elements of a list mostly have the keys of the one before them: as long as that holds nothing is copied.
    const before = shapeAt[depth] ?? NO_SHAPE;
    const values = roomFor(before.keys.length);
    let place = 0;
    let keys: string[] | null = null;
    let spans: number[] | null = null;
    for (;;) {
      if (space() !== 0x22) throw new Fault(at, 'expected a member name');
      if (keys === null && (place >= before.keys.length || !passes(before.spans[2 * place]!, before.spans[2 * place + 1]!))) {
        keys = before.keys.slice(0, place);
        spans = before.spans.slice(0, 2 * place);
      }
      if (keys !== null) {
        spans!.push(at);
        keys.push(string());
        spans!.push(at);
      }
      if (space() !== 0x3a) throw new Fault(at, "expected ':'");
      at++;
      values[place] = value(depth, like === undefined ? undefined : likeMember(like, place, (keys ?? before.keys)[place]!));
      place++;
      const next = space();
      at++;
      if (next === 0x7d) {
        if (place < values.length) values.length = place;
        if (keys === null && place < before.keys.length) {
          keys = before.keys.slice(0, place);
          spans = before.spans.slice(0, 2 * place);
        }
        if (keys !== null) shapeAt[depth] = { keys, spans: spans! };
        return new JsonObject(keys ?? before.keys, values, from, at);
      }
      if (next !== 0x2c) throw new Fault(at - 1, "expected ',' or '}'");
    }
  };

  const array = (depth: number, like: readonly JsonValue[] | undefined): JsonValue[] => {
    at++;
    if (space() === 0x5d) {
      at++;
      return [];
    }
    const items = roomFor(lengthAt[depth] ?? 0);
    let place = 0;
    for (;;) {
      items[place] = value(depth, like?.[place]);
      place++;
      const next = space();
      at++;
      if (next === 0x5d) {
        if (place < items.length) items.length = place;
        lengthAt[depth] = place;
        return items;
      }
      if (next !== 0x2c) throw new Fault(at - 1, "expected ',' or ']'");
    }
  };

  /** @param like what stands at this place of the twin */
  const value = (depth: number, like: JsonValue | undefined): JsonValue => {
    const code = space();
    switch (code) {
      case 0x22:
        return string();
      case 0x7b:
        if (depth >= maxDepth) throw new Fault(at, `deeper than ${maxDepth} levels`);
        if (!(like instanceof JsonObject)) return object(depth + 1, undefined);
        if (depth > MAX_TWIN_DEPTH || !standsHere(like)) return object(depth + 1, like);
        at += like.to - like.from;
        return like;
      case 0x5b:
        if (depth >= maxDepth) throw new Fault(at, `deeper than ${maxDepth} levels`);
        return array(depth + 1, Array.isArray(like) ? like : undefined);
      case 0x74:
        word('true');
        return true;
      case 0x66:
        word('false');
        return false;
      case 0x6e:
        word('null');
        return null;
      default:
        return number();
    }
  };

  try {
    const root = value(0, twin?.value);
    space();
    return at === text.length ? { ok: true, value: root } : { ok: false, at, why: 'text after the end' };
  } catch (error) {
    if (error instanceof Fault) return { ok: false, at: error.at, why: error.message };
    throw error;
  }
};

const raw = JSON as unknown as { rawJSON(text: string): unknown };

/**
 * A model value as plain JSON that `JSON.stringify` prints with its raw number tokens: a number whose token JavaScript would print
 * the same is a number, any other (`10.00`, `1e2`, 9007199254740993) is a `JSON.rawJSON` object. Of a repeated key the last one stays.
 */
export const printable = (value: JsonValue): unknown => {
  if (value instanceof JsonNumber) {
    const plain = Number(value.raw);
    return Number.isFinite(plain) && String(plain) === value.raw ? plain : raw.rawJSON(value.raw);
  }
  if (value instanceof JsonObject) {
    const out: Record<string, unknown> = {};
    for (let i = 0; i < value.keys.length; i++)
      Object.defineProperty(out, value.keys[i]!, {
        value: printable(value.values[i]!),
        enumerable: true,
        writable: true,
        configurable: true,
      });
    return out;
  }
  return Array.isArray(value) ? value.map(printable) : value;
};

/** A model value as JSON text: number tokens, member order and repeats of a key stay as they were. */
export const spelled = (value: JsonValue): string => {
  if (value instanceof JsonNumber) return value.raw;
  if (value instanceof JsonObject) return `{${value.keys.map((key, i) => `${JSON.stringify(key)}:${spelled(value.values[i]!)}`).join()}}`;
  return Array.isArray(value) ? `[${value.map(spelled).join()}]` : JSON.stringify(value);
};
