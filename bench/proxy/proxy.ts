import { execFileSync } from 'node:child_process';
import { openWorkshop, type Workshop } from '../processes.ts';
import { type BenchOptions, machine, median, type Report, type Row, round } from '../report.ts';
import { manyRoutes, oneRoute, paths, shadowed, startBanyan } from './banyan.ts';
import { findTools, type Tools } from './install.ts';
import { createLoader, type Loader, type LoadResult, steady } from './load.ts';
import { check, type Server, startHaproxy, startNginx, startNpmPeer, startRemoteStub, startStub, startUpstream } from './servers.ts';
import { streams } from './streams.ts';
import { cpuUs, rssMiB } from './usage.ts';

/** What is compared, in the order of the table. */
const NAMES = {
  nginx: 'nginx',
  haproxy: 'HAProxy',
  hpm: 'express + http-proxy-middleware',
  fastify: '@fastify/http-proxy',
  plain: 'Banyan, plain (--legacy)',
  one: 'Banyan, 1 context, 1 route',
  many: 'Banyan, 200 contexts, 10,000 routes',
  shadow: 'Banyan, 100 % shadow + compare',
} as const;
type Name = keyof typeof NAMES;

type Plan = {
  readonly rounds: number;
  /** Of fresh processes, for what routes cost. */
  readonly pairs: number;
  readonly seconds: number;
  readonly warmUpSeconds: number;
  readonly connections: number;
  readonly steadySeconds: number;
  readonly perSecond: number;
  readonly clients: number;
  readonly bytes: number;
};

const FULL: Plan = {
  rounds: 5,
  pairs: 7,
  seconds: 4,
  warmUpSeconds: 4,
  connections: 32,
  steadySeconds: 5,
  perSecond: 500,
  clients: 20,
  bytes: 50 * 2 ** 20,
};
const QUICK: Plan = { ...FULL, rounds: 1, pairs: 1, seconds: 2, warmUpSeconds: 1, steadySeconds: 2, clients: 4 };

/** A monolith that takes this long, and an extracted side that takes ten times as long, ms. */
const LEGACY_MS = 5;
const SLOW_MS = 50;

type Sample = LoadResult & { readonly cpuUs: number; readonly rssMiB: number };

const startAll = async (shop: Workshop, tools: Tools, upstream: string): Promise<Map<Name, Server>> => {
  const { nginx, haproxy } = tools.programs;
  const servers = new Map<Name, Server>();
  if (nginx !== null) servers.set('nginx', await startNginx(shop, nginx, upstream));
  if (haproxy !== null) servers.set('haproxy', await startHaproxy(shop, haproxy, upstream));
  if (tools.npm !== null) {
    servers.set('hpm', await startNpmPeer(shop, 'express-hpm', tools.npm, upstream));
    servers.set('fastify', await startNpmPeer(shop, 'fastify', tools.npm, upstream));
  }
  servers.set('plain', await startBanyan(shop, { name: 'plain', legacy: upstream }));
  servers.set('one', await startBanyan(shop, { name: 'one', legacy: upstream, contexts: oneRoute() }));
  servers.set('many', await startBanyan(shop, { name: 'many', legacy: upstream, contexts: manyRoutes() }));
  servers.set('shadow', await startBanyan(shop, { name: 'shadow', legacy: upstream, contexts: shadowed(upstream) }));
  for (const server of servers.values()) await check(server, paths()[0]!);
  return servers;
};

/** All of them in turn, round by round, so that a busy minute of the machine meets each alike. */
const loadAll = async (servers: ReadonlyMap<Name, Server>, loader: Loader, plan: Plan, say: BenchOptions['say']) => {
  const { connections } = plan;
  for (const [name, { url }] of servers) {
    say(`warming up ${NAMES[name]}`);
    await loader.load({ url, seconds: plan.warmUpSeconds, connections });
  }
  const rounds: Map<Name, Sample>[] = [];
  for (let i = 0; i < plan.rounds; i++) {
    const samples = new Map<Name, Sample>();
    for (const [name, { url, pid }] of servers) {
      const before = cpuUs(pid);
      const result = await loader.load({ url, seconds: plan.seconds, connections });
      const sample = { ...result, cpuUs: (cpuUs(pid) - before) / result.requests, rssMiB: rssMiB(pid) };
      samples.set(name, sample);
      say(
        `round ${i + 1}: ${NAMES[name].padEnd(36)} ${round(sample.cpuUs, 1)} us, ${round(result.requests / result.seconds, 0)} requests/s`,
      );
    }
    rounds.push(samples);
  }
  return rounds;
};

type Measure = (sample: Sample) => number;

/** The median over the rounds of the ratio within each; nothing when one side is missing. */
const ratio = (rounds: readonly Map<Name, Sample>[], of: Name, over: Name, measure: Measure): number | null => {
  const ratios = rounds.flatMap((round) => {
    const [a, b] = [round.get(of), round.get(over)];
    return a && b ? [measure(a) / measure(b)] : [];
  });
  return ratios.length === 0 ? null : round(median(ratios), 3);
};

const rowsOf = (servers: ReadonlyMap<Name, Server>, rounds: readonly Map<Name, Sample>[]): Row[] =>
  [...servers.keys()].map((name) => {
    const middle = (measure: Measure, digits: number): number =>
      round(median(rounds.map((samples) => measure(samples.get(name)!))), digits);
    return {
      proxy: NAMES[name],
      'CPU us/request': middle((sample) => sample.cpuUs, 1),
      'requests/s': middle((sample) => sample.requests / sample.seconds, 0),
      'p50 ms': middle((sample) => sample.p50Ms, 2),
      'p99 ms': middle((sample) => sample.p99Ms, 2),
      'RSS MiB': middle((sample) => sample.rssMiB, 0),
      errors: rounds.reduce((sum, samples) => sum + samples.get(name)!.errors, 0),
    };
  });

/** What a client feels of a shadow that hangs or is slow: p99 at a fixed rate, against the same with shadow off just before and after. */
const shadowPain = async (shop: Workshop, plan: Plan, say: BenchOptions['say']) => {
  const legacy = (await startStub(shop, ['--delay', String(LEGACY_MS)])).url;
  const hung = (await startRemoteStub(shop, ['--hang'])).url;
  const slow = (await startRemoteStub(shop, ['--delay', String(SLOW_MS)])).url;
  const gateways = {
    off: await startBanyan(shop, { name: 'shadow-off', legacy, contexts: oneRoute() }),
    hung: await startBanyan(shop, { name: 'shadow-hung', legacy, contexts: shadowed(hung) }),
    slow: await startBanyan(shop, { name: 'shadow-slow', legacy, contexts: shadowed(slow) }),
  };
  const ask = async (name: keyof typeof gateways, seconds: number): Promise<LoadResult> => {
    const result = await steady(shop, { url: gateways[name].url, seconds, perSecond: plan.perSecond });
    if (result.errors > 0) throw new Error(`${result.errors} requests failed with shadow ${name}`);
    return result;
  };
  // three times as long as above: at this rate compilers need that long to settle, and one gateway is asked more often than the others below
  for (const name of ['off', 'hung', 'slow'] as const) await ask(name, 3 * plan.warmUpSeconds);
  const seen: Record<'off' | 'hung' | 'slow', LoadResult[]> = { off: [], hung: [], slow: [] };
  const ratios = { hung: [] as number[], slow: [] as number[] };
  const added = { hung: [] as number[], slow: [] as number[] };
  let before = await ask('off', plan.steadySeconds);
  seen.off.push(before);
  for (let i = 0; i < plan.rounds; i++) {
    for (const name of ['hung', 'slow'] as const) {
      const with_ = await ask(name, plan.steadySeconds);
      const after = await ask('off', plan.steadySeconds);
      const off = (before.p99Ms + after.p99Ms) / 2;
      ratios[name].push(with_.p99Ms / off);
      added[name].push(with_.p99Ms - off);
      seen[name].push(with_);
      seen.off.push(after);
      before = after;
      say(`round ${i + 1}: p99 ${with_.p99Ms} ms with a ${name} shadow, ${round(off, 2)} ms without`);
    }
  }
  for (const gateway of Object.values(gateways)) await gateway.stop();
  const rows: Row[] = (['off', 'hung', 'slow'] as const).map((name) => ({
    proxy: `Banyan, ${plan.perSecond}/s, shadow ${name}`,
    'p50 ms': round(median(seen[name].map((one) => one.p50Ms)), 2),
    'p99 ms': round(median(seen[name].map((one) => one.p99Ms)), 2),
    errors: 0,
  }));
  return {
    rows,
    figures: {
      p99_hung_shadow_ratio: round(median(ratios.hung), 3),
      p99_slow_shadow_ratio: round(median(ratios.slow), 3),
      p99_hung_shadow_added_ms: round(median(added.hung), 2),
      p99_slow_shadow_added_ms: round(median(added.slow), 2),
    },
  };
};

const growth = async (shop: Workshop, plan: Plan, say: BenchOptions['say']): Promise<number> => {
  const echo = await startStub(shop, []);
  const gateway = await startBanyan(shop, { name: 'streams', legacy: echo.url, contexts: oneRoute() });
  const result = await streams({ url: gateway.url, pid: gateway.pid, clients: plan.clients, bytes: plan.bytes });
  await gateway.stop();
  await echo.stop();
  if (result.broken > 0) throw new Error(`${result.broken} of ${plan.clients} clients got other bytes back than they sent`);
  say(
    `${plan.clients} clients, ${plan.bytes / 2 ** 20} MB up and down at once: ${round(result.seconds, 1)} s, RSS + ${round(result.growthMiB, 0)} MiB`,
  );
  return round(result.growthMiB, 1);
};

/**
 * What 10,000 routes cost, in pairs of fresh processes. Which memory a process happens to get decides as much as that: on shared machines two processes of the
 * same kind differ by up to half, for as long as they live.
 */
const routesCost = async (shop: Workshop, loader: Loader, upstream: string, plan: Plan, say: BenchOptions['say']): Promise<number> => {
  const load = { seconds: plan.seconds, connections: plan.connections };
  const ratios: number[] = [];
  for (let i = 0; i < plan.pairs; i++) {
    const pair = {
      one: await startBanyan(shop, { name: `one-${i}`, legacy: upstream, contexts: oneRoute() }),
      many: await startBanyan(shop, { name: `many-${i}`, legacy: upstream, contexts: manyRoutes() }),
    };
    const spent = { one: 0, many: 0 };
    for (const { url } of Object.values(pair)) await loader.load({ ...load, url, seconds: plan.warmUpSeconds });
    for (const name of ['one', 'many', 'many', 'one'] as const) {
      const { url, pid } = pair[name];
      const before = cpuUs(pid);
      const { requests } = await loader.load({ ...load, url, seconds: plan.seconds / 2 });
      spent[name] += (cpuUs(pid) - before) / requests / 2;
    }
    for (const server of Object.values(pair)) await server.stop();
    ratios.push(spent.many / spent.one);
    say(`pair ${i + 1}: ${round(spent.one, 1)} us with 1 route, ${round(spent.many, 1)} us with 10,000`);
  }
  return round(median(ratios), 3);
};

const versionOf = (program: string, flag: string): string => {
  try {
    const output = execFileSync('/bin/sh', ['-c', `"${program}" ${flag} 2>&1`], { encoding: 'utf8' });
    return /\d+\.\d+[\w.]*/.exec(output)?.[0] ?? 'unknown';
  } catch {
    return 'unknown';
  }
};

/** Processor time per proxied request, side by side with other proxies; what shadowing does to clients; memory under streams (DESIGN.md section 11). */
export const benchProxy = async (options: BenchOptions): Promise<Report> => {
  const plan = options.quick ? QUICK : FULL;
  const { say } = options;
  const where = machine();
  const shop = openWorkshop();
  try {
    const tools = await findTools(shop, options);
    for (const line of tools.missing) say(`missing: ${line}`);
    const upstream = await startUpstream(shop, tools.programs.nginx);
    const loader = createLoader(shop, tools.programs.wrk, paths());
    const servers = await startAll(shop, tools, upstream.url);
    const rounds = await loadAll(servers, loader, plan, say);
    const table = rowsOf(servers, rounds);
    for (const server of servers.values()) await server.stop();

    const pain = await shadowPain(shop, plan, say);
    const cpu: Measure = (sample) => sample.cpuUs;
    const figures = {
      cpu_over_hpm4: ratio(rounds, 'one', 'hpm', cpu),
      cpu_over_fastify: ratio(rounds, 'one', 'fastify', cpu),
      cpu_over_nginx: ratio(rounds, 'one', 'nginx', cpu),
      cpu_over_haproxy: ratio(rounds, 'one', 'haproxy', cpu),
      cpu_plain_over_hpm4: ratio(rounds, 'plain', 'hpm', cpu),
      cpu_plain_over_fastify: ratio(rounds, 'plain', 'fastify', cpu),
      cpu_10k_routes_over_1: await routesCost(shop, loader, upstream.url, plan, say),
      cpu_shadow_over_off: ratio(rounds, 'shadow', 'one', cpu),
      ...pain.figures,
      rss_growth_mb: await growth(shop, plan, say),
    };
    const { nginx, haproxy } = tools.programs;
    const versions = {
      ...tools.versions,
      ...(nginx === null ? {} : { nginx: versionOf(nginx, '-v') }),
      ...(haproxy === null ? {} : { haproxy: versionOf(haproxy, '-v') }),
      load: loader.name,
      upstream: nginx === null ? 'node' : 'nginx',
    };
    return {
      name: 'proxy',
      machine: where,
      // a peer that is missing leaves its ratios out
      figures: Object.fromEntries(Object.entries(figures).filter((entry): entry is [string, number] => entry[1] !== null)),
      table: [...table, ...pain.rows],
      missing: tools.missing,
      versions,
    };
  } finally {
    await shop.close();
  }
};
