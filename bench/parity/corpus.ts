import { createRandom, type Random } from '../random.ts';

/** Two JSON texts as two sides might send them, and whether they say the same. */
export type TextPair = { readonly legacy: string; readonly extracted: string; readonly differs: boolean };

const WORDS = 'banyan fig root trunk branch leaf shade water soil light seed bark sap crown canopy vine'.split(' ');

const pick = <T>(random: Random, list: readonly T[]): T => list[Math.floor(random() * list.length)]!;
const digits = (random: Random, n: number): number => Math.floor(random() * 10 ** n);

type Item = Record<string, unknown>;

/** An item of an order list as shops answer with: ids, money, times, texts, a nested object and a list. About 350 bytes. */
const itemOf = (random: Random, id: number): Item => ({
  id,
  sku: `SKU-${digits(random, 6)}`,
  name: Array.from({ length: 4 }, () => pick(random, WORDS)).join(' '),
  price: digits(random, 5) / 100,
  quantity: 1 + digits(random, 1),
  available: random() < 0.8,
  discount: random() < 0.5 ? null : digits(random, 3) / 1000,
  createdAt: new Date(1_760_000_000_000 + digits(random, 10)).toISOString(),
  description: Array.from({ length: 14 }, () => pick(random, WORDS)).join(' '),
  supplier: {
    id: digits(random, 5),
    name: pick(random, WORDS),
    country: pick(random, ['DE', 'FR', 'IN', 'JP']),
    rating: digits(random, 2) / 10,
  },
  tags: Array.from({ length: 3 }, () => pick(random, WORDS)),
});

const reordered = (value: unknown): unknown => {
  if (Array.isArray(value)) return value.map(reordered);
  if (typeof value !== 'object' || value === null) return value;
  return Object.fromEntries(
    Object.entries(value)
      .reverse()
      .map(([key, member]) => [key, reordered(member)]),
  );
};

/**
 * Seeded pairs of about 10 KB: half say the same with the members of every object in reverse order, half differ in one number.
 * No pair is equal byte for byte.
 */
export const corpusOf = (pairs: number, seed: number): TextPair[] => {
  const random = createRandom(seed);
  return Array.from({ length: pairs }, (_, i) => {
    const items = Array.from({ length: 28 }, (_item, id) => itemOf(random, id + 1));
    const document = { page: 1 + i, total: items.length, currency: 'EUR', items };
    const legacy = JSON.stringify(document);
    if (i % 2 === 0) return { legacy, extracted: JSON.stringify(reordered(document)), differs: false };
    const changed = Math.floor(random() * items.length);
    const other = {
      ...document,
      items: items.map((item, at) => (at === changed ? { ...item, price: (item.price as number) + 0.5 } : item)),
    };
    return { legacy, extracted: JSON.stringify(other), differs: true };
  });
};
