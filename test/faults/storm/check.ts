import type { Envelope } from '@banyan/contracts/envelope.ts';
import type { Told } from './clients.ts';
import type { Effect } from './legacy.ts';

/** What went wrong, counted; every one of them should be 0. */
export type Holes = {
  /** Effects that no fact tells. */
  readonly lost: number;
  /** Facts that nothing in the monolith stands behind, and that nothing takes back. */
  readonly phantom: number;
  /** Commands told by more than one fact. */
  readonly doubled: number;
  /** Commands whose client was told of a success, or of another one, that the monolith does not have. */
  readonly acked_missing: number;
  /** Facts that came before their predecessor, or told the changes of one subject in another order than they were made. */
  readonly out_of_order: number;
  /** Facts that were taken back although the monolith has their effect. */
  readonly wrongly_compensated: number;
  /** Tentative facts without exactly one confirmed or compensated one. */
  readonly undecided: number;
};

type Data = { readonly ref?: string; readonly n?: number };
const dataOf = (fact: Envelope): Data => fact.data as Data;

const first = (facts: readonly Envelope[]): Envelope[] =>
  [...new Map(facts.toReversed().map((fact) => [`${fact.source} ${fact.id}`, fact])).values()].toReversed();

const orderFaults = (facts: readonly Envelope[]): number => {
  const heads = new Map<string, number>();
  let faults = 0;
  for (const fact of facts) {
    const key = `${fact.source} ${fact.subject} ${fact.epoch}`;
    const head = heads.get(key) ?? 0;
    const sequence = Number(fact.sequence);
    // a repeat
    if (sequence <= head) continue;
    if (sequence !== head + 1) faults += 1;
    heads.set(key, sequence);
  }
  return faults;
};

/** Pure: holds what the stream says, in its order shard by shard, and what clients were told against what the monolith did. */
export const check = (
  facts: readonly Envelope[],
  effects: ReadonlyMap<string, Effect>,
  told: readonly Pick<Told, 'key' | 'status' | 'id'>[],
): Holes => {
  const distinct = first(facts);
  const byRef = Map.groupBy(distinct, (fact) => dataOf(fact).ref ?? '');
  let [lost, phantom, doubled, wronglyCompensated, undecided, outOfOrder] = [0, 0, 0, 0, 0, orderFaults(facts)];

  for (const [ref, all] of byRef) {
    const news = all.filter((fact) => fact.phase === undefined || fact.phase === 'confirmed');
    const taken = all.filter((fact) => fact.phase === 'compensated');
    if (news.length > 1) doubled += 1;
    if (effects.has(ref)) {
      if (taken.length > 0) wronglyCompensated += 1;
    } else if (news.length > 0 && taken.length === 0) phantom += 1;
    for (const tentative of all.filter((fact) => fact.phase === 'tentative')) {
      const ends = [...news, ...taken].filter((fact) => fact.causationid === tentative.id);
      if (ends.length !== 1) undecided += 1;
    }
  }
  // of a rush nothing can be told: it is taken back in the monolith
  for (const [ref, { kind }] of effects)
    if (kind !== 'rush' && !byRef.get(ref)?.some((fact) => fact.phase === undefined || fact.phase === 'confirmed')) lost += 1;

  for (const [, ofSubject] of Map.groupBy(distinct, (fact) => `${fact.source} ${fact.subject} ${fact.epoch}`)) {
    let last = 0;
    for (const fact of ofSubject.toSorted((a, b) => Number(a.sequence) - Number(b.sequence))) {
      if (fact.phase === 'tentative' || fact.phase === 'compensated') continue;
      const n = effects.get(dataOf(fact).ref ?? '')?.n;
      if (n === undefined) continue;
      if (n < last) outOfOrder += 1;
      last = Math.max(last, n);
    }
  }

  const missing = told.filter(
    ({ key, status, id }) =>
      status >= 200 && status < 300 && status !== 202 && effects.get(key)?.kind !== 'rush' && effects.get(key)?.subject !== id,
  ).length;
  return {
    lost,
    phantom,
    doubled,
    acked_missing: missing,
    out_of_order: outOfOrder,
    wrongly_compensated: wronglyCompensated,
    undecided,
  };
};
