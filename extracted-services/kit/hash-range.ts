import { hash } from 'node:crypto';
import type { KplRecord } from '@banyan/contracts/kpl.ts';

/** Both ends belong to it; 0 .. 2^128 - 1. */
export type HashRange = { readonly start: bigint; readonly end: bigint };
/** Does a member of an aggregated record belong to the shard that it was read from? */
export type Belongs = (member: Pick<KplRecord, 'partitionKey' | 'explicitHashKey'>) => boolean;

/** Answers kept; keys repeat. */
const KEPT = 10_000;

/** Its explicit hash key, else the MD5 of its partition key, as Kinesis places records. */
const hashOf = ({ partitionKey, explicitHashKey }: Parameters<Belongs>[0]): bigint =>
  explicitHashKey === undefined ? BigInt(`0x${hash('md5', partitionKey, 'hex')}`) : BigInt(explicitHashKey);

/**
 * The rule of the KCL: a blob that was packed for another shard, before a split, holds members that do not belong to this one, and whoever packed it sends those again (the KPL
 * compares the shard in the answer). The KCL drops all of such a blob, and with it what nobody sends again (potential_data_loss.md of kinesis-aggregation); here only those
 * members are dropped.
 */
export const belongsTo = ({ start, end }: HashRange): Belongs => {
  const known = new Map<string, boolean>();
  return (member) => {
    const key = member.explicitHashKey === undefined ? `k${member.partitionKey}` : `h${member.explicitHashKey}`;
    let belongs = known.get(key);
    if (belongs === undefined) {
      const at = hashOf(member);
      belongs = at >= start && at <= end;
      if (known.size >= KEPT) known.clear();
      known.set(key, belongs);
    }
    return belongs;
  };
};
