import { type Check, checkHost } from './check.ts';
import { createConnector, type TlsOptions } from './connect.ts';

export type HealthOptions = {
  /** Null = a connection is enough. */
  readonly path: string | null;
  /** ms between two checks of one host. */
  readonly interval: number;
  /** ms for one check. */
  readonly timeout: number;
  readonly healthyAfter: number;
  readonly unhealthyAfter: number;
  readonly status: { readonly from: number; readonly to: number };
};

/** What the checks of one host have shown. `run` = equal results in a row; `why` = what its latest check failed of, null when it was good. */
export type Vitals = {
  readonly checked: boolean;
  readonly healthy: boolean;
  readonly good: boolean;
  readonly run: number;
  readonly why: string | null;
};

/** Before the first check a host is taken for healthy. */
export const UNCHECKED: Vitals = { checked: false, healthy: true, good: true, run: 0, why: null };

/** Pure. The very first check decides alone: nothing speaks against it yet. @param why null = the check was good */
export const judge = (before: Vitals, why: string | null, options: Pick<HealthOptions, 'healthyAfter' | 'unhealthyAfter'>): Vitals => {
  const good = why === null;
  const run = before.checked && before.good === good ? before.run + 1 : 1;
  const enough = run >= (good ? options.healthyAfter : options.unhealthyAfter);
  return { checked: true, healthy: enough || !before.checked ? good : before.healthy, good, run, why };
};

export type HealthDeps = {
  readonly urls: readonly string[];
  readonly tls: TlsOptions | null;
  readonly options: HealthOptions;
  /** Told once of each change. `why` as in `Vitals`. */
  readonly onChange?: (url: string, healthy: boolean, why: string | null) => void;
  /** Looks at one host once: its status, null without a path. Default: `checkHost`. */
  readonly look?: (url: string, check: Check) => Promise<number | null>;
  /** 0 <= x < 1, so that many gateways do not check in step. Default `Math.random`. */
  readonly random?: () => number;
};

/** Active checks of the hosts of one upstream. */
export type Health = {
  readonly vitals: ReadonlyMap<string, Vitals>;
  /** Calls `listener` with what is known now, then at each change. Gives the way to end it. */
  watch(listener: (url: string, healthy: boolean) => void): () => void;
  /** Begins at once; again = no effect. */
  start(): void;
  stop(): void;
};

const LEAST_PAUSE = 0.9;
const PAUSE_SPREAD = 0.2;

const reasonOf = (error: unknown): string => {
  const { code, message } = error as { code?: unknown; message?: unknown };
  return String(code ?? message ?? error).slice(0, 200);
};

/** Nothing is checked before `start`. @throws AppError `not-configured` as `createConnector` */
export const createHealth = (deps: HealthDeps): Health => {
  const { options } = deps;
  const random = deps.random ?? Math.random;
  const connectors = new Map(deps.urls.map((url) => [url, createConnector({ url, tls: deps.tls })]));
  const look = deps.look ?? ((url, check) => checkHost(connectors.get(url)!, check));
  const vitals = new Map<string, Vitals>(deps.urls.map((url) => [url, UNCHECKED]));
  const listeners = new Set<(url: string, healthy: boolean) => void>();
  const timers = new Map<string, NodeJS.Timeout>();
  let running: AbortController | null = null;

  const complaint = async (url: string, signal: AbortSignal): Promise<string | null> => {
    try {
      const status = await look(url, { path: options.path, timeoutMs: options.timeout, signal });
      const bad = status !== null && (status < options.status.from || status > options.status.to);
      return bad ? `${options.path} answers ${status}` : null;
    } catch (error) {
      return reasonOf(error);
    }
  };

  const round = async (url: string, signal: AbortSignal): Promise<void> => {
    const why = await complaint(url, signal);
    if (signal.aborted) return;
    const before = vitals.get(url)!;
    const after = judge(before, why, options);
    vitals.set(url, after);
    if (before.healthy !== after.healthy) {
      for (const listener of listeners) listener(url, after.healthy);
      deps.onChange?.(url, after.healthy, why);
    }
    const pause = options.interval * (LEAST_PAUSE + PAUSE_SPREAD * random());
    timers.set(url, setTimeout(() => void round(url, signal), pause).unref());
  };

  return {
    vitals,
    watch(listener) {
      listeners.add(listener);
      for (const [url, { healthy }] of vitals) listener(url, healthy);
      return () => void listeners.delete(listener);
    },
    start() {
      if (running !== null) return;
      running = new AbortController();
      for (const url of deps.urls) void round(url, running.signal);
    },
    stop() {
      running?.abort();
      running = null;
      for (const timer of timers.values()) clearTimeout(timer);
      timers.clear();
    },
  };
};
