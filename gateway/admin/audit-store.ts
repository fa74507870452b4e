import type { AuditRow } from '@banyan/contracts/admin-api.ts';
import { AppError } from '@banyan/contracts/errors.ts';
import type { Knex } from 'knex';
import type { AuditPort } from './ports.ts';

type Row = {
  id: string;
  at: Date;
  actor: string;
  action: string;
  context: string | null;
  before: unknown;
  after: unknown;
  reason: string;
  evidence: unknown;
  hash: string;
};

const rowOf = (row: Row): AuditRow => ({
  id: Number(row.id),
  at: row.at.toISOString(),
  actor: row.actor,
  action: row.action,
  context: row.context,
  before: row.before,
  after: row.after,
  reason: row.reason,
  evidence: row.evidence,
  hash: row.hash,
});

const MAX_FAULTS = 100;

/** The audit as `banyan.append_audit` writes it: append-only, hash-chained, checked by `banyan.verify_audit`. */
export const createAuditStore = (db: Knex): AuditPort => ({
  async list({ context, limit, cursor }) {
    if (cursor !== undefined && !/^\d{1,15}$/.test(cursor))
      throw new AppError('bad-request', 'cursor: expected the `next` of the page before');
    const rows = await db<Row>('banyan.audit')
      .modify((query) => {
        if (context !== undefined) void query.where({ context });
        if (cursor !== undefined) void query.where('id', '<', cursor);
      })
      .orderBy('id', 'desc')
      .limit(limit + 1)
      .select('id', 'at', 'actor', 'action', 'context', 'before', 'after', 'reason', 'evidence', 'hash');
    const items = rows.slice(0, limit).map(rowOf);
    return { items, next: rows.length > limit ? String(items.at(-1)?.id) : null };
  },
  async verify() {
    // one snapshot: a row appended between the two would be counted but not checked
    return db.transaction(
      async (trx) => {
        const counted = await trx('banyan.audit').count<{ count: string }[]>('* as count');
        const { rows } = await trx.raw<{ rows: { id: string; fault: string }[] }>(
          'select id, fault from banyan.verify_audit() order by id limit ?',
          [MAX_FAULTS],
        );
        return {
          ok: rows.length === 0,
          rows: Number(counted[0]?.count ?? 0),
          faults: rows.map((row) => ({ id: Number(row.id), fault: row.fault })),
        };
      },
      { isolationLevel: 'repeatable read', readOnly: true },
    );
  },
  async append(entry) {
    await db.raw('select banyan.append_audit(?, ?, ?, ?::jsonb, ?::jsonb, ?, ?::jsonb)', [
      entry.actor,
      entry.action,
      entry.context,
      JSON.stringify(entry.before ?? null),
      JSON.stringify(entry.after ?? null),
      entry.reason,
      JSON.stringify(entry.evidence ?? null),
    ]);
  },
});
