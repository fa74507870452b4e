import type { AggregateRows, LegacyRow } from '../ports.ts';

/** A row of `banyan_capture.change`. `rowKey` is the stable text of the legacy row's primary key. */
export type Change = {
  readonly id: bigint;
  readonly xid: string;
  readonly context: string;
  readonly subject: string;
  readonly table: string;
  readonly op: 'I' | 'U' | 'D' | 'S';
  readonly rowKey: string;
  readonly before: LegacyRow | null;
  readonly after: LegacyRow | null;
};

/** All changes of one transaction to one aggregate, or one row of the snapshot. `lastId` orders steps of an aggregate as their transactions committed. */
export type Step = { readonly kind: 'change' | 'snapshot'; readonly lastId: bigint; readonly changes: readonly Change[] };

/** A step with the aggregate's rows as they were before and after it. */
export type Replayed = Step & { readonly before: AggregateRows; readonly after: AggregateRows };

/**
 * Groups the changes of ONE aggregate by transaction. Ordered by the last change: of two transactions that touched the same row the second wrote
 * it after the first had committed, so all changes of the first have lower ids than that one.
 */
export const steps = (changes: readonly Change[]): Step[] => {
  const groups = new Map<string, Change[]>();
  for (const change of [...changes].sort((a, b) => (a.id < b.id ? -1 : 1))) {
    const group = change.op === 'S' ? `S${change.id}` : change.xid;
    const known = groups.get(group);
    if (known) known.push(change);
    else groups.set(group, [change]);
  }
  return [...groups.values()]
    .map(
      (group): Step => ({
        kind: group[0]!.op === 'S' ? 'snapshot' : 'change',
        lastId: group.at(-1)!.id,
        changes: group,
      }),
    )
    .sort((a, b) => (a.lastId < b.lastId ? -1 : 1));
};

type Table = Map<string, LegacyRow>;
type Rows = Map<string, Table>;

const put = (rows: Rows, table: string, key: string, row: LegacyRow | null): void => {
  const known = rows.get(table) ?? new Map<string, LegacyRow>();
  if (row === null) known.delete(key);
  else known.set(key, row);
  rows.set(table, known);
};

const copy = (rows: Rows): AggregateRows =>
  Object.fromEntries([...rows].filter(([, table]) => table.size > 0).map(([name, table]) => [name, [...table.values()]]));

/**
 * The rows before and after each step. `live` is what the tables show in the same database snapshot in which `pending` was read: undoing every
 * pending change gives the start, then the steps are applied one by one. `pending` may hold changes that are not part of a step (later ones).
 */
export const replay = (
  live: AggregateRows,
  keyOf: (table: string, row: LegacyRow) => string,
  pending: readonly Change[],
  todo: readonly Step[],
): Replayed[] => {
  const rows: Rows = new Map(Object.entries(live).map(([name, table]) => [name, new Map(table.map((row) => [keyOf(name, row), row]))]));
  const byId = [...pending].filter(({ op }) => op !== 'S').sort((a, b) => (a.id < b.id ? 1 : -1));
  for (const { table, rowKey, before } of byId) put(rows, table, rowKey, before);
  return todo.map((step) => {
    const before = copy(rows);
    if (step.kind === 'change') for (const { table, rowKey, after } of step.changes) put(rows, table, rowKey, after);
    return { ...step, before, after: copy(rows) };
  });
};
