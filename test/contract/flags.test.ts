import { randomUUID } from 'node:crypto';
import { mkdtemp, readFile, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { AppError } from '@banyan/contracts/errors.ts';
import { createFlags, type Flags, type FlagsDeps } from '@banyan/gateway/flags/flags.ts';
import { createFlips, type Flips, type FlipsDeps } from '@banyan/gateway/flags/flips.ts';
import { createListener, type Listener } from '@banyan/gateway/flags/listener.ts';
import { createMoves, type Moves } from '@banyan/gateway/flags/moves.ts';
import { afterAll, afterEach, beforeAll, beforeEach, describe, expect, it } from '@jest/globals';
import knex, { type Knex } from 'knex';
import { pino } from 'pino';
import { type FreshDatabase, freshDatabase } from '../harness/database.ts';
import { until } from '../harness/wait.ts';

const log = pino({ level: 'silent' });
const quiet = { warn: () => undefined, error: () => undefined, debug: () => undefined, deprecate: () => undefined };
const open = (url: string): Knex =>
  knex({
    client: 'pg',
    log: quiet,
    connection: { connectionString: url, application_name: 'flags-test' },
    pool: { min: 0, max: 6 },
    acquireConnectionTimeout: 2000,
  });

let database: FreshDatabase;
let db: Knex;
let folder: string;
const cleanups: (() => Promise<void>)[] = [];

beforeAll(async () => {
  database = await freshDatabase('store');
  db = open(database.url);
  folder = await mkdtemp(join(tmpdir(), 'banyan-flags-'));
});
afterAll(async () => {
  await db.destroy();
  await database.drop();
  await rm(folder, { recursive: true, force: true });
});
beforeEach(() => db.raw('truncate banyan.context, banyan.member, banyan.flip'));
afterEach(async () => {
  for (const cleanup of cleanups.splice(0).reverse()) await cleanup();
});

const seed = (name: string, more: Partial<FlagsDeps['seeds'][number]> = {}) => ({
  name,
  group: null,
  stage: 'legacy' as const,
  canaryShareBp: 0,
  ...more,
});

const flagsWith = async (more: Partial<FlagsDeps> = {}): Promise<Flags> => {
  const flags = createFlags({
    db,
    listener: null,
    memberId: randomUUID(),
    memberName: 'test',
    seeds: [seed('order')],
    stateFile: null,
    // the net under LISTEN must not hide it
    pollMs: 60_000,
    heartbeatMs: 60_000,
    now: Date.now,
    log,
    ...more,
  });
  await flags.start();
  cleanups.push(() => flags.stop());
  return flags;
};

/** A store that nobody answers at. */
const away = (): Knex => {
  const gone = open('postgres://nobody@127.0.0.1:1/none');
  cleanups.push(() => gone.destroy());
  return gone;
};

const listening = (): Listener => {
  const listener = createListener({ databaseUrl: database.url, log, retryMs: 50 });
  listener.start();
  cleanups.push(() => listener.stop());
  return listener;
};

type Wired = { flags: Flags; flips: Flips; moves: Moves; memberId: string };
const wired = async (more: Partial<FlipsDeps> = {}, seeds: FlagsDeps['seeds'] = [seed('order')]): Promise<Wired> => {
  const memberId = randomUUID();
  const flags = await flagsWith({ memberId, seeds });
  const flips = createFlips({
    db,
    flags,
    memberId,
    maxStaleMs: 2000,
    unresolved: async () => [],
    inFlight: async () => 0,
    watermark: async () => undefined,
    log,
    now: Date.now,
    ...more,
  });
  cleanups.push(() => flips.stop());
  const moves = createMoves({ db, flags, flips, contextOf: () => ({ firstShareBp: 100, cutoverObstacles: [] }) });
  return { flags, flips, moves, memberId };
};
const by = (more: object = {}) => ({ reason: 'test', actor: 'ann', ...more });
const kill = (id: string = randomUUID()) => ({ id, ...by() });
const killed = (flags: Flags): boolean | undefined => flags.current('order')?.killed;
const state = (flips: Flips, id: string) => flips.get(id).then((flip) => flip?.state);
const ended = (flips: Flips, id: string, wanted: 'done' | 'undone') =>
  until(async () => (await state(flips, id)) === wanted, { describe: `flip to be ${wanted}` });
const toCanary = (moves: Moves) => moves.stage('order', { stage: 'canary', force: true, ...by() });
const atCutover = async (moves: Moves, flips: Flips): Promise<void> => {
  await toCanary(moves);
  const moved = await moves.stage('order', { stage: 'cutover', ...by() });
  if (moved.kind !== 'flip') throw new Error('expected a flip');
  await ended(flips, moved.id, 'done');
};
const audited = async (): Promise<string[]> =>
  (await db('banyan.audit').orderBy('id').select('action', 'context')).map((row) => `${row.action} ${row.context}`);

describe('seeds', () => {
  it('enter a store that does not know the context; what the store knows stays', async () => {
    const first = await flagsWith({ seeds: [seed('order', { stage: 'canary', canaryShareBp: 500 })] });
    expect(first.current('order')).toMatchObject({ stage: 'canary', canaryShareBp: 500, owner: 'legacy', epoch: 1 });
    const second = await flagsWith({ seeds: [seed('order', { stage: 'shadow', group: 'shop' })] });
    expect(second.current('order')).toMatchObject({ stage: 'canary', canaryShareBp: 500, group: 'shop' });
  });

  it('may not say cutover or retired', async () => {
    const flags = await flagsWith({ seeds: [seed('order', { stage: 'cutover' }), seed('old', { stage: 'retired' })] });
    expect(flags.all()).toEqual([]);
  });

  it('do not start a context over that was last known to be cut over', async () => {
    const stateFile = join(folder, 'further.json');
    const first = await flagsWith({ stateFile });
    await db('banyan.context').update({ stage: 'cutover', owner: 'extracted', version: 2 });
    await first.refresh();
    await first.stop();
    await db.raw('truncate banyan.context');
    const second = await flagsWith({ stateFile, seeds: [seed('order'), seed('inventory')] });
    expect(second.all().map((flag) => flag.name)).toEqual(['inventory']);
  });

  it('enter later when the store was away at the start', async () => {
    let broken = true;
    const flaky = new Proxy(db, {
      get: (target, key) => {
        if (broken) throw new Error('no store');
        return Reflect.get(target, key);
      },
      apply: (target, _self, args) => {
        if (broken) throw new Error('no store');
        return Reflect.apply(target, undefined, args);
      },
    });
    const flags = await flagsWith({ db: flaky });
    expect(flags.ageMs()).toBe(Number.POSITIVE_INFINITY);
    expect(flags.current('order')).toMatchObject({ stage: 'legacy', version: 0 });
    broken = false;
    await flags.refresh();
    expect(flags.current('order')).toMatchObject({ stage: 'legacy', version: 1 });
    expect(flags.ageMs()).toBeLessThan(60_000);
  });
});

describe('moves', () => {
  it('raise the version, keep who and why, and refuse a stale ifVersion', async () => {
    const { flags, moves } = await wired();
    expect(await moves.stage('order', { stage: 'shadow', ifVersion: 1, ...by() })).toMatchObject({ kind: 'done' });
    expect(flags.current('order')).toMatchObject({ stage: 'shadow', version: 2, updatedBy: 'ann' });
    await expect(moves.stage('order', { stage: 'canary', ifVersion: 1, ...by() })).rejects.toMatchObject({
      code: 'stale-version',
      details: { version: 2 },
    });
    await moves.stage('order', { stage: 'canary', canaryShareBp: 1250, ifVersion: 2, ...by() });
    expect(flags.current('order')).toMatchObject({ stage: 'canary', canaryShareBp: 1250, version: 3 });
  });

  it('refuse what is no legal move, without a trace', async () => {
    const { flags, moves } = await wired();
    const before = (await audited()).length;
    await expect(moves.stage('order', { stage: 'cutover', ...by() })).rejects.toMatchObject({
      code: 'illegal-move',
      details: { legal: ['shadow'] },
    });
    await expect(moves.stage('order', { stage: 'shadow', canaryShareBp: 100, ...by() })).rejects.toMatchObject({ code: 'bad-request' });
    await expect(moves.stage('nope', { stage: 'shadow', ...by() })).rejects.toMatchObject({ code: 'not-found' });
    expect(flags.current('order')).toMatchObject({ stage: 'legacy', version: 1 });
    expect((await audited()).length).toBe(before);
  });

  it('take a group as one', async () => {
    const { flags, moves } = await wired({}, [seed('order', { group: 'shop' }), seed('inventory', { group: 'shop' }), seed('user')]);
    await moves.stage('order', { stage: 'shadow', ...by() });
    await moves.kill(['inventory'], by());
    expect(flags.all().map((flag) => [flag.name, flag.stage, flag.killed])).toEqual([
      ['inventory', 'shadow', true],
      ['order', 'shadow', true],
      ['user', 'legacy', false],
    ]);
  });

  it('let only one of two that saw the same version win', async () => {
    const { moves } = await wired();
    const results = await Promise.allSettled([
      moves.stage('order', { stage: 'shadow', ifVersion: 1, ...by() }),
      moves.stage('order', { stage: 'shadow', ifVersion: 1, ...by() }),
    ]);
    expect(results.map((result) => result.status).sort()).toEqual(['fulfilled', 'rejected']);
  });
});

describe('refresh', () => {
  it('serves everybody who asks during a load with one that begins later', async () => {
    const flags = await flagsWith();
    const first = flags.refresh();
    await db('banyan.context').update({ version: 7, killed: true });
    const [second, third] = [flags.refresh(), flags.refresh()];
    await first;
    await third;
    expect(flags.current('order')).toMatchObject({ version: 7, killed: true });
    await second;
  });
});

describe('propagation', () => {
  it('reaches another process by LISTEN in under a second', async () => {
    const { moves } = await wired();
    const other = await flagsWith({ listener: listening() });
    await until(
      async () =>
        (await db.raw(`select 1 from pg_stat_activity where datname = current_database() and query like 'listen %'`)).rowCount > 0,
      {
        describe: 'LISTEN to be in place',
      },
    );
    const seen = new Promise<number>((resolve) => {
      other.onChange((flag) => {
        if (flag.stage === 'shadow') resolve(performance.now());
      });
    });
    const before = performance.now();
    await moves.stage('order', { stage: 'shadow', ...by() });
    expect((await seen) - before).toBeLessThan(1000);
  });

  it('is caught up by the listener after its connection broke', async () => {
    const listener = listening();
    const other = await flagsWith({ listener });
    const listenerPid = () =>
      db
        .raw(`select pid from pg_stat_activity where datname = current_database() and application_name = 'banyan-listen'`)
        .then(({ rows }) => rows[0]?.pid);
    const pid = await until(listenerPid, { describe: 'the listener to be connected' });
    await db.raw('select pg_terminate_backend(?)', [pid]);
    // nobody announces this one
    await db('banyan.context').update({ stage: 'shadow', version: 2 });
    await until(() => other.current('order')?.stage === 'shadow', { describe: 'the reconnected listener to make flags look' });
  });

  it('falls back to polling', async () => {
    const other = await flagsWith({ pollMs: 20 });
    await db('banyan.context').update({ stage: 'shadow', version: 2 });
    await until(() => other.current('order')?.stage === 'shadow', { describe: 'the poll' });
  });

  it('tells others which version is served', async () => {
    const memberId = randomUUID();
    const flags = await flagsWith({ memberId });
    const seen = async () => (await db('banyan.member').where({ id: memberId }).first('seen'))?.seen;
    expect(await seen()).toEqual({ order: 1 });
    await db('banyan.context').update({ version: 2 });
    await flags.refresh();
    expect(await seen()).toEqual({ order: 2 });
    await flags.stop();
    expect(await seen()).toBeUndefined();
  });
});

describe('without the store', () => {
  it('the last known flags are served from disk', async () => {
    const stateFile = join(folder, 'lkg.json');
    const first = await flagsWith({ stateFile, seeds: [seed('order', { stage: 'canary', canaryShareBp: 700 })] });
    await first.stop();
    const second = await flagsWith({ db: away(), stateFile, seeds: [seed('order'), seed('new', { stage: 'shadow' })] });
    expect(second.current('order')).toMatchObject({ stage: 'canary', canaryShareBp: 700, version: 1 });
    expect(second.current('order')?.since).toBeInstanceOf(Date);
    expect(second.current('new')).toMatchObject({ stage: 'shadow', version: 0 });
    expect(second.ageMs()).toBe(Number.POSITIVE_INFINITY);
  });

  it('a broken state file counts as none', async () => {
    const stateFile = join(folder, 'broken.json');
    await writeFile(stateFile, '{"flags": [{"name": "order", "stage": "moon"}], "kills": []}');
    const flags = await flagsWith({ db: away(), stateFile });
    expect(flags.current('order')).toMatchObject({ stage: 'legacy' });
  });

  it('a kill works at once, is kept on disk, and is merged when the store is back', async () => {
    const stateFile = join(folder, 'kill.json');
    const gone = away();
    const flags = await flagsWith({ db: gone, stateFile });
    const moves = createMoves({ db: gone, flags, flips: null, contextOf: () => undefined });
    await moves.kill(['order'], by());
    expect(flags.current('order')?.killed).toBe(true);
    expect(flags.pendingKills()).toEqual(['order']);
    expect(JSON.parse(await readFile(stateFile, 'utf8')).kills).toEqual([{ name: 'order', id: expect.any(String), ...by() }]);
    await expect(moves.revive(['order'], by())).rejects.toMatchObject({ code: 'store-unavailable' });
    await expect(moves.stage('order', { stage: 'shadow', ...by() })).rejects.toMatchObject({ code: 'store-unavailable' });
    await expect(moves.kill(['order'], by({ now: true }))).rejects.toMatchObject({ code: 'store-unavailable' });
    await flags.stop();

    await db('banyan.context').insert({ name: 'order', stage: 'canary', canary_share_bp: 100 });
    const back = await flagsWith({ stateFile });
    expect(back.current('order')).toMatchObject({ stage: 'canary', killed: true, version: 2, updatedBy: by().actor });
    expect(back.pendingKills()).toEqual([]);
    expect(await db('banyan.audit').orderBy('id', 'desc').first()).toMatchObject({
      action: 'kill',
      actor: by().actor,
      reason: expect.stringContaining(by().reason),
    });
  });

  it('a store that takes the connection and then says nothing does not delay a kill', async () => {
    const { flags, moves } = await wired();
    const blocker = await db.transaction();
    await blocker('banyan.context').where({ name: 'order' }).forUpdate().first();
    await moves.kill(['order'], by());
    expect(flags.current('order')?.killed).toBe(true);
    await blocker.rollback();
    await until(async () => (await db('banyan.context').first()).killed, { describe: 'the kill to reach the store' });
  });

  it('only kill works where no store is configured', async () => {
    const flags = await flagsWith({ db: null, seeds: [seed('order', { stage: 'canary', canaryShareBp: 100 })] });
    const moves = createMoves({ db: null, flags, flips: null, contextOf: () => undefined });
    expect(flags.ageMs()).toBe(0);
    await expect(moves.stage('order', { stage: 'shadow', ...by() })).rejects.toMatchObject({ code: 'not-configured' });
    await expect(moves.revive(['order'], by())).rejects.toMatchObject({ code: 'not-configured' });
    await moves.kill(['order'], by());
    expect(flags.current('order')?.killed).toBe(true);
  });
});

describe('one kill that many gateways are told of', () => {
  it('is obeyed by the store once, however late the others reach it', async () => {
    const one = randomUUID();
    const before = (await audited()).length;
    const { flags, moves } = await wired();
    const late = await flagsWith();
    for (const told of [flags, late]) await told.killLocally(['order'], kill(one));
    await flags.refresh();
    expect(killed(flags)).toBe(true);
    await moves.revive(['order'], by());
    // the late one has not heard of the revive: until it reaches the store it stays killed
    expect(killed(late)).toBe(true);
    await late.refresh();
    expect([killed(late), late.pendingKills(), (await db('banyan.context').first('killed')).killed]).toEqual([false, [], false]);
    await moves.kill(['order'], kill(one));
    expect(killed(flags)).toBe(false);
    expect((await audited()).slice(before)).toEqual(['kill order', 'revive order']);
    await moves.kill(['order'], kill());
    expect(killed(flags)).toBe(true);
  });

  it('is another one when somebody kills again, and wins over the revive', async () => {
    const { flags, moves } = await wired();
    const late = await flagsWith();
    await moves.kill(['order'], kill());
    await late.killLocally(['order'], kill());
    await moves.revive(['order'], by());
    await late.refresh();
    await flags.refresh();
    expect([killed(flags), killed(late)]).toEqual([true, true]);
  });
});

describe('thaw', () => {
  it('is awaited, and given up after its time', async () => {
    const flags = await flagsWith();
    const freeze = async (id: string | null) => {
      await db('banyan.context').update({ frozen_by: id, version: db.raw('version + 1') });
      await flags.refresh();
    };
    expect(await flags.thawed('order', 1)).toBe(true);
    await freeze(randomUUID());
    expect(await flags.thawed('order', 1)).toBe(false);
    const thawed = flags.thawed('order', 30_000);
    await freeze(null);
    expect(await thawed).toBe(true);
  });
});

describe('a flip', () => {
  it('waits for commands in flight under a freeze, then hands over owner and epoch', async () => {
    let busy = 2;
    const waited: string[] = [];
    const { flags, flips, moves } = await wired({
      inFlight: async () => busy,
      watermark: async (context, into) => void waited.push(`${context} ${into}`),
    });
    await toCanary(moves);
    const moved = await moves.stage('order', { stage: 'cutover', ...by() });
    if (moved.kind !== 'flip') throw new Error('expected a flip');
    await until(async () => (await state(flips, moved.id)) === 'draining', { describe: 'draining' });
    expect(flags.current('order')).toMatchObject({ frozen: true, frozenBy: moved.id, owner: 'legacy', epoch: 1 });
    expect((await flips.active()).map((flip) => flip.id)).toEqual([moved.id]);
    await expect(moves.stage('order', { stage: 'legacy', ...by() })).rejects.toMatchObject({
      code: 'conflict',
      details: { flip: moved.id },
    });
    busy = 0;
    await ended(flips, moved.id, 'done');
    await flags.refresh();
    expect(flags.current('order')).toMatchObject({ stage: 'cutover', owner: 'extracted', epoch: 2, frozen: false, canaryShareBp: 10_000 });
    expect(waited).toEqual(['order extracted', 'order extracted']);
    expect(await flips.active()).toEqual([]);
    expect((await audited()).at(-1)).toBe('flip order');

    const back = await moves.stage('order', { stage: 'canary', canaryShareBp: 500, ...by() });
    if (back.kind !== 'flip') throw new Error('expected a flip');
    await ended(flips, back.id, 'done');
    await flags.refresh();
    expect(flags.current('order')).toMatchObject({ stage: 'canary', owner: 'legacy', epoch: 3, canaryShareBp: 500 });
    expect(waited.at(-1)).toBe('order legacy');
  });

  it('hands a group over as one: one freeze, one flip, an epoch each, and nobody moves when one of them cannot', async () => {
    const frozen: string[][] = [];
    const inFlight: FlipsDeps['inFlight'] = async () => {
      frozen.push((await db('banyan.context').whereNotNull('frozen_by').orderBy('name')).map(({ name }) => name as string));
      return 0;
    };
    const pair = [seed('order', { group: 'shop' }), seed('inventory', { group: 'shop' })];
    const first = await wired({ inFlight }, pair);
    await atCutover(first.moves, first.flips);
    await first.flags.refresh();
    const standing = () => first.flags.all().map(({ name, stage, owner, epoch }) => ({ name, stage, owner, epoch }));
    expect(frozen.at(-1)).toEqual(['inventory', 'order']);
    expect(standing()).toEqual([
      { name: 'inventory', stage: 'cutover', owner: 'extracted', epoch: 2 },
      { name: 'order', stage: 'cutover', owner: 'extracted', epoch: 2 },
    ]);
    const behind = await wired(
      { watermark: (context) => (context === 'order' ? Promise.reject(new Error('order lags')) : Promise.resolve()) },
      pair,
    );
    const moved = await behind.moves.stage('inventory', { stage: 'canary', ...by() });
    if (moved.kind !== 'flip') throw new Error('expected a flip');
    await ended(behind.flips, moved.id, 'undone');
    await first.flags.refresh();
    expect(standing()).toMatchObject([
      { stage: 'cutover', epoch: 2 },
      { stage: 'cutover', epoch: 2 },
    ]);
  });

  it('is undone unchanged when commands do not end in time', async () => {
    const { flags, flips, moves } = await wired({ inFlight: async () => 1, freezeLimitMs: 60 });
    await toCanary(moves);
    const moved = await moves.stage('order', { stage: 'cutover', ...by() });
    if (moved.kind !== 'flip') throw new Error('expected a flip');
    await ended(flips, moved.id, 'undone');
    expect(await flips.get(moved.id)).toMatchObject({ state: 'undone', detail: 'timed out: 1 command in flight did not end' });
    await flags.refresh();
    expect(flags.current('order')).toMatchObject({ stage: 'canary', owner: 'legacy', epoch: 1, frozen: false });
    expect((await audited()).at(-1)).toBe('flip-undone order');
    // nothing is left in its way
    expect((await moves.stage('order', { stage: 'shadow', ...by() })).kind).toBe('done');
  });

  it('is undone when the other side does not come level, before anything froze', async () => {
    const { flips, moves } = await wired({
      watermark: async () => {
        throw new Error('adapter away');
      },
    });
    await toCanary(moves);
    const moved = await moves.stage('order', { stage: 'cutover', ...by() });
    if (moved.kind !== 'flip') throw new Error('expected a flip');
    await ended(flips, moved.id, 'undone');
  });

  it('waits for a replica that does not acknowledge, until its heartbeat expires', async () => {
    const { flips, moves } = await wired({ maxStaleMs: 300, freezeLimitMs: 20_000 });
    await toCanary(moves);
    const silent = randomUUID();
    await db('banyan.member').insert({ id: silent, name: 'silent', seen: '{"order": 1}' });
    const beats = setInterval(
      () =>
        void db('banyan.member')
          .where({ id: silent })
          .update({ heartbeat_at: db.fn.now() })
          .then(() => undefined),
      20,
    );
    try {
      const moved = await moves.stage('order', { stage: 'cutover', ...by() });
      if (moved.kind !== 'flip') throw new Error('expected a flip');
      await until(async () => (await state(flips, moved.id)) === 'freezing', { describe: 'freezing' });
      expect(await state(flips, moved.id)).toBe('freezing');
      clearInterval(beats);
      await ended(flips, moved.id, 'done');
    } finally {
      clearInterval(beats);
    }
  });

  it('is refused while writes are unresolved, and lists them', async () => {
    const open = [{ id: 'w1', state: 'unknown' }];
    const { flips, moves } = await wired({ unresolved: async () => open });
    await toCanary(moves);
    await expect(moves.stage('order', { stage: 'cutover', ...by() })).rejects.toMatchObject({
      code: 'conflict',
      // the command line shows this one line only
      message: expect.stringContaining(`${open[0]!.id} ${open[0]!.state}`),
      details: { unresolved: open },
    });
    expect(await flips.active()).toEqual([]);
  });

  it('is refused for a killed context, and undone by a kill on its way into cutover', async () => {
    let level = (): void => undefined;
    const { flags, flips, moves } = await wired({
      watermark: () =>
        new Promise((resolve) => {
          level = resolve;
        }),
    });
    await toCanary(moves);
    const moved = await moves.stage('order', { stage: 'cutover', ...by() });
    if (moved.kind !== 'flip') throw new Error('expected a flip');
    await moves.kill(['order'], by());
    await until(
      async () => {
        level();
        return (await state(flips, moved.id)) === 'undone';
      },
      { describe: 'the flip to be undone' },
    );
    await flags.refresh();
    expect(flags.current('order')).toMatchObject({ stage: 'canary', owner: 'legacy', killed: true, frozen: false });
    await expect(moves.stage('order', { stage: 'cutover', ...by() })).rejects.toMatchObject({ code: 'conflict' });
  });

  it('whose driver died is undone by another replica', async () => {
    const { flags, flips, moves } = await wired({ maxStaleMs: 50 });
    await toCanary(moves);
    const [id, driver] = [randomUUID(), randomUUID()];
    await db('banyan.flip').insert({
      id,
      contexts: ['order'],
      from_stage: 'canary',
      to_stage: 'cutover',
      state: 'draining',
      actor: 'ann',
      reason: 'test',
      driver,
      updated_at: db.raw("now() - interval '1 minute'"),
    });
    await db('banyan.context').update({ frozen_by: id, version: 9 });
    await db('banyan.member').insert({ id: driver, name: 'driver' });
    await flips.recover();
    expect(await state(flips, id)).toBe('draining');
    await db('banyan.member')
      .where({ id: driver })
      .update({ heartbeat_at: db.raw("now() - interval '1 minute'") });
    await flips.recover();
    expect(await flips.get(id)).toMatchObject({ state: 'undone', detail: 'the gateway that drove it died' });
    await flags.refresh();
    expect(flags.current('order')).toMatchObject({ frozen: false, stage: 'canary', epoch: 1 });
  });

  it('compares what both sides hold before the freeze and what changed since under it, and says so', async () => {
    const asked: string[] = [];
    const { flags, flips, moves } = await wired({
      levels: {
        compare: async (context) => {
          asked.push(`compare ${context} ${flags.current(context)?.frozen ? 'frozen' : 'free'}`);
          return { context, from: '7', aggregates: 12 };
        },
        recheck: async ({ context, from }) => {
          asked.push(`recheck ${context} from ${from} ${flags.current(context)?.frozen ? 'frozen' : 'free'}`);
          return 3;
        },
      },
    });
    await toCanary(moves);
    const moved = await moves.stage('order', { stage: 'cutover', ...by() });
    if (moved.kind !== 'flip') throw new Error('expected a flip');
    await ended(flips, moved.id, 'done');
    expect(asked).toEqual(['compare order free', 'recheck order from 7 frozen']);
    expect((await flips.get(moved.id))?.detail).toMatch(
      /^commands were held for \d+ ms; 12 aggregates were equal on both sides, 3 of them compared again under the freeze$/,
    );
    expect((await db('banyan.audit').where({ action: 'flip' }).orderBy('id', 'desc').first()).evidence).toMatchObject({
      flip: moved.id,
      compared: 12,
      rechecked: 3,
    });
  });

  it('is undone when the two sides differ', async () => {
    const { flags, flips, moves } = await wired({
      levels: {
        compare: async (context) => ({ context, from: '7', aggregates: 12 }),
        recheck: async () => {
          throw new AppError('conflict', 'the two sides of order differ: 1007');
        },
      },
    });
    await toCanary(moves);
    const moved = await moves.stage('order', { stage: 'cutover', ...by() });
    if (moved.kind !== 'flip') throw new Error('expected a flip');
    await ended(flips, moved.id, 'undone');
    expect(await flips.get(moved.id)).toMatchObject({ detail: 'the two sides of order differ: 1007' });
    await flags.refresh();
    expect(flags.current('order')).toMatchObject({ stage: 'canary', frozen: false, epoch: 1 });
  });

  it('that this gateway does not know any more is undone, however alive the gateway is', async () => {
    const { flips, memberId } = await wired();
    const id = randomUUID();
    await db('banyan.flip').insert({
      id,
      contexts: ['order'],
      from_stage: 'canary',
      to_stage: 'cutover',
      state: 'draining',
      actor: 'ann',
      reason: 'test',
      driver: memberId,
    });
    await db('banyan.context').update({ frozen_by: id, version: 9 });
    await flips.recover();
    expect(await state(flips, id)).toBe('undone');
    expect(await db('banyan.context').first('frozen_by')).toEqual({ frozen_by: null });
  });

  it('that was undone by others freezes nothing any more', async () => {
    let level = (): void => undefined;
    const { flags, flips, moves } = await wired({
      watermark: () =>
        new Promise((resolve) => {
          level = resolve;
        }),
    });
    await toCanary(moves);
    const moved = await moves.stage('order', { stage: 'cutover', ...by() });
    if (moved.kind !== 'flip') throw new Error('expected a flip');
    await db('banyan.flip').where({ id: moved.id }).update({ state: 'undone', detail: 'overtaken' });
    level();
    await flips.stop();
    await flags.refresh();
    expect(flags.current('order')).toMatchObject({ stage: 'canary', frozen: false });
  });

  it('ends with its gateway, undone, and does not hold up the end', async () => {
    const { flips, moves } = await wired({ watermark: () => new Promise(() => undefined) });
    await toCanary(moves);
    const moved = await moves.stage('order', { stage: 'cutover', ...by() });
    if (moved.kind !== 'flip') throw new Error('expected a flip');
    await flips.stop();
    expect(await flips.get(moved.id)).toMatchObject({ state: 'undone', detail: 'the gateway that drove the flip is stopping' });
  });
});

describe('a kill at cutover', () => {
  it('hands the writes back to legacy once the other side is level', async () => {
    const { flags, flips, moves } = await wired();
    await atCutover(moves, flips);
    await moves.kill(['order'], by());
    await until(() => flags.current('order')?.stage === 'legacy', { describe: 'legacy to own the writes' });
    expect(flags.current('order')).toMatchObject({ owner: 'legacy', epoch: 3, killed: true, frozen: false });
  });

  it('waits for nobody to settle a write, nor for ever for a command in flight, and overtakes a move that has frozen nothing', async () => {
    let busy = 0;
    let open: { id: string; state: string }[] = [];
    let hangs = false;
    let waiting = false;
    const { flags, flips, moves } = await wired({
      unresolved: async () => open,
      inFlight: async () => busy,
      watermark: () => {
        waiting = hangs;
        return hangs ? new Promise(() => undefined) : Promise.resolve();
      },
      freezeLimitMs: 200,
    });
    await atCutover(moves, flips);
    hangs = true;
    const moved = await moves.stage('order', { stage: 'canary', ...by() });
    if (moved.kind !== 'flip') throw new Error('expected a flip');
    await until(() => waiting, { describe: 'the move to wait' });
    hangs = false;
    busy = 1;
    open = [{ id: 'w1', state: 'parked' }];
    await moves.kill(['order'], by());
    await until(() => flags.current('order')?.stage === 'legacy', { describe: 'legacy to own the writes' });
    expect(flags.current('order')).toMatchObject({ owner: 'legacy', epoch: 3, killed: true, frozen: false });
    expect(await flips.get(moved.id)).toMatchObject({ state: 'undone', detail: 'overtaken by a kill' });
  });

  it('does not wait with --now, and takes over from a hand-over that does', async () => {
    let stuck = false;
    const { flags, flips, moves } = await wired({ watermark: () => (stuck ? new Promise(() => undefined) : Promise.resolve()) });
    await atCutover(moves, flips);
    stuck = true;
    await moves.kill(['order'], by());
    const waiting = await until(async () => (await flips.active())[0], { describe: 'the waiting hand-over' });
    expect(flags.current('order')?.stage).toBe('cutover');
    await moves.kill(['order'], by({ now: true }));
    await until(() => flags.current('order')?.stage === 'legacy', { describe: 'legacy to own the writes' });
    expect(flags.current('order')).toMatchObject({ owner: 'legacy', epoch: 3, killed: true, frozen: false });
    expect(await flips.get(waiting.id)).toMatchObject({ state: 'undone' });
  });
});

describe('a worker that follows its primary', () => {
  it('takes a kill that the store has not heard of at once, and keeps it when the store has it', async () => {
    const primary = await flagsWith();
    const worker = await flagsWith({ primary: primary.snapshot() });
    await primary.killLocally(['order'], kill());
    expect(primary.snapshot().kills).toEqual(['order']);
    await worker.follow(primary.snapshot());
    // whatever it reads of a store that does not know of the kill
    await worker.refresh();
    expect([killed(worker), (await db('banyan.context').first('killed')).killed]).toEqual([true, false]);
    await primary.refresh();
    expect(primary.snapshot().kills).toEqual([]);
    await worker.follow(primary.snapshot());
    expect([killed(worker), (await db('banyan.context').first('killed')).killed]).toEqual([true, true]);
    await db('banyan.context').update({ killed: false, version: db.raw('version + 1') });
    await primary.refresh();
    await worker.follow(primary.snapshot());
    expect(killed(worker)).toBe(false);
  });

  it('makes no rows: that is the primary’s', async () => {
    const worker = await flagsWith({ primary: { flags: [], kills: ['order'] } });
    await worker.refresh();
    expect(await db('banyan.context').select('name')).toEqual([]);
  });

  it('starts with what the primary serves, and follows it, where there is no store or it is away', async () => {
    const primary = await flagsWith({ db: null, seeds: [seed('order', { stage: 'canary', canaryShareBp: 500 })] });
    const alone = await flagsWith({ db: null, seeds: [seed('order')], primary: primary.snapshot() });
    const cut = await flagsWith({ db: away(), seeds: [seed('order')], primary: primary.snapshot() });
    for (const worker of [alone, cut])
      expect(worker.current('order')).toMatchObject({ stage: 'canary', canaryShareBp: 500, killed: false });
    await primary.killLocally(['order'], kill());
    await alone.follow(primary.snapshot());
    await cut.follow(primary.snapshot()).catch(() => undefined);
    expect([killed(alone), killed(cut)]).toEqual([true, true]);
    const late = await flagsWith({ db: null, seeds: [seed('order')], primary: primary.snapshot() });
    expect(killed(late)).toBe(true);
  });
});
