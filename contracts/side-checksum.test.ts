import { describe, expect, it } from '@jest/globals';
import { fold } from './checksum.ts';
import { answerTo, type ChecksumQuestion, checksumAnswerSchema, checksumQueryOf, partOf, readChecksumQuestion } from './side-checksum.ts';

const states = Array.from({ length: 200 }, (_, n) => ({ id: n + 1, total: n * 1.5 }));
const ask = (question: ChecksumQuestion) => {
  const side = answerTo(question);
  side.add(states.slice(0, 77));
  side.add(states.slice(77));
  return checksumAnswerSchema.parse(side.answer());
};

describe('the checksum of a side', () => {
  it('is the same in parts as whole, and the parts hold each aggregate once', () => {
    const whole = ask({ kind: 'whole', parts: null });
    const inParts = ask({ kind: 'whole', parts: 8 });
    expect(whole).toEqual(fold(states));
    expect(inParts).toMatchObject(whole);
    expect(inParts.parts!.reduce((sum, { count }) => sum + count, 0)).toBe(200);
    for (const part of inParts.parts!.keys()) {
      const { aggregates, ...sum } = ask({ kind: 'part', parts: 8, part });
      expect(sum).toEqual(inParts.parts![part]);
      expect(aggregates!.every(([subject]) => partOf(subject, 8) === part)).toBe(true);
    }
  });

  it('names aggregates that are asked for', () => {
    const { aggregates } = ask({ kind: 'subjects', subjects: ['1', '2'] });
    expect(aggregates).toHaveLength(200);
    expect(aggregates![0]).toEqual(['1', expect.stringMatching(/^[0-9a-f]{32}$/)]);
  });

  it('reads the question that it was asked', () => {
    const questions: ChecksumQuestion[] = [
      { kind: 'whole', parts: null },
      { kind: 'whole', parts: 256 },
      { kind: 'part', parts: 256, part: 255 },
      { kind: 'subjects', subjects: ['a&b', '1001'] },
    ];
    for (const question of questions) {
      const query: Record<string, string | string[]> = {};
      for (const [name, value] of new URLSearchParams(checksumQueryOf(question)))
        query[name] = name in query ? [query[name]!, value].flat() : value;
      expect(readChecksumQuestion(query)).toEqual(question);
    }
  });

  it.each([
    { parts: '0' },
    { parts: '5000' },
    { parts: '8', part: '8' },
    { part: '1' },
    { parts: 'x' },
    { subject: { a: '1' } },
    { subject: '1', parts: '2' },
  ])('refuses %j', (query) => {
    expect(() => readChecksumQuestion(query)).toThrow(expect.objectContaining({ code: 'bad-request' }));
  });
});
