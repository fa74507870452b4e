import { describe, expect, it } from '@jest/globals';
import { canonicalJson, EMPTY_CHECKSUM, fold, rowDigest } from './checksum.ts';

describe('canonicalJson', () => {
  it('does not depend on the order of keys nor on absent values', () => {
    const a = canonicalJson({ id: 1, items: [{ q: 2, p: 12.5 }], ref: null });
    expect(a).toBe('{"id":1,"items":[{"p":12.5,"q":2}]}');
    expect(canonicalJson({ items: [{ p: 12.5, q: 2, note: undefined }], id: 1 })).toBe(a);
  });
  it('keeps the order of lists and tells 1 from "1"', () => {
    expect(canonicalJson([2, 1])).not.toBe(canonicalJson([1, 2]));
    expect(canonicalJson({ id: 1 })).not.toBe(canonicalJson({ id: '1' }));
  });
  it('refuses what JSON cannot say', () => {
    expect(() => canonicalJson({ a: Number.NaN })).toThrow(TypeError);
    expect(() => canonicalJson({ a: 1n })).toThrow(TypeError);
  });
});

describe('fold', () => {
  const rows = [{ id: 1 }, { id: 2 }, { id: 3, name: 'ü' }];
  it('is the same in any order and in any number of parts', () => {
    const whole = fold(rows);
    expect(whole.count).toBe(3);
    expect(fold([...rows].reverse())).toEqual(whole);
    expect(fold(rows.slice(1), fold(rows.slice(0, 1)))).toEqual(whole);
  });
  it('changes with any row, and equal rows do not cancel', () => {
    expect(fold([{ id: 1 }, { id: 2 }]).checksum).not.toBe(fold([{ id: 1 }, { id: 3 }]).checksum);
    expect(fold([{ id: 1 }, { id: 1 }]).checksum).not.toBe(EMPTY_CHECKSUM.checksum);
  });
  it('has 128 bits per row', () => {
    expect(rowDigest({ id: 1 }).toString(16).length).toBeLessThanOrEqual(32);
    expect(fold([])).toEqual({ count: 0, checksum: '00000000000000000000000000000000' });
  });
});
