import type { Envelope } from '@banyan/contracts/envelope.ts';

/**
 * One column of a legacy row as the database said it: numbers stay the digits that PostgreSQL printed (a bigint or a numeric loses nothing),
 * timestamps without zone are `2026-01-14T09:12:07.031`.
 */
export type LegacyValue = string | boolean | null | readonly LegacyValue[] | { readonly [key: string]: LegacyValue };
export type LegacyRow = Readonly<Record<string, LegacyValue>>;

/** A captured table. `link` is the column that holds the aggregate's id; rows with the same value in it belong to one aggregate. */
export type LegacyTable = { readonly schema: string; readonly name: string; readonly link: string };

/** The tables that make up one context. The root has one row per aggregate; without it there is none. */
export type Aggregate = {
  readonly context: string;
  readonly root: LegacyTable;
  readonly parts: readonly LegacyTable[];
  /** Sequence that numbers new aggregates, `schema.name`; absent = ids are not numbers of the legacy system. */
  readonly sequence?: string;
};

/** All rows of one aggregate by table name (without schema); a table without rows may be absent. */
export type AggregateRows = Readonly<Record<string, readonly LegacyRow[]>>;

/** What one legacy transaction did to one aggregate. */
export type AggregateChange = {
  readonly context: string;
  readonly before: AggregateRows;
  readonly after: AggregateRows;
  /** The snapshot has not yet passed this aggregate: nobody can be sure that its earlier state was ever told. */
  readonly unseen: boolean;
};

/** Something to tell. `kind` snapshot = state, not news: published only when nothing was told about the subject before. */
export type Finding = {
  readonly kind: 'change' | 'snapshot';
  readonly type: string;
  readonly data: Readonly<Record<string, unknown>>;
  /** The Idempotency-Key under which it was done, where the legacy row keeps it. */
  readonly key: string | null;
};

/** A write into the legacy tables; columns and values as the legacy system wants them. */
export type LegacyWrite =
  | { readonly kind: 'upsert'; readonly table: string; readonly key: LegacyRow; readonly set: LegacyRow }
  | { readonly kind: 'delete'; readonly table: string; readonly key: LegacyRow }
  /** Adds `by` to a whole number; refused when the row is absent or the result would be below zero. */
  | { readonly kind: 'add'; readonly table: string; readonly key: LegacyRow; readonly column: string; readonly by: number };

/**
 * Everything the adapter knows about one monolith. Pure. Another monolith needs another folder `translate/` that exports one of these.
 * Every function throws AppError `unprocessable` naming table, column and value when a row or a fact cannot be said in the other's words.
 */
export type Translation = {
  readonly aggregates: readonly Aggregate[];
  /** What a change means, in the order in which it is to be told; empty = nothing that the contracts have words for. */
  readonly findings: (change: AggregateChange) => readonly Finding[];
  /** The finding that a snapshot makes of existing rows, or null when there is no aggregate. */
  readonly imported: (context: string, rows: AggregateRows) => Finding | null;
  /** The contract shape of the rows, or null when there is no aggregate; what checksums are made of. */
  readonly state: (context: string, rows: AggregateRows) => Readonly<Record<string, unknown>> | null;
  /** What to write so that the legacy tables show a fact of the extracted service; `current` is what they show now. */
  readonly writes: (context: string, fact: Envelope, current: AggregateRows) => readonly LegacyWrite[];
  /** What to write so that the aggregate is as if it had not been made; `at` = now, ISO 8601. Empty = it is so already. */
  readonly undo: (context: string, current: AggregateRows, at: string) => readonly LegacyWrite[];
};

/** `schema.name`, as messages and the API print it. */
export const qualified = (table: LegacyTable): string => `${table.schema}.${table.name}`;

/** Root first, then the parts. */
export const tablesOf = (aggregate: Aggregate): readonly LegacyTable[] => [aggregate.root, ...aggregate.parts];
