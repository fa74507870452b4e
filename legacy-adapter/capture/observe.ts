import type { Knex } from 'knex';
import { isPassing } from '../database-errors.ts';

/** One call of `banyan.observe_change`. */
export type Observation = {
  readonly context: string;
  readonly publisher: 'ledger' | 'capture';
  readonly kind: 'change' | 'snapshot';
  readonly type: string;
  readonly subject: string;
  readonly data: Readonly<Record<string, unknown>>;
  readonly key: string | null;
  /** The same for the same change, however often it is read. */
  readonly changeId: string;
};

export type Outcome = 'published' | 'correlated' | 'skipped' | 'wait' | { readonly error: string };

const OUTCOMES: readonly unknown[] = ['published', 'correlated', 'skipped', 'wait'];

const observeTogether = (store: Knex, calls: readonly Observation[]): Promise<Outcome[]> =>
  store.transaction(async (trx) => {
    await trx.raw(`set local statement_timeout = '30s'`);
    // knex's types know no list with nulls; pg sends them as NULL
    const column = (pick: (call: Observation) => string | null): string[] => calls.map(pick) as string[];
    const { rows } = await trx.raw<{ rows: { outcome: string }[] }>(
      `select banyan.observe_change(c.context, c.publisher, c.kind, c.type, c.subject, c.data, c.key, c.change_id) as outcome
       from (select * from unnest(?::text[], ?::text[], ?::text[], ?::text[], ?::text[], ?::text[]::jsonb[], ?::text[], ?::text[]) with ordinality
         as c (context, publisher, kind, type, subject, data, key, change_id, n) order by n offset 0) c`,
      [
        column(({ context }) => context),
        column(({ publisher }) => publisher),
        column(({ kind }) => kind),
        column(({ type }) => type),
        column(({ subject }) => subject),
        column(({ data }) => JSON.stringify(data)),
        column(({ key }) => key),
        column(({ changeId }) => changeId),
      ],
    );
    return rows.map(({ outcome }) => {
      if (!OUTCOMES.includes(outcome))
        throw new Error(`banyan.observe_change answered ${JSON.stringify(outcome)}: adapter and store are of different versions`);
      return outcome as Outcome;
    });
  });

/**
 * Tells the store about changes of different aggregates, in one transaction. When the store refuses one of them each is told alone, so that only
 * that one gets an `error`.
 * @throws when the store cannot be reached; then nothing is known of any of them, and they may be told again
 */
export const observe = async (store: Knex, calls: readonly Observation[]): Promise<Outcome[]> => {
  try {
    return await observeTogether(store, calls);
  } catch (error) {
    if (isPassing(error)) throw error;
    if (calls.length === 1) return [{ error: (error as Error).message }];
  }
  const outcomes: Outcome[] = [];
  for (const call of calls) outcomes.push(...(await observe(store, [call])));
  return outcomes;
};
