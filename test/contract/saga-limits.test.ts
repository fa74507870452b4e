import { migrateSchema } from '@banyan/kit/schema.ts';
import { afterAll, afterEach, beforeAll, expect, it, jest } from '@jest/globals';
import type { Knex } from 'knex';
import { ORDER_SAGA } from '../../extracted-services/saga/definition.ts';
import { type Orchestrator, startOrchestrator } from '../../extracted-services/saga/orchestrator.ts';
import type { Participants } from '../../extracted-services/saga/participants.ts';
import { begin, find, migrations, resolve, SCHEMA } from '../../extracted-services/saga/store.ts';
import { type FreshDatabase, freshDatabase } from '../harness/database.ts';
import { until } from '../harness/wait.ts';
import { openStore, silent } from './kit-fixtures.ts';

jest.setTimeout(60_000);

let database: FreshDatabase;
let db: Knex;
const running: Orchestrator[] = [];

beforeAll(async () => {
  database = await freshDatabase('empty');
  db = openStore(database.url);
  await migrateSchema(db, SCHEMA, migrations);
});
afterEach(async () => void (await Promise.all(running.splice(0).map((orchestrator) => orchestrator.stop()))));
afterAll(async () => {
  await db.destroy();
  await database.drop();
});

const start = (participants: Participants, more: { leaseMs?: number; concurrency?: number } = {}): void =>
  void running.push(startOrchestrator({ db, log: silent, definitions: [ORDER_SAGA], participants, pollMs: 20, retryMs: 20, ...more }));
const order = (id: string, limits: { deadlineMs: number; limitMs: number }) =>
  begin(db, { id, definition: 'order', version: 1, subject: id, data: {}, ...limits });
const state = async (id: string): Promise<string | undefined> => (await find(db, id))?.state;
const pause = (ms: number): Promise<void> => new Promise((done) => setTimeout(done, ms));
const always = (outcome: 'done' | 'unknown', ms = 0): Participants => {
  const answer = async () => {
    await pause(ms);
    return { outcome };
  };
  return { act: answer, ask: answer, undo: answer };
};
const AMPLE = { deadlineMs: 3_600_000, limitMs: 3_600_000 };

it('is parked at its limit while nobody answers, however many wait before it, and goes on when a person says so', async () => {
  // one at a time, and each call takes long: most are never looked at
  start(always('unknown', 300), { concurrency: 1 });
  const ids = Array.from({ length: 10 }, (_, n) => `stuck-${n}`);
  for (const id of ids) await order(id, { deadlineMs: 200, limitMs: 1000 });
  for (const id of ids) await until(async () => (await state(id)) === 'parked', { describe: `${id} to be parked`, timeoutMs: 30_000 });
  // what was under way when it was parked changes nothing any more
  await Promise.all(running.splice(0).map((orchestrator) => orchestrator.stop()));
  for (const id of ids) {
    const saga = (await find(db, id))!;
    expect(saga).toMatchObject({ state: 'parked', why: 'it has not come to an end in time' });
    expect(saga.timeline.at(-1)).toMatchObject({ what: 'parked' });
  }
  expect(await resolve(db, ids[0]!, 'compensate', { actor: 'ann', reason: 'all back' }, AMPLE)).toBe(true);
  start(always('done'));
  await until(async () => (await state(ids[0]!)) === 'compensated', { describe: 'the resolved one to be taken back' });
});

it('no deadline passes while no orchestrator runs', async () => {
  await order('slept', { deadlineMs: 1000, limitMs: 2000 });
  await db.raw(
    `update svc_saga.saga set created_at = created_at - interval '1 hour', deadline = deadline - interval '1 hour',
       limit_at = limit_at - interval '1 hour' where id = 'slept'`,
  );
  await db.raw(`update svc_saga.watch set at = clock_timestamp() - interval '1 hour'`);
  start(always('done'));
  await until(async () => (await state('slept')) === 'done', { describe: 'the saga to go on' });
});

it('is kept by the orchestrator that works on it, though all its steps take longer than the lease', async () => {
  const asked: string[] = [];
  const slow = always('done', 700);
  const participants: Participants = {
    ...slow,
    act: (participant, ...rest) => {
      asked.push(participant);
      return slow.act(participant, ...rest);
    },
  };
  // four steps of 0.7 s each under leases of 2 s
  for (let n = 0; n < 3; n += 1) start(participants, { leaseMs: 2000 });
  await order('slow', AMPLE);
  await until(async () => (await state('slow')) === 'done', { describe: 'the slow saga', timeoutMs: 30_000 });
  expect(asked).toEqual(ORDER_SAGA.steps.map((step) => step.participant));
});
