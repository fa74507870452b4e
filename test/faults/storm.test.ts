import { describe, expect, it } from '@jest/globals';
import { outage } from './storm/outage.ts';
import { holesIn, storm } from './storm/storm.ts';

/** The long ones: `npm run faults`. */
const SECONDS = 4;

describe('a short storm', () => {
  it('of kills, a monolith that fails before, after and instead of its answers, and a stream that is split and merged leaves no hole', async () => {
    const report = await storm({
      seed: 11,
      seconds: SECONDS,
      perSecond: 40,
      publisher: 'ledger',
      naive: false,
      once: false,
      kills: true,
      failures: true,
      stream: 'reshard',
      keyless: false,
      leastCommands: 0,
      say: () => undefined,
    });
    expect(holesIn(report)).toEqual([]);
    expect(report.gave_up_after).toEqual([]);
    expect(report.commands).toBeGreaterThan(SECONDS * 20);
    // it did blow
    expect(report.kills).toBeGreaterThan(0);
  }, 300_000);
});

describe('a stream that is away', () => {
  it('is noticed by no client, and everything is on it afterwards, in order', async () => {
    const report = await outage({ seed: 5, seconds: 3, perSecond: 30, say: () => undefined });
    expect(report).toMatchObject({ unanswered: 0, lost: 0, phantom: 0, doubled: 0, acked_missing: 0, out_of_order: 0 });
    // it was away
    expect(report.backlog).toBeGreaterThan(30);
  }, 300_000);
});
