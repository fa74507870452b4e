import { AppError } from '@banyan/contracts/errors.ts';
import { LEDGER_STATES, type LedgerState } from '@banyan/contracts/vocabulary.ts';
import type { Knex } from 'knex';
import type { BuiltEvent } from '../core/event-mapping.ts';
import { type LedgerRow, rowOf, settleRows, UUID } from './ledger.ts';
import { type Due, dueAfter, type RouteWrites, undoOf } from './route-writes.ts';
import type { Seal } from './seal.ts';
import { decodeRequest, decodeResponse } from './stored.ts';

/** A ledger entry as the admin API shows it (DESIGN.md section 10). No request or answer bodies. */
export type LedgerEntry = {
  readonly id: string;
  readonly context: string;
  readonly route: string;
  readonly aggregate: string | null;
  readonly idempotencyKey: string;
  readonly state: LedgerState;
  readonly attempts: number;
  readonly upstream: string;
  readonly epoch: number;
  readonly createdAt: string;
  readonly updatedAt: string;
  readonly response?: { readonly status: number };
  readonly event?: { readonly id: string; readonly type: string; readonly shard: string | null; readonly sequenceNumber: string | null };
  readonly error?: string;
};

export type OperatorDeps = {
  readonly db: Knex;
  readonly seal: Seal;
  readonly routeOf: (context: string, route: string) => RouteWrites | undefined;
  readonly wakeRelay: () => void;
};

/** What a person found out about a parked command. */
export const RESOLUTIONS = ['applied', 'not-applied', 'no-event', 'compensate'] as const;
export type Resolution = (typeof RESOLUTIONS)[number];

export type LedgerOperator = {
  readonly get: (id: string) => Promise<LedgerEntry | null>;
  /** Newest first. `limit` 1..500, default 50. @throws AppError `bad-request` for a state or cursor that is none. */
  readonly list: (query: {
    context?: string | undefined;
    state?: string | undefined;
    limit?: number | undefined;
    cursor?: string | undefined;
  }) => Promise<{ items: LedgerEntry[]; next: string | null }>;
  /** @throws AppError `not-found`, `illegal-move` (not parked), `unprocessable` (not possible for this one, and why), `conflict` (changed meanwhile) */
  readonly resolve: (id: string, as: Resolution, reason: string, actor: string) => Promise<LedgerEntry>;
  /** Rows whose outcome is open: unknown, parked, or being taken back by legacy. They block a flip. Oldest first, at most 1,000. */
  readonly unresolved: (contexts: readonly string[]) => Promise<{ id: string; context: string; state: LedgerState }[]>;
  /** Commands that were sent and are not terminal. */
  readonly inFlight: (contexts: readonly string[]) => Promise<number>;
};

type EntryRow = LedgerRow & {
  event_id: string | null;
  event_type: string | null;
  event_shard: string | null;
  event_sequence: string | null;
};

const ENTRY = `select l.*, o.id as event_id, o.type as event_type, o.shard as event_shard, o.sequence_number as event_sequence from banyan.ledger l
  left join lateral (select o.id, o.type, o.shard, o.sequence_number from banyan.outbox o where o.id = l.fact_id or o.ledger_id = l.id
    order by (o.id = l.fact_id) desc nulls last, o.position desc limit 1) o on true`;

const entryOf = (row: EntryRow): LedgerEntry => ({
  id: row.id,
  context: row.context,
  route: row.route,
  aggregate: row.aggregate,
  idempotencyKey: row.idempotency_key,
  state: row.state,
  attempts: row.attempts,
  upstream: row.upstream,
  epoch: row.epoch,
  createdAt: row.created_at.toISOString(),
  updatedAt: row.updated_at.toISOString(),
  ...(row.response_status === null ? {} : { response: { status: row.response_status } }),
  ...(row.event_id === null
    ? {}
    : { event: { id: row.event_id, type: row.event_type ?? '', shard: row.event_shard, sequenceNumber: row.event_sequence } }),
  ...(row.error === null ? {} : { error: row.error }),
});

/** What people see of the ledger, and the one thing they may do to it. */
export const createOperator = (deps: OperatorDeps): LedgerOperator => {
  const { db, seal } = deps;
  const entries = async (where: string, bindings: readonly unknown[]): Promise<LedgerEntry[]> =>
    ((await db.raw(`${ENTRY} ${where}`, bindings as string[])) as { rows: EntryRow[] }).rows.map(entryOf);

  const get = async (id: string): Promise<LedgerEntry | null> =>
    UUID.test(id) ? ((await entries('where l.id = ?', [id]))[0] ?? null) : null;

  const nothing: Due = { facts: null, park: null, undo: null };
  /** Request and answer of a row as far as they are kept; null = the route or the request is not known any more. */
  const keptOf = (row: LedgerRow) => {
    const writes = deps.routeOf(row.context, row.route);
    if (!writes || row.sealed_request === null) return null;
    const response = row.sealed_response === null ? null : decodeResponse(seal.open(row.id, 'response', row.sealed_response));
    return { writes, request: decodeRequest(seal.open(row.id, 'request', row.sealed_request)), response };
  };

  /** The events of a command that a person knows to be applied: from captured changes, else from the answer that is kept, else from the request alone. */
  const applied = (row: LedgerRow): Due => {
    if (row.evidence.length > 0 || row.publisher === 'capture' || row.upstream === 'extracted') return nothing;
    const kept = keptOf(row);
    if (kept === null) return { ...nothing, park: 'the route or the request is not known any more' };
    const answer = kept.response ?? { status: kept.writes.resolve?.status ?? 200, headers: [], body: null };
    const due = dueAfter({ ...kept.writes, publisher: row.publisher }, row.upstream, kept.request, answer, row.idempotency_key);
    const out = outOf(row);
    // what was announced is what was done
    if (due.park !== null && out.length > 0) return { ...nothing, facts: out };
    return { ...due, undo: null };
  };

  /** Tentative facts that are on their way to the stream. */
  const outOf = (row: LedgerRow): BuiltEvent[] =>
    (row.tentative ?? []).filter((one) => one.id !== undefined).map(({ type, subject, data }) => ({ type, subject, data }));

  const dueOf = (row: LedgerRow, as: Resolution): Due => {
    if (as === 'applied') {
      const due = applied(row);
      if (due.park === null) return due;
      throw new AppError(
        'unprocessable',
        `its event cannot be built (${due.park}); resolve it as no-event and publish what is missing by other means`,
      );
    }
    if (as === 'no-event' && outOf(row).length > 0)
      throw new AppError(
        'unprocessable',
        'its tentative event is on the stream, and one that confirms or takes it back must follow: resolve it as applied or not-applied',
      );
    if (as !== 'compensate') return nothing;
    const kept = keptOf(row);
    const undo = kept && undoOf(kept.writes, row.upstream, kept.request, kept.response, row.idempotency_key);
    if (undo) return { ...nothing, undo };
    if (row.undo !== null) return { ...nothing, undo: row.undo };
    throw new AppError(
      'unprocessable',
      'nothing is known that takes it back: its route has no writes.compensate, or a place in that has no value',
    );
  };

  return {
    get,
    list: async ({ context, state, limit = 50, cursor }) => {
      if (state !== undefined && !(LEDGER_STATES as readonly string[]).includes(state))
        throw new AppError('bad-request', `state: expected one of ${LEDGER_STATES.join(', ')}`);
      if (cursor !== undefined && !UUID.test(cursor)) throw new AppError('bad-request', 'cursor: expected the "next" of an earlier answer');
      const size = Math.min(500, Math.max(1, Math.trunc(limit) || 50));
      const conditions: [string, unknown][] = [];
      if (context !== undefined) conditions.push(['l.context = ?', context]);
      if (state !== undefined) conditions.push(['l.state = ?', state]);
      // ids are UUIDs of version 7: their order is the order in which commands began
      if (cursor !== undefined) conditions.push(['l.id < ?', cursor]);
      const where = conditions.length > 0 ? `where ${conditions.map(([sql]) => sql).join(' and ')}` : '';
      const items = await entries(`${where} order by l.id desc limit ?`, [...conditions.map(([, value]) => value), size + 1]);
      const page = items.slice(0, size);
      return { items: page, next: items.length > size ? page.at(-1)!.id : null };
    },
    resolve: async (id, as, reason, actor) => {
      const row = await rowOf(db, id);
      if (!row) throw new AppError('not-found', `there is no ledger entry ${id}`);
      if (row.state !== 'parked')
        throw new AppError('illegal-move', `ledger entry ${id} is ${row.state}: only a parked one waits for a person`);
      const due = dueOf(row, as);
      const resolution = { as, reason, actor, at: new Date().toISOString() };
      const [settled] = await settleRows(db, [
        {
          id,
          fence: row.fence,
          from_state: 'parked',
          event: `as-${as}`,
          settled_by: 'person',
          ...due,
          error: row.error,
          resolution,
        },
      ]);
      if (!settled?.moved) throw new AppError('conflict', `ledger entry ${id} changed meanwhile`);
      deps.wakeRelay();
      return (await get(id))!;
    },
    unresolved: async (contexts) =>
      db('banyan.ledger')
        .whereIn('context', [...contexts])
        // what legacy has still to take back must not meet another owner
        .where((open) => open.whereIn('state', ['unknown', 'parked']).orWhereIn('undo_state', ['due', 'sent']))
        .orderBy('id')
        .limit(1_000)
        .select('id', 'context', 'state'),
    inFlight: async (contexts) => {
      const row = await db('banyan.ledger')
        .whereIn('context', [...contexts])
        .where('state', 'sent')
        .count({ n: '*' })
        .first();
      return Number(row?.n ?? 0);
    },
  };
};
