import type { Knex } from 'knex';
import { type Alias, MAX_ALIASES } from '../../core/parity/aliases.ts';

export type ContextAlias = Alias & { readonly context: string };

/** Where aliases outlive the process and reach the other gateways. */
export type AliasStore = {
  /** Of two that name the same legacy id, the later one stays. */
  readonly add: (aliases: readonly ContextAlias[]) => Promise<void>;
  /** Those that came after the mark of an earlier call, oldest first, at most 100,000; some of them may have been given before. null = all. */
  readonly since: (mark: string | null) => Promise<{ readonly aliases: readonly ContextAlias[]; readonly mark: string | null }>;
  /** Keeps the newest 100,000 of a context. */
  readonly prune: (context: string) => Promise<void>;
};

/** A transaction that began earlier may commit later: so far back is read again. */
const OVERLAP = '30 seconds';
const MOST_AT_ONCE = 1_000;

/** The aliases in PostgreSQL (migration 050-parity-aliases). Errors of the database pass through. */
export const createAliasStore = (db: Knex): AliasStore => ({
  add: async (aliases) => {
    // in one order for everybody, so that two gateways never wait for each other in a circle
    const keyOf = ({ context, word, legacy }: ContextAlias): string => `${context} ${word} ${legacy}`;
    const rows = [...new Map(aliases.map((one) => [keyOf(one), one])).entries()].sort(([a], [b]) => (a < b ? -1 : 1)).map(([, row]) => row);
    for (let i = 0; i < rows.length; i += MOST_AT_ONCE)
      await db
        .withSchema('banyan')
        .from('parity_alias')
        .insert(rows.slice(i, i + MOST_AT_ONCE).map(({ context, word, legacy, extracted }) => ({ context, word, legacy, extracted })))
        .onConflict(['context', 'word', 'legacy'])
        .merge({ extracted: db.raw('excluded.extracted'), at: db.raw('now()') });
  },
  since: async (mark) => {
    const { rows } = await db.raw<{ rows: (ContextAlias & { at: string })[] }>(
      `select * from (
         select context, word, legacy, extracted, at::text as at from banyan.parity_alias
         where at > coalesce(?::timestamptz, '-infinity') - ?::interval order by parity_alias.at desc limit ?
       ) newest order by at::timestamptz`,
      [mark, OVERLAP, MAX_ALIASES],
    );
    return { aliases: rows.map(({ at: _at, ...alias }) => alias), mark: rows.at(-1)?.at ?? mark };
  },
  prune: async (context) => {
    await db.raw(
      `delete from banyan.parity_alias where context = ?
         and at <= (select at from banyan.parity_alias where context = ? order by at desc offset ? limit 1)`,
      [context, context, MAX_ALIASES],
    );
  },
});
