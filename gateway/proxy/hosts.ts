import type { AppError } from '@banyan/contracts/errors.ts';
import type { HostState } from '@banyan/contracts/vocabulary.ts';

export type OutlierOptions = {
  /** Failures in a row that eject a host. */
  readonly consecutiveFailures: number;
  /** First ejection, ms; doubles each time, up to ten times this. */
  readonly ejection: number;
  /** Share of the hosts that may be ejected at once, basis points, rounded down but at least one; 0 = none. One host always stays. */
  readonly maxEjected: number;
};

/** What is known of one host of an upstream; changed by `Hosts` only. */
export type HostRecord = {
  /** As configured. */
  readonly url: string;
  /** `open` = exchanges that have not ended. */
  readonly pool: { readonly open: number };
  /** As the active checks say; true while there are none. */
  healthy: boolean;
  /** Failures of real traffic in a row. */
  failures: number;
  /** When its ejection ends; null = it is not ejected. */
  ejectedUntil: number | null;
  /** How long its latest ejection was, and when it ended. */
  ejectedMs: number;
  returnedAt: number;
};

/** A host of which nothing bad is known. */
export const newHost = (url: string): Omit<HostRecord, 'pool'> => ({
  url,
  healthy: true,
  failures: 0,
  ejectedUntil: null,
  ejectedMs: 0,
  returnedAt: Number.NEGATIVE_INFINITY,
});

export type HostsOptions = {
  /** Null = nobody is ever ejected. */
  readonly outlier: OutlierOptions | null;
  /** ms, monotonic. */
  readonly now: () => number;
  /** 0 <= x < 1. */
  readonly random: () => number;
  /** Told of ejections and returns. */
  readonly onEjection?: ((host: HostRecord, ejectedMs: number | null) => void) | undefined;
};

const LONGEST = 10;
const NEVER = Number.POSITIVE_INFINITY;

/**
 * Chooses among the hosts of one upstream. Power of two choices: of two random hosts the one with fewer exchanges under way. Taking turns would go on
 * sending a slow host its full share, and the least loaded of all makes every gateway run to the same host at once; two picks do neither, and the
 * fullest queue grows with log log n instead of log n (Mitzenmacher, The Power of Two Choices in Randomized Load Balancing, 2001).
 * When no host may be chosen all of them are: an answer of a host that is thought dead is worth more than none.
 */
export class Hosts<H extends HostRecord> {
  readonly all: readonly H[];
  readonly #options: HostsOptions;
  /** Most that may be ejected at once. */
  readonly #most: number;
  #usable: readonly H[];
  #ejected = 0;
  /** When the first of the ejected returns. */
  #returnAt = NEVER;

  constructor(all: readonly H[], options: HostsOptions) {
    this.all = all;
    this.#options = options;
    const share = options.outlier?.maxEjected ?? 0;
    this.#most = share === 0 ? 0 : Math.min(all.length - 1, Math.max(1, Math.floor((all.length * share) / 10_000)));
    this.#usable = all;
  }

  pick(): H {
    if (this.#returnAt !== NEVER) this.#release();
    const from = this.#usable.length === 0 ? this.all : this.#usable;
    const { length } = from;
    if (length === 1) return from[0]!;
    const { random } = this.#options;
    const first = Math.floor(random() * length);
    let second = Math.floor(random() * (length - 1));
    if (second >= first) second++;
    return from[second]!.pool.open < from[first]!.pool.open ? from[second]! : from[first]!;
  }

  /** Another host for a second try: the least loaded that was not tried; null when there is none. */
  other(tried: readonly HostRecord[]): H | null {
    if (this.#returnAt !== NEVER) this.#release();
    return leastLoaded(this.#usable, tried) ?? leastLoaded(this.all, tried);
  }

  /** A whole answer below 500. */
  succeeded(host: HostRecord): void {
    host.failures = 0;
  }

  /** A failure that speaks against the host (`isHostFault`), or an answer of 500 and above. */
  failed(host: HostRecord): void {
    const { outlier, now, onEjection } = this.#options;
    host.failures++;
    if (outlier === null || host.failures < outlier.consecutiveFailures || host.ejectedUntil !== null || !host.healthy) return;
    if (this.#ejected >= this.#most || this.#usable.length <= 1) return;
    const at = now();
    // One that has held out as long as it was away begins anew.
    const again = at - host.returnedAt <= host.ejectedMs;
    host.ejectedMs = again ? Math.min(host.ejectedMs * 2, outlier.ejection * LONGEST) : outlier.ejection;
    host.ejectedUntil = at + host.ejectedMs;
    this.#refresh();
    onEjection?.(host, host.ejectedMs);
  }

  /** What active checks have found. A host that was down and is back has been repaired: its ejection ends too. */
  setHealth(url: string, healthy: boolean): void {
    const host = this.all.find((one) => one.url === url);
    if (host === undefined || host.healthy === healthy) return;
    host.healthy = healthy;
    if (healthy) {
      host.failures = 0;
      host.ejectedUntil = null;
    }
    this.#refresh();
  }

  stateOf(host: HostRecord): HostState {
    if (!host.healthy) return 'unhealthy';
    return host.ejectedUntil !== null && host.ejectedUntil > this.#options.now() ? 'ejected' : 'healthy';
  }

  #release(): void {
    const at = this.#options.now();
    if (at < this.#returnAt) return;
    for (const host of this.all) {
      if (host.ejectedUntil === null || host.ejectedUntil > at) continue;
      host.returnedAt = host.ejectedUntil;
      host.ejectedUntil = null;
      host.failures = 0;
      this.#options.onEjection?.(host, null);
    }
    this.#refresh();
  }

  #refresh(): void {
    this.#usable = this.all.filter((host) => host.healthy && host.ejectedUntil === null);
    this.#ejected = 0;
    this.#returnAt = NEVER;
    for (const { ejectedUntil } of this.all) {
      if (ejectedUntil === null) continue;
      this.#ejected++;
      this.#returnAt = Math.min(this.#returnAt, ejectedUntil);
    }
  }
}

const leastLoaded = <H extends HostRecord>(hosts: readonly H[], except: readonly HostRecord[]): H | null => {
  let least: H | null = null;
  for (const host of hosts) if (!except.includes(host) && (least === null || host.pool.open < least.pool.open)) least = host;
  return least;
};

/** Does a failure speak against the host? A client that leaves, a bad request and a queue of our own that stood too long do not. */
export const isHostFault = (error: AppError): boolean =>
  error.code === 'upstream-unreachable' ||
  error.code === 'upstream-reset' ||
  error.code === 'upstream-protocol' ||
  (error.code === 'upstream-timeout' && error.sent !== 'no');
