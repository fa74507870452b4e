import { describe, expect, it } from '@jest/globals';
import { createArena, readLane } from './outbox.ts';
import { createSeriesBook } from './series.ts';

const head = (position: number, subject: string, sequence: number, source = '/banyan/order/legacy', epoch = 1) =>
  [position, sequence, source, epoch, 1, JSON.stringify(subject)].join('\t');

describe('reading a lane', () => {
  it('gives each row its envelope, byte for byte, whatever its subject is called', () => {
    const subjects = ['42', 'a\tb', 'line\nbreak', '"quoted"', '😀 ü', '__proto__', '\\'];
    const envelopes = subjects.map((subject) => JSON.stringify({ subject, text: 'é\n"' }));
    const rows = readLane(
      { lane: 3, heads: subjects.map((subject, i) => head(i + 7, subject, i + 1)).join('\n'), envelopes: envelopes.join('\n') },
      createSeriesBook(100),
      createArena(),
    );
    expect(rows.map(({ position, sequence, series }) => [position, sequence, series.subject])).toEqual(
      subjects.map((name, i) => [String(i + 7), i + 1, { name, lane: 3 }]),
    );
    expect(rows.map(({ data }) => Buffer.from(data).toString())).toEqual(envelopes);
  });

  it('keeps what it gave until it is reset, however much that is', () => {
    const arena = createArena();
    const texts = Array.from({ length: 12 }, (_, i) => String.fromCharCode(97 + i).repeat(1_000_000));
    for (let round = 0; round < 2; round += 1) {
      const taken = [...texts, 'é'.repeat(3_000_000)].map((text) => arena.take(text));
      expect(taken.map((bytes) => bytes.toString()).every((text, i) => text === (texts[i] ?? 'é'.repeat(3_000_000)))).toBe(true);
      arena.reset();
    }
  });

  it('knows a series again, tells epochs and sources apart, and keeps one subject for all of them', () => {
    const book = createSeriesBook(100);
    const heads = [
      head(1, 'a', 1),
      head(2, 'a', 2),
      head(3, 'a', 1, '/banyan/order/legacy', 2),
      head(4, 'a', 1, '/banyan/order/extracted'),
    ];
    const [one, two, newer, other] = readLane({ lane: 1, heads: heads.join('\n'), envelopes: '{}\n{}\n{}\n{}' }, book, createArena()).map(
      ({ series }) => series,
    );
    expect(two).toBe(one);
    expect([newer!.epoch, other!.source]).toEqual([2, '/banyan/order/extracted']);
    expect(new Set([one!.subject, newer!.subject, other!.subject]).size).toBe(1);
    one!.sent = 2;
    book.trim();
    expect(book.of('/banyan/order/legacy\t1', 'a', 1).sent).toBe(2);
  });

  it('forgets everything once it knows too much', () => {
    const book = createSeriesBook(1);
    book.of('s\t1', 'a', 0).sent = 5;
    book.of('s\t1', 'b', 0);
    book.trim();
    expect(book.of('s\t1', 'a', 0).sent).toBeNull();
  });
});
