/**
 * Sequence numbers in the layout that AWS uses (as decoded by kinesalite, `db/index.js`, version 2). 47 hex digits, 56 decimal ones:
 * `2`, shard creation in s (9), shard number's low nibble (1), index (16), salt (2), arrival in s (9), shard number (8), `2`.
 * The index stands above everything that varies within a shard, so numbers of one shard grow with it.
 */
export type Position = { readonly createdSeconds: number; readonly salt: number; readonly shard: number; readonly index: number };

type Origin = { readonly number: number; readonly createdMs: number };

const hex = (value: number, digits: number): string => value.toString(16).padStart(digits, '0');

/** Tells apart two incarnations of a stream that were created within one second: creation time in steps of 4 ms. */
export const saltOf = (createdMs: number): number => Math.floor((createdMs % 1000) / 4);

/** Makes the numbers of one shard: `(index, arrival in ms) -> 56 digits`. */
export const sequencer = (shard: Origin): ((index: number, atMs: number) => string) => {
  const created = hex(Math.floor(shard.createdMs / 1000), 9);
  const low = hex(shard.number & 0xf, 1);
  const base = BigInt(`0x2${created}${low}${hex(0, 16)}${hex(saltOf(shard.createdMs), 2)}${hex(0, 9)}${hex(shard.number, 8)}2`);
  return (index, atMs) => (base + (BigInt(index) << 80n) + (BigInt(Math.floor(atMs / 1000)) << 36n)).toString();
};

/** The parts of a sequence number, or undefined when it is none of ours. */
export const parseSequence = (text: string): Position | undefined => {
  if (!/^[1-9]\d{55}$/.test(text)) return undefined;
  const digits = BigInt(text).toString(16);
  if (digits.length !== 47 || digits[0] !== '2' || digits[46] !== '2') return undefined;
  const part = (from: number, to: number): number => Number.parseInt(digits.slice(from, to), 16);
  const index = part(11, 27);
  if (!Number.isSafeInteger(index)) return undefined;
  return { createdSeconds: part(1, 10), index, salt: part(27, 29), shard: part(38, 46) };
};
