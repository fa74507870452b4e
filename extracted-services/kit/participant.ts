import { AppError } from '@banyan/contracts/errors.ts';
import express, { type RequestHandler, type Router } from 'express';
import type { Knex } from 'knex';
import { z } from 'zod';
import { reasonOf } from './failures.ts';
import { identifier, type Migration } from './schema.ts';
import { createSlots } from './slots.ts';

/** `done` and `refused` are final; `unknown` = it may or may not have happened: ask again. */
export type Outcome = { readonly outcome: 'done' | 'refused' | 'unknown'; readonly why?: string };
export const DONE: Outcome = { outcome: 'done' };

export type Command = { readonly id: string; readonly saga: string; readonly data: Readonly<Record<string, unknown>> };

/** A step that changes the service's own tables only: what it does commits together with the note that it was done. */
type Local = {
  readonly kind: 'local';
  readonly act: (trx: Knex.Transaction, command: Command) => Promise<Outcome>;
  readonly undo: (trx: Knex.Transaction, command: Command) => Promise<void>;
  /** What it stands for was there before anybody asked: `undo` runs even when `act` never arrived. */
  readonly given?: true;
};
/** A step that somebody outside does, under the command's id as its idempotency key; `undo` must also work before `act` has arrived there, and then keep it out. */
type External = {
  readonly kind: 'external';
  readonly act: (command: Command) => Promise<Outcome>;
  /** What became of it; `absent` = the other side has never seen it. */
  readonly ask: (command: Command) => Promise<Outcome | 'absent'>;
  readonly undo: (command: Command) => Promise<Outcome>;
};
export type Action = Local | External;

export const participantTables: Migration = {
  name: '005-saga-command',
  up: async (trx, schema) => {
    await trx.raw(`
create table ${schema}.saga_command (
  id      text primary key,
  saga    text not null,
  action  text not null,
  data    json not null,
  -- open = begun, outcome not known; undone is final and refuses a late do
  state   text not null check (state in ('open', 'done', 'refused', 'undone')),
  why     text,
  at      timestamptz not null default now()
)`);
  },
};

const wish = z.object({
  action: z.string().min(1).max(64),
  saga: z.string().min(1).max(128),
  data: z.record(z.string(), z.unknown()),
});
const ID = /^[\w:-]{1,128}$/;

/** Saga commands at once, and how many may wait: customers use the same connections, and whoever waits longer than that has given up. */
const AT_ONCE = 5;
const WAITING = 64;

type Row = { state: 'open' | 'done' | 'refused' | 'undone'; why: string | null };

/**
 * The saga's commands of a service, each done at most once under its id: `PUT /_saga/ID` does (again: says what became of it), `GET` asks, `DELETE` undoes,
 * also what never arrived: then a late `PUT` is refused. Answers `{outcome, why?}`; GET of what is not known is 404.
 */
export const participantRoutes = (deps: { db: Knex; schema: string; actions: Readonly<Record<string, Action>> }): Router => {
  const { db, actions } = deps;
  const table = `${identifier(deps.schema)}.saga_command`;
  const actionOf = (name: string): Action => {
    const found = Object.hasOwn(actions, name) ? actions[name] : undefined;
    if (!found) throw new AppError('bad-request', `there is no action "${name}"; there are ${Object.keys(actions).join(', ')}`);
    return found;
  };
  const idOf = (text: unknown): string => {
    if (typeof text === 'string' && ID.test(text)) return text;
    throw new AppError('bad-request', 'a command id has 1 to 128 letters, digits, -, _ or :');
  };
  const parse = (body: unknown): z.output<typeof wish> => {
    const read = wish.safeParse(body);
    if (!read.success)
      throw new AppError('bad-request', `${read.error.issues[0]!.path.join('.') || 'body'}: ${read.error.issues[0]!.message}`);
    return read.data;
  };
  const outcomeOf = ({ state, why }: Row): Outcome => ({
    outcome: state === 'open' ? 'unknown' : state === 'done' ? 'done' : 'refused',
    ...(why === null ? (state === 'undone' ? { why: 'undone' } : {}) : { why }),
  });
  const settle = (db: Knex, id: string, { outcome, why }: Outcome): Promise<unknown> =>
    outcome === 'unknown'
      ? Promise.resolve()
      : db(table)
          .where({ id, state: 'open' })
          .update({ state: outcome, why: why ?? null });
  const stored = async (id: string): Promise<Row | undefined> => db(table).where({ id }).first('state', 'why');
  /** Notes the command before anything is done; the row's lock makes two of the same id take turns. */
  const begin = async (
    trx: Knex.Transaction,
    id: string,
    body: z.output<typeof wish>,
    state: Row['state'],
  ): Promise<Row & { fresh: boolean }> => {
    const made = await trx(table)
      .insert({ id, saga: body.saga, action: body.action, data: JSON.stringify(body.data), state })
      .onConflict('id')
      .ignore()
      .returning('id');
    const row = (await trx(table).where({ id }).forUpdate().first('state', 'why')) as Row;
    return { ...row, fresh: made.length > 0 };
  };
  const external = async (work: () => Promise<Outcome>): Promise<Outcome> => {
    try {
      return await work();
    } catch (error) {
      return { outcome: 'unknown', why: reasonOf(error) };
    }
  };

  const slots = createSlots(AT_ONCE, WAITING);
  /** In its turn, unless whoever asked has left by then: it will ask again, and would find one more at work for nobody. */
  const inTurn =
    (work: RequestHandler<{ id: string }>): RequestHandler<{ id: string }> =>
    (req, res, next) =>
      slots.run(async () => (res.destroyed ? undefined : work(req, res, next)));

  const router = express.Router();
  router.use('/_saga', express.json({ limit: '64kb' }));
  const put: RequestHandler<{ id: string }> = async (req, res) => {
    const id = idOf(req.params.id);
    const body = parse(req.body);
    const action = actionOf(body.action);
    const command: Command = { id, saga: body.saga, data: body.data };
    const row = await db.transaction(async (trx): Promise<Row> => {
      const begun = await begin(trx, id, body, 'open');
      if (action.kind === 'external' || begun.state !== 'open') return begun;
      const { outcome, why } = await action.act(trx, command);
      // nothing has happened: whoever asks again may be luckier
      if (outcome === 'unknown') {
        await trx(table).where({ id }).delete();
        return { state: 'open', why: why ?? null };
      }
      await settle(trx, id, { outcome, ...(why === undefined ? {} : { why }) });
      return { state: outcome, why: why ?? null };
    });
    if (row.state !== 'open' || action.kind === 'local') return void res.json(outcomeOf(row));
    const outcome = await external(() => action.act(command));
    await settle(db, id, outcome);
    const now = await stored(id);
    res.json(now && now.state !== 'open' ? outcomeOf(now) : outcome);
  };
  const get: RequestHandler<{ id: string }> = async (req, res) => {
    const id = idOf(req.params.id);
    const row = (await db(table).where({ id }).first()) as
      | (Row & { saga: string; action: string; data: Record<string, unknown> })
      | undefined;
    if (!row) throw new AppError('not-found', `there is no command ${id}`);
    const action = actionOf(row.action);
    if (row.state !== 'open' || action.kind === 'local') return void res.json(outcomeOf(row));
    const found = await action
      .ask({ id, saga: row.saga, data: row.data })
      .catch((error: unknown): Outcome => ({ outcome: 'unknown', why: reasonOf(error) }));
    if (found === 'absent') throw new AppError('not-found', `command ${id} has not arrived where it is done`);
    await settle(db, id, found);
    res.json(found);
  };
  const undo: RequestHandler<{ id: string }> = async (req, res) => {
    const id = idOf(req.params.id);
    const body = parse(req.body);
    const action = actionOf(body.action);
    const command: Command = { id, saga: body.saga, data: body.data };
    const finish = (db: Knex) => db(table).where({ id }).update({ state: 'undone' });
    if (action.kind === 'local') {
      await db.transaction(async (trx) => {
        const begun = await begin(trx, id, body, 'undone');
        if (begun.fresh ? action.given : begun.state === 'done') await action.undo(trx, command);
        await finish(trx);
      });
      return void res.json(DONE);
    }
    const begun = await db.transaction((trx) => begin(trx, id, body, 'open'));
    if (begun.state === 'undone' || begun.state === 'refused') return void res.json(DONE);
    const outcome = await external(() => action.undo(command));
    if (outcome.outcome === 'done') await finish(db);
    res.json(outcome);
  };
  return router.put('/_saga/:id', inTurn(put)).get('/_saga/:id', inTurn(get)).delete('/_saga/:id', inTurn(undo));
};
