import { describe, expect, it } from '@jest/globals';
import { bucketOf } from './bucket.ts';

/** Ids of each kind, the same in every run, so that a test either always passes or never. `BANYAN_IDS=1000000 npm test -- bucket-shares` looks at a million. */
const IDS = Number(process.env.BANYAN_IDS ?? 50_000);
const SHARES_BP = [10, 100, 500, 1_000, 2_000, 5_000, 10_000];

/** splitmix32: ids that look random without being so. */
const scrambled = (n: number): number => {
  let x = (n + 0x9e3779b9) | 0;
  x = Math.imul(x ^ (x >>> 16), 0x21f0aaad);
  x = Math.imul(x ^ (x >>> 15), 0x735a2d97);
  return (x ^ (x >>> 15)) >>> 0;
};
const hex = (n: number): string => scrambled(n).toString(16).padStart(8, '0');
const KINDS: Readonly<Record<string, (n: number) => string>> = {
  'sequential numbers': (n) => String(n),
  uuids: (n) => {
    const low = hex(n * 4 + 3);
    return `${hex(n * 4)}-${hex(n * 4 + 1).slice(0, 4)}-4${hex(n * 4 + 1).slice(5)}-a${hex(n * 4 + 2).slice(5)}-${hex(n * 4 + 2).slice(0, 4)}${low}`;
  },
  emails: (n) => `person.${n}@${n % 3 === 0 ? 'example.com' : 'mail.example.org'}`,
  'unicode names': (n) => `${'äöß漢字😀'.slice(n % 4)}-${n}-Ωμέγα`,
};

const sigma = (n: number, p: number): number => Math.sqrt(n * p * (1 - p));

describe('shares over many ids', () => {
  it.each(Object.keys(KINDS))('hold within 3 sigma for %s', (kind) => {
    const counts = new Uint32Array(10_000);
    for (let n = 0; n < IDS; n++) counts[bucketOf('order', KINDS[kind]!(n))]!++;
    for (const share of SHARES_BP) {
      const members = counts.subarray(0, share).reduce((sum, count) => sum + count, 0);
      expect(Math.abs(members - (IDS * share) / 10_000)).toBeLessThanOrEqual(3 * sigma(IDS, share / 10_000));
    }
    // 100 groups of buckets: chi-square with 99 degrees of freedom is above 148.2 once in a thousand
    const expected = IDS / 100;
    let chi = 0;
    for (let at = 0; at < 10_000; at += 100)
      chi += (counts.subarray(at, at + 100).reduce((sum, count) => sum + count, 0) - expected) ** 2 / expected;
    expect(chi).toBeLessThan(148.2);
  });

  it('of two contexts are independent, and of a group the same', () => {
    let both = 0;
    for (let n = 0; n < IDS; n++) if (bucketOf('order', String(n)) < 1_000 && bucketOf('inventory', String(n)) < 1_000) both++;
    expect(Math.abs(both - IDS / 100)).toBeLessThanOrEqual(3 * sigma(IDS, 0.01));
  });

  it('are nested: who is in at a small share stays in at every larger one', () => {
    const members = SHARES_BP.map(
      (share) => new Set(Array.from({ length: 20_000 }, (_, n) => n).filter((n) => bucketOf('order', `id-${n}`) < share)),
    );
    for (const [index, wide] of members.entries()) {
      const narrow = index === 0 ? new Set<number>() : members[index - 1]!;
      expect(narrow.isSubsetOf(wide)).toBe(true);
      expect(wide.size).toBeGreaterThan(narrow.size);
    }
    expect(members.at(-1)!.size).toBe(20_000);
  });
});
