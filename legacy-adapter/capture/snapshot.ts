import type { Knex } from 'knex';
import type { Logger } from 'pino';
import { nextSubjects } from '../legacy-rows.ts';
import type { Aggregate } from '../ports.ts';
import { type Installed, installation } from './install.ts';

export type SnapshotDeps = {
  readonly legacy: Knex;
  readonly aggregates: readonly Aggregate[];
  readonly log: Logger;
  readonly chunkRows?: number;
};

/** One context's snapshot. `rows` = root rows appended so far; times are RFC 3339. */
export type SnapshotState = { context: string; state: 'running' | 'done'; rows: number; startedAt: string; doneAt: string | null };

const CHUNK_ROWS = 500;
/** Snapshot rows that may wait in `banyan_capture.change` per context; further ones are appended as the reader settles them. */
const MAX_WAITING_CHUNKS = 4;
const IDLE_MS = 500;
const BUSY_MS = 50;

const appendChunk = (legacy: Knex, installed: Installed, aggregate: Aggregate, chunkRows: number): Promise<'more' | 'full' | 'done'> =>
  legacy.transaction(async (trx) => {
    const { rows } = await trx.raw<{ rows: { after_key: string | null; done: boolean; waiting: string }[] }>(
      `select s.after_key::text, s.done_at is not null as done,
         (select count(*) from (select from banyan_capture.change c where c.context = s.context and c.op = 'S' limit ?) w)::text as waiting
       from banyan_capture.snapshot s where s.context = ? for update of s`,
      [chunkRows * MAX_WAITING_CHUNKS, aggregate.context],
    );
    const state = rows[0];
    if (!state || state.done) return 'done';
    if (Number(state.waiting) > chunkRows * (MAX_WAITING_CHUNKS - 1)) return 'full';
    const page = await nextSubjects(trx, installed.shapes, aggregate, state.after_key, chunkRows);
    await trx.raw(
      `insert into banyan_capture.change (context, subject, tbl, op, key, after)
       select ?, r.subject, ?, 'S', r.key, r.row from unnest(?::text[], ?::text[]::jsonb[], ?::text[]::jsonb[]) with ordinality as r (subject, key, row, n) order by n`,
      [aggregate.context, aggregate.root.name, page.subjects, page.keys, page.rows],
    );
    const last = page.subjects.length < chunkRows;
    await trx.raw(
      `update banyan_capture.snapshot set after_key = coalesce(?::jsonb, after_key), rows = rows + ?, done_at = case when ? then clock_timestamp() end where context = ?`,
      [page.keys.at(-1) ?? null, page.subjects.length, last, aggregate.context],
    );
    return last ? 'done' : 'more';
  });

/**
 * Appends existing rows to `banyan_capture.change`, chunk by chunk in primary key order, for every context that has an unfinished snapshot.
 * Resumable: the position is kept in the transaction of the chunk. Rows that appear behind the position are captured by the triggers.
 */
export const createSnapshots = ({
  legacy,
  aggregates,
  log,
  chunkRows = CHUNK_ROWS,
}: SnapshotDeps): { turn: (signal: AbortSignal) => Promise<number> } => ({
  turn: async (signal) => {
    const installed = await installation(legacy, aggregates);
    if (installed === null) return IDLE_MS;
    const { rows } = await legacy.raw<{ rows: { context: string }[] }>('select context from banyan_capture.snapshot where done_at is null');
    let wait = IDLE_MS;
    for (const aggregate of aggregates.filter(({ context }) => rows.some((row) => row.context === context))) {
      let did: 'more' | 'full' | 'done' = 'more';
      while (did === 'more' && !signal.aborted) did = await appendChunk(legacy, installed, aggregate, chunkRows);
      if (did === 'done') log.info({ context: aggregate.context }, 'snapshot: every existing row is read');
      else wait = BUSY_MS;
    }
    return wait;
  },
});

/** Starts the snapshot of contexts that never had one; with `again`, of all of them from the first row. A running one goes on. */
export const requestSnapshots = async (legacy: Knex, aggregates: readonly Aggregate[], again: boolean): Promise<void> => {
  for (const { context } of aggregates)
    await legacy.raw(
      `insert into banyan_capture.snapshot (context) values (?) on conflict (context) ${
        again
          ? 'do update set after_key = null, rows = 0, started_at = clock_timestamp(), done_at = null where banyan_capture.snapshot.done_at is not null'
          : 'do nothing'
      }`,
      [context],
    );
};

/** All snapshots that were ever asked for. */
export const snapshotStates = async (legacy: Knex): Promise<SnapshotState[]> => {
  const { rows } = await legacy.raw<{ rows: { context: string; rows: string; started_at: Date; done_at: Date | null }[] }>(
    'select context, rows::text, started_at, done_at from banyan_capture.snapshot order by context',
  );
  return rows.map((row) => ({
    context: row.context,
    state: row.done_at === null ? 'running' : 'done',
    rows: Number(row.rows),
    startedAt: row.started_at.toISOString(),
    doneAt: row.done_at?.toISOString() ?? null,
  }));
};
