import { type Checksum, EMPTY_CHECKSUM, fold } from '@banyan/contracts/checksum.ts';
import type { Knex } from 'knex';
import { loadAggregates, nextSubjects, type Shapes } from './legacy-rows.ts';
import type { Aggregate, Translation } from './ports.ts';

const PAGE_ROWS = 1000;

/** The checksum over the contract shape of every aggregate, as of one moment of the legacy database. */
export const legacyChecksum = (legacy: Knex, shapes: Shapes, translation: Translation, aggregate: Aggregate): Promise<Checksum> =>
  legacy.transaction(
    async (trx) => {
      let sum = EMPTY_CHECKSUM;
      let after: string | null = null;
      for (;;) {
        const page: Awaited<ReturnType<typeof nextSubjects>> = await nextSubjects(trx, shapes, aggregate, after, PAGE_ROWS);
        const rows = await loadAggregates(trx, shapes, aggregate, page.subjects);
        const states = [...rows.values()].map((found) => translation.state(aggregate.context, found)).filter((state) => state !== null);
        sum = fold(states, sum);
        if (page.subjects.length < PAGE_ROWS) return sum;
        after = page.keys.at(-1)!;
      }
    },
    { isolationLevel: 'repeatable read', readOnly: true },
  );
