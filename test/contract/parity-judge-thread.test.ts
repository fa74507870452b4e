import { readdirSync, readFileSync } from 'node:fs';
import { monitorEventLoopDelay } from 'node:perf_hooks';
import { gzipSync } from 'node:zlib';
import { AppError } from '@banyan/contracts/errors.ts';
import { afterEach, describe, expect, it } from '@jest/globals';
import fc from 'fast-check';
import { compareObservations } from '../../gateway/core/parity/compare.ts';
import type { Observation } from '../../gateway/core/parity/observation.ts';
import { compileRules, type ParityRules } from '../../gateway/core/parity/rules.ts';
import { decodePair } from '../../gateway/parity/decode.ts';
import { createMemoryEvidenceStore } from '../../gateway/parity/evidence.fake.ts';
import { createEvidence, type JudgedPair } from '../../gateway/parity/evidence.ts';
import { exemplarOf } from '../../gateway/parity/exemplar.ts';
import { createJudgeThread, type JudgeThread, type JudgeThreadOptions } from '../../gateway/parity/judge-thread.ts';
import { createShadow } from '../../gateway/parity/shadow.ts';
import { until } from '../harness/wait.ts';

const LIMIT = 1024 * 1024;
const NOW = Date.parse('2026-11-28T12:00:00Z');

const threads: JudgeThread[] = [];
afterEach(async () => {
  await Promise.all(threads.splice(0).map((thread) => thread.stop()));
});
const threadOf = (options?: JudgeThreadOptions): JudgeThread => {
  const thread = createJudgeThread(options);
  threads.push(thread);
  return thread;
};

const observe = (text: string, type = 'application/json', coding?: 'gzip'): Observation => {
  const body = Buffer.from(text);
  return {
    status: 200,
    headers: [['Content-Type', type], ...(coding ? [['Content-Encoding', coding] as [string, string]] : [])],
    body: coding ? gzipSync(body) : body,
    complete: true,
  };
};
const inline = async (legacy: Observation, extracted: Observation, rules: ParityRules, limit = LIMIT) =>
  compareObservations(...(await decodePair(legacy, extracted, limit)), compileRules(rules, NOW));

/** A page on which the comparison is at work for seconds: every paragraph ends the one before it, and every one differs. */
const page = (letter: string, bytes = LIMIT): string => `<p>${letter}`.repeat(bytes / 4);

/** JSON texts with what JavaScript's numbers and objects cannot hold. */
const text = fc.oneof(
  { weight: 3, arbitrary: fc.json({ maxDepth: 4 }) },
  fc
    .array(
      fc.constantFrom('10.00', '9007199254740993', '1e2', '-0', '0.1', '7', '"x"', 'null', '{"__proto__":1.0,"a":2,"a":3}', '"\\ud800"'),
    )
    .map((items) => `{"list":[${items.join()}],"__proto__":${items.length}.50}`),
);
const other = (one: string): fc.Arbitrary<string> =>
  fc.oneof(
    text,
    fc.constant(one),
    fc.nat(one.length).map((at) => one.slice(0, at) + one.slice(at + 1)),
    fc.constant(one.replace(/\d+(?:\.\d+)?/, '9007199254740995')),
  );

describe('the thread for large answers', () => {
  it('says what the comparison says on the spot, and makes the same examples, of any two bodies', async () => {
    const thread = threadOf();
    const rules: ParityRules[] = [
      {},
      { ignore: [{ at: '$.list[0]', because: 'test' }], arrays: [{ at: '$.list', as: 'multiset' }], tolerance: [{ at: '$..*', abs: 0.5 }] },
      { ignore: [{ at: 'header:content-type' }, { at: '$', until: '2026-01-01' }] },
    ];
    const pairs = text.chain((one) => fc.tuple(fc.constant(one), other(one)));
    const type = fc.constantFrom('application/json', 'text/html', 'text/plain', 'application/x-ndjson', 'application/octet-stream');
    await fc.assert(
      fc.asyncProperty(pairs, type, fc.constantFrom(...rules), fc.boolean(), async ([a, b], kind, rule, coded) => {
        const [legacy, extracted] = [observe(a, kind, coded ? 'gzip' : undefined), observe(b, kind)];
        const verdict = await thread.judge(legacy, extracted, rule, LIMIT, NOW);
        const here = await inline(legacy, extracted, rule);
        expect(verdict).toEqual(here);
        expect(JSON.stringify(verdict)).toBe(JSON.stringify(here));

        const redaction = { list: ['$.list[1]', 'header:cookie'], key: new Uint8Array(32) };
        const pair: JudgedPair = {
          context: 'order',
          route: '/orders/:id',
          requestId: 'r1',
          at: NOW,
          verdict,
          confirmed: false,
          primary: 'legacy',
          method: 'GET',
          target: '/orders/1?token=x',
          headers: [['Cookie', 'sid=s3cr3t-s3cr3t']],
          answers: { legacy, extracted, undecoded: { bodyLimitBytes: LIMIT } },
        };
        const [ours, theirs] = await decodePair(legacy, extracted, LIMIT);
        const example = exemplarOf({ ...pair, verdict: here, answers: { legacy: ours, extracted: theirs } }, 'x', redaction);
        expect(JSON.stringify(await thread.exemplar(pair, 'x', redaction))).toBe(JSON.stringify(example));
      }),
      { numRuns: 150 },
    );
    expect(thread.stats()).toMatchObject({ started: 1, tasks: 0, bytes: 0 });
  });

  it('leaves long values out of a long verdict, and keeps their shapes', async () => {
    const numbers = Array.from({ length: 40_000 }, (_, i) => i);
    const [legacy, extracted] = [observe(JSON.stringify({ numbers })), observe(JSON.stringify({ numbers: [...numbers].reverse() }))];
    expect(await threadOf().judge(legacy, extracted, {}, LIMIT, NOW)).toMatchObject({
      kind: 'mismatch',
      differences: [{ path: '$.numbers', kind: 'order', legacy: [expect.stringContaining('characters of JSON')] }],
    });
  });

  it('steps back behind requests where the system can tell threads apart', async () => {
    const thread = threadOf();
    await thread.judge(observe('1'), observe('1'), {}, LIMIT, NOW);
    const niceOf = (task: string): number => {
      const stat = readFileSync(`/proc/self/task/${task}/stat`, 'latin1');
      return Number(stat.slice(stat.lastIndexOf(')') + 2).split(' ')[16]);
    };
    if (process.platform !== 'linux') return;
    const nice = readdirSync('/proc/self/task').map(niceOf);
    const own = niceOf(String(process.pid));
    expect(nice.filter((one) => one > own).length).toBeGreaterThan(0);
  });

  it('stops a bomb at the limit', async () => {
    const bomb = observe('0'.repeat(64 * LIMIT), 'text/plain', 'gzip');
    const small = observe('0', 'text/plain');
    expect(await threadOf().judge(bomb, small, {}, LIMIT, NOW)).toEqual(await inline(bomb, small, {}));
    expect(await threadOf().judge(bomb, small, {}, LIMIT, NOW)).toEqual({ kind: 'incomparable', why: 'too-large' });
  });

  it('leaves the event loop free while it compares a hostile page for as long as that takes', async () => {
    const thread = threadOf({ taskTimeoutMs: 600_000 });
    await thread.judge(observe('1'), observe('1'), {}, LIMIT, NOW);
    const [legacy, extracted] = ['x', 'y'].map((letter) => observe(page(letter, LIMIT / 2), 'text/html')) as [Observation, Observation];
    const delay = monitorEventLoopDelay({ resolution: 5 });
    let turns = 0;
    const ticking = setInterval(() => turns++, 5);
    delay.enable();
    const started = performance.now();
    const verdict = await thread.judge(legacy, extracted, {}, LIMIT, NOW).finally(() => {
      delay.disable();
      clearInterval(ticking);
    });
    const tookMs = performance.now() - started;
    expect(verdict).toMatchObject({ kind: 'mismatch' });
    // On the spot there would be no turn at all, and one delay as long as the whole.
    expect(turns).toBeGreaterThan(20);
    expect(delay.max / 1e6).toBeLessThan(tookMs / 2);
  }, 300_000);

  it('gives up what takes too long, with a new thread for what comes after', async () => {
    const told: string[] = [];
    const thread = threadOf({ taskTimeoutMs: 3_000, onTrouble: (why) => void told.push(why) });
    const long = thread.judge(
      observe(page('x', 16 * LIMIT), 'text/html'),
      observe(page('y', 16 * LIMIT), 'text/html'),
      {},
      32 * LIMIT,
      NOW,
    );
    const after = thread.judge(observe('{"a":1}'), observe('{"a":1.0}'), {}, LIMIT, NOW);
    await expect(long).rejects.toMatchObject({ why: 'compare-timeout' });
    expect(await after).toEqual({ kind: 'match' });
    expect(thread.stats()).toMatchObject({ started: 2, tasks: 0, bytes: 0 });
    expect(told).toHaveLength(1);
  });

  it('goes on after a task that fails', async () => {
    const thread = threadOf();
    const bad = { ignore: [{ at: 'nonsense' }] };
    await expect(thread.judge(observe('1'), observe('2'), bad, LIMIT, NOW)).rejects.toMatchObject({ why: 'compare-failed' });
    expect(await thread.judge(observe('1'), observe('1'), {}, LIMIT, NOW)).toEqual({ kind: 'match' });
    expect(thread.stats().started).toBe(1);
  });

  it('ends when nothing is asked of it, and comes back', async () => {
    const thread = threadOf({ idleMs: 1 });
    await thread.judge(observe('1'), observe('1'), {}, LIMIT, NOW);
    await until(() => !thread.stats().running, { describe: 'the idle thread to end' });
    expect(await thread.judge(observe('1'), observe('2'), {}, LIMIT, NOW)).toMatchObject({ kind: 'mismatch' });
    expect(thread.stats().started).toBe(2);
  });

  it('takes no more than its bounds, and nothing after its stop', async () => {
    const thread = threadOf({ maxTasks: 2, maxBytes: 100 });
    const ask = (bytes: number) => thread.judge(observe('1'.repeat(bytes)), observe(''), {}, LIMIT, NOW);
    const [first, second, third] = [ask(10), ask(10), ask(10)];
    await expect(third).rejects.toMatchObject({ code: 'overloaded', details: { why: 'compare-queue-full' } });
    await Promise.all([first, second]);
    await expect(ask(101)).rejects.toMatchObject({ code: 'overloaded' });
    const last = ask(10);
    const ended = expect(last).rejects.toMatchObject({ code: 'draining' });
    await thread.stop();
    await ended;
    await expect(ask(1)).rejects.toMatchObject({ code: 'draining' });
    expect(thread.stats()).toEqual({ tasks: 0, bytes: 0, started: 1, running: false });
  });
});

describe('the shadow path with large answers', () => {
  type Asked = { legacy: Observation; extracted: Observation; judge?: JudgeThread['judge'] };
  const shadowing = async ({ legacy, extracted, judge }: Asked) => {
    const thread = threadOf();
    const dropped: string[] = [];
    const evidence = createEvidence({
      store: createMemoryEvidenceStore(),
      redact: () => ['$..password'],
      redactKey: new Uint8Array(32),
      exemplar: thread.exemplar,
    });
    const shadow = createShadow({
      settings: () => ({
        parity: { sample: 10_000, compare: 10_000, probe: 0, unsafeQueries: [], bodyLimit: LIMIT },
        shadow: { maxPerSecond: 1_000, concurrency: 20, cookies: 'drop' },
      }),
      send: async (upstream) => (upstream === 'legacy' ? legacy : extracted),
      judgeLarge: judge ?? thread.judge,
      evidence,
      now: () => Date.now(),
      random: Math.random,
      askAgainAfterMs: [1],
      onDropped: (_context, why) => void dropped.push(why),
    });
    try {
      shadow.offer({
        requestId: 'r1',
        context: 'order',
        route: '/orders',
        method: 'GET',
        target: '/orders',
        headers: [],
        primary: 'legacy',
        primaryObservation: legacy,
        pinned: false,
        latencyMs: 1,
      });
      const items = await until(
        async () => {
          await evidence.flush();
          const found = (await evidence.pairs({ context: 'order' })).items;
          return (found.length > 0 || dropped.length > 0) && shadow.stats().pending === 0 ? found : undefined;
        },
        { describe: 'the pair to be kept or dropped' },
      );
      return { pair: items[0] ? await evidence.pair(items[0].id) : undefined, dropped, stats: shadow.stats(), thread };
    } finally {
      await shadow.stop();
      await evidence.stop();
    }
  };
  const list = (price: string): string =>
    `{"password":"s3cr3t-s3cr3t","items":[${Array.from({ length: 5_000 }, (_, i) => `{"id":${i},"price":${i === 42 ? price : '1.00'}}`)}]}`;

  it.each([
    ['plain', undefined],
    ['coded', 'gzip'],
  ] as const)('judges and keeps them without a look at them: %s', async (_name, coding) => {
    const { pair, thread } = await shadowing({
      legacy: observe(list('10.00'), 'application/json', coding),
      extracted: observe(list('10.01'), 'application/json', coding),
    });
    expect(JSON.stringify(pair?.differences)).toBe('[{"path":"$.items[42].price","kind":"value","legacy":10.00,"extracted":10.01}]');
    expect(pair).toMatchObject({ verdict: 'mismatch', confirmed: true, legacy: { truncated: true } });
    expect(pair!.legacy.body!.startsWith('{"password":"[redacted:')).toBe(true);
    expect(thread.stats().started).toBe(1);
  });
  it('judges small ones where they are', async () => {
    const { pair, thread } = await shadowing({ legacy: observe('{"a":1}', 'application/json', 'gzip'), extracted: observe('{"a":2}') });
    expect(pair).toMatchObject({ verdict: 'mismatch', legacy: { body: '{"a":1}' } });
    expect(thread.stats().started).toBe(0);
  });
  it('counts a pair that was given up with its reason, and keeps it without bodies', async () => {
    const thread = threadOf({ taskTimeoutMs: 3_000 });
    const [x, y] = ['x', 'y'].map((letter) => observe(page(letter, 16 * LIMIT), 'text/html'));
    const { pair, dropped } = await shadowing({
      legacy: x!,
      extracted: y!,
      judge: (legacy, extracted, rules, _limit, now) => thread.judge(legacy, extracted, rules, 32 * LIMIT, now),
    });
    expect(pair).toMatchObject({ verdict: 'incomparable', why: 'compare-timeout', legacy: { body: null } });
    expect(dropped).toEqual(['compare-timeout']);
  });
  it('drops a pair when too much waits', async () => {
    const judge = () => Promise.reject(new AppError('overloaded', 'full', { details: { why: 'compare-queue-full' } }));
    const { dropped } = await shadowing({ legacy: observe(list('1')), extracted: observe(list('2')), judge });
    expect(dropped).toEqual(['compare-queue-full']);
  });
});
