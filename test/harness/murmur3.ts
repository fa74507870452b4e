const rotate = (x: number, by: number): number => (x << by) | (x >>> (32 - by));

const scramble = (k: number): number => Math.imul(rotate(Math.imul(k, 0xcc9e2d51), 15), 0x1b873593);

/** MurmurHash3 x86_32, seed 0, written from its description (Appleby, SMHasher): what tests hold the gateway's library against. 0..2^32-1. */
const murmur3 = (bytes: Uint8Array): number => {
  const view = new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength);
  const whole = bytes.length - (bytes.length % 4);
  let h = 0;
  for (let at = 0; at < whole; at += 4) h = (Math.imul(rotate(h ^ scramble(view.getUint32(at, true)), 13), 5) + 0xe6546b64) | 0;
  let tail = 0;
  for (let at = bytes.length - 1; at >= whole; at--) tail = (tail << 8) | bytes[at]!;
  if (whole < bytes.length) h ^= scramble(tail);
  h ^= bytes.length;
  h = Math.imul(h ^ (h >>> 16), 0x85ebca6b);
  h = Math.imul(h ^ (h >>> 13), 0xc2b2ae35);
  return (h ^ (h >>> 16)) >>> 0;
};

/** The bucket 0..9999 that the documentation promises: floor(h * 10000 / 2^32) over utf8 `salt:key`. Integers only, without the gateway's code. */
export const promisedBucket = (salt: string, key: string): number =>
  Number((BigInt(murmur3(Buffer.from(`${salt}:${key}`, 'utf8'))) * 10_000n) >> 32n);
