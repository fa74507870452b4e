import { randomBytes } from 'node:crypto';
import { afterAll, beforeAll, describe, expect, it } from '@jest/globals';
import knex, { type Knex } from 'knex';
import { compareObservations } from '../../gateway/core/parity/compare.ts';
import type { Observation } from '../../gateway/core/parity/observation.ts';
import { compileRules } from '../../gateway/core/parity/rules.ts';
import { up } from '../../gateway/migrations/020-parity.ts';
import { up as upNoise } from '../../gateway/migrations/040-parity-noise.ts';
import { up as upTemplates } from '../../gateway/migrations/051-parity-templates.ts';
import { up as upHours } from '../../gateway/migrations/052-parity-hours.ts';
import { up as upLatency } from '../../gateway/migrations/053-parity-latency.ts';
import { createMemoryEvidenceStore } from '../../gateway/parity/evidence.fake.ts';
import {
  createEvidence,
  type Evidence,
  type EvidenceStore,
  EXEMPLARS,
  type JudgedPair,
  MAX_FIELD_ROWS,
  OTHER_FIELD,
} from '../../gateway/parity/evidence.ts';
import { createEvidenceStore } from '../../gateway/parity/evidence-store.ts';
import { createRouteNames } from '../../gateway/parity/route-names.ts';
import { type FreshDatabase, freshDatabase } from '../harness/database.ts';

const rules = compileRules({ ignore: [{ at: '$.at', because: 'clock' }] }, 0);
const answer = (body: string, status = 200): Observation => ({
  status,
  headers: [
    ['Content-Type', 'application/json'],
    ['Set-Cookie', 'sid=session-secret; Path=/'],
  ],
  body: Buffer.from(body),
  complete: true,
});
const judged = (context: string, a: string, b: string, more: Partial<JudgedPair> = {}): JudgedPair => {
  const answers = { legacy: answer(a), extracted: answer(b) };
  return {
    context,
    route: '/api/orders/:id',
    requestId: 'r1',
    at: Date.parse('2026-06-01'),
    verdict: compareObservations(answers.legacy, answers.extracted, rules),
    confirmed: true,
    primary: 'legacy',
    method: 'GET',
    target: '/api/orders/1?token=query-secret&a=b',
    headers: [['Authorization', 'Bearer bearer-secret']],
    answers,
    ...more,
  };
};

let database: FreshDatabase;
let db: Knex;
beforeAll(async () => {
  database = await freshDatabase('empty');
  db = knex({ client: 'pg', connection: database.url, pool: { min: 0, max: 4 } });
  await db.raw('create schema banyan');
  await up(db);
  await upNoise(db);
  await upTemplates(db);
  await upHours(db);
  await upLatency(db);
});
afterAll(async () => {
  await db.destroy();
  await database.drop();
});

const stores: [string, () => EvidenceStore][] = [
  ['in memory', () => createMemoryEvidenceStore()],
  ['in PostgreSQL', () => createEvidenceStore(db)],
];
let contexts = 0;

describe.each(stores)('evidence %s', (_name, makeStore) => {
  const using = async (run: (evidence: Evidence, context: string, store: EvidenceStore) => Promise<void>): Promise<void> => {
    const store = makeStore();
    const evidence = createEvidence({
      store,
      redact: () => ['header:authorization', 'header:set-cookie', 'query:token', '$..password'],
      redactKey: randomBytes(32),
      flushMs: 3_600_000,
    });
    try {
      await run(evidence, `c${++contexts}`, store);
    } finally {
      await evidence.stop();
    }
  };

  it('reports nothing about a context it never saw', () =>
    using(async (evidence, context) => {
      expect(await evidence.parityReport(context)).toEqual({
        since: null,
        requests: 0,
        compared: 0,
        match: 0,
        noise: 0,
        mismatch: 0,
        incomparable: 0,
        dropped: 0,
        skipped: 0,
        rate: null,
        wilson: [0, 1],
        sprt: { state: 'continue', llr: 0 },
        byRoute: [],
        byField: [],
        noisy: [],
        dryRuns: [],
      });
    }));

  it('puts rows together that a rule of templates makes one, whoever writes them and when', () =>
    using(async (evidence, context, store) => {
      const rule = { at: 'GET /p', kept: ['search'], locale: false };
      const other = createRouteNames({ store, labels: () => ['GET /p/**'], exchangeMs: 3_600_000 });
      const note = (route: string): void => {
        evidence.count(context, route, 'requests');
        evidence.note(
          judged(context, '{"a":1}', '{"a":2}', { route, probe: { volatile: [], differences: [{ path: '$.a', kind: 'value' }] } }),
        );
      };
      for (const name of ['red', 'blue', 'search']) note(`GET /p/${name}`);
      await evidence.flush();
      await store.learnTemplate(context, rule);
      // a later one that chose otherwise changes nothing
      await store.learnTemplate(context, { ...rule, kept: ['red'] });
      for (const name of ['red', 'green', 'search']) note(`GET /p/${name}`);
      await evidence.flush();
      const report = await evidence.parityReport(context);
      expect(report.byRoute).toMatchObject([
        { route: 'GET /p/:slug', requests: 4, mismatch: 4 },
        { route: 'GET /p/search', requests: 2, mismatch: 2 },
      ]);
      expect(report.byField.map(({ route, count }) => [route, count])).toEqual([
        ['GET /p/:slug', 4],
        ['GET /p/search', 2],
      ]);
      expect(report.noisy.map(({ onlyExtracted }) => onlyExtracted).sort()).toEqual([2, 4]);
      expect((await evidence.pairs({ context })).items.map(({ route }) => route)).not.toContain('GET /p/red');
      await other.exchange();
      expect(other.name(context, 'GET /p/**', '/p/violet')).toBe('GET /p/:slug');
      expect(other.name(context, 'GET /p/**', '/p/search')).toBe('GET /p/search');
      await other.stop();
    }));

  it('keeps figures by route, field and hour, over changes of stage, until they are too old', () =>
    using(async (evidence, context, store) => {
      const hour = Math.floor(Date.now() / 3_600_000) * 3_600_000;
      const window = { context, from: new Date(hour - 3_600_000), to: new Date(hour + 2 * 3_600_000) };
      const note = (route: string, b: string): void => {
        evidence.count(context, route, 'requests');
        evidence.note(judged(context, '{"a":1}', b, { route }));
      };
      note('GET /p/red', '{"a":1}');
      note('GET /p/red', '{"a":2}');
      await evidence.flush();
      await evidence.reset(context, new Date());
      note('GET /p/blue', '{"a":3}');
      note('GET /o', '{"a":1}');
      await evidence.flush();
      await store.learnTemplate(context, { at: 'GET /p', kept: [], locale: false });
      const sum = (reports: readonly { readonly requests: number }[]): number => reports.reduce((all, one) => all + one.requests, 0);
      const reports = await evidence.parityHours(window);
      // two when the clock struck in between
      expect(reports.length).toBeLessThanOrEqual(2);
      expect(sum(reports)).toBe(4);
      expect(reports.flatMap(({ byRoute }) => byRoute.map(({ route }) => route))).toEqual(
        expect.arrayContaining(['GET /o', 'GET /p/:slug']),
      );
      expect(reports.flatMap(({ byRoute }) => byRoute.map(({ route }) => route))).not.toContain('GET /p/red');
      expect(reports.flatMap(({ byField }) => byField).reduce((all, { count }) => all + count, 0)).toBe(2);
      expect(reports[0]!.byField[0]).toMatchObject({ route: 'GET /p/:slug', field: '$.a', kind: 'value', rule: null });
      expect(sum(await evidence.parityHours({ ...window, route: 'GET /p/:slug' }))).toBe(3);
      expect(await evidence.parityHours({ ...window, from: window.to })).toEqual([]);
      await store.prune('another', window.to);
      expect(sum(await evidence.parityHours(window))).toBe(4);
      await store.prune(context, window.to);
      expect(await evidence.parityHours(window)).toEqual([]);
      expect((await evidence.parityReport(context)).requests).toBe(2);
    }));

  it('keeps how long both sides took, by route, until the stage changes', () =>
    using(async (evidence, context, store) => {
      for (let i = 0; i < 20; i++) {
        evidence.latency(context, 'GET /p/red', 'legacy', 'primary', 10 + i / 10);
        evidence.latency(context, 'GET /p/blue', 'extracted', 'copy', 20 + i / 10);
        if (i === 10) await evidence.flush();
      }
      await evidence.flush();
      await store.learnTemplate(context, { at: 'GET /p', kept: [], locale: false });
      const [found, ...others] = await evidence.parityLatency(context);
      expect(others).toEqual([]);
      expect(found).toMatchObject({
        route: 'GET /p/:slug',
        sides: [
          { upstream: 'legacy', asked: 'primary', n: 20 },
          { upstream: 'extracted', asked: 'copy', n: 20 },
        ],
        test: { basis: 'mixed', larger: 1 },
      });
      expect(found!.test!.p).toBeLessThan(1e-6);
      expect(found!.sides[0]!.p50).toBeGreaterThanOrEqual(10.9);
      expect(found!.sides[0]!.p50).toBeLessThanOrEqual(10.9 * 1.02);
      await evidence.reset(context, new Date());
      expect(await evidence.parityLatency(context)).toEqual([]);
    }));

  it('keeps so many fields and no more, whatever bodies hold', () =>
    using(async (evidence, context, store) => {
      const hour = Math.floor(Date.now() / 3_600_000) * 3_600_000;
      const rows = (from: number) =>
        Array.from({ length: 1_500 }, (_, i) => ({ context, route: '/o', field: `$.k${from + i}`, kind: 'value', rule: '', n: 1 }));
      const counts = [{ context, route: '/o', what: 'requests' as const, why: '', n: 1 }];
      await store.add({ counts, fields: rows(0), probes: [], latencies: [], pairs: [] });
      await store.add({ counts, fields: rows(1_000), probes: [], latencies: [], pairs: [] });
      const { fields } = await store.hours({ context, from: new Date(hour - 3_600_000), to: new Date(hour + 7_200_000) });
      expect(fields.length).toBeLessThanOrEqual(2 * (MAX_FIELD_ROWS + 1));
      expect(fields.reduce((all, { n }) => all + n, 0)).toBe(3_000);
      const totals = await store.totals(context);
      expect(totals.fields.find(({ field }) => field === OTHER_FIELD)!.n).toBe(500);
      expect((await evidence.parityReport(context)).requests).toBe(2);
    }));

  it('names routes alike in gateways that each see some of the names', () =>
    using(async (evidence, context, store) => {
      const gateways = [1, 2].map(() => createRouteNames({ store, labels: () => ['GET /**'], exchangeMs: 3_600_000 }));
      for (let i = 0; i < 40; i++) {
        evidence.count(
          context,
          gateways[i % 2]!.name(context, 'GET /**', `/p/name-${String.fromCharCode(97 + (i % 26))}x${i}`),
          'requests',
        );
        await evidence.flush();
        if (i % 10 === 9) for (const gateway of gateways) await gateway.exchange();
      }
      expect((await evidence.parityReport(context)).byRoute).toMatchObject([{ route: 'GET /p/:slug', requests: 40 }]);
      for (const gateway of gateways) await gateway.stop();
    }));

  it('adds up what several gateways note, by route and by field', () =>
    using(async (evidence, context, store) => {
      const other = createEvidence({ store, redact: () => [], redactKey: randomBytes(32), flushMs: 3_600_000 });
      for (const gateway of [evidence, other]) {
        for (let i = 0; i < 3; i++) gateway.count(context, '/api/orders/:id', 'requests');
        gateway.count(context, '/api/orders/:id', 'answers', '2xx');
        gateway.count(context, '/api/orders/:id', 'dropped', 'queue-full');
        gateway.count(context, '/api/orders', 'skipped', 'sample');
        gateway.note(judged(context, '{"a":1}', '{"a":1}'));
        gateway.note(judged(context, '{"at":1}', '{"at":2}'));
        gateway.note(judged(context, '{"items":[{"n":1},{"n":2},{"n":3}]}', '{"items":[{"n":4},{"n":5},{"n":6}]}'));
        gateway.note(judged(context, '{}', '{}', { verdict: { kind: 'incomparable', why: 'lagging' } }));
      }
      await Promise.all([evidence.flush(), other.flush()]);
      await other.stop();
      const report = await evidence.parityReport(context);
      expect(report).toMatchObject({
        requests: 6,
        compared: 6,
        match: 2,
        noise: 2,
        mismatch: 2,
        incomparable: 2,
        dropped: 2,
        skipped: 2,
        rate: 4 / 6,
      });
      expect(report.since).toMatch(/^\d{4}-/);
      expect(report.sprt.llr).toBeCloseTo(4 * 0.001502 - 2 * 1.3863, 3);
      expect(report.byRoute).toMatchObject([
        { route: '/api/orders', requests: 0, reasons: { 'skipped:sample': 2 } },
        {
          route: '/api/orders/:id',
          requests: 6,
          mismatch: 2,
          reasons: { 'incomparable:lagging': 2, 'dropped:queue-full': 2 },
          answers: { '2xx': 2 },
        },
      ]);
      expect([...report.byField].sort((a, b) => a.field.localeCompare(b.field))).toEqual([
        { route: '/api/orders/:id', field: '$.at', kind: 'value', rule: 'ignore $.at: clock', count: 2 },
        { route: '/api/orders/:id', field: '$.items[*].n', kind: 'value', rule: null, count: 2 },
      ]);
    }));

  it('learns noise from triples: what legacy does to itself is none of extracted, what only extracted does is an alarm', () =>
    using(async (evidence, context) => {
      const differ = (path: string) => [{ path, kind: 'value', legacy: 1, extracted: 2 } as const];
      const triple = (volatile: readonly string[], extracted: readonly string[]): JudgedPair =>
        judged(context, '1', '1', {
          probe: { volatile: volatile.flatMap(differ), differences: extracted.flatMap(differ) },
        });
      for (let i = 0; i < 10; i++) {
        for (let n = 0; n < 4; n++) evidence.note(triple(['$.id', '$.order'], ['$.id', ...(n % 2 ? ['$.order'] : [])]));
        for (let n = 0; n < 2; n++) evidence.note(triple(['$.id'], ['$.id', '$.order', '$.total']));
        await evidence.flush();
      }
      const { noisy, byRoute } = await evidence.parityReport(context);
      expect(byRoute[0]!.compared).toBe(60);
      expect(noisy.map(({ field, onlyExtracted, onlyLegacy, both, alarm }) => [field, onlyExtracted, onlyLegacy, both, alarm])).toEqual([
        ['$.total', 20, 0, 0, true],
        ['$.id', 0, 0, 60, false],
        ['$.order', 20, 20, 20, false],
      ]);
      expect(noisy[0]!.p).toBeLessThan(1e-3);
    }));

  it('shows a pair in full, redacted, with raw number tokens', () =>
    using(async (evidence, context) => {
      const a = '{"password":"pass-secret","total":10.00,"echo":"session-secret","free":"x\\u0000"}';
      const b = '{"password":"other-secret","total":9007199254740993,"echo":"query-secret","free":"x\\u0000"}';
      evidence.note(judged(context, a, b, { requestId: 'r-secret' }));
      await evidence.flush();
      const { items, next } = await evidence.pairs({ context });
      expect(next).toBeNull();
      expect(items).toMatchObject([
        { context, requestId: 'r-secret', verdict: 'mismatch', confirmed: true, primary: 'legacy', at: '2026-06-01T00:00:00.000Z' },
      ]);
      const pair = await evidence.pair(items[0]!.id);
      const text = JSON.stringify(pair);
      expect(text.replaceAll('r-secret', '')).not.toMatch(/(?:pass|other|session|query|bearer)-secret/);
      expect(text).toContain('"path":"$.total","kind":"value","legacy":10.00,"extracted":9007199254740993');
      const password = pair!.differences.find(({ path }) => path === '$.password')!;
      expect(password.legacy).toMatch(/^\[redacted:[0-9a-f]{16}\]$/);
      expect(password.legacy).not.toBe(password.extracted);
      expect(pair!.legacy).toMatchObject({ status: 200, bytes: a.length, complete: true, truncated: false });
      expect(pair!.target).toMatch(/^\/api\/orders\/1\?token=\[redacted:[0-9a-f]{16}\]&a=b$/);
    }));

  it('finds pairs by context, verdict and request id, in pages, newest first', () =>
    using(async (evidence, context) => {
      for (let i = 0; i < 5; i++) {
        evidence.note(judged(context, `{"f${i}":1}`, `{"f${i}":2}`, { requestId: `${context}-${i}` }));
        await evidence.flush();
      }
      evidence.note(judged(context, '1', '1'));
      await evidence.flush();
      const first = await evidence.pairs({ context, verdict: 'mismatch', limit: 3 });
      const second = await evidence.pairs({ context, verdict: 'mismatch', limit: 3, cursor: first.next! });
      expect([...first.items, ...second.items].map(({ requestId }) => requestId)).toEqual([4, 3, 2, 1, 0].map((i) => `${context}-${i}`));
      expect(second.next).toBeNull();
      expect((await evidence.pairs({ requestId: `${context}-2` })).items).toHaveLength(1);
      expect((await evidence.pairs({ context, verdict: 'match' })).items).toHaveLength(1);
      await expect(evidence.pairs({ cursor: "1' or" })).rejects.toMatchObject({ code: 'bad-request' });
      expect(await evidence.pair('nonsense')).toBeUndefined();
      expect(await evidence.pair('999999999')).toBeUndefined();
    }));

  it('keeps only the newest exemplars of a field', () =>
    using(async (evidence, context) => {
      for (let i = 0; i < 30; i++) {
        evidence.note(judged(context, '{"a":1}', '{"a":2}', { requestId: `${i}` }));
        await evidence.flush();
      }
      const { items } = await evidence.pairs({ context, limit: 200 });
      expect(items.map(({ requestId }) => requestId)).toEqual(Array.from({ length: EXEMPLARS.perField }, (_, i) => `${29 - i}`));
      expect((await evidence.parityReport(context)).mismatch).toBe(30);
    }));

  it('starts the window anew on a reset, also for what was waiting, and leaves other contexts alone', () =>
    using(async (evidence, context) => {
      evidence.note(judged(context, '1', '2'));
      evidence.note(judged(`${context}-other`, '1', '2'));
      await evidence.flush();
      evidence.note(judged(context, '1', '2'));
      await evidence.reset(context, new Date('2026-07-01T00:00:00Z'));
      await evidence.flush();
      expect(await evidence.parityReport(context)).toMatchObject({
        since: '2026-07-01T00:00:00.000Z',
        compared: 0,
        byField: [],
        noisy: [],
        byRoute: [],
      });
      expect(await evidence.parityReport(`${context}-other`)).toMatchObject({ compared: 1 });
    }));
});

it('keeps every count when many gateways add to and reset the same rows at once', async () => {
  const store = createEvidenceStore(db);
  const gateways = Array.from({ length: 4 }, () =>
    createEvidence({ store, redact: () => [], redactKey: randomBytes(32), flushMs: 3_600_000 }),
  );
  await Promise.all(
    gateways.map(async (gateway, g) => {
      for (let i = 0; i < 10; i++) {
        for (const context of ['busy', 'busier', g % 2 ? 'reset' : 'busy']) gateway.note(judged(context, `{"a":1,"b${i}":1}`, '{"a":2}'));
        await gateway.flush();
        if (i % 3 === 0) await gateway.reset('reset', new Date());
      }
      await gateway.stop();
    }),
  );
  expect(gateways.map((gateway) => gateway.stats().lost)).toEqual([0, 0, 0, 0]);
  const { rows } = await db.raw(
    "select context, n from banyan.parity_count where what = 'mismatch' and context like 'bus%' order by context",
  );
  expect(rows).toEqual([
    { context: 'busier', n: '40' },
    { context: 'busy', n: '60' },
  ]);
});
