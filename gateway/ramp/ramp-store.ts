import { AppError } from '@banyan/contracts/errors.ts';
import type { RampState } from '@banyan/contracts/vocabulary.ts';
import type { Knex } from 'knex';
import type { Judgement, RampReason } from '../core/ramp/judge.ts';
import type { StoredReading } from './readings.ts';

export type Approval = { readonly actor: string; readonly at: string; readonly reason: string };
export type Paused = { readonly by: string; readonly at: string; readonly reason: string };
type Marked = Readonly<Record<string, StoredReading>>;
/** Readings of the counters that later ones are compared with. */
export type Marks = {
  /** Where evidence begins. */
  readonly base: Marked;
  /** The last minutes are what came since `older`. */
  readonly older: { readonly at: string; readonly readings: Marked } | null;
  readonly newer: { readonly at: string; readonly readings: Marked };
  /** What legacy did at the last step at which it answered somebody. */
  readonly reference: Marked;
};

export type RampRow = {
  readonly unit: string;
  readonly contexts: readonly string[];
  readonly state: Exclude<RampState, 'idle'>;
  /** 0 = shadow. */
  readonly shareBp: number;
  readonly flagVersions: Readonly<Record<string, number>>;
  readonly since: Date;
  readonly evidenceSince: Date;
  readonly serviceVersions: Readonly<Record<string, string>>;
  readonly looks: number;
  readonly marks: Marks;
  readonly outcome: Judgement['outcome'];
  readonly reasons: readonly RampReason[];
  readonly approvals: readonly Approval[];
  readonly paused: Paused | null;
  readonly nextAt: Date | null;
  readonly startedBy: string;
  readonly startedAt: Date;
  readonly rev: number;
  readonly updatedAt: Date;
};
export type RampPatch = Partial<Omit<RampRow, 'unit' | 'rev' | 'updatedAt'>>;

type Stored = {
  unit: string;
  contexts: string[];
  state: RampRow['state'];
  share_bp: number;
  flag_versions: Record<string, number>;
  since: Date;
  evidence_since: Date;
  service_versions: Record<string, string>;
  looks: number;
  marks: Marks;
  outcome: Judgement['outcome'];
  reasons: RampReason[];
  approvals: Approval[];
  paused: Paused | null;
  next_at: Date | null;
  started_by: string;
  started_at: Date;
  rev: string;
  updated_at: Date;
};

/** Without the readings, which are the bulk of it. */
export type RampSummary = Omit<RampRow, 'marks'>;

const summaryOf = (row: Omit<Stored, 'marks'>): RampSummary => ({
  unit: row.unit,
  contexts: row.contexts,
  state: row.state,
  shareBp: row.share_bp,
  flagVersions: row.flag_versions,
  since: row.since,
  evidenceSince: row.evidence_since,
  serviceVersions: row.service_versions,
  looks: row.looks,
  outcome: row.outcome,
  reasons: row.reasons,
  approvals: row.approvals,
  paused: row.paused,
  nextAt: row.next_at,
  startedBy: row.started_by,
  startedAt: row.started_at,
  rev: Number(row.rev),
  updatedAt: row.updated_at,
});

const rowOf = (row: Stored): RampRow => ({ ...summaryOf(row), marks: row.marks });

const COLUMNS: Readonly<Record<keyof RampPatch, string>> = {
  contexts: 'contexts',
  state: 'state',
  shareBp: 'share_bp',
  flagVersions: 'flag_versions',
  since: 'since',
  evidenceSince: 'evidence_since',
  serviceVersions: 'service_versions',
  looks: 'looks',
  marks: 'marks',
  outcome: 'outcome',
  reasons: 'reasons',
  approvals: 'approvals',
  paused: 'paused',
  nextAt: 'next_at',
  startedBy: 'started_by',
  startedAt: 'started_at',
};
const JSON_COLUMNS = new Set(['flag_versions', 'service_versions', 'marks', 'reasons', 'approvals', 'paused']);

const columnsOf = (patch: RampPatch): Record<string, unknown> =>
  Object.fromEntries(
    Object.entries(patch).map(([key, value]) => {
      const column = COLUMNS[key as keyof RampPatch];
      return [column, JSON_COLUMNS.has(column) && value !== null ? JSON.stringify(value) : value];
    }),
  );

const SUMMARY = ['unit', ...Object.values(COLUMNS).filter((column) => column !== 'marks'), 'rev', 'updated_at'];

/** The ramps of these contexts, or all of them. */
export const loadRamps = async (db: Knex, contexts?: readonly string[]): Promise<RampSummary[]> => {
  const query = db('banyan.ramp').select<Omit<Stored, 'marks'>[]>(SUMMARY).orderBy('unit');
  if (contexts) void query.whereRaw('contexts && ?::text[]', [[...contexts]]);
  return (await query).map(summaryOf);
};

export const loadRamp = async (db: Knex, unit: string): Promise<RampRow | undefined> => {
  const row = await db<Stored>('banyan.ramp').where({ unit }).first('*');
  return row && rowOf(row);
};

/** Locks one for a person's change. */
export const lockRamp = async (trx: Knex, unit: string): Promise<RampRow | undefined> => {
  const row = await trx<Stored>('banyan.ramp').where({ unit }).forUpdate().first('*');
  return row && rowOf(row);
};

/** The store's clock: all leaders count from the same one. */
export const clockOf = async (db: Knex): Promise<Date> =>
  (await db.raw<{ rows: { now: Date }[] }>('select clock_timestamp() as now')).rows[0]!.now;

/**
 * Writes a decision, if nobody has written since the row was read: the fence between two who both believe to lead, and between a leader and a person.
 * @throws AppError `conflict` otherwise; thrown inside a transaction it undoes the move that the decision was about
 */
export const saveRamp = async (db: Knex, row: Pick<RampRow, 'unit' | 'rev'>, patch: RampPatch): Promise<void> => {
  const changed = await db('banyan.ramp')
    .where({ unit: row.unit, rev: row.rev })
    .update({ ...columnsOf(patch), rev: row.rev + 1, updated_at: db.fn.now() });
  if (changed !== 1) throw new AppError('conflict', `the ramp of ${row.unit} was changed meanwhile`);
};

/** A new ramp, or a new run of an old one. */
export const beginRamp = async (trx: Knex, unit: string, run: Required<RampPatch>): Promise<void> => {
  const columns = columnsOf(run);
  await trx('banyan.ramp')
    .insert({ unit, ...columns })
    .onConflict('unit')
    .merge({ ...columns, rev: trx.raw('banyan.ramp.rev + 1'), updated_at: trx.fn.now() });
};

export const auditRamp = async (
  db: Knex,
  contexts: readonly string[],
  entry: {
    readonly actor: string;
    readonly action: string;
    readonly before: unknown;
    readonly after: unknown;
    readonly reason: string;
    readonly evidence?: unknown;
  },
): Promise<void> => {
  for (const context of contexts)
    await db.raw('select banyan.append_audit(?, ?, ?, ?::jsonb, ?::jsonb, ?, ?::jsonb)', [
      entry.actor,
      entry.action,
      context,
      JSON.stringify(entry.before ?? null),
      JSON.stringify(entry.after ?? null),
      entry.reason,
      JSON.stringify(entry.evidence ?? null),
    ]);
};
