import type { Envelope } from '@banyan/contracts/envelope.ts';
import { AppError } from '@banyan/contracts/errors.ts';
import { checkEventData } from '@banyan/contracts/events/index.ts';
import express, { type Router } from 'express';
import type { Knex } from 'knex';
import { z } from 'zod';
import type { Parse } from './entries.ts';
import { isTransient, reasonOf } from './failures.ts';
import { type Handler, handlersFor } from './handlers.ts';
import { identifier } from './schema.ts';

export type DlqOptions = {
  readonly db: Knex;
  readonly schema: string;
  /** Of the same schema: facts, and commands. */
  readonly readers: readonly {
    readonly consumer: string;
    readonly handlers: readonly Handler[];
    readonly own?: string | undefined;
    readonly parse: Parse;
  }[];
};

const letterOf = (row: Row) => ({
  position: Number(row.position),
  key: row.key,
  source: row.source,
  eventId: row.event_id,
  error: row.error,
  at: row.at.toISOString(),
  envelope: row.envelope,
});
/** A letter as the API shows it. `key` null = no envelope; `error` null = nothing wrong with it, it waits behind another of its key. */
type Letter = ReturnType<typeof letterOf>;

type Row = {
  position: string;
  consumer: string;
  key: string | null;
  source: string;
  event_id: string;
  envelope: string;
  error: string | null;
  at: Date;
};

/** What became of a key: facts applied now, and what stopped the rest, if anything did. */
export type Replayed = { readonly applied: number; readonly left: number; readonly error: string | null };

/** The dead letter queue of a service. No instance applies a page while a key is replayed. */
export const createDlq = ({ db, schema: name, readers }: DlqOptions) => {
  const schema = identifier(name);
  const table = `${schema}.dlq`;
  const consumers = readers.map((reader) => reader.consumer);
  const readerOf = (row: Row) => readers.find((reader) => reader.consumer === row.consumer)!;

  /** The lease rows are what every page locks first. */
  const alone = (trx: Knex): Promise<unknown> =>
    trx.raw(`select from ${schema}.lease where consumer = any(?) order by consumer, shard_id for update`, [consumers]);

  /** The fact is in its place now, applied or given up: later ones may follow. */
  const settle = async (trx: Knex, row: Row, { source, subject, epoch, sequence }: Envelope): Promise<void> => {
    const { consumer } = row;
    await trx.raw(`insert into ${schema}.inbox (consumer, source, event_id) values (?, ?, ?) on conflict do nothing`, [
      consumer,
      source,
      row.event_id,
    ]);
    await trx.raw(
      `insert into ${schema}.inbox_head as h (consumer, source, subject, epoch, last_seq) values (?, ?, ?, ?, ?)
       on conflict (consumer, source, subject) do update set epoch = excluded.epoch, last_seq = excluded.last_seq
       where (h.epoch, h.last_seq) < (excluded.epoch, excluded.last_seq)`,
      [consumer, source, subject, epoch, String(BigInt(sequence))],
    );
    await trx(table).where({ position: row.position }).delete();
  };
  const parse = (row: Row): Envelope => readerOf(row).parse(JSON.parse(row.envelope));

  const replayIn = async (trx: Knex.Transaction, key: string): Promise<Replayed> => {
    const rows = (await trx(table).where({ key }).whereIn('consumer', consumers).orderBy('position').forUpdate()) as Row[];
    let applied = 0;
    for (const row of rows) {
      try {
        const envelope = parse(row);
        const { handlers, own } = readerOf(row);
        await trx.transaction(async (inner) => {
          const takers = handlersFor(handlers, envelope, { own, replay: false });
          if (takers.length > 0) checkEventData(envelope.type, envelope.data);
          for (const handler of takers) await handler.apply(inner, envelope);
          await settle(inner, row, envelope);
        });
        applied += 1;
      } catch (error) {
        if (isTransient(error)) throw error;
        await trx(table)
          .where({ position: row.position })
          .update({ error: reasonOf(error) });
        return { applied, left: rows.length - applied, error: reasonOf(error) };
      }
    }
    return { applied, left: 0, error: null };
  };

  return {
    /** In their order, at most `limit`, from the one after `after`. */
    list: async (limit: number, after = 0): Promise<Letter[]> => {
      const rows = (await db(table).whereIn('consumer', consumers).where('position', '>', after).orderBy('position').limit(limit)) as Row[];
      return rows.map(letterOf);
    },
    find: async (position: number): Promise<Letter | null> => {
      const row = (await db(table).where({ position }).whereIn('consumer', consumers).first()) as Row | undefined;
      return row ? letterOf(row) : null;
    },
    /** Applies what waits under a key, in its order, up to the first that fails again. @throws AppError `not-found` */
    replay: (key: string): Promise<Replayed> =>
      db.transaction(async (trx) => {
        await alone(trx);
        const done = await replayIn(trx, key);
        if (done.applied === 0 && done.left === 0) throw new AppError('not-found', `nothing of ${key} is quarantined`);
        return done;
      }),
    /** Gives up one letter, which is kept with the reason, and goes on with the rest of its key. @throws AppError `not-found` */
    skip: (position: number, who: { reason: string; actor: string }): Promise<Replayed> =>
      db.transaction(async (trx) => {
        await alone(trx);
        const row = (await trx(table).where({ position }).whereIn('consumer', consumers).forUpdate().first()) as Row | undefined;
        if (!row) throw new AppError('not-found', `there is no letter ${position}`);
        if (row.key !== null) {
          const first = (await trx(table).where({ consumer: row.consumer, key: row.key }).min('position as p').first()) as { p: string };
          if (first.p !== row.position)
            throw new AppError('conflict', `letter ${position} waits behind ${first.p} of its key: that one comes first`);
        }
        await trx(`${schema}.dlq_skipped`).insert({
          position,
          consumer: row.consumer,
          key: row.key,
          source: row.source,
          event_id: row.event_id,
          envelope: row.envelope,
          error: row.error,
          ...who,
        });
        if (row.key === null) {
          await trx(table).where({ position }).delete();
          return { applied: 0, left: 0, error: null };
        }
        await settle(trx, row, parse(row));
        return replayIn(trx, row.key);
      }),
  };
};

const position = z.coerce.number().int().min(1).max(Number.MAX_SAFE_INTEGER);
const listSchema = z.object({ after: position.optional(), limit: z.coerce.number().int().min(1).max(500).default(50) });
const replaySchema = z.object({ key: z.string().min(1).max(512) });
const skipSchema = z.object({
  position,
  reason: z.string().min(1).max(1000),
  actor: z.string().min(1).max(200).default('unknown'),
});
const read = <T>(schema: z.ZodType<T>, value: unknown): T => {
  const found = schema.safeParse(value);
  if (found.success) return found.data;
  throw new AppError('bad-request', `${found.error.issues[0]!.path.join('.') || 'request'}: ${found.error.issues[0]!.message}`);
};

/**
 * `GET /_banyan/dlq?after&limit` -> `{items, next}`, `GET /_banyan/dlq/:position`, `POST /_banyan/dlq/replay {key}`,
 * `POST /_banyan/dlq/skip {position, reason, actor}`. Whoever mounts it asks for a token first (`serviceGuard`).
 */
export const dlqRoutes = (options: DlqOptions): Router => {
  const dlq = createDlq(options);
  const router = express.Router();
  router.use('/_banyan/dlq', express.json({ limit: '16kb' }), (_req, res, next) => {
    res.set('cache-control', 'no-store');
    next();
  });
  router.get('/_banyan/dlq', async (req, res) => {
    const { after, limit } = read(listSchema, req.query);
    const items = await dlq.list(limit + 1, after);
    const page = items.slice(0, limit);
    res.json({ items: page, next: items.length > limit ? String(page.at(-1)!.position) : null });
  });
  router.get('/_banyan/dlq/:position', async (req, res) => {
    const at = read(position, req.params.position);
    const letter = await dlq.find(at);
    if (!letter) throw new AppError('not-found', `there is no letter ${at}`);
    res.json(letter);
  });
  router.post('/_banyan/dlq/replay', async (req, res) => void res.json(await dlq.replay(read(replaySchema, req.body).key)));
  router.post('/_banyan/dlq/skip', async (req, res) => {
    const { position, ...who } = read(skipSchema, req.body);
    res.json(await dlq.skip(position, who));
  });
  return router;
};
