import { describe, expect, it } from '@jest/globals';
import { holesIn, storm } from './storm/storm.ts';

/** The long ones: `npm run faults`. */
const SECONDS = 4;

describe('a short storm', () => {
  it('of kills and a monolith that fails before, after and instead of its answers leaves no hole', async () => {
    const report = await storm({
      seed: 11,
      seconds: SECONDS,
      perSecond: 40,
      publisher: 'ledger',
      naive: false,
      once: false,
      kills: true,
      failures: true,
      stream: 'calm',
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
