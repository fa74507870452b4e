import { createHash } from 'node:crypto';
import { describe, expect, it } from '@jest/globals';
import fc from 'fast-check';
import { aggregate, createAggregator, deaggregate } from './kpl.ts';

const text = (value: string) => Buffer.from(value);

describe('the KPL codec', () => {
  it('writes the published format byte for byte', () => {
    const body = Buffer.concat([
      Buffer.from([0x0a, 0x01]),
      text('a'),
      Buffer.from([0x12, 0x02]),
      text('17'),
      Buffer.from([0x1a, 0x06, 0x08, 0x00, 0x1a, 0x02]),
      text('hi'),
      Buffer.from([0x1a, 0x07, 0x08, 0x00, 0x10, 0x00, 0x1a, 0x01]),
      text('!'),
    ]);
    const expected = Buffer.concat([Buffer.from('f3899ac2', 'hex'), body, createHash('md5').update(body).digest()]);
    const records = [
      { partitionKey: 'a', data: text('hi') },
      { partitionKey: 'a', explicitHashKey: '17', data: text('!') },
    ];
    expect(aggregate(records).toString('hex')).toBe(expected.toString('hex'));
  });

  it('keeps keys that other codecs swap or lose', () => {
    const keys = ['1007', '42', 'abc', '7', '__proto__', 'hasOwnProperty', '😀', 'ü', '42', ''];
    const records = keys.map((partitionKey, index) => ({ partitionKey, data: text(`for-${partitionKey}-${index}`) }));
    expect(deaggregate(aggregate(records))?.map((r) => [r.partitionKey, Buffer.from(r.data).toString()])).toEqual(
      records.map((r) => [r.partitionKey, r.data.toString()]),
    );
  });

  it('keeps an empty and a maximum-size record, and each record its own explicit hash', () => {
    const big = Buffer.alloc(1024 * 1024 - 512, 7);
    const max = (2n ** 128n - 1n).toString();
    const records = [
      { partitionKey: 'a', explicitHashKey: max, data: Buffer.alloc(0) },
      { partitionKey: 'b', data: big },
      { partitionKey: 'c', explicitHashKey: '0', data: text('x') },
    ];
    const back = deaggregate(aggregate(records))!;
    expect(back.map((r) => r.explicitHashKey)).toEqual([max, undefined, '0']);
    expect(back[0]!.data.length).toBe(0);
    expect(Buffer.compare(Buffer.from(back[1]!.data), big)).toBe(0);
  });

  const key = fc.oneof(
    fc.nat().map(String),
    fc.constantFrom('__proto__', 'constructor', 'hasOwnProperty', '', '007', '-1', '😀', 'é'),
    fc.string({ unit: 'grapheme', maxLength: 60 }),
  );
  const records = fc.array(
    fc.record(
      {
        partitionKey: key,
        explicitHashKey: fc.bigInt({ min: 0n, max: 2n ** 128n - 1n }).map(String),
        data: fc.oneof(fc.uint8Array({ maxLength: 300 }), fc.constant(new Uint8Array(0)), fc.constant(new Uint8Array(20_000).fill(9))),
      },
      { requiredKeys: ['partitionKey', 'data'] },
    ),
    { maxLength: 40 },
  );
  type Shown = { readonly partitionKey: string; readonly explicitHashKey?: string; readonly data: Uint8Array };
  const shown = (all: readonly Shown[] | null) => all?.map((r) => [r.partitionKey, r.explicitHashKey, Buffer.from(r.data).toString('hex')]);

  it('round-trips anything, and its size is known before it is built', () => {
    fc.assert(
      fc.property(records, (all) => {
        const aggregator = createAggregator(Number.POSITIVE_INFINITY);
        for (const one of all) aggregator.add(one);
        const size = aggregator.size();
        const built = aggregator.finish();
        expect(built.length).toBe(size);
        expect(shown(deaggregate(built))).toEqual(shown(all));
      }),
    );
  });

  it('fills blobs side by side without mixing them, none above the limit unless by one record alone', () => {
    fc.assert(
      fc.property(records, fc.integer({ min: 60, max: 30_000 }), (all, limit) => {
        const open = [createAggregator(limit), createAggregator(limit)];
        const taken: Shown[][] = [[], []];
        for (const [index, one] of all.entries()) if (open[index % 2]!.add(one)) taken[index % 2]!.push(one);
        for (const [index, aggregator] of open.entries()) {
          const built = aggregator.finish();
          expect(built.length <= limit || taken[index]!.length <= 1).toBe(true);
          expect(shown(deaggregate(built))).toEqual(shown(taken[index]!));
        }
      }),
    );
  });

  it('reads fields in any order, and skips those that it does not know', () => {
    const body = Buffer.concat([
      Buffer.from([0x1a, 0x05, 0x08, 0x01, 0x1a, 0x01]),
      text('!'),
      Buffer.from([0x0a, 0x02]),
      text('ü'),
      Buffer.from([0x22, 0x01, 0x00, 0x0a, 0x01]),
      text('a'),
    ]);
    const blob = Buffer.concat([Buffer.from('f3899ac2', 'hex'), body, createHash('md5').update(body).digest()]);
    expect(shown(deaggregate(blob))).toEqual([['a', undefined, text('!').toString('hex')]]);
  });

  it('takes any damaged blob for a plain record, or reads what its digest vouches for, and never throws', () => {
    fc.assert(
      fc.property(fc.uint8Array({ maxLength: 200 }), (noise) => {
        const blob = Buffer.concat([Buffer.from('f3899ac2', 'hex'), noise, createHash('md5').update(noise).digest()]);
        const read = deaggregate(blob);
        expect(read === null || Array.isArray(read)).toBe(true);
        expect(deaggregate(blob.subarray(0, blob.length - 1))).toBeNull();
      }),
      { numRuns: 1_000 },
    );
  });

  it('refuses a record that would burst the limit, but never the first', () => {
    const aggregator = createAggregator(100);
    expect(aggregator.add({ partitionKey: 'a', data: Buffer.alloc(200) })).toBe(true);
    expect(aggregator.add({ partitionKey: 'a', data: Buffer.alloc(1) })).toBe(false);
    expect(aggregator.count()).toBe(1);
  });

  it('takes a bad digest, a short record and a broken body for a plain record', () => {
    const good = aggregate([{ partitionKey: 'a', data: text('hi') }]);
    const bad = Buffer.from(good);
    bad[bad.length - 1]! ^= 1;
    expect(deaggregate(bad)).toBeNull();
    expect(deaggregate(text('{"specversion":"1.0"}'))).toBeNull();
    expect(deaggregate(Buffer.alloc(0))).toBeNull();
    expect(deaggregate(good.subarray(0, 10))).toBeNull();
    const body = Buffer.from([0x1a, 0x7f, 0x08]);
    expect(deaggregate(Buffer.concat([Buffer.from('f3899ac2', 'hex'), body, createHash('md5').update(body).digest()]))).toBeNull();
  });
});
