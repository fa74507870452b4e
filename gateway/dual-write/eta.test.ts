import { describe, expect, it } from '@jest/globals';
import { createEta } from './eta.ts';

describe('when the backlog will be empty', () => {
  it('is now when nothing waits, and nobody knows after one count or while it grows', () => {
    expect(createEta().counted(0, 0)).toBe(0);
    const eta = createEta();
    expect(eta.counted(100, 0)).toBeNull();
    expect(eta.counted(200, 1_000)).toBeNull();
  });

  it('follows from how it falls', () => {
    const eta = createEta();
    eta.counted(10_000, 0);
    expect(eta.counted(9_000, 1_000)).toBe(9_000);
    expect(eta.counted(8_000, 2_000)).toBe(8_000);
    expect(eta.counted(0, 3_000)).toBe(0);
  });

  it('smooths what one count says, and changes its mind in time', () => {
    const eta = createEta();
    eta.counted(10_000, 0);
    eta.counted(9_000, 1_000);
    // a burst: still believed to fall, but slower
    expect(eta.counted(9_050, 2_000)).toBeGreaterThan(9_050);
    for (let at = 3_000; at <= 60_000; at += 1_000) eta.counted(9_050 + at, at);
    expect(eta.counted(80_000, 61_000)).toBeNull();
  });
});
