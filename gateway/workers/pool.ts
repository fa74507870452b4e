import cluster, { type Worker as Process } from 'node:cluster';
import { randomUUID } from 'node:crypto';
import { setTimeout as sleep } from 'node:timers/promises';
import type { BreakerView, UpstreamView } from '@banyan/contracts/admin-api.ts';
import type { BreakerState } from '@banyan/contracts/vocabulary.ts';
import type { Logger } from 'pino';
import type { Config } from '../config.ts';
import type { FlagsSnapshot } from '../flags/flags.ts';
import type { Batch } from '../parity/evidence.ts';
import type { MetricsSnapshot } from '../telemetry/gathered.ts';
import { redeliverConnections } from './handoff.ts';
import { mergeUpstreams } from './merge.ts';
import { type Hello, parseToPrimary, sendable, type ToPrimary, type ToWorker } from './protocol.ts';

export type PoolDeps = {
  /** 2 or more. */
  readonly count: number;
  /** The script that a worker runs. */
  readonly script: string;
  /** Where compiled code is kept between runs, if anywhere: workers start in about half the time. */
  readonly compileCache: string | undefined;
  readonly log: Logger;
  /** Whole lines that workers write to stdout. Default: this process' own. */
  readonly writeLines: (lines: string) => void;
};

/** What a pool asks of its primary once it starts workers. */
export type PoolOwner = {
  /** What a new worker is told; asked anew for each. */
  readonly hello: () => Omit<Hello, 'type' | 'member' | 'of' | 'config'> & { readonly config: Config };
  readonly onMetrics: (id: string, snapshot: MetricsSnapshot) => void;
  readonly onEvidence: (batch: Batch) => void;
  readonly onWake: () => void;
  /** The worker with this member id has ended, however it did. */
  readonly onGone: (id: string) => void;
};

/** The workers as their primary sees them. Nothing here waits for a worker longer than it says. */
export type Workers = {
  readonly count: number;
  /** Starts all; resolves when all listen, to the address of their first listener. @throws Error in one line when they cannot */
  start(owner: PoolOwner): Promise<string>;
  /** All drain, at most `ms`, and end. Resolves to how many requests were cut. */
  stop(ms: number): Promise<number>;
  /** Ends all of them now. */
  kill(): void;
  /** New workers first, then the old ones drain, one at a time. */
  restart(): Promise<void>;
  /** Hands a new configuration to all; one that does not take it is named in the warnings, and a new one takes over from it. */
  adopt(config: Config): Promise<readonly string[]>;
  tellFlags(snapshot: FlagsSnapshot): void;
  tellBacklog(full: boolean): void;
  /** Resolves when every worker serves the flags told last; after a second at the latest. */
  settled(): Promise<void>;
  /** Fetches the latest metrics of all; who does not answer in time is represented by what it said last. */
  scrape(): Promise<void>;
  /** The worst state, and how many of the workers' circuits are not closed. */
  breakers(context: string): BreakerView;
  /** `own` with what the workers see: a host's worst state, and how many see it so when not all do. */
  upstreams(own: readonly UpstreamView[]): readonly UpstreamView[];
  serving(): { readonly listening: number; readonly of: number };
  load(): { readonly requests: number; readonly tunnels: number };
};

type Worker = {
  readonly id: string;
  readonly process: Process;
  /** When it began to listen, by the monotonic clock; null = not yet. */
  listensSince: number | null;
  /** `leaving` takes no further connection; its successor has been started. */
  state: 'starting' | 'listening' | 'leaving' | 'gone';
  why: string | null;
  load: { readonly requests: number; readonly tunnels: number };
  breakers: Readonly<Record<string, BreakerState>>;
  upstreams: readonly UpstreamView[];
  cut: number | null;
  /** Questions that it has not answered. */
  readonly asked: Map<number, (error: string | null) => void>;
  readonly ended: Promise<void>;
};

const SCRAPE_MS = 1_500;
const SETTLE_MS = 1_000;
const ADOPT_MS = 10_000;
/** Beyond `drain`: the last writes to the store. */
const GRACE_MS = 5_000;
/** One that dies before it listens, or so soon after, dies young. */
const YOUNG_MS = 1_000;
const MAX_YOUNG_DEATHS = 5;
const BACK_OFF_MS = 100;
const MAX_BACK_OFF_MS = 5_000;
const IDLE = { requests: 0, tunnels: 0 };
const WORST: readonly BreakerState[] = ['open', 'half-open', 'closed'];

const plural = (n: number, word: string): string => `${n} ${word}${n === 1 ? '' : 's'}`;

/** Forks workers of this program and keeps as many of them alive as it was told. */
export const createPool = (deps: PoolDeps): Workers => {
  const { count, log } = deps;
  const workers = new Set<Worker>();
  const timers = new Set<NodeJS.Timeout>();
  let owner: PoolOwner | null = null;
  let url = '';
  let sequence = 0;
  let stopping = false;
  let started = false;
  let youngDeaths = 0;
  let backlogFull = false;
  let settling: Promise<unknown> = Promise.resolve();
  const watchers = new Set<() => void>();
  let fail = (_why: string): void => undefined;

  const changed = (): void => {
    for (const look of [...watchers]) look();
  };
  const living = (): Worker[] => [...workers].filter((one) => one.state === 'starting' || one.state === 'listening');
  const tell = (worker: Worker, message: ToWorker): void => {
    if (worker.process.isConnected()) worker.process.send(message, () => undefined);
  };

  /** Resolves to null when the worker did what it was asked, else to why not. */
  const ask = (worker: Worker, ms: number, message: (seq: number) => ToWorker): Promise<string | null> =>
    new Promise((resolve) => {
      const seq = ++sequence;
      const settle = (error: string | null): void => {
        clearTimeout(timer);
        worker.asked.delete(seq);
        resolve(error);
      };
      const timer = setTimeout(() => settle(`it did not answer in ${ms} ms`), ms);
      worker.asked.set(seq, settle);
      tell(worker, message(seq));
    });

  const hear = (worker: Worker, message: ToPrimary): void => {
    switch (message.type) {
      case 'listening':
        if (worker.state !== 'starting') return;
        url = message.url;
        worker.state = 'listening';
        worker.listensSince = performance.now();
        changed();
        return;
      case 'failed':
        worker.why = message.why;
        return;
      case 'taken':
        worker.asked.get(message.seq)?.(message.error);
        return;
      case 'metrics':
        owner?.onMetrics(worker.id, message.metrics);
        if (message.seq !== null) worker.asked.get(message.seq)?.(null);
        return;
      case 'state':
        worker.load = message.load;
        worker.breakers = message.breakers;
        worker.upstreams = message.upstreams;
        return;
      case 'evidence':
        owner?.onEvidence(message.batch);
        return;
      case 'wake':
        owner?.onWake();
        return;
      case 'leaving':
        replace(worker);
        return;
      case 'left':
        owner?.onMetrics(worker.id, message.metrics);
        worker.cut = message.cut;
        return;
    }
  };

  /** The rest of its output comes with the end of its streams. */
  const passOn = (process: Process): void => {
    const { stdout, stderr } = process.process;
    let rest = '';
    stdout?.setEncoding('utf8').on('data', (text: string) => {
      const end = text.lastIndexOf('\n') + 1;
      if (end > 0) deps.writeLines(rest + text.slice(0, end));
      rest = end > 0 ? text.slice(end) : rest + text;
    });
    stdout?.on('end', () => rest !== '' && deps.writeLines(`${rest}\n`));
    stderr?.on('data', (text: Buffer) => globalThis.process.stderr.write(text));
  };

  const spawn = (): Worker => {
    const forked = cluster.fork(deps.compileCache === undefined ? {} : { NODE_COMPILE_CACHE: deps.compileCache });
    let finish = (): void => undefined;
    const worker: Worker = {
      id: randomUUID(),
      process: forked,
      listensSince: null,
      state: 'starting',
      why: null,
      load: IDLE,
      breakers: {},
      upstreams: [],
      cut: null,
      asked: new Map(),
      ended: new Promise((resolve) => {
        finish = resolve;
      }),
    };
    workers.add(worker);
    redeliverConnections(forked, () => listening().some((one) => one !== worker));
    passOn(forked);
    forked.on('message', (raw: unknown) => {
      const message = parseToPrimary(raw);
      if (message) hear(worker, message);
    });
    forked.on('error', (error) => {
      log.warn({ err: error, worker: forked.process.pid }, 'a worker could not be reached');
      if (forked.process.pid === undefined) exit('could not be forked');
    });
    forked.once('online', () => {
      if (!owner || stopping) return;
      const { config, ...hello } = owner.hello();
      tell(worker, { ...hello, type: 'hello', config: sendable(config), member: worker.id, of: count });
    });
    let parts = forked.process.pid === undefined ? 1 : 2;
    const end = (): void => {
      parts -= 1;
      // what it said last comes through the channel, which may close after the process has ended
      if (parts > 0) return;
      workers.delete(worker);
      for (const settle of [...worker.asked.values()]) settle('it has ended');
      owner?.onGone(worker.id);
      finish();
    };
    const exit = (how: string): void => {
      const before = worker.state;
      worker.state = 'gone';
      if (!stopping && before !== 'leaving') bury(worker, how);
      changed();
      end();
    };
    forked.once('exit', (code, signal) => exit(signal ?? `exit ${code}`));
    forked.once('disconnect', end);
    return worker;
  };

  const bury = (worker: Worker, how: string): void => {
    const young = worker.listensSince === null || performance.now() - worker.listensSince < YOUNG_MS;
    youngDeaths = young ? youngDeaths + 1 : 0;
    const why = worker.why ?? how;
    log.error({ worker: worker.process.process.pid, why }, 'a worker died; another one takes its place');
    if (!started && (worker.why !== null || youngDeaths >= MAX_YOUNG_DEATHS)) {
      fail(worker.why ?? `${plural(youngDeaths, 'worker')} died while starting, the last by ${how}`);
      return;
    }
    const waitMs = youngDeaths < 2 ? 0 : Math.min(MAX_BACK_OFF_MS, BACK_OFF_MS * 2 ** (youngDeaths - 2));
    const timer = setTimeout(() => {
      timers.delete(timer);
      topUp();
    }, waitMs);
    timers.add(timer);
  };
  const topUp = (): void => {
    while (!stopping && living().length < count) spawn();
  };

  const replace = (worker: Worker): void => {
    if (worker.state === 'leaving' || worker.state === 'gone') return;
    worker.state = 'leaving';
    topUp();
    changed();
  };

  /** Drains one worker; SIGKILL when it does not end, or has accepted nothing yet. */
  const retire = async (worker: Worker, ms: number): Promise<void> => {
    if (worker.state === 'starting') worker.process.process.kill('SIGKILL');
    worker.state = worker.state === 'gone' ? 'gone' : 'leaving';
    tell(worker, { type: 'stop', ms });
    const hard = setTimeout(() => {
      log.error({ worker: worker.process.process.pid }, 'a worker did not end in time and is killed');
      worker.process.process.kill('SIGKILL');
    }, ms + GRACE_MS);
    await worker.ended;
    clearTimeout(hard);
  };

  const until = (condition: () => boolean): Promise<void> =>
    new Promise((resolve) => {
      const look = (): void => {
        if (condition() && watchers.delete(look)) resolve();
      };
      watchers.add(look);
      look();
    });
  const listening = (): Worker[] => [...workers].filter((one) => one.state === 'listening');

  /** A new worker takes over; until it listens, and if it never does, the old one serves. */
  const succeed = async (old: Worker): Promise<boolean> => {
    const heir = spawn();
    await until(() => stopping || heir.state !== 'starting');
    if (stopping || heir.state !== 'listening') return false;
    // one that has gone by itself may have been replaced already
    const surplus = old.state === 'listening' ? old : living().length > count ? heir : null;
    if (surplus !== null) void retire(surplus, owner!.hello().config.drain);
    return true;
  };

  return {
    count,
    async start(by) {
      owner = by;
      cluster.setupPrimary({ exec: deps.script, args: [], silent: true, serialization: 'advanced' });
      const failed = new Promise<never>((_, reject) => {
        fail = (why) => reject(new Error(why));
      });
      failed.catch(() => undefined);
      topUp();
      await Promise.race([failed, until(() => listening().length >= count)]);
      started = true;
      return url;
    },
    async stop(ms) {
      stopping = true;
      fail('stopped while starting');
      changed();
      for (const timer of timers) clearTimeout(timer);
      const all = [...workers];
      await Promise.all(all.map((one) => retire(one, ms)));
      return all.reduce((sum, one) => sum + (one.cut ?? one.load.requests), 0);
    },
    kill() {
      stopping = true;
      for (const worker of workers) worker.process.process.kill('SIGKILL');
    },
    async restart() {
      for (const old of living())
        if (!(await succeed(old))) {
          log.error({ worker: old.process.process.pid }, 'a new worker could not take over: the others are not restarted');
          return;
        }
    },
    async adopt(config) {
      const sent = sendable(config);
      const warnings = await Promise.all(
        living().map(async (worker) => {
          const error = await ask(worker, ADOPT_MS, (seq) => ({ type: 'config', seq, config: sent }));
          if (error === null || worker.state === 'gone' || stopping) return [];
          const { pid } = worker.process.process;
          log.error({ worker: pid, error }, 'a worker keeps the old configuration, until a new one takes over');
          void succeed(worker);
          return [`worker ${pid} keeps the old configuration, until a new one takes over: ${error}`];
        }),
      );
      return warnings.flat();
    },
    tellFlags(flags) {
      settling = Promise.all(living().map((worker) => ask(worker, SETTLE_MS, (seq) => ({ type: 'flags', seq, flags }))));
    },
    tellBacklog(full) {
      if (full === backlogFull) return;
      backlogFull = full;
      for (const worker of living()) tell(worker, { type: 'backlog', full });
    },
    async settled() {
      // flags are told in a microtask of the change
      await sleep(0);
      await settling;
    },
    async scrape() {
      const asked = [...workers].filter((one) => one.state === 'listening' || one.state === 'leaving');
      await Promise.all(asked.map((worker) => ask(worker, SCRAPE_MS, (seq) => ({ type: 'scrape', seq }))));
    },
    breakers(context) {
      const states = listening().map((one) => one.breakers[context] ?? 'closed');
      return {
        state: WORST.find((state) => states.includes(state)) ?? 'closed',
        open: states.filter((state) => state !== 'closed').length,
        of: states.length,
      };
    },
    upstreams: (own) =>
      mergeUpstreams(
        own,
        listening().map((one) => one.upstreams),
      ),
    serving: () => ({ listening: stopping ? 0 : Math.min(count, listening().length), of: count }),
    load: () =>
      [...workers].reduce((sum, { load }) => ({ requests: sum.requests + load.requests, tunnels: sum.tunnels + load.tunnels }), IDLE),
  };
};
