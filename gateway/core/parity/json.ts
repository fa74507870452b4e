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
  constructor(keys: readonly string[], values: readonly JsonValue[]) {
    this.keys = keys;
    this.values = values;
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

class Fault extends Error {
  readonly at: number;
  constructor(at: number, why: string) {
    super(why);
    this.at = at;
  }
}

const ESCAPES: Readonly<Record<string, string>> = { '"': '"', '\\': '\\', '/': '/', b: '\b', f: '\f', n: '\n', r: '\r', t: '\t' };
const HEX4 = /^[0-9a-fA-F]{4}$/;

/** Parses strict JSON. Never throws: NaN, Infinity, trailing commas, comments, a BOM, depth over `maxDepth` come back as `ok: false` with the offset. */
export const parseJson = (text: string, maxDepth: number = MAX_DEPTH): ParseResult => {
  let at = 0;
  const number = /-?(?:0|[1-9][0-9]*)(?:\.[0-9]+)?(?:[eE][+-]?[0-9]+)?/y;

  const space = (): number => {
    let code = text.charCodeAt(at);
    while (code === 0x20 || code === 0x0a || code === 0x0d || code === 0x09) code = text.charCodeAt(++at);
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
    let start = ++at;
    let out = '';
    for (;;) {
      const code = text.charCodeAt(at);
      if (code === 0x22) {
        const tail = text.slice(start, at++);
        return out === '' ? tail : out + tail;
      }
      if (code === 0x5c) {
        out += text.slice(start, at++);
        out += escaped();
        start = at;
      } else if (code >= 0x20) at++;
      else throw new Fault(at, Number.isNaN(code) ? 'string without an end' : 'control character in a string');
    }
  };

  const word = (expected: string): void => {
    if (!text.startsWith(expected, at)) throw new Fault(at, 'unexpected character');
    at += expected.length;
  };

  const object = (depth: number): JsonObject => {
    const keys: string[] = [];
    const values: JsonValue[] = [];
    at++;
    if (space() === 0x7d) {
      at++;
      return new JsonObject(keys, values);
    }
    for (;;) {
      if (space() !== 0x22) throw new Fault(at, 'expected a member name');
      keys.push(string());
      if (space() !== 0x3a) throw new Fault(at, "expected ':'");
      at++;
      values.push(value(depth));
      const next = space();
      at++;
      if (next === 0x7d) return new JsonObject(keys, values);
      if (next !== 0x2c) throw new Fault(at - 1, "expected ',' or '}'");
    }
  };

  const array = (depth: number): JsonValue[] => {
    const items: JsonValue[] = [];
    at++;
    if (space() === 0x5d) {
      at++;
      return items;
    }
    for (;;) {
      items.push(value(depth));
      const next = space();
      at++;
      if (next === 0x5d) return items;
      if (next !== 0x2c) throw new Fault(at - 1, "expected ',' or ']'");
    }
  };

  const value = (depth: number): JsonValue => {
    const code = space();
    switch (code) {
      case 0x22:
        return string();
      case 0x7b:
        if (depth >= maxDepth) throw new Fault(at, `deeper than ${maxDepth} levels`);
        return object(depth + 1);
      case 0x5b:
        if (depth >= maxDepth) throw new Fault(at, `deeper than ${maxDepth} levels`);
        return array(depth + 1);
      case 0x74:
        word('true');
        return true;
      case 0x66:
        word('false');
        return false;
      case 0x6e:
        word('null');
        return null;
      default: {
        number.lastIndex = at;
        const token = number.exec(text)?.[0];
        if (token === undefined) throw new Fault(at, Number.isNaN(code) ? 'unexpected end' : 'unexpected character');
        at += token.length;
        return new JsonNumber(token);
      }
    }
  };

  try {
    const root = value(0);
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
