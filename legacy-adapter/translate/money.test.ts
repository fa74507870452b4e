import { describe, expect, it } from '@jest/globals';
import fc from 'fast-check';
import { toCents, toDecimal } from './money.ts';

describe('money', () => {
  it.each([
    ['0', 0],
    ['7', 0.07],
    ['115', 1.15],
    ['-799', -7.99],
    ['2147483647', 21474836.47],
  ])('%s cents are %s', (cents, decimal) => {
    expect(toDecimal(cents)).toBe(decimal);
    expect(toCents(decimal)).toBe(cents);
  });
  it('says the same as the text of the decimal, and comes back, for any amount', () => {
    fc.assert(
      fc.property(fc.integer({ min: 0, max: 99_999_999_999_999 }), (cents) => {
        const text = `${Math.floor(cents / 100)}.${String(cents % 100).padStart(2, '0')}`;
        expect(toDecimal(String(cents))).toBe(Number(text));
        expect(toCents(toDecimal(String(cents)))).toBe(String(cents));
      }),
    );
  });
  it.each([1.005, 1e-7, 1e21, Number.NaN, Number.POSITIVE_INFINITY])('refuses %s, which is not in whole cents', (amount) => {
    expect(() => toCents(amount)).toThrow(/whole cents/);
  });
  it.each(['', '1.5', 'x', '9007199254740993'])('refuses the cents "%s"', (cents) => {
    expect(() => toDecimal(cents)).toThrow(/whole number of cents/);
  });
});
