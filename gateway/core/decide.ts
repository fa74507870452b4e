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
  /** Somebody fixed the side of this query. Moves queries before cutover only; pins and lag still hold. */
  readonly override?: Upstream | null | undefined;
  /** What an OpenFeature provider said, instead of bucket and share; read in canary only. */
  readonly provided?: { readonly extracted: boolean; readonly reason: 'TARGETING' | 'PROVIDER' } | null | undefined;
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

/** Stages in which legacy owns the writes, so that either side may answer a query. */
const OVERRIDABLE: ReadonlySet<Stage> = new Set(['legacy', 'shadow', 'canary']);

/** To extracted, unless this client's own write may not be there yet. */
const diverted = (at: Circumstances, reason: Reason, shadowLegacy: boolean): Decision => {
  if (at.pin === 'legacy') return { kind: 'legacy-with-shadow', reason: 'PINNED' };
  if (at.stale) return { kind: 'legacy-only', reason: 'STALE' };
  return { kind: 'extracted-with-fallback', shadowLegacy, reason };
};

/** Pure. The truth table of DESIGN.md section 5. The share is half-open, so 0 is nobody and 10000 everybody. */
export const decide = (flag: ContextFlag, at: Circumstances): Decision => {
  const query = at.operation === 'query'; // shadowing a command would run it twice
  if (!query && flag.frozen) return { kind: 'frozen', reason: 'FROZEN' };
  if (flag.killed && flag.stage !== 'retired')
    return !query && flag.stage === 'cutover' ? { kind: 'unavailable', reason: 'KILLED' } : { kind: 'legacy-only', reason: 'KILLED' };
  const stage = query && at.maxStage ? lower(flag.stage, at.maxStage) : flag.stage;
  if (query && at.override && OVERRIDABLE.has(flag.stage)) {
    if (at.override === 'legacy') return { kind: stage === 'legacy' ? 'legacy-only' : 'legacy-with-shadow', reason: 'OVERRIDE' };
    // a route that is capped below canary is never diverted
    if (!at.maxStage || lower('canary', at.maxStage) === 'canary') return diverted(at, 'OVERRIDE', stage !== 'legacy');
  }
  switch (stage) {
    case 'legacy':
      return { kind: 'legacy-only', reason: 'STAGE' };
    case 'shadow':
      return { kind: query ? 'legacy-with-shadow' : 'legacy-only', reason: 'STAGE' };
    case 'canary':
      if (!query) return { kind: 'legacy-only', reason: 'STAGE' };
      if (at.provided)
        return at.provided.extracted ? diverted(at, at.provided.reason, true) : { kind: 'legacy-with-shadow', reason: at.provided.reason };
      return at.bucket < flag.canaryShareBp ? diverted(at, 'SPLIT', true) : { kind: 'legacy-with-shadow', reason: 'SPLIT' };
    case 'cutover':
      if (!query) return { kind: 'extracted-only', reason: 'STAGE' }; // a command that falls back would be lost to its owner
      return { kind: 'extracted-with-fallback', shadowLegacy: true, reason: 'STAGE' };
    case 'retired':
      return { kind: 'extracted-only', reason: 'STAGE' };
  }
};
