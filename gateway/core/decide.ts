import type { Operation, Reason, Stage, Upstream } from '@banyan/contracts/vocabulary.ts';
import { STAGES } from '@banyan/contracts/vocabulary.ts';

/** The stored state of a context, as requests read it from memory. */
export type ContextFlag = {
  readonly name: string;
  readonly group: string | null;
  readonly stage: Stage;
  /** 0..10000. */
  readonly canaryShareBp: number;
  readonly killed: boolean;
  /** A flip holds the context: commands wait. */
  readonly frozen: boolean;
  readonly owner: Upstream;
  readonly epoch: number;
  readonly version: number;
};

/** What the request itself adds to the flag. */
export type Circumstances = {
  readonly operation: Operation;
  /** 0..9999. */
  readonly bucket: number;
  /** The side that has this client's last command, while the other may not have it yet. */
  readonly pin: Upstream | null;
  /** The extracted side's lag exceeds what a pin covers. */
  readonly stale: boolean;
  /** Caps the stage for queries of this route. */
  readonly maxStage?: Stage | undefined;
};

export type Decision =
  | { readonly kind: 'legacy-only' | 'legacy-with-shadow' | 'extracted-only'; readonly reason: Reason }
  | { readonly kind: 'extracted-with-fallback'; readonly shadowLegacy: boolean; readonly reason: Reason }
  /** A flip is under way: wait a moment, then decide again. */
  | { readonly kind: 'frozen'; readonly reason: 'FROZEN' }
  /** Nobody may take the write just now: 503. */
  | { readonly kind: 'unavailable'; readonly reason: Reason };

const lower = (a: Stage, b: Stage): Stage => (STAGES.indexOf(a) <= STAGES.indexOf(b) ? a : b);

/** Pure. The truth table of DESIGN.md section 5. The share is half-open, so 0 is nobody and 10000 everybody. */
export const decide = (flag: ContextFlag, at: Circumstances): Decision => {
  const query = at.operation === 'query'; // shadowing a command would run it twice
  if (!query && flag.frozen) return { kind: 'frozen', reason: 'FROZEN' };
  if (flag.killed && flag.stage !== 'retired')
    return !query && flag.stage === 'cutover' ? { kind: 'unavailable', reason: 'KILLED' } : { kind: 'legacy-only', reason: 'KILLED' };
  const stage = query && at.maxStage ? lower(flag.stage, at.maxStage) : flag.stage;
  switch (stage) {
    case 'legacy':
      return { kind: 'legacy-only', reason: 'STAGE' };
    case 'shadow':
      return { kind: query ? 'legacy-with-shadow' : 'legacy-only', reason: 'STAGE' };
    case 'canary':
      if (!query) return { kind: 'legacy-only', reason: 'STAGE' };
      if (at.bucket >= flag.canaryShareBp) return { kind: 'legacy-with-shadow', reason: 'SPLIT' };
      if (at.pin === 'legacy') return { kind: 'legacy-with-shadow', reason: 'PINNED' };
      if (at.stale) return { kind: 'legacy-only', reason: 'STALE' };
      return { kind: 'extracted-with-fallback', shadowLegacy: true, reason: 'SPLIT' };
    case 'cutover':
      if (!query) return { kind: 'extracted-only', reason: 'STAGE' }; // a command that falls back would be lost to its owner
      return { kind: 'extracted-with-fallback', shadowLegacy: true, reason: 'STAGE' };
    case 'retired':
      return { kind: 'extracted-only', reason: 'STAGE' };
  }
};
