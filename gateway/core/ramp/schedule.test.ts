import { describe, expect, it } from '@jest/globals';
import { isOpen, nextOpen, type Window } from './schedule.ts';

const office: Window = { days: [1, 2, 3, 4, 5], from: 540, to: 1020, zone: 'Europe/Zurich' };
const at = (iso: string): number => Date.parse(iso);

describe('schedule', () => {
  it('is always open without windows', () => {
    expect(isOpen([], 0)).toBe(true);
    expect(nextOpen([], 5)).toBe(5);
  });

  it.each([
    // winter: UTC+1, summer: UTC+2; 2027-01-04 is a Monday
    ['2027-01-04T07:59:59Z', false],
    ['2027-01-04T08:00:00Z', true],
    ['2027-01-04T15:59:59Z', true],
    ['2027-01-04T16:00:00Z', false],
    ['2027-07-05T07:00:00Z', true],
    ['2027-01-02T10:00:00Z', false],
  ])('mon-fri 09:00-17:00 in Zurich at %s: %s', (iso, open) => {
    expect(isOpen([office], at(iso))).toBe(open);
  });

  it('finds the next opening over a week-end and a change of the clock', () => {
    expect(nextOpen([office], at('2027-01-08T16:00:00Z'))).toBe(at('2027-01-11T08:00:00Z'));
    // clocks go forward on 2027-03-28
    expect(nextOpen([office], at('2027-03-26T18:00:00Z'))).toBe(at('2027-03-29T07:00:00Z'));
    expect(nextOpen([{ ...office, from: 547 }], at('2027-01-04T07:00:00Z'))).toBe(at('2027-01-04T08:07:00Z'));
  });

  it('carries a window past midnight over to the next day', () => {
    const night: Window = { days: [5], from: 1320, to: 360, zone: 'UTC' };
    expect(isOpen([night], at('2027-01-08T23:00:00Z'))).toBe(true);
    expect(isOpen([night], at('2027-01-09T05:59:00Z'))).toBe(true);
    expect(isOpen([night], at('2027-01-09T06:00:00Z'))).toBe(false);
    expect(isOpen([night], at('2027-01-08T05:00:00Z'))).toBe(false);
  });

  it('gives up after eight days', () => {
    expect(nextOpen([{ ...office, days: [] }], 0)).toBeNull();
  });
});
