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

  it('round-trips anything, and its size is known before it is built', () => {
    const record = fc.record({ partitionKey: fc.string({ unit: 'grapheme' }), data: fc.uint8Array({ maxLength: 300 }) });
    fc.assert(
      fc.property(fc.array(record, { maxLength: 40 }), (records) => {
        const aggregator = createAggregator(Number.POSITIVE_INFINITY);
        for (const one of records) aggregator.add(one);
        const size = aggregator.size();
        const built = aggregator.finish();
        expect(built.length).toBe(size);
        expect(deaggregate(built)?.map((r) => [r.partitionKey, Buffer.from(r.data).toString('hex')])).toEqual(
          records.map((r) => [r.partitionKey, Buffer.from(r.data).toString('hex')]),
        );
      }),
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
