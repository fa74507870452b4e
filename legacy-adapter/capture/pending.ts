import type { Knex } from 'knex';
import { keyOf, loadAggregates, parseRow } from '../legacy-rows.ts';
import type { Aggregate } from '../ports.ts';
import type { Installed } from './install.ts';
import { type Change, type Replayed, replay, steps } from './replay.ts';

/** An aggregate by context and id. */
export type Subject = { readonly context: string; readonly subject: string };

/** What is to be told about one aggregate, oldest first. */
export type PendingSubject = Subject & {
  /** The snapshot has not passed it yet, or its row is among the steps. */
  readonly unseen: boolean;
  readonly steps: readonly Replayed[];
};

export type PendingOptions = {
  /** At most this many of the oldest changes decide which aggregates are read. */
  readonly headRows: number;
  /** At most this many changes of one aggregate are read, more only to complete one transaction. */
  readonly rowsPerSubject: number;
};

type Row = {
  id: string;
  xid: string;
  context: string;
  subject: string;
  tbl: string;
  op: Change['op'];
  before: string | null;
  after: string | null;
};

const COLUMNS = 'c.id::text, c.xid::text, c.context, c.subject, c.tbl, c.op, c.before::text, c.after::text';

const toChange = (installed: Installed, row: Row): Change => {
  const [before, after] = [row.before, row.after].map((text) => (text === null ? null : parseRow(text))) as [
    Change['before'],
    Change['after'],
  ];
  const rowKey = row.op === 'S' ? '' : keyOf(installed.shapes.get(row.tbl)!, (after ?? before)!);
  return {
    id: BigInt(row.id),
    xid: row.xid,
    context: row.context,
    subject: row.subject,
    table: row.tbl,
    op: row.op,
    rowKey,
    before,
    after,
  };
};

/** The aggregates that the oldest changes belong to, without those in `except` (`context/subject`). */
export const headSubjects = async (trx: Knex, except: readonly string[], headRows: number): Promise<Subject[]> => {
  const { rows } = await trx.raw<{ rows: Subject[] }>(
    `select context, subject from (
       select context, subject, id from banyan_capture.change where context || '/' || subject not in (select unnest(?::text[])) order by id limit ?) h
     group by context, subject order by min(id)`,
    [[...except], headRows],
  );
  return rows;
};

type Read = { readonly changes: readonly Change[]; readonly whole: (lastId: bigint, xid: string) => boolean };

/**
 * More changes wait than are read at once: reads on until the first transaction to end is complete. Only steps up to the last change read, and
 * with all their changes, may be told; one that reaches further could be overtaken by a transaction that was not read.
 */
const readCut = async (trx: Knex, installed: Installed, subject: Subject, first: readonly Change[]): Promise<Read> => {
  const where = 'from banyan_capture.change c where c.context = ? and c.subject = ?';
  const lasts = async (changes: readonly Change[]): Promise<Map<string, bigint>> => {
    const xids = [...new Set(changes.map(({ xid }) => xid))];
    const { rows } = await trx.raw<{ rows: { xid: string; last: string }[] }>(
      `select c.xid::text, max(c.id)::text as last ${where} and c.op <> 'S' and c.xid = any(?::text[]::xid8[]) group by c.xid`,
      [subject.context, subject.subject, xids],
    );
    return new Map(rows.map(({ xid, last }) => [xid, BigInt(last)]));
  };
  const least = (a: bigint, b: bigint): bigint => (a < b ? a : b);
  const readTo = first.at(-1)!.id;
  const ends = await lasts(first);
  const firstEnd = [...ends.values(), ...first.filter(({ op }) => op === 'S').map(({ id }) => id)].reduce(least);
  if (firstEnd <= readTo) return { changes: first, whole: (lastId, xid) => lastId <= readTo && (ends.get(xid) ?? lastId) <= readTo };
  const { rows } = await trx.raw<{ rows: Row[] }>(`select ${COLUMNS} ${where} and c.id <= ? order by c.id`, [
    subject.context,
    subject.subject,
    String(firstEnd),
  ]);
  const changes = rows.map((row) => toChange(installed, row));
  const allEnds = await lasts(changes);
  return { changes, whole: (lastId, xid) => lastId <= firstEnd && (allEnds.get(xid) ?? lastId) <= firstEnd };
};

/**
 * Reads what waits for some aggregates, with the rows before and after each transaction. Must run in a `repeatable read` transaction of the legacy
 * database: changes and live rows have to be of one moment.
 */
export const readPending = async (
  trx: Knex,
  installed: Installed,
  aggregates: readonly Aggregate[],
  subjects: readonly Subject[],
  { rowsPerSubject }: PendingOptions,
): Promise<PendingSubject[]> => {
  if (subjects.length === 0) return [];
  const { rows } = await trx.raw<{ rows: Row[] }>(
    `select ${COLUMNS} from unnest(?::text[], ?::text[]) as s (context, subject)
     cross join lateral (select * from banyan_capture.change c where c.context = s.context and c.subject = s.subject order by c.id limit ?) c order by c.id`,
    [subjects.map(({ context }) => context), subjects.map(({ subject }) => subject), rowsPerSubject],
  );
  const bySubject = new Map<string, Change[]>(subjects.map(({ context, subject }) => [`${context}/${subject}`, []]));
  for (const row of rows) bySubject.get(`${row.context}/${row.subject}`)!.push(toChange(installed, row));

  const { rows: done } = await trx.raw<{ rows: { context: string }[] }>(
    'select context from banyan_capture.snapshot where done_at is not null',
  );
  const passed = new Set(done.map(({ context }) => context));
  const pending: PendingSubject[] = [];
  for (const aggregate of aggregates) {
    const mine = subjects.filter(({ context }) => context === aggregate.context);
    const live = await loadAggregates(
      trx,
      installed.shapes,
      aggregate,
      mine.map(({ subject }) => subject),
    );
    for (const { context, subject } of mine) {
      const first = bySubject.get(`${context}/${subject}`)!;
      const cut = first.length >= rowsPerSubject;
      const read: Read = cut ? await readCut(trx, installed, { context, subject }, first) : { changes: first, whole: () => true };
      const todo = steps(read.changes).filter((step) => step.kind === 'snapshot' || read.whole(step.lastId, step.changes[0]!.xid));
      pending.push({
        context,
        subject,
        unseen: !passed.has(context) || read.changes.some(({ op }) => op === 'S'),
        steps: replay(live.get(subject)!, (table, row) => keyOf(installed.shapes.get(table)!, row), read.changes, todo),
      });
    }
  }
  return pending;
};
