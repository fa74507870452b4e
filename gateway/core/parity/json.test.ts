import { describe, expect, it } from '@jest/globals';
import fc from 'fast-check';
import { parseJson, spelled } from './json.ts';

const said = (result: ReturnType<typeof parseJson>): unknown => (result.ok ? spelled(result.value) : result);
const isJson = (text: string): boolean => {
  try {
    JSON.parse(text);
    return true;
  } catch {
    return false;
  }
};

const token = fc.constantFrom(
  '0',
  '-0',
  '7',
  '9999',
  '10000',
  '1.50',
  '1e2',
  '12345678901234567890',
  '"é"',
  '"\\u00e9"',
  '""',
  'null',
  'true',
);
const item = fc
  .tuple(fc.constantFrom('id', 'a b', 'naïve', 'x\\"y', ''), fc.constantFrom('id', 'sku', ''), fc.array(token, { maxLength: 3 }), token)
  .map(([first, second, list, last]) => `{"${first}":${last},"${second}":[${list.join(', ')}],"in":{"${second}":{"deep": ${last}}}}`);
/** Lists of objects that are like each other, as APIs answer with, some with a white space here and there. */
const document = fc.oneof(
  fc.json({ maxDepth: 3 }),
  fc.array(item, { maxLength: 5 }).map((items) => `{"items":[${items.join()}],"n":${items.length}}`),
  fc.array(item, { maxLength: 3 }).map((items) => `[ ${items.join(' ,\n')} ]`),
);
/** The same with one character gone, another or more. */
const bent = document.chain((text) =>
  fc.oneof(
    fc.constant(text),
    document,
    fc
      .tuple(fc.nat(text.length), fc.constantFrom('', '0', '"', '}', ']', ',', ' ', '\u0001', 'é'), fc.nat(2))
      .map(([at, more, less]) => text.slice(0, at) + more + text.slice(at + less)),
  ),
);

describe('parseJson', () => {
  it('takes what is JSON, keeps what it says, and nothing else', () => {
    fc.assert(
      fc.property(bent, (text) => {
        const parsed = parseJson(text);
        expect(parsed.ok).toBe(isJson(text));
        if (parsed.ok) expect(JSON.parse(spelled(parsed.value))).toEqual(JSON.parse(text));
      }),
      { numRuns: 2_000 },
    );
  });
  it('says the same of a text with and without another one beside it', () => {
    fc.assert(
      fc.property(
        document.chain((text) => fc.tuple(fc.constant(text), fc.oneof(bent, fc.constant(text.replace('7', '8')), fc.constant(`${text} `)))),
        ([text, other]) => {
          const before = parseJson(text);
          if (!before.ok) throw new Error('a document is JSON');
          expect(said(parseJson(other, { twin: { text, value: before.value } }))).toEqual(said(parseJson(other)));
        },
      ),
      { numRuns: 2_000 },
    );
  });
  it('shares the objects that the other text has at the same place word for word', () => {
    const text = '{"items":[{"id":1,"n":1},{"id":2,"n":2}]}';
    const ours = parseJson(text);
    const theirs = parseJson('{"items":[{"id":1,"n":1},{"id":2,"n":3}]}', { twin: { text, value: ours.ok ? ours.value : null } });
    const items = [ours, theirs].map((one) => (one.ok ? (one.value as { values: readonly unknown[] }).values[0] : []) as unknown[]);
    expect(items[1]![0]).toBe(items[0]![0]);
    expect(items[1]![1]).not.toBe(items[0]![1]);
  });
  it('reads bytes where each is a character, and says where the fault is', () => {
    const text = '{"a":[1,2.50,"x"],"b":tru}';
    const codes = new TextEncoder().encode(text);
    expect(parseJson(text, { codes })).toEqual(parseJson(text));
    expect(parseJson(text, { codes })).toEqual({ ok: false, at: 22, why: 'unexpected character' });
    expect(parseJson('"é\u0001"')).toMatchObject({ at: 2, why: 'control character in a string' });
    expect(parseJson('["é')).toMatchObject({ at: 3, why: 'string without an end' });
    expect(parseJson('[1,')).toMatchObject({ at: 3, why: 'unexpected end' });
  });
});
