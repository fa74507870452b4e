import { createHash } from 'node:crypto';

/** Compares two stores: how many aggregates each holds, and 32 hexadecimal digits that are equal when all of them are. */
export type Checksum = { readonly count: number; readonly checksum: string };

const MODULUS = 1n << 128n;

/**
 * Canonical JSON: keys in code unit order, no white space, numbers as JavaScript prints them, and a key whose value is null or undefined left
 * out, because stores differ in whether they keep an absent value. List entries stay in their order.
 * @throws TypeError for what JSON cannot say: NaN, infinities, functions, bigints
 */
export const canonicalJson = (value: unknown): string => {
  if (value === null || typeof value === 'boolean' || typeof value === 'string') return JSON.stringify(value);
  if (typeof value === 'number') {
    if (!Number.isFinite(value)) throw new TypeError(`canonical JSON has no ${value}`);
    return JSON.stringify(value);
  }
  if (Array.isArray(value)) return `[${value.map((entry: unknown) => canonicalJson(entry ?? null)).join(',')}]`;
  if (typeof value === 'object') {
    const entries = Object.entries(value)
      .filter(([, entry]) => entry !== null && entry !== undefined)
      .sort(([a], [b]) => (a < b ? -1 : 1));
    return `{${entries.map(([key, entry]) => `${JSON.stringify(key)}:${canonicalJson(entry)}`).join(',')}}`;
  }
  throw new TypeError(`canonical JSON has no ${typeof value}`);
};

/** 128 bits that stand for the state of one aggregate in its contract shape (`OrderState`, `ProductState`): the first half of its SHA-256. */
export const rowDigest = (state: Readonly<Record<string, unknown>>): bigint =>
  BigInt(`0x${createHash('sha256').update(canonicalJson(state)).digest('hex').slice(0, 32)}`);

/**
 * Adds states up, in any order: the sum of their digests modulo 2^128. A sum can be kept per chunk, so no store has to sort or to hold all rows,
 * and two equal rows do not cancel each other as they would under XOR.
 */
export const fold = (states: Iterable<Readonly<Record<string, unknown>>>, onto: Checksum = EMPTY_CHECKSUM): Checksum => {
  let { count } = onto;
  let sum = BigInt(`0x${onto.checksum}`);
  for (const state of states) {
    sum = (sum + rowDigest(state)) % MODULUS;
    count += 1;
  }
  return { count, checksum: sum.toString(16).padStart(32, '0') };
};

/** The checksum of both together. */
export const plus = (a: Checksum, b: Checksum): Checksum => ({
  count: a.count + b.count,
  checksum: ((BigInt(`0x${a.checksum}`) + BigInt(`0x${b.checksum}`)) % MODULUS).toString(16).padStart(32, '0'),
});

/** The checksum of nothing. */
export const EMPTY_CHECKSUM: Checksum = { count: 0, checksum: '0'.repeat(32) };
