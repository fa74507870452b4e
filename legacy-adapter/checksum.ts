import { answerTo, type ChecksumAnswer, type ChecksumQuestion } from '@banyan/contracts/side-checksum.ts';
import type { Knex } from 'knex';
import { loadAggregates, nextSubjects, type Shapes } from './legacy-rows.ts';
import type { Aggregate, Translation } from './ports.ts';

const PAGE_ROWS = 1000;

/** The checksum over the contract shape of every aggregate, or of those asked for, as of one moment of the legacy database. */
export const legacyChecksum = (
  legacy: Knex,
  shapes: Shapes,
  translation: Translation,
  aggregate: Aggregate,
  question: ChecksumQuestion,
): Promise<ChecksumAnswer> =>
  legacy.transaction(
    async (trx) => {
      const side = answerTo(question);
      const take = async (subjects: readonly string[]): Promise<void> => {
        const rows = await loadAggregates(trx, shapes, aggregate, subjects);
        side.add([...rows.values()].map((found) => translation.state(aggregate.context, found)).filter((state) => state !== null));
      };
      if (question.kind === 'subjects') {
        await take(question.subjects);
        return side.answer();
      }
      for (let after: string | null = null; ; ) {
        const page: Awaited<ReturnType<typeof nextSubjects>> = await nextSubjects(trx, shapes, aggregate, after, PAGE_ROWS);
        await take(page.subjects);
        if (page.subjects.length < PAGE_ROWS) return side.answer();
        after = page.keys.at(-1)!;
      }
    },
    { isolationLevel: 'repeatable read', readOnly: true },
  );
