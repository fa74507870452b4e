import { deaggregate } from '@banyan/contracts/kpl.ts';
import { describe, expect, it } from '@jest/globals';
import type { OutboxRow } from './outbox.ts';
import { hashKeyOf, pack } from './pack.ts';
import { createSeriesBook } from './series.ts';

const book = createSeriesBook(1_000);
const row = (lane: number, subject: string, sequence: number, size = 500): OutboxRow => ({
  position: `${sequence}`,
  series: book.of('/banyan/order/legacy\t1', `${subject}`, lane),
  sequence,
  ordered: true,
  data: Buffer.alloc(size, 'x'),
});

describe('packing', () => {
  it('puts the hash key into the lane', () => {
    for (let lane = 0; lane < 16; lane += 1) expect(BigInt(hashKeyOf(lane)) >> 124n).toBe(BigInt(lane));
  });

  it('sends one row as a plain record under its subject', () => {
    const { packed } = pack([row(3, 'a', 1)], true);
    expect(packed.map((p) => [p.record.partitionKey, p.record.explicitHashKey, p.record.data.toString()])).toEqual([
      ['a', hashKeyOf(3), 'x'.repeat(500)],
    ]);
  });

  it('aggregates per lane, keeps blobs within a PUT unit, and members name the same hash', () => {
    const rows = [0, 1].flatMap((lane) => Array.from({ length: 100 }, (_, i) => row(lane, `s${lane}-${i}`, 1)));
    const { packed } = pack(rows, true);
    expect(packed.every((p) => p.record.data.length + Buffer.byteLength(p.record.partitionKey) <= 25_600)).toBe(true);
    const members = packed.flatMap((p) => (deaggregate(p.record.data) ?? []).map((m) => [p.lane, m.partitionKey, m.explicitHashKey]));
    expect(members).toEqual(rows.map((r) => [r.series.subject.lane, r.series.subject.name, hashKeyOf(r.series.subject.lane)]));
  });

  it('never spreads a subject over two records of a request', () => {
    const rows = Array.from({ length: 300 }, (_, i) => row(0, i % 3 === 0 ? 'hot' : `cold-${i}`, i % 3 === 0 ? i / 3 + 1 : 1));
    const { packed } = pack(rows, true);
    const homes = packed.filter((p) => p.rows.some((r) => r.series.subject.name === 'hot'));
    expect(homes).toHaveLength(1);
    const hot = homes[0]!.rows.filter((r) => r.series.subject.name === 'hot').map((r) => r.sequence);
    expect(hot).toEqual(hot.map((_, i) => i + 1));
    expect(packed.flatMap((p) => p.rows).filter((r) => r.series.subject.name !== 'hot')).toHaveLength(200);
  });

  it('sends one row per subject and request when it must not aggregate', () => {
    const { packed } = pack([row(0, 'a', 1), row(0, 'a', 2), row(0, 'b', 1)], false);
    expect(packed.map((p) => p.rows.map((r) => `${r.series.subject.name}${r.sequence}`))).toEqual([['a1'], ['b1']]);
  });

  it('waits at a gap and at a record that no stream takes, for that subject only', () => {
    const { packed, gaps, oversize } = pack(
      [row(0, 'a', 1), row(0, 'a', 3), row(0, 'a', 4), row(0, 'b', 1, 1_100_000), row(0, 'b', 2), row(0, 'c', 1)],
      true,
    );
    expect(packed.flatMap((p) => p.rows).map((r) => `${r.series.subject.name}${r.sequence}`)).toEqual(['a1', 'c1']);
    expect([gaps.map((r) => r.sequence), oversize.map((r) => r.series.subject.name)]).toEqual([[3], ['b']]);
  });

  it('waits for no gap where the order is waived', () => {
    const loose = [1, 4, 9].map((sequence) => ({ ...row(2, 'a#1', sequence), ordered: false }));
    const { packed, gaps } = pack(loose, true, new Set(['1', '4']));
    expect([packed.flatMap((p) => p.rows).map((r) => r.sequence), gaps]).toEqual([[1, 4, 9], []]);
  });

  it('keeps a request within 500 records and 5 MiB', () => {
    const many = pack(
      Array.from({ length: 600 }, (_, i) => row(0, `s${i}`, 1, 25_000)),
      true,
    );
    expect(many.packed.length).toBeLessThanOrEqual(500);
    expect(many.packed.reduce((sum, p) => sum + p.record.data.length + p.record.partitionKey.length, 0)).toBeLessThanOrEqual(5 * 1_048_576);
    expect(
      pack(
        Array.from({ length: 600 }, (_, i) => row(0, `s${i}`, 1)),
        false,
      ).packed,
    ).toHaveLength(500);
  });
});
