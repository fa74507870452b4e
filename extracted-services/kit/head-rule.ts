/** How far a (source, subject) has been applied: `sequence` of `epoch` was the last. */
export type Head = { readonly epoch: number; readonly sequence: bigint };

/** `next` = its turn, `duplicate` = applied before or of an epoch that is over, `gap` = something before it is missing. */
export type Judgement = 'next' | 'duplicate' | 'gap';

/**
 * The order of facts of one source about one subject (DESIGN.md section 6, rule 5): after (e, n) comes (e, n + 1), or (e', 1) of a later epoch. Pure.
 * A later epoch may begin because a flip starts it only when everything of the earlier one has passed its watermark.
 * @param base in a replay the stream may begin in the middle of a subject's life: its first fact of an epoch is taken as it is
 */
export const judge = (head: Head | null, fact: Head, base = false): Judgement => {
  if (head === null || fact.epoch > head.epoch) return fact.sequence === 1n || base ? 'next' : 'gap';
  if (fact.epoch < head.epoch || fact.sequence <= head.sequence) return 'duplicate';
  return fact.sequence === head.sequence + 1n ? 'next' : 'gap';
};
