import { randomBytes } from 'node:crypto';
import type { LedgerState, Upstream } from '@banyan/contracts/vocabulary.ts';
import type { Knex } from 'knex';
import type { BuiltEvent } from '../core/event-mapping.ts';
import type { LedgerEvent } from '../core/ledger-moves.ts';

/** Who publishes what legacy executed. */
export type Publisher = 'ledger' | 'capture';

/** One row of `banyan.ledger_begin`. `sealed_request` is base64. */
export type LedgerBegin = {
  readonly id: string;
  readonly context: string;
  readonly route: string;
  readonly event_types: readonly string[];
  readonly key: string;
  readonly key_supplied: boolean;
  readonly scope: string;
  readonly request_hash: string;
  readonly method: string;
  readonly target: string;
  readonly aggregate: string | null;
  readonly upstream: Upstream;
  readonly publisher: Publisher;
  readonly epoch: number;
  readonly owner: string;
  readonly sealed_request: string;
  readonly settle_ms: number;
  readonly deadline_ms: number;
  /** May an unknown outcome be sent again when the client repeats its key? */
  readonly resend: boolean;
  readonly tentative: readonly BuiltEvent[] | null;
  readonly traceparent: string | null;
};

export type LedgerBegun = {
  readonly input: string;
  readonly outcome: 'sent' | 'held' | 'resent' | 'again' | 'exists' | 'reused' | 'busy' | 'frozen' | 'moved' | 'unknown-context';
  readonly id: string;
  readonly state: LedgerState;
  /** bigint as text. */
  readonly fence: string;
  readonly response_status: number | null;
  readonly sealed_response: Buffer | null;
  readonly settled_by: string | null;
};

/**
 * The request that makes up for a command: a path of legacy, or for the adapter the aggregate. `repeat`: it is done once for a key, so it may be sent again
 * when nobody knows what became of it.
 */
export type Undo = { readonly to: 'legacy' | 'adapter'; readonly method: string; readonly path: string; readonly repeat: boolean };

/** One row of `banyan.ledger_settle`. `sealed_response` is base64. */
export type LedgerSettle = {
  readonly id: string;
  readonly fence: string;
  readonly from_state: LedgerState;
  readonly event: LedgerEvent;
  readonly settled_by: 'answer' | 'not-sent' | 'absent' | 'resolve' | 'attested' | 'person' | null;
  readonly facts?: readonly BuiltEvent[] | null;
  readonly park?: string | null;
  /** With `park`: take it back instead. With `as-compensate`: how. */
  readonly undo?: Undo | null;
  /** Whoever executes this route tells the ledger in its own transaction: a success that did not is a fault. */
  readonly attests?: boolean;
  readonly error?: string | null;
  readonly status?: number | null;
  readonly sealed_response?: string | null;
  readonly resolution?: { readonly as: string; readonly reason: string; readonly actor: string; readonly at: string } | null;
  readonly pin?: { readonly client: string; readonly side: Upstream; readonly ms: number } | null;
};

/** `moved` false: the row is in another state or in other hands, and nothing was done. `state` null: there is no such row. */
export type LedgerSettled = { readonly id: string; readonly state: LedgerState | null; readonly moved: boolean };

/** A row as the reconciler and the operator's pages need it. */
export type LedgerRow = {
  readonly id: string;
  readonly context: string;
  readonly route: string;
  readonly event_types: string[];
  readonly idempotency_key: string;
  readonly scope: string;
  readonly method: string;
  readonly target: string;
  readonly aggregate: string | null;
  readonly state: LedgerState;
  readonly attempts: number;
  readonly upstream: Upstream;
  readonly publisher: Publisher;
  readonly epoch: number;
  readonly fence: string;
  readonly sealed_request: Buffer | null;
  readonly response_status: number | null;
  readonly sealed_response: Buffer | null;
  readonly evidence: readonly { readonly type: string; readonly subject: string; readonly data: Readonly<Record<string, unknown>> }[];
  /** With `id` = on its way to the stream. */
  readonly tentative: readonly (BuiltEvent & { readonly id?: string })[] | null;
  readonly attested: { readonly status: number; readonly facts: readonly BuiltEvent[] | null } | null;
  readonly undo: Undo | null;
  readonly fact_id: string | null;
  readonly settled_by: string | null;
  readonly error: string | null;
  readonly settle_after: Date;
  readonly created_at: Date;
  readonly updated_at: Date;
};

/** A UUID version 7 (RFC 9562): rows of one time lie together in the index. */
export const uuid7 = (nowMs: number = Date.now()): string => {
  const bytes = randomBytes(16);
  bytes.writeUIntBE(nowMs, 0, 6);
  bytes[6] = (bytes[6]! & 0x0f) | 0x70;
  bytes[8] = (bytes[8]! & 0x3f) | 0x80;
  return bytes.toString('hex').replace(/^(.{8})(.{4})(.{4})(.{4})(.{12})$/, '$1-$2-$3-$4-$5');
};

export const UUID = /^[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}$/i;

const rowsOf = <T>(result: unknown): T[] => (result as { rows: T[] }).rows;

/** The pre-send commit of many commands, in the order of `rows`. */
export const beginRows = async (db: Knex, rows: readonly LedgerBegin[]): Promise<LedgerBegun[]> => {
  const found = rowsOf<LedgerBegun>(await db.raw('select * from banyan.ledger_begin(?::jsonb)', [JSON.stringify(rows)]));
  const byInput = new Map(found.map((row) => [row.input, row]));
  return rows.map((row) => byInput.get(row.id)!);
};

/** The terminal commit of many commands, in the order of `rows`. */
export const settleRows = async (db: Knex, rows: readonly LedgerSettle[]): Promise<LedgerSettled[]> => {
  const found = rowsOf<LedgerSettled>(await db.raw('select * from banyan.ledger_settle(?::jsonb)', [JSON.stringify(rows)]));
  const byId = new Map(found.map((row) => [row.id, row]));
  return rows.map((row) => byId.get(row.id)!);
};

/** An intent row whose freeze may be over. */
export const sendRow = async (db: Knex, id: string, fence: string): Promise<'sent' | 'frozen' | 'moved' | 'gone'> =>
  rowsOf<{ sent: 'sent' | 'frozen' | 'moved' | 'gone' }>(await db.raw('select banyan.ledger_send(?, ?) as sent', [id, fence]))[0]!.sent;

export const stateOf = async (db: Knex, id: string): Promise<LedgerState | null> =>
  (await db<{ id: string; state: LedgerState }>('banyan.ledger').where({ id }).first('state'))?.state ?? null;

export const rowOf = async (db: Knex, id: string): Promise<LedgerRow | null> =>
  UUID.test(id) ? ((await db('banyan.ledger').where({ id }).first()) ?? null) : null;

/** Rows of dead owners, or past their deadline. @param deadMs a member silent for so long is dead. */
export const recoverRows = async (db: Knex, deadMs: number, limit: number): Promise<{ id: string; state: LedgerState }[]> =>
  rowsOf(await db.raw('select * from banyan.ledger_recover(?, ?)', [deadMs, limit]));

/** Takes unknown rows that are due; nobody else takes them within `leaseMs`. */
export const claimUnknown = async (db: Knex, owner: string, leaseMs: number, limit: number): Promise<LedgerRow[]> =>
  rowsOf(
    await db.raw(
      `with due as materialized (
         select id from banyan.ledger where state = 'unknown' and next_at <= clock_timestamp() order by next_at limit ? for update skip locked)
       update banyan.ledger l set fence = l.fence + 1, attempts = l.attempts + 1, owner = ?, next_at = clock_timestamp() + ? * interval '1 ms'
       from due where l.id = due.id returning l.*`,
      [limit, owner, leaseMs],
    ),
  );

/** Still unknown: ask again in `delayMs`, no sooner. */
export const askLater = async (db: Knex, id: string, fence: string, delayMs: number, error: string): Promise<void> => {
  await db.raw(
    `update banyan.ledger set next_at = clock_timestamp() + ? * interval '1 ms', error = ? where id = ? and fence = ? and state = 'unknown'`,
    [delayMs, error, id, fence],
  );
};

/** What became of a row whose execution attests; `absent` = rejected by this call (see `banyan.ledger_decide`). */
export const decideRow = async (db: Knex, id: string, fence: string): Promise<'attested' | 'absent' | 'busy' | 'gone'> =>
  rowsOf<{ said: 'attested' | 'absent' | 'busy' | 'gone' }>(await db.raw('select banyan.ledger_decide(?, ?) as said', [id, fence]))[0]!
    .said;

/** A command that is to be taken back now. `was` sent: an earlier attempt may have gone out. `fence` a bigint as text. */
export type UndoRow = {
  readonly id: string;
  readonly fence: string;
  readonly context: string;
  readonly route: string;
  readonly idempotency_key: string;
  readonly aggregate: string | null;
  readonly undo: Undo;
  readonly attempts: number;
  readonly was: 'due' | 'sent';
};

export const claimUndo = async (db: Knex, owner: string, leaseMs: number, limit: number): Promise<UndoRow[]> =>
  rowsOf(await db.raw('select * from banyan.ledger_undo_claim(?, ?, ?)', [owner, leaseMs, limit]));

/** `state` null: the row is in other hands. */
export const endUndo = async (
  db: Knex,
  row: UndoRow,
  as: 'done' | 'due' | 'sent' | 'parked',
  delayMs: number,
  error: string | null,
): Promise<LedgerState | null> =>
  rowsOf<{ state: LedgerState | null }>(
    await db.raw('select banyan.ledger_undo_end(?, ?, ?, ?, ?) as state', [row.id, row.fence, as, delayMs, error] as string[]),
  )[0]!.state;

/** Forgets what is final and older than `keepMs`: ledger rows with their stored answers, change ids, pins. At most `limit` of each. */
export const prune = async (db: Knex, keepMs: number, limit: number): Promise<number> => {
  const statements = [
    `delete from banyan.ledger where id in (select id from banyan.ledger l where state in ('done', 'rejected', 'expired', 'compensated')
       and updated_at < clock_timestamp() - ? * interval '1 ms' limit ?)`,
    `delete from banyan.change_seen where (context, change_id) in (select context, change_id from banyan.change_seen
       where settled and first_at < clock_timestamp() - ? * interval '1 ms' limit ?)`,
    `delete from banyan.pin where (context, client) in (select context, client from banyan.pin where until < clock_timestamp() - ? * interval '1 ms' limit ?)`,
  ];
  let removed = 0;
  for (const [index, sql] of statements.entries())
    removed += ((await db.raw(sql, [index === statements.length - 1 ? 0 : keepMs, limit])) as { rowCount: number }).rowCount;
  return removed;
};

/** True for errors that say that the store is not there (SQLSTATE classes 08, 53, 57, or no SQLSTATE at all): trying item by item would not help. */
export const storeIsAway = (error: unknown): boolean => {
  const code = (error as { code?: unknown } | null)?.code;
  return typeof code !== 'string' || !/^(?=.*[0-9])[0-9A-Z]{5}$/.test(code) || /^(08|53|57)/.test(code);
};

/** Keeps an answer that was asked for later; the first one stays. */
export const keepAnswer = async (db: Knex, id: string, status: number, sealed: Buffer): Promise<void> => {
  await db.raw('update banyan.ledger set response_status = ?, sealed_response = ? where id = ? and response_status is null', [
    status,
    sealed,
    id,
  ]);
};
