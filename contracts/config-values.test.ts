import { describe, expect, it } from '@jest/globals';
import fc from 'fast-check';
import { expandScalars, expandText, parseAddress, parseDuration, parsePercent, parseShare, parseSize } from './config-values.ts';

const readValue = (parsed: { ok: boolean; value?: unknown }): unknown => (parsed.ok ? parsed.value : undefined);
const dollar = '$';

describe('values', () => {
  it.each([
    ['250ms', 250],
    ['5s', 5_000],
    ['1.5s', 1_500],
    ['2m', 120_000],
    ['1h', 3_600_000],
    ['7d', 604_800_000],
    [' 10 s ', 10_000],
    [0, 0],
    ['0', 0],
    [5, undefined],
    ['5', undefined],
    ['5x', undefined],
    ['-5s', undefined],
    ['366d', undefined],
    ['', undefined],
    [null, undefined],
  ])('reads the duration %j as %j ms', (raw, ms) => expect(readValue(parseDuration(raw))).toBe(ms));

  it.each([
    ['64KiB', 65_536],
    ['1MiB', 1_048_576],
    ['4GiB', 4_294_967_296],
    ['10MB', 10_000_000],
    ['512', 512],
    [512, 512],
    ['1.5KiB', 1_536],
    [1.5, undefined],
    [-1, undefined],
    ['1XB', undefined],
    ['99999999999TiB', undefined],
  ])('reads the size %j as %j bytes', (raw, bytes) => expect(readValue(parseSize(raw))).toBe(bytes));

  it.each([
    ['100%', 10_000],
    ['12.5%', 1_250],
    ['0.01%', 1],
    ['0%', 0],
    [0, 0],
    [1, undefined],
    ['0.5', undefined],
    ['100.01%', undefined],
    ['0.001%', undefined],
  ])('reads the share %j as %j basis points', (raw, bp) => expect(readValue(parseShare(raw))).toBe(bp));

  it.each([
    [10, 1_000],
    ['12.5', 1_250],
    ['12.5%', 1_250],
    [100, 10_000],
    [101, undefined],
    [-1, undefined],
    ['', undefined],
  ])('reads the percentage %j as %j basis points', (raw, bp) => expect(readValue(parsePercent(raw))).toBe(bp));

  it.each([
    ['127.0.0.1:8080', { host: '127.0.0.1', port: 8080 }],
    ['[::1]:0', { host: '::1', port: 0 }],
    ['localhost:65535', { host: 'localhost', port: 65_535 }],
    ['localhost:65536', undefined],
    ['::1:80', undefined],
    ['8080', undefined],
    [':8080', undefined],
  ])('reads the address %j', (raw, address) => expect(readValue(parseAddress(raw))).toEqual(address));

  it('never throws, whatever it is given', () => {
    fc.assert(
      fc.property(fc.anything(), (value) => {
        for (const parse of [parseDuration, parseSize, parseShare, parsePercent, parseAddress])
          expect(typeof parse(value).ok).toBe('boolean');
      }),
    );
  });
});

describe('variables', () => {
  const from = {
    env: { HOST: 'db', EMPTY: '', NESTED: `${dollar}{HOST}` },
    file: (path: string) => (path === '/run/secret' ? 'hush\n' : undefined),
  };

  it.each([
    [`postgres://${dollar}{HOST}/x`, 'postgres://db/x'],
    [`${dollar}{MISSING:-a b}`, 'a b'],
    [`${dollar}{EMPTY:-other}`, 'other'],
    [`${dollar}{EMPTY}`, ''],
    [`${dollar}{MISSING:-}`, ''],
    [`${dollar}{file:/run/secret}`, 'hush'],
    ['$${HOST} costs $$5', `${dollar}{HOST} costs $5`],
    [`${dollar}{NESTED}`, `${dollar}{HOST}`],
    ['$.items[0].id', '$.items[0].id'],
    ['$..password', '$..password'],
  ])('expands %j to %j', (text, expanded) => expect(expandText(text, from)).toEqual({ text: expanded, faults: [] }));

  it.each([
    [`${dollar}{MISSING}`, 'the variable MISSING is not set'],
    [`${dollar}{constructor}`, 'the variable constructor is not set'],
    [`${dollar}{file:/nope}`, 'the file /nope cannot be read'],
    [`${dollar}{file:}`, 'the name of the file is missing'],
    [`${dollar}{a-b}`, `${dollar}{a-b} is not a variable`],
    [`${dollar}{HOST`, `${dollar}{ is never closed`],
  ])('says what is wrong with %j', (text, message) =>
    expect(expandText(text, from).faults).toEqual([expect.objectContaining({ message })]),
  );

  it('names the path of every fault and leaves other values alone', () => {
    const when = () => 1;
    const result = expandScalars({ a: [1, `${dollar}{X}`], b: { c: `${dollar}{Y}`, [`${dollar}{Z}`]: true, when } }, from);
    expect(result.faults.map(({ path }) => path)).toEqual([
      ['a', 1],
      ['b', 'c'],
    ]);
    expect(result.value).toEqual({ a: [1, ''], b: { c: '', [`${dollar}{Z}`]: true, when } });
  });

  it('ends on a document that refers to itself', () => {
    const loop: unknown[] = [];
    loop.push(loop, loop, loop);
    expect(expandScalars(loop, from).faults).toHaveLength(1);
  });

  it('does not let a key named __proto__ reach the prototype', () => {
    const { value } = expandScalars(JSON.parse('{"__proto__":{"polluted":true}}'), from);
    expect(Object.getPrototypeOf(value)).toBe(Object.prototype);
    expect(Object.hasOwn(value as object, '__proto__')).toBe(true);
  });

  it('never throws on any text', () => {
    fc.assert(
      fc.property(
        fc.string({ unit: fc.constantFrom('$', '{', '}', ':', '-', 'A', 'file:', ' ') }),
        (text) => typeof expandText(text, from).text === 'string',
      ),
    );
  });
});
