/** Up to where the two sides of a context have been found equal. */
export type Baseline = {
  readonly context: string;
  /** Place in the outbox: facts behind it tell of aggregates that must be looked at again. */
  readonly from: string;
  /** How many there were; null = a side does not offer checksums, and nothing was compared. */
  readonly aggregates: number | null;
};

/** Compares what both sides of a context hold. */
export type Levels = {
  /** Everything, while traffic goes on. @throws AppError `conflict` naming what differs */
  compare(context: string, timeoutMs: number): Promise<Baseline>;
  /** What has changed since; to be called in the freeze. @returns how many aggregates that were; null = not offered. @throws AppError `conflict` naming what differs */
  recheck(baseline: Baseline, timeoutMs: number): Promise<number | null>;
};
