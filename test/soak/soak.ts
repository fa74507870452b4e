import { readdirSync, readFileSync, renameSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { setTimeout as pause } from 'node:timers/promises';
import { freePort, openWorkshop, type Started } from '../../bench/processes.ts';
import { type Fault, visitorsOf } from './visitors.ts';

export type SoakOptions = {
  readonly seconds: number;
  readonly workers: number;
  /** Seconds between two of each; 0 = never. */
  readonly reloadEvery: number;
  readonly restartEvery: number;
  readonly killEvery: number;
  readonly say: (line: string) => void;
};

export type SoakReport = {
  readonly visits: number;
  readonly reloads: number;
  readonly restarts: number;
  readonly workerKills: number;
  /** Faults while an upstream was down, by kind. */
  readonly byUpstream: Readonly<Record<string, number>>;
  /** Connections that broke with the worker that was killed under them. */
  readonly byWorkerKill: number;
  /** Faults that nothing explains: each is a bug. */
  readonly unexplained: readonly string[];
  /** Timers of all processes, idle, before the load and after it. */
  readonly timersBefore: number;
  readonly timersAfter: number;
  /** Orders that were acknowledged and are in no upstream's log / stand in the logs more than once. */
  readonly lost: number;
  readonly doubled: number;
  /** Of the processes that lived from the beginning to the end. */
  readonly processes: readonly {
    readonly name: string;
    /** Medians of the second and the last fifth of the run, MiB. */
    readonly rssBefore: number;
    readonly rssAfter: number;
    /** Open files and sockets, idle, before the load and after it. */
    readonly filesBefore: number;
    readonly filesAfter: number;
  }[];
};

type Outage = { readonly what: 'upstream' | 'worker'; readonly from: number; to: number };

/** What ends in the same moment may be seen a little earlier or later. */
const SLACK_MS = 1_000;
const DOWN_MS = 300;
const SAMPLE_MS = 1_000;
/** Longer than idle connections to upstreams are kept. */
const QUIET_MS = 7_000;

const childrenOf = (pid: number): number[] =>
  readFileSync(`/proc/${pid}/task/${pid}/children`, 'latin1').split(' ').filter(Boolean).map(Number);
const filesOf = (pid: number): number => readdirSync(`/proc/${pid}/fd`).length;
const rssOf = (pid: number): number => Number(/^VmRSS:\s+(\d+) kB/m.exec(readFileSync(`/proc/${pid}/status`, 'latin1'))?.[1] ?? 0) / 1024;
const median = (values: readonly number[]): number => [...values].sort((a, b) => a - b)[Math.floor(values.length / 2)] ?? 0;

/**
 * Mixed load on a whole gateway while its configuration is reloaded, its upstreams are killed and started again, and its workers are killed. Nothing but what an
 * upstream or a killed worker really caused may reach a client; nothing may leak.
 */
export const soak = async (options: SoakOptions): Promise<SoakReport> => {
  const { say, workers } = options;
  const shop = openWorkshop();
  const random = (below: number): number => Math.floor(Math.random() * below);
  try {
    const ports = [await freePort(), await freePort()];
    const logs = ports.map((_, i) => join(shop.folder, `orders-${i}`));
    for (const log of logs) writeFileSync(log, '');
    const startUpstream = (i: number): Promise<Started> =>
      shop.startNode('test/soak/upstream.ts', ['--port', String(ports[i]), '--log', logs[i]!]);
    const upstreams = await Promise.all(ports.map((_, i) => startUpstream(i)));

    const file = join(shop.folder, 'banyan.yaml');
    const [publicPort, adminPort] = [await freePort(), await freePort()];
    let generation = 0;
    const configure = (): void => {
      const text = JSON.stringify({
        version: 1,
        listen: { address: `127.0.0.1:${publicPort}`, http2: true },
        admin: { listen: `127.0.0.1:${adminPort}` },
        drain: '5s',
        debugHeaders: generation % 2 === 1,
        legacy: { urls: ports.map((port) => `http://127.0.0.1:${port}`), connections: 200 + (generation % 3) },
        contexts: { shop: { match: [{ path: '/item/**' }, { path: '/order/**' }], else: 'legacy' } },
        log: { level: 'warn' },
      });
      generation++;
      writeFileSync(`${file}.new`, text);
      renameSync(`${file}.new`, file);
    };
    configure();
    const gateway = await shop.startNode('gateway/bin/banyan.js', [
      'run',
      '--config',
      file,
      ...(workers > 1 ? ['--workers', String(workers)] : []),
    ]);
    const url = `http://127.0.0.1:${publicPort}`;
    await pause(1_000);

    const members = workers > 1 ? childrenOf(gateway.pid) : [];
    // the first worker lives to the end, so that what it holds on to shows
    const elder = members[0];
    const watched = [
      { name: workers > 1 ? 'primary' : 'gateway', pid: gateway.pid },
      ...(elder === undefined ? [] : [{ name: 'worker', pid: elder }]),
    ];
    /** Of the whole gateway, from its own metrics. */
    const timers = async (): Promise<number> => {
      const text = await (await fetch(`http://127.0.0.1:${adminPort}/metrics`)).text();
      return Number(/^banyan_active_resources\{type="Timeout"\} (\d+)/m.exec(text)?.[1] ?? Number.NaN);
    };
    const timersBefore = await timers();
    const filesBefore = watched.map(({ pid }) => filesOf(pid));
    const rss: number[][] = watched.map(() => []);

    const outages: Outage[] = [];
    const faults: { readonly from: number; readonly to: number; readonly who: string; readonly fault: Fault }[] = [];
    const placed = new Set<string>();
    const { visitors, stop } = visitorsOf(url, (id) => placed.add(id));
    const began = performance.now();
    const until = began + options.seconds * 1_000;
    let visits = 0;
    let reloads = 0;
    let restarts = 0;
    let workerKills = 0;

    const come = async (visitor: (typeof visitors)[number]): Promise<void> => {
      while (performance.now() < until) {
        const from = performance.now();
        const fault = await visitor.visit();
        visits++;
        if (fault !== null) faults.push({ from, to: performance.now(), who: visitor.name, fault });
        await pause(random(60));
      }
    };
    const every = async (seconds: number, act: (turn: number) => Promise<void>): Promise<void> => {
      if (seconds === 0) return;
      for (let turn = 0; ; turn++) {
        const left = until - performance.now();
        // the last seconds are calm, so that what was begun can end
        if (left < seconds * 1_000 + 2_000) return;
        await pause(seconds * 1_000);
        await act(turn);
      }
    };
    const reload = async (turn: number): Promise<void> => {
      configure();
      if (turn % 2 === 1) process.kill(gateway.pid, 'SIGHUP');
      reloads++;
    };
    const restart = async (turn: number): Promise<void> => {
      const i = turn % upstreams.length;
      const outage: Outage = { what: 'upstream', from: performance.now(), to: Number.POSITIVE_INFINITY };
      outages.push(outage);
      upstreams[i]!.child.kill('SIGKILL');
      await pause(DOWN_MS);
      upstreams[i] = await startUpstream(i);
      outage.to = performance.now();
      restarts++;
    };
    const kill = async (): Promise<void> => {
      const young = childrenOf(gateway.pid).filter((pid) => pid !== elder);
      const victim = young[random(young.length)];
      if (victim === undefined) return;
      outages.push({ what: 'worker', from: performance.now(), to: performance.now() });
      process.kill(victim, 'SIGKILL');
      workerKills++;
    };
    const sample = async (): Promise<void> => {
      let told = 0;
      while (performance.now() < until) {
        for (const [i, { pid }] of watched.entries()) rss[i]!.push(rssOf(pid));
        const seconds = Math.round((performance.now() - began) / 1_000);
        if (seconds >= told + 30) {
          told = seconds;
          const sizes = watched.map(({ name }, i) => `${name} ${Math.round(rss[i]!.at(-1)!)} MiB`).join(', ');
          say(
            `${seconds} s: ${visits} visits, ${faults.length} faults, ${reloads} reloads, ${restarts} restarts, ${workerKills} worker kills; ${sizes}`,
          );
        }
        await pause(SAMPLE_MS);
      }
    };
    await Promise.all([
      ...visitors.flatMap((visitor) => Array.from({ length: visitor.crowd }, () => come(visitor))),
      every(options.reloadEvery, reload),
      every(options.restartEvery, restart),
      workers > 1 ? every(options.killEvery, kill) : undefined,
      sample(),
    ]);
    stop();
    await pause(QUIET_MS);
    const filesAfter = watched.map(({ pid }) => filesOf(pid));
    const timersAfter = await timers();

    const within = (what: Outage['what'], from: number, to: number): boolean =>
      outages.some((outage) => outage.what === what && from <= outage.to + SLACK_MS && to >= outage.from - SLACK_MS);
    const byUpstream: Record<string, number> = {};
    let byWorkerKill = 0;
    const unexplained: string[] = [];
    for (const { from, to, who, fault } of faults) {
      const upstream = fault.kind === 'answer' || fault.kind === 'cut';
      if (upstream && within('upstream', from, to)) byUpstream[fault.kind] = (byUpstream[fault.kind] ?? 0) + 1;
      else if ((fault.kind === 'connection' || fault.kind === 'cut') && within('worker', from, to)) byWorkerKill++;
      else if (unexplained.length < 1_000)
        unexplained.push(
          `${((from - began) / 1000).toFixed(2)} s to ${((to - began) / 1000).toFixed(2)} s: ${who}: ${fault.kind}: ${fault.what}`,
        );
    }
    const written = logs.flatMap((log) => readFileSync(log, 'utf8').split('\n').filter(Boolean));
    const known = new Set(written);
    const fifth = (values: readonly number[], n: number): number =>
      median(values.slice(Math.floor((values.length * n) / 5), Math.floor((values.length * (n + 1)) / 5)));
    return {
      visits,
      reloads,
      restarts,
      workerKills,
      byUpstream,
      byWorkerKill,
      unexplained,
      timersBefore,
      timersAfter,
      lost: [...placed].filter((id) => !known.has(id)).length,
      doubled: written.length - known.size,
      processes: watched.map(({ name }, i) => ({
        name,
        rssBefore: Math.round(fifth(rss[i]!, 1)),
        rssAfter: Math.round(fifth(rss[i]!, 4)),
        filesBefore: filesBefore[i]!,
        filesAfter: filesAfter[i]!,
      })),
    };
  } finally {
    await shop.close();
  }
};
