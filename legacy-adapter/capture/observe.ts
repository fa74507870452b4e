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

type Outcome = 'published' | 'correlated' | 'skipped' | 'wait' | { readonly error: string };

const OUTCOMES: readonly unknown[] = ['published', 'correlated', 'skipped', 'wait'];

/**
 * The gateway settles many ledger rows in one transaction too, in another order. Giving up well before PostgreSQL looks for deadlocks (1 s) makes
 * the adapter the one that steps back: it tells each change alone then, and holds no row while it waits for the next.
 */
const TOGETHER_LOCK_MS = 100;
const ALONE_LOCK_MS = 2000;

const isLockTimeout = (error: unknown): boolean => error instanceof Error && 'code' in error && error.code === '55P03';

/** Begins a store transaction for `observeIn` that gives up on a locked row after `lockMs`. */
const transaction = <T>(store: Knex, lockMs: number, work: (trx: Knex.Transaction) => Promise<T>): Promise<T> =>
  store.transaction(async (trx) => {
    await trx.raw(`set local statement_timeout = '30s'`);
    await trx.raw(`set local lock_timeout = ${lockMs}`);
    return work(trx);
  });

/** Tells the store about changes of different aggregates, in their order. @throws whatever the store throws; the transaction is lost then */
const observeIn = async (trx: Knex, calls: readonly Observation[]): Promise<Outcome[]> => {
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
};

const observeAlone = async (store: Knex, call: Observation): Promise<Outcome> => {
  try {
    return (await transaction(store, ALONE_LOCK_MS, (trx) => observeIn(trx, [call])))[0]!;
  } catch (error) {
    if (isPassing(error)) throw error;
    return isLockTimeout(error) ? 'wait' : { error: (error as Error).message };
  }
};

/** Observations about one aggregate, in order; told up to the first that is answered by `wait` or an error. */
export type Story = readonly Observation[];
/** How far a story was told; `stopped` is null at its end. */
export type Told = { readonly told: number; readonly stopped: 'wait' | { readonly error: string } | null };

type Ask = (calls: readonly Observation[]) => Promise<Outcome[]>;

/** One observation of each unfinished story at a time, until all stop or `budget` observations are made. */
const tellSome = async (stories: readonly Story[], from: readonly Told[], ask: Ask, budget: number): Promise<Told[]> => {
  const progress = [...from];
  for (let made = 0; made < budget; ) {
    const open = stories.flatMap((story, index) => (isOpen(story, progress[index]!) ? [index] : [])).slice(0, budget - made);
    if (open.length === 0) break;
    const outcomes = await ask(open.map((index) => stories[index]![progress[index]!.told]!));
    made += open.length;
    open.forEach((index, at) => {
      const outcome = outcomes[at]!;
      const { told } = progress[index]!;
      progress[index] = outcome === 'wait' || typeof outcome === 'object' ? { told, stopped: outcome } : { told: told + 1, stopped: null };
    });
  }
  return progress;
};

const isOpen = (story: Story, { told, stopped }: Told): boolean => stopped === null && told < story.length;

/** Observations in one transaction: enough to make its commit cheap, few enough that the rows it locks are soon free for the gateway. */
const TOGETHER = 250;

/**
 * Tells the store about many aggregates, up to 250 observations in one transaction. When the store refuses one of them, or holds a row for long,
 * they are told one by one, so that only the one at fault is stopped.
 * @throws when the store cannot be reached; then any of them may have been told, and all may be told again
 */
export const observe = async (store: Knex, stories: readonly Story[]): Promise<Told[]> => {
  let progress: Told[] = stories.map(() => ({ told: 0, stopped: null }));
  while (stories.some((story, index) => isOpen(story, progress[index]!))) {
    const from = progress;
    try {
      progress = await transaction(store, TOGETHER_LOCK_MS, (trx) => tellSome(stories, from, (calls) => observeIn(trx, calls), TOGETHER));
    } catch (error) {
      if (isPassing(error)) throw error;
      const each: Ask = async (calls) => {
        const outcomes: Outcome[] = [];
        for (const call of calls) outcomes.push(await observeAlone(store, call));
        return outcomes;
      };
      progress = await tellSome(stories, from, each, TOGETHER);
    }
  }
  return progress;
};
