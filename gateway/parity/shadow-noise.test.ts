import type { Upstream } from '@banyan/contracts/vocabulary.ts';
import { describe, expect, it } from '@jest/globals';
import { createRandom } from '../../bench/random.ts';
import type { Observation } from '../core/parity/observation.ts';
import { createMemoryEvidenceStore } from './evidence.fake.ts';
import { createEvidence } from './evidence.ts';
import type { ParityReport } from './evidence-report.ts';
import { createShadow, type ShadowInput } from './shadow.ts';
import type { ShadowSettings } from './shadow-ask.ts';

type Answer = (upstream: Upstream, request: number) => unknown;

/** A whole shadow path over upstreams that answer from `answer`, with no rule configured. */
const run = async (
  answer: Answer,
  queries: number,
  probe: number,
  random: () => number,
  stopWhen: (mismatches: number) => boolean = () => false,
): Promise<{ report: ParityReport; asked: number }> => {
  const evidence = createEvidence({
    store: createMemoryEvidenceStore(),
    redact: () => [],
    redactKey: new Uint8Array(32),
    flushMs: 3_600_000,
  });
  const settings: ShadowSettings = {
    parity: { sample: 10_000, compare: 10_000, probe, unsafeQueries: [], bodyLimit: 65_536 },
    shadow: { maxPerSecond: 1e9, concurrency: 20, cookies: 'pass' },
  };
  let now = 1_000_000;
  let judged: () => void = () => undefined;
  let mismatches = 0;
  const observe = (upstream: Upstream, request: number): Observation => ({
    status: 200,
    headers: [['Content-Type', 'application/json']],
    body: Buffer.from(JSON.stringify(answer(upstream, request))),
    complete: true,
  });
  const shadow = createShadow({
    settings: () => settings,
    send: async (upstream, _context, copy) => observe(upstream, Number(copy.target.slice(1))),
    evidence,
    now: () => now++,
    random,
    delay: async () => undefined,
    onJudged: ({ verdict }) => {
      if (verdict.kind === 'mismatch') mismatches++;
      judged();
    },
  });
  let asked = 0;
  try {
    for (; asked < queries && !stopWhen(mismatches); asked++) {
      const done = new Promise<void>((resolve) => {
        judged = resolve;
      });
      const input: ShadowInput = {
        requestId: `r${asked}`,
        context: 'order',
        route: '/:n',
        method: 'GET',
        target: `/${asked}`,
        headers: [],
        primary: 'legacy',
        primaryObservation: observe('legacy', asked),
        pinned: false,
        latencyMs: 1,
      };
      shadow.offer(input);
      await done;
      if (asked % 100 === 99) await evidence.flush();
    }
    await evidence.flush();
    return { report: await evidence.parityReport('order'), asked };
  } finally {
    await shadow.stop();
    await evidence.stop();
  }
};

const noisy = (random: () => number) => {
  const hex = (n: number): string => Array.from({ length: n }, () => Math.floor(random() * 16).toString(16)).join('');
  return {
    uuid: (): string => `${hex(8)}-${hex(4)}-4${hex(3)}-8${hex(3)}-${hex(12)}`,
    time: (): string => new Date(1_760_000_000_000 + Math.floor(random() * 1e9)).toISOString(),
    epochMs: (): number => 1_760_000_000_000 + Math.floor(random() * 1e9),
  };
};

describe('noise without configuration', () => {
  it('suppresses three random fields of 2,000 reads with 10 % probes, and no other field', async () => {
    const random = createRandom(4);
    const { uuid, time, epochMs } = noisy(random);
    const { report } = await run(
      (_, n) => ({ id: n, requestId: uuid(), at: time(), stamp: epochMs(), total: n * 3 }),
      2_000,
      1_000,
      random,
    );
    expect(report.compared).toBe(2_000);
    expect(report.rate).toBeGreaterThanOrEqual(0.999);
    expect(new Set(report.byField.map(({ field, rule }) => `${field} ${rule}`))).toEqual(
      new Set(['$.requestId probe', '$.at probe', '$.stamp probe']),
    );
    expect(report.noisy.filter(({ alarm }) => alarm)).toEqual([]);
  });

  it.each<[string, (values: ReturnType<typeof noisy>) => object]>([
    ['"undefined" for a uuid', ({ time, epochMs }) => ({ requestId: 'undefined', at: time(), stamp: epochMs() })],
    ['seconds for milliseconds', ({ uuid, time, epochMs }) => ({ requestId: uuid(), at: time(), stamp: Math.floor(epochMs() / 1_000) })],
    ['no field at all', ({ uuid, epochMs }) => ({ requestId: uuid(), stamp: epochMs() })],
  ])('raises the alarm within 500 requests when extracted sends %s', async (_name, broken) => {
    const random = createRandom(5);
    const values = noisy(random);
    const { report, asked } = await run(
      (upstream) => (upstream === 'extracted' ? broken(values) : { requestId: values.uuid(), at: values.time(), stamp: values.epochMs() }),
      500,
      1_000,
      random,
      (mismatches) => mismatches >= 4,
    );
    expect(report.sprt.state).toBe('rollback');
    expect(asked).toBeLessThan(500);
  });

  it('raises the alarm about a field that is different in 75 % instead of 30 %, and none about one that is not', async () => {
    const random = createRandom(6);
    const flips = (share: number): number => (random() < share ? 2 : 1);
    const { report } = await run(
      (upstream) => ({ worse: flips(upstream === 'extracted' ? 0.75 : 0.3), same: flips(0.3) }),
      1_500,
      10_000,
      random,
    );
    const alarms = report.noisy.filter(({ alarm }) => alarm).map(({ field }) => field);
    expect(alarms).toEqual(['$.worse']);
  });
});
