import { describe, expect, it } from '@jest/globals';
import { toBerlin, toUtc } from './berlin-time.ts';

describe('toUtc', () => {
  it.each([
    ['2026-01-14T09:12:07.031', '2026-01-14T08:12:07.031Z'],
    ['2026-07-02 23:59:59.999', '2026-07-02T21:59:59.999Z'],
    ['2026-03-29T01:59:59.999', '2026-03-29T00:59:59.999Z'],
    // the hour that never was counts on from before the gap
    ['2026-03-29T02:30:00', '2026-03-29T01:30:00.000Z'],
    ['2026-03-29T03:00:00', '2026-03-29T01:00:00.000Z'],
    // the hour that happens twice is the later one
    ['2026-10-25T01:59:59.999', '2026-10-24T23:59:59.999Z'],
    ['2026-10-25T02:00:00', '2026-10-25T01:00:00.000Z'],
    ['2026-10-25T02:59:59.999', '2026-10-25T01:59:59.999Z'],
    ['2026-10-25T03:00:00', '2026-10-25T02:00:00.000Z'],
    ['2024-02-29T12:00:00.5', '2024-02-29T11:00:00.500Z'],
    ['2026-01-01T00:00:00.999999', '2025-12-31T23:00:00.999Z'],
  ])('%s is %s', (local, utc) => {
    expect(toUtc(local)).toBe(utc);
  });
  it.each(['', 'infinity', '2026-02-30T00:00:00', '2026-01-01T24:00:00', '2026-01-01', '2026-01-01T00:00:00Z'])('refuses "%s"', (local) => {
    expect(() => toUtc(local)).toThrow(/is no local time/);
  });
});

describe('toBerlin', () => {
  it.each([
    ['2026-01-14T08:12:07.031Z', '2026-01-14 09:12:07.031'],
    ['2026-03-29T00:59:59.999Z', '2026-03-29 01:59:59.999'],
    ['2026-03-29T01:00:00Z', '2026-03-29 03:00:00.000'],
    ['2026-10-25T00:30:00Z', '2026-10-25 02:30:00.000'],
    ['2026-10-25T01:30:00Z', '2026-10-25 02:30:00.000'],
    ['2026-07-01T12:00:00+02:00', '2026-07-01 12:00:00.000'],
    ['1969-07-20T20:17:40.001Z', '1969-07-20 21:17:40.001'],
  ])('%s is %s', (instant, local) => {
    expect(toBerlin(instant)).toBe(local);
  });
  it('comes back unchanged but for the first pass of the hour that happens twice', () => {
    for (let ms = Date.UTC(2026, 0, 1, 0, 0, 0, 7); ms < Date.UTC(2027, 0, 1); ms += 1_799_993) {
      const utc = new Date(ms).toISOString();
      const twice = utc >= '2026-10-25T00:00:00.000Z' && utc < '2026-10-25T01:00:00.000Z';
      expect(toUtc(toBerlin(utc))).toBe(twice ? new Date(ms + 3_600_000).toISOString() : utc);
    }
  });
  it.each(['', 'now', '2026-01-14 08:12:07Z', '2026-13-01T00:00:00Z'])('refuses "%s"', (instant) => {
    expect(() => toBerlin(instant)).toThrow(/is no time/);
  });
});
