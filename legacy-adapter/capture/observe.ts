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

/**
 * The gateway settles many ledger rows in one transaction too, in another order. Giving up well before PostgreSQL looks for deadlocks (1 s) makes
 * the adapter the one that steps back: it tells each change alone then, and holds no row while it waits for the next.
 */
const TOGETHER_LOCK_MS = 100;
const ALONE_LOCK_MS = 2000;

const isLockTimeout = (error: unknown): boolean => error instanceof Error && 'code' in error && error.code === '55P03';

const observeTogether = (store: Knex, calls: readonly Observation[]): Promise<Outcome[]> =>
  store.transaction(async (trx) => {
    await trx.raw(`set local statement_timeout = '30s'`);
    await trx.raw(`set local lock_timeout = ${calls.length > 1 ? TOGETHER_LOCK_MS : ALONE_LOCK_MS}`);
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
 * that one gets an `error`. A row that stays locked answers `wait`.
 * @throws when the store cannot be reached; then nothing is known of any of them, and they may be told again
 */
export const observe = async (store: Knex, calls: readonly Observation[]): Promise<Outcome[]> => {
  try {
    return await observeTogether(store, calls);
  } catch (error) {
    if (isPassing(error)) throw error;
    if (calls.length === 1) return [isLockTimeout(error) ? 'wait' : { error: (error as Error).message }];
  }
  const outcomes: Outcome[] = [];
  for (const call of calls) outcomes.push(...(await observe(store, [call])));
  return outcomes;
};
