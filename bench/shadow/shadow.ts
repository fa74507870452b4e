import { statSync } from 'node:fs';
import { openWorkshop, type Workshop } from '../processes.ts';
import { type Banyan, oneRoute, paths, shadowed, startBanyan } from '../proxy/banyan.ts';
import { heapUseIn } from '../proxy/heap-log.ts';
import { findTools } from '../proxy/install.ts';
import { createLoader, type Loader, type LoadResult, steady } from '../proxy/load.ts';
import { startRemoteStub, startStub, startUpstream } from '../proxy/servers.ts';
import { cpuUs } from '../proxy/usage.ts';
import { type BenchOptions, machine, median, type Report, type Row, round } from '../report.ts';

type Plan = { readonly rounds: number; readonly seconds: number; readonly warmUpSeconds: number; readonly perSecond: number };

const FULL: Plan = { rounds: 5, seconds: 3, warmUpSeconds: 4, perSecond: 500 };
const QUICK: Plan = { ...FULL, rounds: 1, seconds: 1, warmUpSeconds: 1 };
const CONNECTIONS = 32;

/** As in the proxy benchmark: a monolith that takes this long, an extracted side that takes ten times as long, ms; and one that reads slowly, bytes/s. */
const LEGACY_MS = 5;
const SLOW_MS = 50;
const SLOW_READ = 1_000;

/** Closed loop: what a mirrored request costs. Open loop at a fixed rate: what its client feels. */
const CLOSED = ['off', 'equal'] as const;
const OPEN = ['off', 'slow', 'hung', 'reading'] as const;
type Kind = (typeof CLOSED)[number] | (typeof OPEN)[number];

const NAMES: Readonly<Record<Kind, string>> = {
  off: 'no shadow',
  equal: '100 % shadow + compare',
  slow: 'shadow ten times as slow',
  hung: 'shadow that hangs',
  reading: `shadow as slow that reads ${SLOW_READ} B/s`,
};

/** One gateway under one load. */
type Lane = { readonly build: string; readonly kind: Kind; readonly open: boolean; readonly gateway: Banyan; readonly samples: Sample[] };
type Sample = LoadResult & { readonly cpuUs: number; readonly heapKiB: number; readonly pausedMs: number; readonly longestMs: number };

const sample = async (gateway: Banyan, load: () => Promise<LoadResult>): Promise<Sample> => {
  const [cpu, from] = [cpuUs(gateway.pid), statSync(gateway.log).size];
  const result = await load();
  if (result.errors > 0) throw new Error(`${result.errors} requests failed`);
  const heap = heapUseIn(gateway.log, from);
  return {
    ...result,
    cpuUs: (cpuUs(gateway.pid) - cpu) / result.requests,
    // the first collection of a while only says where it began
    heapKiB: heap.allocatedKiB / result.requests,
    pausedMs: heap.pausedMs / result.seconds,
    longestMs: heap.longestMs,
  };
};

const lanesOf = async (shop: Workshop, builds: ReadonlyMap<string, string | undefined>, upstream: string): Promise<Lane[]> => {
  const legacy = (await startStub(shop, ['--delay', String(LEGACY_MS)])).url;
  const stubs = {
    slow: (await startRemoteStub(shop, ['--delay', String(SLOW_MS)])).url,
    hung: (await startRemoteStub(shop, ['--hang'])).url,
    reading: (await startRemoteStub(shop, ['--delay', String(SLOW_MS), '--read', String(SLOW_READ)])).url,
  };
  const lanes: Lane[] = [];
  for (const [build, checkout] of builds) {
    const start = (name: string, to: string, contexts: ReturnType<typeof oneRoute>): Promise<Banyan> =>
      startBanyan(shop, { name: `${build}-${name}`, legacy: to, contexts, checkout, traceHeap: true });
    for (const kind of CLOSED) {
      const gateway = await start(`closed-${kind}`, upstream, kind === 'off' ? oneRoute() : shadowed(upstream));
      lanes.push({ build, kind, open: false, gateway, samples: [] });
    }
    for (const kind of OPEN) {
      const gateway = await start(`open-${kind}`, legacy, kind === 'off' ? oneRoute() : shadowed(stubs[kind]));
      lanes.push({ build, kind, open: true, gateway, samples: [] });
    }
  }
  return lanes;
};

const loadOf = (shop: Workshop, loader: Loader, plan: Plan, lane: Lane, seconds: number): Promise<LoadResult> =>
  lane.open
    ? steady(shop, { url: lane.gateway.url, seconds, perSecond: plan.perSecond })
    : loader.load({ url: lane.gateway.url, seconds, connections: CONNECTIONS });

/**
 * What a mirrored request costs in processor time and garbage, and what clients feel of a shadow that is slow, hangs or reads slowly. With `against`
 * another checkout of this project runs in the same rounds.
 */
export const benchShadow = async (options: BenchOptions): Promise<Report> => {
  const plan = options.quick ? QUICK : FULL;
  const { say } = options;
  const where = machine();
  const shop = openWorkshop();
  try {
    const tools = await findTools(shop, options);
    const upstream = await startUpstream(shop, tools.programs.nginx);
    const loader = createLoader(shop, tools.programs.wrk, paths());
    const builds = new Map<string, string | undefined>([
      ['this', undefined],
      ...(options.against === null ? [] : [['against', options.against] as const]),
    ]);
    const lanes = await lanesOf(shop, builds, upstream.url);
    for (const lane of lanes) {
      say(`warming up ${lane.build}: ${NAMES[lane.kind]}`);
      await loadOf(shop, loader, plan, lane, plan.warmUpSeconds);
    }
    for (let i = 0; i < plan.rounds; i++) {
      // there and back, so that a drift of the machine meets all alike
      for (const lane of i % 2 === 0 ? lanes : [...lanes].reverse()) {
        const one = await sample(lane.gateway, () => loadOf(shop, loader, plan, lane, plan.seconds));
        lane.samples.push(one);
        say(`round ${i + 1}: ${lane.build.padEnd(8)} ${NAMES[lane.kind].padEnd(36)} ${round(one.cpuUs, 1)} us, p99 ${one.p99Ms} ms`);
      }
    }
    const middle = (lane: Lane, measure: (one: Sample, i: number) => number): number => median(lane.samples.map(measure));
    const offOf = (lane: Lane): Lane =>
      lanes.find((other) => other.build === lane.build && other.open === lane.open && other.kind === 'off')!;
    const table = lanes.map(
      (lane): Row => ({
        build: lane.build,
        load: lane.open ? `${plan.perSecond}/s` : `${CONNECTIONS} connections`,
        gateway: NAMES[lane.kind],
        'CPU us/request': round(
          middle(lane, (one) => one.cpuUs),
          1,
        ),
        'heap KiB/request': round(
          middle(lane, (one) => one.heapKiB),
          1,
        ),
        'GC ms/s': round(
          middle(lane, (one) => one.pausedMs),
          1,
        ),
        'longest GC ms': round(
          middle(lane, (one) => one.longestMs),
          1,
        ),
        'p50 ms': round(
          middle(lane, (one) => one.p50Ms),
          2,
        ),
        'p99 ms': round(
          middle(lane, (one) => one.p99Ms),
          2,
        ),
        'p99 added ms': round(
          middle(lane, (one, i) => one.p99Ms - offOf(lane).samples[i]!.p99Ms),
          2,
        ),
      }),
    );
    const figures: Record<string, number> = {};
    for (const lane of lanes) {
      const key = lane.build === 'this' ? '' : 'against_';
      const off = offOf(lane);
      if (lane.kind === 'off') continue;
      if (!lane.open) {
        figures[`${key}mirrored_cpu_us`] = round(
          middle(lane, (one) => one.cpuUs),
          1,
        );
        figures[`${key}mirrored_cpu_over_off`] = round(
          middle(lane, (one, i) => one.cpuUs / off.samples[i]!.cpuUs),
          2,
        );
        figures[`${key}mirrored_heap_kib`] = round(
          middle(lane, (one, i) => one.heapKiB - off.samples[i]!.heapKiB),
          1,
        );
      } else
        figures[`${key}p99_${lane.kind}_added_ms`] = round(
          middle(lane, (one, i) => one.p99Ms - off.samples[i]!.p99Ms),
          2,
        );
    }
    return {
      name: 'shadow',
      machine: where,
      figures,
      table,
      missing: tools.missing,
      versions: { node: process.version, load: loader.name },
    };
  } finally {
    await shop.close();
  }
};
