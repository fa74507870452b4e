import { describe, expect, it } from '@jest/globals';
import fc from 'fast-check';
import { bucketOf } from './bucket.ts';

describe('bucketOf', () => {
  it.each([
    ['user-1', 7271],
    ['user-2', 6389],
    ['u1', 9086],
    ['ü', 3355],
    ['😀', 1333],
  ])('puts order:%s into %i', (key, bucket) => {
    expect(bucketOf('order', key)).toBe(bucket);
  });
  it('stays within 0..9999 for any key', () => {
    fc.assert(
      fc.property(fc.string(), fc.string(), (salt, key) => {
        const bucket = bucketOf(salt, key);
        return Number.isInteger(bucket) && bucket >= 0 && bucket < 10_000;
      }),
    );
  });
});
