import type { Reason, Upstream } from '@banyan/contracts/vocabulary.ts';
import { bucketOf } from './bucket.ts';
import { type ContextFlag, decide } from './decide.ts';

/** Where a sticky key falls and who answers its queries when nothing stands in the way (no pin, lag, breaker or override): what `banyan bucket` prints and OFREP serves. */
export const decideKey = (
  flag: ContextFlag,
  key: string,
): { readonly bucket: number; readonly upstream: Upstream; readonly reason: Reason } => {
  const bucket = bucketOf(flag.group ?? flag.name, key);
  const { kind, reason } = decide(flag, { operation: 'query', bucket, pin: null, stale: false });
  return { bucket, upstream: kind === 'extracted-only' || kind === 'extracted-with-fallback' ? 'extracted' : 'legacy', reason };
};
