import { createHash } from 'node:crypto';
import { z } from 'zod';
import { type Checksum, EMPTY_CHECKSUM, fold, plus, rowDigest } from './checksum.ts';
import { AppError } from './errors.ts';

/**
 * What a side is asked about the aggregates it holds (`GET /_banyan/checksum`, `GET /v1/contexts/:context/checksum`), and what it answers.
 * A flip compares the two sides in parts, so that traffic which changes a few aggregates meanwhile spoils only the parts they are in.
 */
export type ChecksumQuestion =
  /** All aggregates; with `parts` also one sum for each part. */
  | { readonly kind: 'whole'; readonly parts: number | null }
  /** Every aggregate of one part by name. */
  | { readonly kind: 'part'; readonly parts: number; readonly part: number }
  /** These aggregates by name; one that is not there is left out. */
  | { readonly kind: 'subjects'; readonly subjects: readonly string[] };

const MAX_PARTS = 4096;
/** Aggregates asked for by name at a time; also what the address of a request can hold. */
export const MAX_SUBJECTS = 500;

const checksum = z.object({ count: z.number().int().min(0), checksum: z.string().regex(/^[0-9a-f]{32}$/) });
/** `aggregates`: subject and the digest of its state. */
export const checksumAnswerSchema = checksum.extend({
  parts: z.array(checksum).max(MAX_PARTS).optional(),
  aggregates: z
    .array(z.tuple([z.string(), z.string().regex(/^[0-9a-f]{32}$/)]))
    .max(1_000_000)
    .optional(),
});
export type ChecksumAnswer = z.output<typeof checksumAnswerSchema>;

/** Which of `parts` (1..4096) an aggregate belongs to, the same on both sides. */
export const partOf = (subject: string, parts: number): number => createHash('sha256').update(subject).digest().readUInt32BE(0) % parts;

const whole = (value: unknown, name: string, min: number, max: number): number => {
  const found = typeof value === 'string' && /^\d{1,5}$/.test(value) ? Number(value) : Number.NaN;
  if (found >= min && found <= max) return found;
  throw new AppError('bad-request', `${name}: expected a whole number from ${min} to ${max}`);
};

/** Reads `?parts=256`, `?parts=256&part=7` or `?subject=1001&subject=1002`. @throws AppError `bad-request` */
export const readChecksumQuestion = (query: Readonly<Record<string, unknown>>): ChecksumQuestion => {
  const { parts, part, subject } = query;
  if (subject !== undefined) {
    const subjects = [subject].flat();
    if (parts !== undefined || part !== undefined || subjects.length > MAX_SUBJECTS || subjects.some((one) => typeof one !== 'string'))
      throw new AppError('bad-request', `subject: expected 1 to ${MAX_SUBJECTS} of them, and nothing else`);
    return { kind: 'subjects', subjects: subjects as string[] };
  }
  if (parts === undefined) {
    if (part !== undefined) throw new AppError('bad-request', 'part: needs parts');
    return { kind: 'whole', parts: null };
  }
  const count = whole(parts, 'parts', 1, MAX_PARTS);
  return part === undefined ? { kind: 'whole', parts: count } : { kind: 'part', parts: count, part: whole(part, 'part', 0, count - 1) };
};

/** The question as a side is asked it, `?…` or nothing. */
export const checksumQueryOf = (question: ChecksumQuestion): string => {
  switch (question.kind) {
    case 'whole':
      return question.parts === null ? '' : `?parts=${question.parts}`;
    case 'part':
      return `?parts=${question.parts}&part=${question.part}`;
    case 'subjects':
      return `?${question.subjects.map((subject) => `subject=${encodeURIComponent(subject)}`).join('&')}`;
  }
};

type State = Readonly<Record<string, unknown>>;

/** Takes the states that a side holds, each once, and answers the question. An aggregate's subject is its `id`. */
export const answerTo = (question: ChecksumQuestion): { add(states: Iterable<State>): void; answer(): ChecksumAnswer } => {
  const parts: Checksum[] | null =
    question.kind === 'whole' && question.parts !== null ? Array.from({ length: question.parts }, () => EMPTY_CHECKSUM) : null;
  const aggregates: [string, string][] | null = question.kind === 'whole' ? null : [];
  let sum = EMPTY_CHECKSUM;
  return {
    add(states) {
      for (const state of states) {
        const subject = String(state.id);
        if (question.kind === 'part' && partOf(subject, question.parts) !== question.part) continue;
        aggregates?.push([subject, rowDigest(state).toString(16).padStart(32, '0')]);
        if (parts === null) sum = fold([state], sum);
        else parts[partOf(subject, parts.length)] = fold([state], parts[partOf(subject, parts.length)]);
      }
    },
    answer: () => (parts === null ? { ...sum, ...(aggregates === null ? {} : { aggregates }) } : { ...parts.reduce(plus), parts }),
  };
};
