import { setImmediate as turn } from 'node:timers/promises';
import { AppError } from '@banyan/contracts/errors.ts';
import { describe, expect, it } from '@jest/globals';
import type { JournalEntry, RouteMemo } from '../ports.ts';
import { createJournal } from './journal.ts';
import { createLogger } from './logger.ts';
import { bounded, createMetrics, MAX_LABEL_VALUES, rolloutOf } from './metrics.ts';
import { methodLabel, statusClass } from './request-metrics.ts';

const lines = () => {
  const written: Record<string, unknown>[] = [];
  return { written, destination: { write: (text: string) => void written.push(JSON.parse(text)) } };
};

const entry: JournalEntry = {
  requestId: 'r1',
  traceId: 't1',
  context: 'order',
  route: '/api/orders/**',
  method: 'GET',
  operation: 'query',
  decisionKind: 'legacy-with-shadow',
  reason: 'STAGE',
  upstream: 'legacy',
  stage: 'shadow',
  status: 200,
  durationMs: 12.3456,
};
const plain: JournalEntry = { ...entry, context: null, route: null, operation: null, decisionKind: null, reason: null, stage: null };
const metricsOf = () => createMetrics({ version: '1.2.3', nodeVersion: 'v24' });

describe('labels', () => {
  it('fold what is unknown or too many', () => {
    expect([methodLabel('PATCH'), methodLabel('M-SEARCH')]).toEqual(['PATCH', 'other']);
    expect([statusClass(204), statusClass(499), statusClass(99), statusClass(Number.NaN)]).toEqual(['2xx', '4xx', 'other', 'other']);
    const label = bounded(2);
    expect(['a', 'b', 'c', 'a'].map(label)).toEqual(['a', 'b', 'other', 'a']);
  });

  it('stay bounded however many routes, contexts and methods ask', async () => {
    const metrics = metricsOf();
    for (let i = 0; i < MAX_LABEL_VALUES * 3; i += 1)
      metrics.request({ ...entry, context: `c${i}`, route: `/r${i}`, method: `M${i}`, status: 200 + (i % 400) });
    const metric = await metrics.registry.getSingleMetric('banyan_requests_total')!.get();
    const distinct = (name: string) => new Set(metric.values.map((value) => value.labels[name]));
    expect(distinct('context').size).toBe(MAX_LABEL_VALUES + 1);
    expect([...distinct('method')]).toEqual(['other']);
    expect(distinct('status')).toEqual(new Set(['2xx', '3xx', '4xx', '5xx']));
    const durations = await metrics.registry.getSingleMetric('banyan_request_duration_seconds')!.get();
    expect(new Set(durations.values.map((value) => value.labels.route)).size).toBe(MAX_LABEL_VALUES + 1);
  });
});

describe('metrics', () => {
  it('count requests by context, side, method, class and reason', async () => {
    const metrics = metricsOf();
    metrics.request(entry);
    metrics.request(plain);
    const text = await metrics.registry.metrics();
    expect(text).toContain('banyan_requests_total{context="order",upstream="legacy",method="GET",status="2xx",reason="STAGE"} 1');
    expect(text).toContain('banyan_requests_total{context="none",upstream="legacy",method="GET",status="2xx",reason="none"} 1');
    expect(text).toContain('banyan_request_duration_seconds_sum{context="order",route="/api/orders/**",upstream="legacy"} 0.0123456');
    expect(text).toContain('banyan_build_info{version="1.2.3",node="v24"} 1');
  });

  it('count a route that brings its memo along into the same cells, over a reload too', async () => {
    const metrics = metricsOf();
    const memo = (): RouteMemo => ({ meter: null, quoted: null });
    const [before, after] = [memo(), memo()];
    metrics.request(entry);
    for (const kept of [before, before, after]) metrics.request({ ...entry, memo: kept });
    metrics.request({ ...entry, memo: before, status: 503, upstream: 'extracted', durationMs: 20_000 });
    const text = await metrics.registry.metrics();
    expect(text).toContain('banyan_requests_total{context="order",upstream="legacy",method="GET",status="2xx",reason="STAGE"} 4');
    expect(text).toContain('banyan_requests_total{context="order",upstream="extracted",method="GET",status="5xx",reason="STAGE"} 1');
    const labels = 'context="order",route="/api/orders/**"';
    expect(text).toContain(`banyan_request_duration_seconds_bucket{le="0.01",${labels},upstream="legacy"} 0`);
    expect(text).toContain(`banyan_request_duration_seconds_bucket{le="0.025",${labels},upstream="legacy"} 4`);
    expect(text).toContain(`banyan_request_duration_seconds_bucket{le="10",${labels},upstream="extracted"} 0`);
    expect(text).toContain(`banyan_request_duration_seconds_bucket{le="+Inf",${labels},upstream="extracted"} 1`);
    expect(text).toContain(`banyan_request_duration_seconds_count{${labels},upstream="legacy"} 4`);
  });

  it('read flags, breakers and backlog at the scrape, and leave out a backlog that cannot be read', async () => {
    let away = false;
    const metrics = createMetrics({
      version: '1',
      nodeVersion: 'v24',
      sources: {
        flags: () => [{ name: 'order', stage: 'canary', canaryShareBp: 1250, killed: false }],
        breaker: () => ({ state: 'half-open' }),
        backlog: async () => {
          if (away) throw new Error('no store');
          return { depth: 7, oldestAgeMs: 1500, etaMs: 500 };
        },
      },
    });
    const text = await metrics.registry.metrics();
    expect(text).toContain('banyan_flag_rollout_ratio{context="order"} 0.125');
    expect(text).toContain('banyan_circuit_state{context="order",state="half-open"} 1');
    expect(text).toContain('banyan_circuit_state{context="order",state="open"} 0');
    expect(text).toMatch(/^banyan_outbox_depth 7$/m);
    expect(text).toMatch(/^banyan_outbox_oldest_age_seconds 1.5$/m);
    expect(text).toMatch(/^banyan_outbox_eta_seconds 0.5$/m);
    away = true;
    expect(await metrics.registry.metrics()).not.toMatch(/^banyan_outbox_depth /m);
  });

  it('knows what share of queries extracted answers', () => {
    const flag = { canaryShareBp: 1250, killed: false };
    expect((['legacy', 'shadow', 'canary', 'cutover', 'retired'] as const).map((stage) => rolloutOf({ ...flag, stage }))).toEqual([
      0, 0, 0.125, 1, 1,
    ]);
    expect((['canary', 'cutover', 'retired'] as const).map((stage) => rolloutOf({ ...flag, killed: true, stage }))).toEqual([0, 0, 1]);
  });
});

describe('journal', () => {
  const journalAt = (level: 'info' | 'debug') => {
    const { written, destination } = lines();
    return { written, journal: createJournal({ metrics: metricsOf(), log: createLogger({ level, destination }) }) };
  };

  it('writes one line for what a context owns, and none before the turn is over', async () => {
    const { written, journal } = journalAt('info');
    journal.note(entry);
    expect(written).toEqual([]);
    await turn();
    expect(written).toHaveLength(1);
    expect(written[0]).toMatchObject({
      level: 'info',
      requestId: 'r1',
      traceId: 't1',
      context: 'order',
      upstream: 'legacy',
      reason: 'STAGE',
      stage: 'shadow',
      processingTime: 12.35,
      msg: 'request',
    });
    expect(new Date(String(written[0]?.time)).toISOString()).toBe(written[0]?.time);
  });

  it('keeps plain traffic at debug, but not its failures; a client that leaves is none', async () => {
    const quiet = journalAt('info');
    quiet.journal.note(plain);
    quiet.journal.note({ ...plain, error: new AppError('client-left', 'left') });
    await turn();
    expect(quiet.written).toEqual([]);
    quiet.journal.note({ ...plain, status: 502, error: new AppError('upstream-reset', 'broke off') });
    await turn();
    expect(quiet.written).toMatchObject([{ level: 'info', error: { type: 'AppError', code: 'upstream-reset', message: 'broke off' } }]);
    const loud = journalAt('debug');
    loud.journal.note(plain);
    await turn();
    expect(loud.written).toMatchObject([{ level: 'debug', context: null }]);
  });

  it('never throws, and counts what it could not note', async () => {
    const metrics = metricsOf();
    const log = createLogger({
      level: 'info',
      destination: {
        write: () => {
          throw new Error('disk full');
        },
      },
    });
    const journal = createJournal({ metrics, log });
    expect(() => journal.note(entry)).not.toThrow();
    journal.note({ ...plain, context: 'order' });
    await turn();
    const text = await metrics.registry.metrics();
    expect(text).toMatch(/^banyan_journal_failures_total 2$/m);
    expect(text).toContain('banyan_requests_total{context="order",upstream="legacy",method="GET",status="2xx",reason="STAGE"} 1');
  });
});

describe('logger', () => {
  it('hides secrets wherever they stand', () => {
    const { written, destination } = lines();
    const log = createLogger({ level: 'info', destination, redact: ['x-api-key', 'card'] });
    const cause = new Error('connect postgres://banyan:hunter2@db:5432/x failed');
    log.info(
      {
        authorization: 'Bearer abc',
        req: { headers: { cookie: 'session=1', 'x-api-key': 'k', accept: '*/*' } },
        order: { payment: { card: '4111' } },
        err: new Error('refused with Bearer eyJhbGciOi', { cause }),
      },
      'secrets',
    );
    const text = JSON.stringify(written);
    for (const secret of ['abc', 'session=1', '"k"', '4111', 'hunter2', 'eyJ']) expect(text).not.toContain(secret);
    expect(written[0]).toMatchObject({
      req: { headers: { accept: '*/*' } },
      error: { cause: { message: 'connect postgres://banyan:***@db:5432/x failed' } },
    });
  });

  it('stamps each line with its own time', async () => {
    const { written, destination } = lines();
    const log = createLogger({ level: 'info', destination });
    const before = Date.now();
    log.info('one');
    const between = Date.now();
    while (Date.now() === between) await turn();
    log.info('two');
    const [first, second] = written.map((line) => Date.parse(String(line.time)));
    expect(first).toBeGreaterThanOrEqual(before);
    expect(first).toBeLessThanOrEqual(between);
    expect(second).toBeGreaterThan(between);
  });

  it('obeys its level', () => {
    const { written, destination } = lines();
    const log = createLogger({ level: 'warn', destination });
    log.info('no');
    log.warn('yes');
    expect(written).toMatchObject([{ level: 'warn', msg: 'yes' }]);
  });
});
