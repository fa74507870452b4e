import { AppError } from '@banyan/contracts/errors.ts';
import type { Upstream } from '@banyan/contracts/vocabulary.ts';
import { afterEach, describe, expect, it } from '@jest/globals';
import type { Observation } from '../core/parity/observation.ts';
import type { JudgedPair } from './evidence.ts';
import { createShadow, type Shadow, type ShadowDeps, type ShadowInput } from './shadow.ts';
import type { ShadowCopy, ShadowSettings } from './shadow-ask.ts';

const answer = (body: string, status = 200): Observation => ({
  status,
  headers: [['Content-Type', 'application/json']],
  body: Buffer.from(body),
  complete: true,
});

const SETTINGS: ShadowSettings = {
  parity: { sample: 10_000, compare: 10_000, probe: 0, unsafeQueries: [], bodyLimit: 1024 },
  shadow: { maxPerSecond: 1_000, concurrency: 20, cookies: 'pass' },
};

type Sent = { readonly upstream: Upstream; readonly copy: ShadowCopy };
type Rig = {
  readonly shadow: Shadow;
  readonly sent: Sent[];
  readonly delays: number[];
  /** The next judged pair. */
  readonly judged: () => Promise<JudgedPair>;
  /** The next count whose name this is, as `what:why`. */
  readonly counted: (name: string) => Promise<void>;
  readonly offer: (more?: Partial<ShadowInput>) => void;
};

const rigs: Shadow[] = [];
afterEach(async () => {
  await Promise.all(rigs.splice(0).map((shadow) => shadow.stop()));
});

const rig = (
  send: (upstream: Upstream, call: number, copy: ShadowCopy) => Observation | Promise<Observation>,
  more: { parity?: Partial<ShadowSettings['parity']>; shadow?: Partial<ShadowSettings['shadow']>; deps?: Partial<ShadowDeps> } = {},
): Rig => {
  const sent: Sent[] = [];
  const delays: number[] = [];
  const pairs: JudgedPair[] = [];
  const waiting: ((pair: JudgedPair) => void)[] = [];
  const names: string[] = [];
  const waitingFor: [string, () => void][] = [];
  const calls = { legacy: 0, extracted: 0 };
  const settings: ShadowSettings = { parity: { ...SETTINGS.parity, ...more.parity }, shadow: { ...SETTINGS.shadow, ...more.shadow } };
  const shadow = createShadow({
    settings: (context) => (context === 'order' ? settings : undefined),
    send: async (upstream, _context, copy) => {
      sent.push({ upstream, copy });
      return send(upstream, ++calls[upstream], copy);
    },
    evidence: {
      count: (_context, _route, what, why = '') => {
        const name = `${what}:${why}`;
        const at = waitingFor.findIndex(([wanted]) => wanted === name);
        if (at >= 0) waitingFor.splice(at, 1)[0]![1]();
        else names.push(name);
      },
      note: (pair) => {
        const next = waiting.shift();
        if (next) next(pair);
        else pairs.push(pair);
      },
    },
    now: () => 1_000_000,
    random: () => 0.5,
    delay: async (ms) => {
      delays.push(ms);
    },
    ...more.deps,
  });
  rigs.push(shadow);
  return {
    shadow,
    sent,
    delays,
    judged: () => (pairs.length > 0 ? Promise.resolve(pairs.shift()!) : new Promise((resolve) => waiting.push(resolve))),
    counted: (name) => {
      const at = names.indexOf(name);
      if (at >= 0) names.splice(at, 1);
      return at >= 0 ? Promise.resolve() : new Promise((resolve) => waitingFor.push([name, resolve]));
    },
    offer: (input) =>
      shadow.offer({
        requestId: 'r1',
        context: 'order',
        route: '/api/orders/:id',
        method: 'GET',
        target: '/api/orders/1',
        headers: ['Host', 'shop', 'Cookie', 'sid=1', 'If-None-Match', '"1"', 'Range', 'bytes=0-1', 'Connection', 'X-Hop', 'X-Hop', '1'],
        primary: 'legacy',
        primaryObservation: answer('{"a":1}'),
        pinned: false,
        latencyMs: 5,
        ...input,
      }),
  };
};

const never = new Promise<Observation>(() => {});

describe('copies', () => {
  it('go once to the other side, marked, without conditions, ranges and what belongs to the connection', async () => {
    const { offer, judged, sent } = rig(() => answer('{"a":1.0}'));
    offer();
    expect(await judged()).toMatchObject({ verdict: { kind: 'match' }, primary: 'legacy', requestId: 'r1' });
    expect(sent).toMatchObject([
      {
        upstream: 'extracted',
        copy: { method: 'GET', target: '/api/orders/1', headers: ['Host', 'shop', 'Cookie', 'sid=1', 'banyan-shadow', '1'] },
      },
    ]);
  });
  it('lose their cookies when told so', async () => {
    const { offer, judged, sent } = rig(() => answer('{"a":1}'), { shadow: { cookies: 'drop' } });
    offer();
    await judged();
    expect(sent[0]!.copy.headers).not.toContain('Cookie');
  });
  it('go to legacy when extracted answered, and sides keep their names', async () => {
    const { offer, judged, sent } = rig((upstream) => answer(upstream === 'legacy' ? '{"a":1}' : '{"a":2}'));
    offer({ primary: 'extracted', primaryObservation: answer('{"a":2}') });
    expect(await judged()).toMatchObject({ verdict: { differences: [{ path: '$.a', legacy: 1, extracted: 2 }] } });
    expect(sent[0]!.upstream).toBe('legacy');
  });
  it.each<[string, Partial<ShadowInput>, Partial<ShadowSettings['parity']>]>([
    ['not-a-query', { method: 'POST' }, {}],
    ['not-modified', { primaryObservation: answer('', 304) }, {}],
    ['partial', { primaryObservation: answer('x', 206) }, {}],
    ['primary-incomplete', { primaryObservation: { ...answer(''), complete: false } }, {}],
    ['upgrade', { primaryObservation: answer('', 101) }, {}],
    ['sample', {}, { sample: 5_000 }],
    ['unsafe', { target: '/api/%6Frders//1?x=y' }, { unsafeQueries: ['/api/orders/:id'] }],
    ['unsafe', { target: '/api/x/../orders/export/all' }, { unsafeQueries: ['GET /api/orders/export/**'] }],
    ['unsafe', { target: '/api/%zz' }, { unsafeQueries: ['/other'] }],
  ])('are not made, and counted: %s', async (why, input, parity) => {
    const { offer, counted, sent, shadow } = rig(() => answer('{}'), { parity });
    offer(input);
    await counted(`skipped:${why}`);
    expect(sent).toEqual([]);
    expect(shadow.stats()).toMatchObject({ offered: 1, skipped: { [why]: 1 }, pending: 0 });
  });
  it('are made for the share that is drawn, and compared for another', async () => {
    const { offer, counted, sent } = rig(() => answer('{}'), { parity: { sample: 5_001, compare: 5_000, unsafeQueries: ['/api/orders'] } });
    offer();
    await counted('skipped:compare');
    expect(sent).toHaveLength(1);
  });
  it('are not made inside a pin: the pair is lagging', async () => {
    const { offer, judged, sent } = rig(() => answer('{}'));
    offer({ pinned: true });
    expect((await judged()).verdict).toEqual({ kind: 'incomparable', why: 'lagging' });
    expect(sent).toEqual([]);
  });
});

describe('a mismatch', () => {
  it('is asked again on both sides and confirmed when it reproduces every time', async () => {
    const { offer, judged, sent, delays } = rig((upstream) => answer(upstream === 'legacy' ? '{"a":1}' : '{"a":2}'));
    offer();
    expect(await judged()).toMatchObject({
      confirmed: true,
      verdict: { kind: 'mismatch', differences: [{ path: '$.a', kind: 'value', legacy: 1, extracted: 2 }] },
    });
    expect(delays).toEqual([250, 1_000]);
    expect(sent.map(({ upstream }) => upstream).sort()).toEqual(['extracted', 'extracted', 'extracted', 'legacy', 'legacy']);
  });
  it.each([2, 3])('is lagging when answer %i of extracted agrees', async (call) => {
    const { offer, judged } = rig((upstream, n) => answer(upstream === 'legacy' || n >= call ? '{"a":1}' : '{"a":2}'));
    offer();
    expect(await judged()).toMatchObject({ confirmed: false, verdict: { kind: 'incomparable', why: 'lagging' } });
  });
  it('keeps only the differences that reproduce', async () => {
    const { offer, judged } = rig((upstream, n) =>
      answer(upstream === 'legacy' ? '{"a":1,"b":1}' : n === 1 ? '{"a":2,"b":2}' : '{"a":2,"b":1}'),
    );
    offer({ primaryObservation: answer('{"a":1,"b":1}') });
    expect(await judged()).toMatchObject({ verdict: { differences: [{ path: '$.a' }] } });
  });
  it('proves nothing when it cannot be asked again', async () => {
    const { offer, judged } = rig((upstream, n) =>
      upstream === 'extracted' && n === 1 ? answer('{"a":2}') : Promise.reject(new AppError('upstream-reset', 'gone')),
    );
    offer();
    expect((await judged()).verdict.kind).toBe('incomparable');
  });
  it('at a place where legacy contradicts itself is noise, while its shape stays', async () => {
    const uuid = (n: number): string => `00000000-0000-4000-8000-${String(n).padStart(12, '0')}`;
    const body = (id: string): string => JSON.stringify({ id, total: 1 });
    const good = rig((upstream, n) => answer(body(uuid(upstream === 'legacy' ? n : 100 + n))));
    good.offer({ primaryObservation: answer(body(uuid(0))) });
    expect((await good.judged()).verdict).toMatchObject({ kind: 'noise', noise: [{ path: '$.id', rule: 'probe' }] });
    const broken = rig((upstream, n) => answer(body(upstream === 'legacy' ? uuid(n) : 'undefined')));
    broken.offer({ primaryObservation: answer(body(uuid(0))) });
    expect((await broken.judged()).verdict).toMatchObject({ kind: 'mismatch', differences: [{ path: '$.id', extracted: 'undefined' }] });
  });
});

describe('a probe', () => {
  it('asks legacy a second time and excuses what differs there, in the same pair', async () => {
    const { offer, judged, sent } = rig((upstream) => answer(upstream === 'legacy' ? '{"a":1,"n":2}' : '{"a":1,"n":3}'), {
      parity: { probe: 10_000 },
    });
    offer({ primaryObservation: answer('{"a":1,"n":1}') });
    expect(await judged()).toMatchObject({
      verdict: { kind: 'noise', noise: [{ path: '$.n', rule: 'probe', legacy: 1, extracted: 3 }] },
      probe: { volatile: [{ path: '$.n', legacy: 1, extracted: 2 }], differences: [{ path: '$.n', legacy: 1, extracted: 3 }] },
    });
    expect(sent).toHaveLength(2);
  });
});

describe('bounds', () => {
  it('drops when too many pairs are under way, and a hung upstream is given up', async () => {
    const { offer, counted, judged, sent, shadow } = rig(() => never, {
      shadow: { concurrency: 2 },
      deps: { maxPending: 3, sendTimeoutMs: 20 },
    });
    for (let i = 0; i < 5; i++) offer();
    await counted('dropped:queue-full');
    await counted('dropped:queue-full');
    for (let i = 0; i < 3; i++) expect((await judged()).verdict).toEqual({ kind: 'incomparable', why: 'timeout' });
    expect(sent).toHaveLength(3);
    await shadow.stop();
    expect(shadow.stats()).toMatchObject({ pending: 0, pendingBytes: 0 });
  });
  it('drops what waited too long for its turn', async () => {
    const { offer, counted, sent } = rig(() => never, { shadow: { concurrency: 1 }, deps: { maxWaitMs: 20 } });
    offer();
    offer();
    await counted('dropped:stale');
    expect(sent).toHaveLength(1);
  });
  it('never has more copies under way than its concurrency', async () => {
    let [now, most] = [0, 0];
    const { offer, judged } = rig(
      async () => {
        most = Math.max(most, ++now);
        await new Promise((resolve) => setImmediate(resolve));
        now--;
        return answer('{"a":1}');
      },
      { shadow: { concurrency: 3 } },
    );
    for (let i = 0; i < 30; i++) offer();
    for (let i = 0; i < 30; i++) await judged();
    expect(most).toBe(3);
  });
  it('drops above the rate and lets it come back with time', async () => {
    let time = 0;
    const { offer, counted, judged } = rig(() => answer('{"a":1}'), { shadow: { maxPerSecond: 2 }, deps: { now: () => time } });
    for (let i = 0; i < 3; i++) offer();
    await counted('dropped:rate');
    await judged();
    await judged();
    time = 500;
    offer();
    await judged();
  });
  it('drops when the primary answers held would take too much memory', async () => {
    const { offer, counted } = rig(() => never, { deps: { maxPendingBytes: 10 } });
    offer();
    offer();
    await counted('dropped:memory');
  });
  it('compares digests above the body limit', async () => {
    const big = (last: string): Observation => answer(`"${'x'.repeat(2_000)}${last}"`);
    const same = rig(() => big('1'));
    same.offer({ primaryObservation: big('1') });
    expect((await same.judged()).verdict).toEqual({ kind: 'match' });
    const other = rig(() => big('2'));
    other.offer({ primaryObservation: big('1') });
    expect((await other.judged()).verdict).toEqual({ kind: 'incomparable', why: 'too-large' });
  });
  it.each<[string, () => Promise<Observation>]>([
    ['unreachable', () => Promise.reject(new AppError('upstream-unreachable', 'no'))],
    ['failed', () => Promise.reject(new Error('boom'))],
    ['truncated', async () => ({ ...answer('{'), complete: false })],
  ])('calls a broken copy incomparable: %s', async (why, send) => {
    const { offer, judged } = rig(send);
    offer();
    expect((await judged()).verdict).toEqual({ kind: 'incomparable', why });
  });
  it('ignores contexts without settings and never throws', () => {
    const { offer, shadow } = rig(() => answer('{}'));
    offer({ context: 'other' });
    offer({ primaryObservation: null as unknown as Observation });
    expect(shadow.stats()).toMatchObject({ offered: 1, dropped: { failed: 1 } });
  });
  it('stops with copies hung, waiting and between two questions', async () => {
    const { offer, shadow, sent } = rig(() => never, { shadow: { concurrency: 1 } });
    offer();
    offer();
    let pausing = (): void => {};
    const paused = new Promise<void>((resolve) => {
      pausing = resolve;
    });
    const delay = (_ms: number, signal: AbortSignal): Promise<unknown> =>
      new Promise((_, reject) => {
        signal.addEventListener('abort', () => reject(signal.reason));
        pausing();
      });
    const asking = rig((upstream) => answer(upstream === 'legacy' ? '1' : '2'), { deps: { delay } });
    asking.offer();
    await paused;
    await Promise.all([shadow.stop(), asking.shadow.stop()]);
    expect(shadow.stats()).toMatchObject({ pending: 0, pendingBytes: 0, dropped: { stopping: 2 } });
    expect(sent.map(({ copy }) => copy.ended)).toEqual([true]);
    offer();
    expect(shadow.stats().offered).toBe(2);
  });
});
