import murmur from 'murmurhash3js-revisited';

/** Buckets in all; a canary share is counted in them, so its resolution is 0.01 %. */
const BUCKETS = 10_000;

// it would look at every byte whether it is one; a TextEncoder gives nothing else
murmur.inputValidation = false;

const utf8 = new TextEncoder();

/**
 * Bucket 0..9999 of a sticky key: murmur3 x86_32, seed 0, over utf8 `salt:stickyKey`, scaled (DESIGN.md section 5).
 * `Math.floor(h * 10000 / 2 ** 32)`, not a shift: the product does not fit 32 bits.
 */
export const bucketOf = (salt: string, stickyKey: string): number =>
  Math.floor((murmur.x86.hash32(utf8.encode(`${salt}:${stickyKey}`), 0) * BUCKETS) / 2 ** 32);
