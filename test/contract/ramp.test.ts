import { randomUUID } from 'node:crypto';
import { createServer, type Server } from 'node:http';
import type { AddressInfo } from 'node:net';
import type { ParityView } from '@banyan/contracts/admin-api.ts';
import { createAuditStore } from '@banyan/gateway/admin/audit-store.ts';
import { createFlags, type Flags } from '@banyan/gateway/flags/flags.ts';
import { createMoves, type Moves } from '@banyan/gateway/flags/moves.ts';
import type { JournalEntry } from '@banyan/gateway/ports.ts';
import { createRampActions, type RampActions } from '@banyan/gateway/ramp/actions.ts';
import { createLeader } from '@banyan/gateway/ramp/leader.ts';
import type { RampDeps, RampSettings } from '@banyan/gateway/ramp/ports.ts';
import { loadRamp, saveRamp } from '@banyan/gateway/ramp/ramp-store.ts';
import { createRunner, type Runner } from '@banyan/gateway/ramp/runner.ts';
import { addSamples, loadExamples, loadSamples } from '@banyan/gateway/ramp/sample-store.ts';
import { createSamples } from '@banyan/gateway/ramp/samples.ts';
import { signatureOf } from '@banyan/gateway/ramp/webhooks.ts';
import { afterAll, beforeAll, beforeEach, describe, expect, it } from '@jest/globals';
import knex, { type Knex } from 'knex';
import { pino } from 'pino';
import { report } from '../harness/admin.ts';
import { type FreshDatabase, freshDatabase } from '../harness/database.ts';
import { until } from '../harness/wait.ts';

const log = pino({ level: 'silent' });
const ROUTE = 'GET /things/:id';
const SEEDS = [
  { name: 'alone', group: null },
  { name: 'order', group: 'sales' },
  { name: 'inventory', group: 'sales' },
];

const settings: RampSettings = {
  parity: { good: 0.99, bad: 0.5 },
  errors: { floor: 0.001 },
  latencyP95Ratio: 1.3,
  latencyP99Ratio: 1.5,
  latencySamples: 100,
  latencySlack: 5,
  minRequests: 100,
  hold: 50,
  steps: [5_000, 10_000],
  interval: 30,
  schedule: [],
  approvals: 0,
  webhooks: [],
  version: null,
  provided: false,
  routes: [ROUTE],
};

/** What the world looks like to the ramp; each test starts from a healthy one. */
type World = {
  settings: Partial<RampSettings>;
  /** Contexts that have no extracted service. */
  bare: Set<string>;
  traffic: boolean;
  stale: boolean;
  failing: Set<string>;
  version: string | null;
};
let world: World;
let database: FreshDatabase;
let db: Knex;
let flags: Flags;
let moves: Moves;
let actions: RampActions;
let runner: Runner;
let feeding: NodeJS.Timeout;
let fed: Promise<void> = Promise.resolve();

/** Counters only rise: what was there before a ramp began is no evidence for it. */
let compared = 0;
const parityNow = (): ParityView => {
  if (world.traffic) compared += 1_000;
  const n = compared;
  const figures = { requests: n, compared: n, match: n, noise: 0, mismatch: 0, incomparable: 0, dropped: 0, skipped: 0, rate: 1 };
  return report({
    ...figures,
    // newer than any step
    since: '2999-01-01T00:00:00.000Z',
    byRoute: [{ route: ROUTE, ...figures, reasons: {}, answers: { '2xx': n, '4xx': n } }],
  });
};

/** Answers of both sides, under the flags of this moment. */
const feed = async (): Promise<void> => {
  if (!world.traffic) return;
  const canaries = flags.all().filter(({ stage }) => stage === 'canary');
  const rows = canaries.flatMap(({ name: context, since }) => [
    { context, since, upstream: 'legacy' as const, bucket: 100, n: 200 },
    { context, since, upstream: 'extracted' as const, bucket: 100, n: 200 },
    ...(world.failing.has(context) ? [{ context, since, upstream: 'extracted' as const, bucket: -1, n: 50 }] : []),
  ]);
  if (rows.length > 0) await addSamples(db, { rows, examples: [] });
};

beforeAll(async () => {
  database = await freshDatabase('store');
  db = knex({ client: 'pg', connection: { connectionString: database.url }, pool: { min: 0, max: 6 } });
  flags = createFlags({
    db,
    listener: null,
    memberId: randomUUID(),
    memberName: 'test',
    seeds: SEEDS.map((seed) => ({ ...seed, stage: 'shadow', canaryShareBp: 0 })),
    stateFile: null,
    pollMs: 50,
    now: Date.now,
    log,
  });
  await flags.start();
  moves = createMoves({ db, flags, flips: null, contextOf: () => ({ firstShareBp: 100, cutoverObstacles: [] }) });
  const deps: RampDeps = {
    db,
    databaseUrl: database.url,
    settings: (name) => (world.bare.has(name) ? undefined : { ...settings, ...world.settings }),
    flags,
    move: moves.stage,
    parity: { report: async () => parityNow(), mismatches: async () => [], reset: async () => undefined },
    stale: () => world.stale,
    serviceVersion: async () => {
      if (world.version === null) throw new Error('away');
      return world.version;
    },
    onDecision: () => undefined,
    onWebhook: () => undefined,
    log,
  };
  actions = createRampActions({ ...deps, toShadow: (context, request) => moves.stage(context, { stage: 'shadow', ...request }) });
  runner = createRunner(deps);
  runner.start();
  feeding = setInterval(() => {
    fed = fed.then(feed).catch(() => undefined);
  }, 30);
}, 180_000);
afterAll(async () => {
  clearInterval(feeding);
  await fed;
  await runner.stop();
  await flags.stop();
  await db.destroy();
  await database.drop();
}, 180_000);

const act = (action: Parameters<RampActions['act']>[1]['action'], actor = 'ann', context = 'alone') =>
  actions.act(context, { action, reason: `${action} it`, actor });
const now = async (context = 'alone') => (await actions.views([context])).get(context)!;
const state = async (wanted: string, context = 'alone') =>
  until(
    async () => {
      const ramp = await now(context);
      if (ramp.state !== wanted) throw new Error(JSON.stringify(ramp));
      return ramp;
    },
    { describe: `${context} to be ${wanted}` },
  );
const reason = async (wanted: RegExp, context = 'alone') =>
  until(
    async () => {
      const ramp = await now(context);
      if (!wanted.test(ramp.reasons.join('\n'))) throw new Error(JSON.stringify(ramp));
      return ramp;
    },
    { describe: `the reason ${wanted}` },
  );
const auditOf = async (action: string, context = 'alone') =>
  (await createAuditStore(db).list({ context, limit: 500 })).items.filter((row) => row.action === action);

beforeEach(async () => {
  world = { settings: {}, bare: new Set(), traffic: true, stale: false, failing: new Set(), version: 'v1' };
  for (const context of ['alone', 'order']) {
    const ramp = await now(context);
    if (ramp && ['running', 'paused', 'waiting-approval'].includes(ramp.state))
      await until(() => act('abort', 'ann', context).then(() => true), { describe: 'the end' });
    await moves.revive([context], { reason: 'clean up', actor: 'test' });
    if (flags.current(context)?.stage !== 'shadow') await moves.stage(context, { stage: 'shadow', reason: 'clean up', actor: 'test' });
  }
});

describe('starting', () => {
  it('begins with shadow, also from legacy, and walks to the end', async () => {
    await moves.stage('alone', { stage: 'legacy', reason: 'test', actor: 'test' });
    world.settings = { hold: 60_000 };
    await act('start');
    expect(await now()).toMatchObject({ state: 'running', share: 0, step: 0, steps: [50, 100], startedBy: 'ann', contexts: ['alone'] });
    world.settings = {};
    expect(await state('done')).toMatchObject({ share: 100, step: 2, outcome: 'advance' });
    expect(flags.current('alone')).toMatchObject({ stage: 'canary', canaryShareBp: 10_000, updatedBy: 'ramp' });
    await expect(act('resume')).rejects.toMatchObject({ code: 'illegal-move', details: { state: 'done', legal: ['start'] } });
  });

  it('goes on from the share of a canary', async () => {
    await moves.stage('alone', { stage: 'canary', canaryShareBp: 5_000, reason: 'test', actor: 'test' });
    world.settings = { hold: 60_000 };
    await act('start');
    expect(await now()).toMatchObject({ share: 50, step: 1 });
  });

  it.each<[string, () => Promise<unknown>, RegExp]>([
    ['there is no such context', async () => undefined, /no context is called/],
    ['nothing is extracted', async () => world.bare.add('alone'), /no extracted service/],
    ['a provider decides', async () => Object.assign(world.settings, { provided: true }), /OpenFeature provider decides/],
    ['it is killed', () => moves.kill(['alone'], { reason: 'test', actor: 'test' }), /is killed; revive it first/],
    ['it runs already', () => act('start'), /is running: start is refused; possible: pause, abort/],
  ])('is refused when %s', async (why, given, message) => {
    await given();
    await expect(act('start', 'ann', why === 'there is no such context' ? 'nobody' : 'alone')).rejects.toThrow(message);
  });

  it('waits for ever without traffic', async () => {
    world.traffic = false;
    await act('start');
    const before = await reason(/inconclusive: no traffic/);
    const looks = async (): Promise<number> => (await loadRamp(db, 'context:alone'))!.looks;
    const seen = await looks();
    await until(async () => (await looks()) > seen + 5, { describe: 'some more looks' });
    expect(await now()).toMatchObject({ state: 'running', share: 0, outcome: 'hold', since: before.since });
  });
});

describe('approvals', () => {
  it('are needed from so many other people for each step, and only while the evidence is good', async () => {
    world.settings = { approvals: 2, hold: 60_000 };
    await act('start');
    await expect(act('approve', 'ben')).rejects.toThrow('nothing of alone waits');
    world.settings = { approvals: 2 };
    expect(await state('waiting-approval')).toMatchObject({ share: 0, approvals: { needed: 2, given: [] } });
    await expect(act('approve', 'ann')).rejects.toThrow(/somebody else must approve/);
    await expect(act('approve', 'local')).rejects.toThrow(/needs a name/);
    await act('approve', 'ben');
    await expect(act('approve', 'ben')).rejects.toThrow('approved this step already');
    expect((await now()).approvals.given).toMatchObject([{ actor: 'ben' }]);
    world.stale = true;
    expect(await state('running')).toMatchObject({ share: 0, approvals: { given: [] } });
    world.stale = false;
    await state('waiting-approval');
    await act('approve', 'ben');
    await act('approve', 'cid');
    await until(async () => (await now()).share === 50, { describe: 'the step' });
    const [walked] = (await auditOf('stage')).filter(({ actor }) => actor === 'ramp');
    expect(walked!.reason).toContain('(approved by ben, cid)');
    expect(await state('waiting-approval')).toMatchObject({ share: 50, approvals: { given: [] } });
  });
});

describe('a schedule', () => {
  it('keeps promotions for its hours, and a roll-back waits for nobody', async () => {
    const today = new Date().getUTCDay();
    world.settings = { schedule: [{ days: [(today + 3) % 7], from: 540, to: 600, zone: 'UTC' }] };
    await act('start');
    const ramp = await reason(/the evidence is good; the schedule opens at .*T09:00:00.000Z/);
    expect(new Date(ramp.nextAt!).getUTCDay()).toBe((today + 3) % 7);
    const { schedule } = world.settings;
    world.settings = {};
    await until(async () => (await now()).share === 50, { describe: 'the step' });
    world.settings = { schedule };
    world.failing.add('alone');
    expect(await state('rolled-back')).toMatchObject({ share: 0 });
  });
});

describe('hooks', () => {
  let server: Server;
  let answers: (number | 'nothing')[];
  const told: { event: string; id: string; to: unknown; signed: boolean }[] = [];
  beforeAll(async () => {
    server = createServer((req, res) => {
      let body = '';
      req.on('data', (chunk) => {
        body += chunk;
      });
      req.on('end', () => {
        const signature = String(req.headers['banyan-signature']);
        const t = Number(/^t=(\d+),/.exec(signature)?.[1]);
        told.push({ ...JSON.parse(body), signed: signature === signatureOf('a-hook-secret', t, body) });
        const answer = req.url === '/before' ? (answers.shift() ?? 200) : 200;
        if (answer !== 'nothing') res.writeHead(answer).end('x'.repeat(10_000));
      });
    });
    await new Promise<void>((resolve) => void server.listen(0, '127.0.0.1', resolve));
  });
  afterAll(async () => {
    server.closeAllConnections();
    await new Promise<void>((resolve) => void server.close(() => resolve()));
  });

  it('hold a step until they answer 2xx in time, and are told of steps and roll-backs, signed', async () => {
    const at = `http://127.0.0.1:${(server.address() as AddressInfo).port}`;
    const hook = (on: 'before' | 'after' | 'rollback') => ({ url: `${at}/${on}`, on, timeout: 100, secret: 'a-hook-secret' });
    world.settings = { webhooks: [hook('before'), hook('after'), hook('rollback')] };
    answers = [503, 302, 'nothing'];
    const seen: string[] = [];
    await act('start');
    const moved = until(
      async () => {
        const { reasons, share } = await now();
        for (const text of reasons) if (/hook/.test(text) && !seen.includes(text)) seen.push(text);
        return share === 50;
      },
      { describe: 'the step', intervalMs: 5 },
    );
    await moved;
    expect(told.slice(0, 4).map(({ event }) => event)).toEqual(['before', 'before', 'before', 'before']);
    expect(new Set(told.slice(0, 4).map(({ id }) => id)).size).toBe(1);
    expect(seen.join('\n')).toMatch(
      /the evidence is good; the hook at 127\.0\.0\.1:\d+ (answers 503|answers 302|has not answered in 100 ms)/,
    );
    world.failing.add('alone');
    await state('rolled-back');
    await until(() => told.some(({ event }) => event === 'rollback'), { describe: 'the last message' });
    expect(told.find(({ event }) => event === 'after')).toMatchObject({ to: { stage: 'canary', percent: 50 } });
    expect(told.find(({ event }) => event === 'rollback')).toMatchObject({ to: { stage: 'shadow', percent: 0 } });
    expect(told.every(({ signed }) => signed)).toBe(true);
  });
});

describe('another version of the service', () => {
  it('starts evidence anew, and one that cannot be told holds', async () => {
    world.settings = { version: '/version', hold: 60_000 };
    await act('start');
    const before = await until(async () => ((await now()).serviceVersions.alone === 'v1' ? now() : null), { describe: 'the version' });
    world.version = 'v2';
    const after = await until(async () => ((await now()).serviceVersions.alone === 'v2' ? now() : null), { describe: 'the next version' });
    expect(Date.parse(after.evidenceSince)).toBeGreaterThan(Date.parse(before.evidenceSince));
    expect(after.since).toBe(before.since);
    expect((await auditOf('ramp-restarted'))[0]!.reason).toBe('another version of the extracted service: alone is at v2 now');
    world.version = null;
    world.settings = { version: '/version' };
    expect(await reason(/does not tell its version/)).toMatchObject({ share: 0, outcome: 'hold' });
  });
});

describe('what a process has seen', () => {
  const entry: JournalEntry = {
    requestId: 'req-1',
    context: 'alone',
    route: ROUTE,
    method: 'GET',
    operation: 'query',
    decisionKind: 'extracted-with-fallback',
    decided: 'SPLIT',
    reason: 'SPLIT',
    upstream: 'extracted',
    stage: 'canary',
    status: 200,
    durationMs: 10,
  };
  const since = new Date('2026-01-01T00:00:00.000Z');
  const flag = (context: string) => (context === 'alone' ? { stage: 'canary', since } : undefined);

  it('is counted by side, bucket and failure, of queries that the split sent where they went and of no others', async () => {
    const samples = createSamples({ db, flag, openBreakers: () => ['alone', 'unknown'], log });
    const also: Partial<JournalEntry>[] = [
      {},
      { durationMs: 20 },
      { upstream: 'legacy', durationMs: 10 },
      { upstream: 'legacy', status: 503 },
      { status: 404 },
      { status: 500, error: new Error('broken off') },
      { upstream: 'legacy', reason: 'ERROR', extractedFailed: true },
      // none of these
      { upstream: 'legacy', reason: 'BREAKER' },
      { decided: 'OVERRIDE', reason: 'OVERRIDE' },
      { decided: 'OVERRIDE', reason: 'ERROR', upstream: 'legacy', extractedFailed: true },
      { decided: 'PINNED', reason: 'PINNED', upstream: 'legacy' },
      { status: 499 },
      { operation: 'command' },
      { stage: 'shadow' },
      { context: null },
      { context: 'unknown' },
    ];
    for (const more of also) samples.note({ ...entry, ...more });
    await samples.flush();
    samples.note(entry);
    await samples.stop();
    const rows = (await loadSamples(db, 'alone', since)).map(({ upstream, bucket, n }) => `${upstream} ${bucket} ${n}`);
    expect(rows.sort()).toEqual(
      ['extracted -1 2', 'extracted -2 2', 'extracted 107 3', 'extracted 123 1', 'legacy -1 1', 'legacy 107 1'].sort(),
    );
    expect(samples.lost()).toBe(0);
    expect((await loadExamples(db, 'alone', since)).map(({ kind, requestId }) => `${kind} ${requestId}`).sort()).toEqual([
      'failed req-1',
      'failed req-1',
      'slow req-1',
      'slow req-1',
    ]);
  });

  it('is lost and counted while the store is away', async () => {
    const quiet = { warn: () => undefined, error: () => undefined, debug: () => undefined, deprecate: () => undefined };
    const away = knex({ client: 'pg', log: quiet, connection: 'postgres://127.0.0.1:1/none', acquireConnectionTimeout: 200 });
    const samples = createSamples({ db: away, flag, openBreakers: () => [], log });
    samples.note(entry);
    samples.note(entry);
    await samples.stop();
    expect(samples.lost()).toBe(2);
    await away.destroy();
  });
});

describe('a group', () => {
  it('ramps as one, and the worst of it takes all of it back', async () => {
    await act('start', 'ann', 'inventory');
    expect(await now('order')).toMatchObject({ contexts: ['inventory', 'order'], state: 'running' });
    await until(async () => (await now('order')).share === 50, { describe: 'the step' });
    expect(flags.current('inventory')).toMatchObject({ stage: 'canary', canaryShareBp: 5_000 });
    world.failing.add('order');
    const { reasons } = await state('rolled-back', 'inventory');
    expect(reasons.join('\n')).toMatch(/^order: extracted fails in/);
    for (const name of ['order', 'inventory'])
      expect((await auditOf('stage', name))[0]).toMatchObject({ actor: 'ramp', after: { stage: 'shadow' } });
  });
});

describe('two who decide', () => {
  it('cannot both: the move of the second is undone with its decision', async () => {
    world.traffic = false;
    await act('start');
    await act('abort');
    const row = (await loadRamp(db, 'context:alone'))!;
    await saveRamp(db, row, { looks: 7 });
    const flag = flags.current('alone')!;
    const second = moves.stage('alone', {
      stage: 'canary',
      canaryShareBp: 5_000,
      reason: 'second',
      actor: 'ramp',
      ifVersion: flag.version,
      also: (trx) => saveRamp(trx, row, { shareBp: 5_000 }),
    });
    await expect(second).rejects.toMatchObject({ code: 'conflict' });
    await flags.refresh();
    expect(flags.current('alone')).toMatchObject({ stage: 'shadow', version: flag.version });
    expect((await loadRamp(db, 'context:alone'))!.shareBp).toBe(0);
  });

  it('are never both leader; when the connection of one is cut the other one may', async () => {
    const other = await freshDatabase('store');
    const admin = knex({ client: 'pg', connection: other.url, pool: { min: 0, max: 1 } });
    const [first, second] = [createLeader({ databaseUrl: other.url, log }), createLeader({ databaseUrl: other.url, log })];
    try {
      expect(await first.lead()).toBe(true);
      expect(await second.lead()).toBe(false);
      expect(await first.lead()).toBe(true);
      await admin.raw(
        "select pg_terminate_backend(pid) from pg_stat_activity where application_name = 'banyan-ramp' and datname = current_database()",
      );
      await until(() => !first.leading(), { describe: 'the first to notice' });
      expect(await until(() => second.lead(), { describe: 'the second to lead' })).toBe(true);
      expect(await first.lead()).toBe(false);
      await second.yield();
      expect(await until(() => first.lead(), { describe: 'the first to lead again' })).toBe(true);
    } finally {
      await Promise.all([first.yield(), second.yield()]);
      await admin.destroy();
      await other.drop();
    }
  });
});
