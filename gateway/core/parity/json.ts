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

/** Of the numbers 0 to 9999, which most numbers are, one object each. */
const SMALL: JsonNumber[] = [];
const smallNumber = (value: number): JsonNumber => {
  SMALL[value] ??= new JsonNumber(String(value));
  return SMALL[value];
};

/**
 * Parses strict JSON. Never throws: NaN, Infinity, trailing commas, comments, a BOM, depth over `maxDepth` come back as `ok: false` with the offset.
 * @param twin the other side's text, which most of the time says the same: an object that stands there word for word at the same place is not read again but
 * shared, so that comparing it costs nothing
 */
export const parseJson = (text: string, maxDepth: number = MAX_DEPTH, twin?: Twin): ParseResult => {
  let at = 0;
  /** The keys of the object last read at each depth. */
  const keysAt: string[][] = [];

  // Loops run on a variable of their own and set `at` once: a fifth less time than moving the shared one along.
  const space = (): number => {
    let i = at;
    let code = text.charCodeAt(i);
    if (code > 0x20) return code;
    while (code === 0x20 || code === 0x0a || code === 0x0d || code === 0x09) code = text.charCodeAt(++i);
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
    let code = text.charCodeAt(i);
    // Most characters are small letters, which one look tells.
    while (code > 0x5c || (code >= 0x20 && code !== 0x22 && code !== 0x5c)) code = text.charCodeAt(++i);
    at = i + 1;
    return code === 0x22 ? text.slice(start, i) : stringWithEscapes(start, i);
  };

  /** The rest of a string that is plain up to `i`, where it has an escape or a fault. */
  const stringWithEscapes = (start: number, stop: number): string => {
    let [from, i, out] = [start, stop, ''];
    for (;;) {
      const code = text.charCodeAt(i);
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
      else throw new Fault(i, Number.isNaN(code) ? 'string without an end' : 'control character in a string');
    }
  };

  /** The end of one or more digits that begin at `from`. */
  const digitsEnd = (from: number): number => {
    let i = from;
    let code = text.charCodeAt(i);
    while (code >= 0x30 && code <= 0x39) code = text.charCodeAt(++i);
    if (i === from) throw new Fault(i, Number.isNaN(code) ? 'unexpected end' : 'unexpected character');
    return i;
  };

  // By hand: a sticky expression took a fifth of all parsing.
  const number = (): JsonNumber => {
    const from = at;
    let i = text.charCodeAt(from) === 0x2d ? from + 1 : from;
    i = text.charCodeAt(i) === 0x30 ? i + 1 : digitsEnd(i);
    let code = text.charCodeAt(i);
    if (code !== 0x2e && code !== 0x65 && code !== 0x45 && i - from <= 4 && text.charCodeAt(from) !== 0x2d) {
      at = i;
      let value = 0;
      for (let digit = from; digit < i; digit++) value = value * 10 + text.charCodeAt(digit) - 0x30;
      return smallNumber(value);
    }
    if (code === 0x2e) i = digitsEnd(i + 1);
    code = text.charCodeAt(i);
    if (code === 0x65 || code === 0x45) {
      const sign = text.charCodeAt(i + 1);
      i = digitsEnd(sign === 0x2b || sign === 0x2d ? i + 2 : i + 1);
    }
    at = i;
    return new JsonNumber(text.slice(from, i));
  };

  const word = (expected: string): void => {
    if (!text.startsWith(expected, at)) throw new Fault(at, 'unexpected character');
    at += expected.length;
  };

  /** Reads past `key` when it stands here, between its quotes and without escapes. */
  const passes = (key: string): boolean => {
    const end = at + 1 + key.length;
    if (text.charCodeAt(end) !== 0x22) return false;
    for (let i = key.length - 1; i >= 0; i--) {
      const code = key.charCodeAt(i);
      if (code !== text.charCodeAt(at + 1 + i) || code === 0x5c || code < 0x20 || code === 0x22) return false;
    }
    at = end + 1;
    return true;
  };

  /** Stands this object of the twin here, word for word? */
  const standsHere = ({ from, to }: JsonObject): boolean => {
    const end = at + to - from;
    return text.charCodeAt(end - 1) === 0x7d && text.slice(at, end) === twin!.text.slice(from, to);
  };

  const object = (depth: number, like: JsonObject | undefined): JsonObject => {
    const from = at;
    const values: JsonValue[] = [];
    at++;
    if (space() === 0x7d) {
      at++;
      return new JsonObject([], values, from, at);
    }
    // Elements of a list mostly have the keys of the one before them: as long as that holds nothing is copied.
    const before = keysAt[depth] ?? [];
    let keys: string[] | null = null;
    for (;;) {
      if (space() !== 0x22) throw new Fault(at, 'expected a member name');
      if (keys === null) {
        const expected = before[values.length];
        if (expected === undefined || !passes(expected)) keys = before.slice(0, values.length);
      }
      keys?.push(string());
      if (space() !== 0x3a) throw new Fault(at, "expected ':'");
      at++;
      values.push(value(depth, like === undefined ? undefined : likeMember(like, values.length, (keys ?? before)[values.length]!)));
      const next = space();
      at++;
      if (next === 0x7d) {
        if (keys === null && values.length < before.length) keys = before.slice(0, values.length);
        if (keys !== null) keysAt[depth] = keys;
        return new JsonObject(keys ?? before, values, from, at);
      }
      if (next !== 0x2c) throw new Fault(at - 1, "expected ',' or '}'");
    }
  };

  const array = (depth: number, like: readonly JsonValue[] | undefined): JsonValue[] => {
    const items: JsonValue[] = [];
    at++;
    if (space() === 0x5d) {
      at++;
      return items;
    }
    for (;;) {
      items.push(value(depth, like?.[items.length]));
      const next = space();
      at++;
      if (next === 0x5d) return items;
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
