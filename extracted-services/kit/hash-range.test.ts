import { createHash } from 'node:crypto';
import { aggregate } from '@banyan/contracts/kpl.ts';
import { describe, expect, it } from '@jest/globals';
import fc from 'fast-check';
import { entriesOf, parseFact } from './entries.ts';
import { belongsTo } from './hash-range.ts';

const MAX = 2n ** 128n - 1n;
const md5 = (text: string): bigint => BigInt(`0x${createHash('md5').update(text).digest('hex')}`);

describe('what belongs to a shard', () => {
  it('is in exactly one of the shards that share the ring, by its own hash, else by its key', () => {
    const cuts = fc.uniqueArray(fc.bigInt({ min: 1n, max: MAX }), { maxLength: 8 });
    const member = fc.record({
      partitionKey: fc.string({ minLength: 1 }),
      hash: fc.option(fc.bigInt({ min: 0n, max: MAX }), { nil: undefined }),
    });
    fc.assert(
      fc.property(cuts, fc.array(member, { maxLength: 20 }), (at, members) => {
        const bounds = [0n, ...[...at].sort((a, b) => (a < b ? -1 : 1)), MAX + 1n];
        const shards = bounds.slice(1).map((end, n) => ({ start: bounds[n]!, end: end - 1n }));
        const rules = shards.map(belongsTo);
        // twice: the second answer comes from memory
        for (const { partitionKey, hash } of [...members, ...members]) {
          const one = { partitionKey, ...(hash === undefined ? {} : { explicitHashKey: String(hash) }) };
          const place = hash ?? md5(partitionKey);
          expect(rules.map((belongs) => belongs(one))).toEqual(shards.map(({ start, end }) => place >= start && place <= end));
        }
      }),
    );
  });

  it('is looked at in aggregated records only: Kinesis itself has placed the others', () => {
    const text = (id: string) =>
      Buffer.from(
        JSON.stringify({
          specversion: '1.0',
          id,
          source: '/banyan/thing/legacy',
          type: 'thing.done.v1',
          subject: id,
          time: '2026-01-02T03:04:05Z',
          datacontenttype: 'application/json',
          data: {},
          partitionkey: id,
          sequence: '000000000000000001',
          epoch: 1,
          origin: 'legacy',
        }),
      );
    const middle = 2n ** 127n;
    const keys = Array.from({ length: 20 }, (_, n) => `key-${n}`);
    const lower = keys.filter((key) => md5(key) < middle);
    const Data = aggregate([
      ...keys.map((key) => ({ partitionKey: key, data: text(key) })),
      { partitionKey: 'a', explicitHashKey: String(middle), data: text('upper') },
      { partitionKey: 'b', explicitHashKey: String(middle - 1n), data: text('edge') },
    ]);
    const shard = belongsTo({ start: 0n, end: middle - 1n });
    const found = entriesOf({ SequenceNumber: '1', PartitionKey: 'key-0', Data }, parseFact, shard);
    expect(found.flatMap((entry) => (entry.kind === 'fact' ? [entry.envelope.id] : []))).toEqual([...lower, 'edge']);
    expect(found.filter((entry) => entry.kind === 'foreign')).toHaveLength(keys.length - lower.length + 1);
    expect(found.map((entry) => entry.subsequence)).toEqual(found.map((_, n) => n));
    const upper = keys.find((key) => md5(key) >= middle)!;
    expect(entriesOf({ SequenceNumber: '1', PartitionKey: upper, Data: text(upper) }, parseFact, shard)).toMatchObject([{ kind: 'fact' }]);
  });
});
