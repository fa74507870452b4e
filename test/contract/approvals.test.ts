import { randomUUID } from 'node:crypto';
import { createAuditStore } from '@banyan/gateway/admin/audit-store.ts';
import { createFlags, type Flags } from '@banyan/gateway/flags/flags.ts';
import { createMoves, type Moves, type StageRequest } from '@banyan/gateway/flags/moves.ts';
import { afterAll, beforeAll, describe, expect, it } from '@jest/globals';
import knex, { type Knex } from 'knex';
import { pino } from 'pino';
import { type FreshDatabase, freshDatabase } from '../harness/database.ts';

let database: FreshDatabase;
let db: Knex;
let flags: Flags;
let moves: Moves;
let needed = 1;

beforeAll(async () => {
  database = await freshDatabase('store');
  db = knex({ client: 'pg', connection: { connectionString: database.url }, pool: { min: 0, max: 4 } });
  flags = createFlags({
    db,
    listener: null,
    memberId: randomUUID(),
    memberName: 'test',
    seeds: ['a', 'b', 'c', 'd'].map((name) => ({ name, group: null, stage: 'shadow', canaryShareBp: 0 })),
    stateFile: null,
    now: Date.now,
    log: pino({ level: 'silent' }),
  });
  await flags.start();
  moves = createMoves({
    db,
    flags,
    flips: null,
    approvals: () => needed,
    contextOf: () => ({ firstShareBp: 100, cutoverObstacles: [] }),
  });
});
afterAll(async () => {
  await flags.stop();
  await db.destroy();
  await database.drop();
});

const ask = (context: string, actor: string, canaryShareBp: number, more: Partial<StageRequest> = {}) =>
  moves.stage(context, { stage: 'canary', canaryShareBp, reason: `${actor} wants it`, actor, ...more });

describe('a promotion that needs others', () => {
  it('is made once so many different people have asked for the very same, and says who did', async () => {
    expect(await ask('a', 'ann', 500)).toEqual({ kind: 'asked', canaryShareBp: 500, askedBy: ['ann'], needed: 2 });
    expect(await ask('a', 'ann', 500)).toMatchObject({ kind: 'asked', askedBy: ['ann'] });
    expect(flags.current('a')).toMatchObject({ stage: 'shadow', version: 1 });
    expect(await ask('a', 'ben', 500)).toMatchObject({ kind: 'done' });
    expect(flags.current('a')).toMatchObject({ stage: 'canary', canaryShareBp: 500, updatedBy: 'ben' });
    const { items } = await createAuditStore(db).list({ context: 'a', limit: 10 });
    expect(items.map(({ action, actor }) => `${action} ${actor}`)).toEqual(['stage ben', 'stage-asked ann', 'stage-asked ann']);
    expect(items[0]!.evidence).toEqual({ approvedBy: ['ann', 'ben'] });
    // the next one needs them anew
    expect(await ask('a', 'ben', 600)).toMatchObject({ kind: 'asked', askedBy: ['ben'] });
  });

  it('is another one with another share, and is forgotten when the context has moved', async () => {
    await ask('b', 'ann', 500);
    expect(await ask('b', 'ben', 5_000)).toMatchObject({ kind: 'asked', askedBy: ['ben'] });
    expect(await moves.stage('b', { stage: 'legacy', reason: 'back', actor: 'cid' })).toMatchObject({ kind: 'done' });
    expect(await moves.stage('b', { stage: 'shadow', reason: 'on', actor: 'ann' })).toMatchObject({ kind: 'asked', askedBy: ['ann'] });
    await moves.stage('b', { stage: 'shadow', reason: 'on', actor: 'ben' });
    expect(await ask('b', 'ann', 5_000)).toMatchObject({ kind: 'asked', askedBy: ['ann'] });
    await db('banyan.stage_ask').update({ at: db.raw("now() - interval '2 days'") });
    expect(await ask('b', 'cid', 5_000)).toMatchObject({ kind: 'asked', askedBy: ['cid'] });
  });

  it('goes down without anybody else, and the ramp has approvals of its own', async () => {
    expect(await ask('c', 'ramp', 5_000, { approved: true })).toMatchObject({ kind: 'done' });
    expect(await ask('c', 'ann', 100)).toMatchObject({ kind: 'done' });
    expect(await moves.stage('c', { stage: 'shadow', reason: 'back', actor: 'ann' })).toMatchObject({ kind: 'done' });
  });

  it('cannot be asked for by somebody without a name, or of a version that is past', async () => {
    await expect(ask('d', 'local', 500)).rejects.toThrow(/needs approvals, and those need names/);
    await expect(ask('d', 'ann', 500, { ifVersion: 7 })).rejects.toMatchObject({ code: 'stale-version' });
    needed = 2;
    await ask('d', 'ann', 500);
    expect(await ask('d', 'ben', 500)).toMatchObject({ kind: 'asked', askedBy: ['ann', 'ben'], needed: 3 });
    expect(await ask('d', 'cid', 500)).toMatchObject({ kind: 'done' });
    needed = 1;
  });

  it('is done once, however many ask at the same moment', async () => {
    const answers = await Promise.allSettled(['ann', 'ben', 'cid', 'dan'].map((actor) => ask('d', actor, 900)));
    const done = answers.filter((answer) => answer.status === 'fulfilled' && answer.value.kind === 'done');
    expect(done).toHaveLength(1);
    await flags.refresh();
    expect(flags.current('d')).toMatchObject({ canaryShareBp: 900, version: 3 });
  });
});
