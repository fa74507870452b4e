import type { SagaResolution } from '@banyan/contracts/admin-api.ts';
import type { SagaState } from '@banyan/contracts/vocabulary.ts';
import type { Migration } from '@banyan/kit/schema.ts';
import type { Knex } from 'knex';
import type { Definition } from './definition.ts';
import type { StepLog, StepState } from './domain.ts';

export const SCHEMA = 'svc_saga';

export const migrations: readonly Migration[] = [
  {
    name: '010-saga',
    up: async (trx) => {
      await trx.raw(`
create table svc_saga.saga (
  id          text primary key,
  definition  text not null,
  version     integer not null,
  subject     text not null,
  state       text not null check (state in ('running', 'compensating', 'done', 'compensated', 'parked')),
  -- what the steps are told
  data        json not null,
  why         text,
  created_at  timestamptz(3) not null default now(),
  updated_at  timestamptz(3) not null default now(),
  deadline    timestamptz not null,
  -- nobody looks at it before
  due_at      timestamptz not null default now(),
  -- raised by whoever works on it: what an orchestrator that was overtaken still writes is refused
  token       bigint not null default 0
);
create index saga_due on svc_saga.saga (due_at) where state in ('running', 'compensating');
create index saga_subject on svc_saga.saga (subject);
create table svc_saga.step (
  saga     text not null references svc_saga.saga (id) on delete cascade,
  step     text not null,
  state    text not null check (state in ('asked', 'done', 'refused', 'undone')),
  attempts integer not null default 0,
  primary key (saga, step)
);
-- everything that was asked and answered, in order: the picture of a saga
create table svc_saga.event (
  n      bigint generated always as identity primary key,
  saga   text not null references svc_saga.saga (id) on delete cascade,
  at     timestamptz(3) not null default clock_timestamp(),
  what   text not null,
  step   text,
  detail text
);
create index event_saga on svc_saga.event (saga, n)`);
    },
  },
  {
    name: '011-saga-list',
    up: async (trx) => {
      await trx.raw('create index saga_created on svc_saga.saga (created_at desc, id desc)');
    },
  },
  {
    name: '012-limit',
    up: async (trx) => {
      await trx.raw(`
-- parked when it has not ended by then
alter table svc_saga.saga add column limit_at timestamptz not null default clock_timestamp() + interval '55 seconds';
create index saga_limit on svc_saga.saga (limit_at) where state in ('running', 'compensating');
-- when an orchestrator was last at work: nobody's deadline passes while there is none
create table svc_saga.watch (one boolean primary key default true check (one), at timestamptz not null);
insert into svc_saga.watch (at) values (clock_timestamp())`);
    },
  },
];

export type Saga = {
  readonly id: string;
  readonly definition: string;
  readonly version: number;
  readonly subject: string;
  readonly state: SagaState;
  readonly data: Readonly<Record<string, unknown>>;
  readonly why: string | null;
  readonly createdAt: string;
  readonly updatedAt: string;
  readonly deadline: string;
};
export type Claimed = Saga & { readonly token: string; readonly late: boolean; readonly log: StepLog };
export type SagaEvent = { readonly at: string; readonly what: string; readonly step: string | null; readonly detail: string | null };

type Row = {
  id: string;
  definition: string;
  version: number;
  subject: string;
  state: SagaState;
  data: Record<string, unknown>;
  why: string | null;
  created_at: Date;
  updated_at: Date;
  deadline: Date;
};
const sagaOf = (row: Row): Saga => ({
  id: row.id,
  definition: row.definition,
  version: row.version,
  subject: row.subject,
  state: row.state,
  data: row.data,
  why: row.why,
  createdAt: row.created_at.toISOString(),
  updatedAt: row.updated_at.toISOString(),
  deadline: row.deadline.toISOString(),
});

/** An overtaken orchestrator wrote: what it knows is old. */
export class Overtaken extends Error {}

export const begin = async (
  trx: Knex,
  saga: { id: string; definition: string; version: number; subject: string; data: object } & Pick<Definition, 'deadlineMs' | 'limitMs'>,
): Promise<void> => {
  await trx.raw(
    `insert into svc_saga.saga (id, definition, version, subject, state, data, deadline, limit_at)
     values (:id, :definition, :version, :subject, 'running', :data, clock_timestamp() + :deadlineMs * interval '1 millisecond',
       clock_timestamp() + :limitMs * interval '1 millisecond') on conflict do nothing`,
    { ...saga, data: JSON.stringify(saga.data) },
  );
};

/** Takes sagas that are due, for `leaseMs`: until then no other orchestrator looks at them, unless this one dies. */
export const claim = async (db: Knex, limit: number, leaseMs: number): Promise<Claimed[]> => {
  const { rows } = await db.raw<{ rows: (Row & { token: string; late: boolean; log: StepLog })[] }>(
    `update svc_saga.saga s set token = token + 1, due_at = clock_timestamp() + ? * interval '1 millisecond'
     from (select id from svc_saga.saga where state in ('running', 'compensating') and due_at <= clock_timestamp()
           order by due_at limit ? for update skip locked) due
     where s.id = due.id
     returning s.*, s.deadline < clock_timestamp() as late,
       (select coalesce(json_object_agg(p.step, json_build_object('state', p.state, 'attempts', p.attempts)), '{}') from svc_saga.step p where p.saga = s.id) as log`,
    [leaseMs, limit],
  );
  return rows.map((row) => ({ ...sagaOf(row), token: row.token, late: row.late, log: row.log }));
};

export type Change = {
  readonly step?: { readonly name: string; readonly state: StepState; readonly attempts: number };
  /** The attempts of all steps begin anew. */
  readonly afresh?: boolean;
  readonly state?: SagaState;
  readonly why?: string;
  /** ms until somebody else looks, or looks again: the lease of whoever works on it, or a pause. */
  readonly dueInMs: number;
  readonly event: { readonly what: string; readonly step?: string; readonly detail?: string };
};

/** Writes down one move. @throws Overtaken when another orchestrator, or a person, has the saga now */
export const record = (db: Knex, id: string, token: string, change: Change): Promise<void> =>
  db.transaction(async (trx) => {
    const { rows } = await trx.raw<{ rows: unknown[] }>(
      `update svc_saga.saga set state = coalesce(:state, state), why = coalesce(:why, why), updated_at = clock_timestamp(),
         due_at = clock_timestamp() + :due * interval '1 millisecond'
       where id = :id and token = :token returning 1`,
      { id, token, state: change.state ?? null, why: change.why ?? null, due: change.dueInMs },
    );
    if (rows.length === 0) throw new Overtaken(id);
    if (change.afresh) await trx('svc_saga.step').where({ saga: id }).update({ attempts: 0 });
    if (change.step)
      await trx('svc_saga.step')
        .insert({ saga: id, step: change.step.name, state: change.step.state, attempts: change.step.attempts })
        .onConflict(['saga', 'step'])
        .merge();
    await trx('svc_saga.event').insert({ saga: id, ...change.event });
  });

/** Puts a saga off without a word: what went wrong was not its own. */
export const defer = async (db: Knex, id: string, token: string, ms: number): Promise<void> => {
  await db.raw(`update svc_saga.saga set due_at = clock_timestamp() + ? * interval '1 millisecond' where id = ? and token = ?`, [
    ms,
    id,
    token,
  ]);
};

/** Nobody has watched for so long: then no deadline passed meanwhile. */
const UNWATCHED_MS = 5000;

/**
 * Parks what has not ended within its limit, whoever works on it and however many others are due. To be called every second or so: a longer silence means that no
 * orchestrator was at work, and is added to the deadlines. @returns the ids
 */
export const parkOverdue = (db: Knex): Promise<string[]> =>
  db.transaction(async (trx) => {
    const { rows: watch } = await trx.raw<{ rows: { gap: number }[] }>(
      `with before as (select at from svc_saga.watch for update)
       update svc_saga.watch set at = clock_timestamp() from before returning extract(epoch from clock_timestamp() - before.at)::float8 * 1000 as gap`,
    );
    const gap = watch[0]?.gap ?? 0;
    if (gap > UNWATCHED_MS)
      await trx.raw(
        `update svc_saga.saga set deadline = deadline + least(:gap * interval '1 millisecond', clock_timestamp() - created_at),
           limit_at = limit_at + least(:gap * interval '1 millisecond', clock_timestamp() - created_at)
         where state in ('running', 'compensating')`,
        { gap },
      );
    const { rows } = await trx.raw<{ rows: { id: string }[] }>(
      `with over as (
         update svc_saga.saga s set state = 'parked', why = 'it has not come to an end in time', token = token + 1, updated_at = clock_timestamp()
         from (select id from svc_saga.saga where state in ('running', 'compensating') and limit_at < clock_timestamp() for update skip locked) o
         where s.id = o.id returning s.id)
       insert into svc_saga.event (saga, what, detail) select id, 'parked', 'it has not come to an end in time' from over returning saga as id`,
    );
    return rows.map(({ id }) => id);
  });

/** Newest first, from the one after `after`, which need not be there any more. */
export const list = async (db: Knex, state: SagaState | null, limit: number, after: { at: string; id: string } | null): Promise<Saga[]> => {
  const { rows } = await db.raw<{ rows: Row[] }>(
    `select * from svc_saga.saga where (:state::text is null or state = :state) and (:at::timestamptz is null or (created_at, id) < (:at, :id))
     order by created_at desc, id desc limit :limit`,
    { state, limit, at: after?.at ?? null, id: after?.id ?? null },
  );
  return rows.map(sagaOf);
};

export const find = async (db: Knex, id: string): Promise<(Saga & { steps: StepLog; timeline: SagaEvent[] }) | null> => {
  const row = (await db('svc_saga.saga').where({ id }).first()) as Row | undefined;
  if (!row) return null;
  const steps = (await db('svc_saga.step').where({ saga: id })) as { step: string; state: StepState; attempts: number }[];
  const events = (await db('svc_saga.event').where({ saga: id }).orderBy('n').limit(1000)) as {
    at: Date;
    what: string;
    step: string | null;
    detail: string | null;
  }[];
  return {
    ...sagaOf(row),
    steps: Object.fromEntries(steps.map(({ step, state, attempts }) => [step, { state, attempts }])),
    timeline: events.map(({ at, what, step, detail }) => ({ at: at.toISOString(), what, step, detail })),
  };
};

/** A person decides about a parked saga. False when it is not parked. */
export const resolve = (
  db: Knex,
  id: string,
  as: SagaResolution,
  who: { actor: string; reason: string },
  { deadlineMs, limitMs }: Pick<Definition, 'deadlineMs' | 'limitMs'>,
): Promise<boolean> =>
  db.transaction(async (trx) => {
    const row = (await trx('svc_saga.saga').where({ id }).forUpdate().first()) as Row | undefined;
    if (row?.state !== 'parked') return false;
    const wasBack = await trx('svc_saga.event').where({ saga: id, what: 'turned' }).first();
    const state: SagaState =
      as === 'done' ? (wasBack ? 'compensated' : 'done') : as === 'compensate' || wasBack ? 'compensating' : 'running';
    await trx('svc_saga.step').where({ saga: id }).update({ attempts: 0 });
    await trx('svc_saga.saga')
      .where({ id })
      .update({
        state,
        updated_at: trx.fn.now(),
        due_at: trx.fn.now(),
        token: trx.raw('token + 1'),
        deadline: trx.raw(`clock_timestamp() + ? * interval '1 millisecond'`, [deadlineMs]),
        limit_at: trx.raw(`clock_timestamp() + ? * interval '1 millisecond'`, [limitMs]),
      });
    await trx('svc_saga.event').insert({
      saga: id,
      what: as === 'compensate' && !wasBack ? 'turned' : 'resolved',
      detail: `${as} by ${who.actor}: ${who.reason}`,
    });
    return true;
  });
