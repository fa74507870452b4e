import { AppError } from '@banyan/contracts/errors.ts';
import type { HostState } from '@banyan/contracts/vocabulary.ts';
import type { Answer } from './answer.ts';
import type { Call } from './call.ts';
import { Exchange, type ForwardOptions, type Host, type Owner } from './client-exchange.ts';
import { Pool } from './client-pool.ts';
import { type Connector, createConnector, type TlsOptions } from './connect.ts';
import { dial } from './dial.ts';
import { clientLeft } from './failures.ts';
import type { Health } from './health.ts';
import { Hosts, newHost, type OutlierOptions } from './hosts.ts';
import type { Standing } from './upgrade.ts';

export type UpstreamOptions = {
  /** For messages only. */
  readonly name: string;
  /** `http://host:port`, `https://…` without a path, or `unix:/path`; at least one. */
  readonly urls: readonly string[];
  /** For `https:` urls. Default: the public authorities, no certificate of our own. */
  readonly tls?: TlsOptions | null;
  /** Default null = no host is left out for how it answers. */
  readonly outlier?: OutlierOptions | null;
  /** Most connections to each url. Default 256. */
  readonly connections?: number;
  readonly timeouts: {
    readonly connectMs: number;
    /** From the request sent to the head of the answer. */
    readonly responseMs: number;
    /** Between two pieces of a body, either way. */
    readonly idleMs: number;
  };
  /** Host as the client sent it, or that of `url` (`localhost` behind a unix socket). Default `preserve`. */
  readonly hostHeader?: 'preserve' | 'upstream';
  /** Largest response head, bytes. Default 64 KiB. */
  readonly maxHeaderBytes?: number;
};

/** What an upstream hears and tells of its hosts. */
export type HostWatch = {
  /** Active checks of the same urls; whoever made them starts and stops them. */
  readonly health?: Health | null;
  /** Told when files of certificates changed and cannot be used; the former ones stay. */
  readonly onTrouble?: (error: Error) => void;
  /** Told when a host is left out for so many ms, and, with null, when it is back. */
  readonly onEjection?: (url: string, ejectedMs: number | null) => void;
};

/** `detail` = why it is left out; null while it is not. */
type HostView = { readonly url: string; readonly state: HostState; readonly detail: string | null };

export type Upstream = {
  readonly name: string;
  /**
   * Sends a call on and gives the answer as soon as its head is here.
   * @throws AppError `upstream-unreachable` (sent: no), `upstream-timeout`, `upstream-reset`, `upstream-protocol`, `overloaded`, `client-left`,
   * `bad-request` for what cannot be written as one request.
   */
  forward(call: Call, options?: ForwardOptions): Promise<Answer>;
  /** `Host` for requests of our own: that of the first url. */
  readonly authority: string;
  /**
   * A connection of its own for an upgrade, to a host as a request finds it, or to another when it cannot be reached. Whoever gets it closes it.
   * @throws AppError `upstream-unreachable` (sent: no)
   */
  stand(): Promise<Standing>;
  hosts(): HostView[];
  /** Exchanges that have not ended, whether they wait for a connection, a head or the rest of a body. */
  readonly inFlight: number;
  /** Closes every connection, breaking what is in flight. */
  stop(): Promise<void>;
};

type KnownHost = Host & { readonly connector: Connector };

const NOTHING: ForwardOptions = {};

/** Most hosts that one request looks for a connection at: each may cost the connect time-out. */
const MOST_TRIED = 3;
/** Requests that may wait for a connection, as a multiple of the connections. */
const QUEUE_FACTOR = 8;

/** An upstream: where calls are sent on to. Holds connections until `stop()`. */
export const createUpstream = (options: UpstreamOptions, watch: HostWatch = {}): Upstream => {
  const connections = options.connections ?? 256;
  const { connectMs, responseMs, idleMs } = options.timeouts;
  const hosts = options.urls.map((url) => openHost(url, connections, options, watch));
  if (hosts.length === 0) throw new AppError('not-configured', `No url for the upstream ${options.name}`);
  const most = connections * hosts.length * (1 + QUEUE_FACTOR);
  const inFlight = (): number => {
    let sum = 0;
    for (const host of hosts) sum += host.pool.open;
    return sum;
  };

  const choice = new Hosts(hosts, {
    outlier: options.outlier ?? null,
    now: () => performance.now(),
    random: Math.random,
    onEjection: (host, ejectedMs) => watch.onEjection?.(host.url, ejectedMs),
  });
  const unwatch = watch.health?.watch((url, healthy) => choice.setHealth(url, healthy));

  /** The next host after these have failed, if one may still be looked for. */
  const next = (tried: readonly Host[]): KnownHost | null => (tried.length < MOST_TRIED ? choice.other(tried) : null);

  const owner: Owner = {
    responseMs,
    idleMs,
    watch: hosts.length === 1 ? null : choice,
    again(exchange, host, error) {
      // A body that streams may have lost its first bytes.
      if (exchange.started && exchange.bodied) return false;
      if (error.code !== 'upstream-unreachable') {
        if (error.code !== 'upstream-reset' || exchange.begun || !exchange.safe) return false;
        if (exchange.stale(error)) {
          exchange.send(host, true);
          return true;
        }
        if (exchange.replayed) return false;
        exchange.replayed = true;
      }
      exchange.tried ??= [];
      exchange.tried.push(host);
      const other = next(exchange.tried);
      if (other === null) return false;
      exchange.send(other, false);
      return true;
    },
  };

  return {
    name: options.name,
    authority: hosts[0]!.connector.target.authority,
    get inFlight() {
      return inFlight();
    },
    forward(call, forward = NOTHING) {
      if (call.left) return Promise.reject(clientLeft('no'));
      if (inFlight() >= most) {
        return Promise.reject(
          new AppError('overloaded', 'Too many requests are waiting for this upstream', { retryable: true, retryAfterSeconds: 1 }),
        );
      }
      return new Promise((resolve, reject) => {
        const exchange = new Exchange(call, forward, owner, resolve, reject);
        exchange.send(choice.pick(), false);
        attach(call, exchange, forward.signal);
      });
    },
    async stand() {
      const tried: KnownHost[] = [];
      for (let host: KnownHost | null = choice.pick(); ; ) {
        try {
          const socket = await dial(host.connector, connectMs);
          return { socket, host: host.hostHeader, responseMs, idleMs };
        } catch (error) {
          owner.watch?.failed(host);
          tried.push(host);
          host = next(tried);
          if (host === null) throw error;
        }
      }
    },
    hosts: () =>
      hosts.map((host) => {
        const state = choice.stateOf(host);
        const why = state === 'unhealthy' ? watch.health?.vitals.get(host.url)?.why : `failed ${host.failures} times in a row`;
        return { url: host.connector.target.url, state, detail: state === 'healthy' ? null : (why ?? null) };
      }),
    stop() {
      unwatch?.();
      for (const host of hosts) host.pool.stop();
      return Promise.resolve();
    },
  };
};

const openHost = (url: string, connections: number, options: UpstreamOptions, { onTrouble }: HostWatch): KnownHost => {
  const connector = createConnector({ url, tls: options.tls ?? null, onTrouble });
  const pool = new Pool({
    connector,
    connections,
    connectMs: options.timeouts.connectMs,
    maxHeaderBytes: options.maxHeaderBytes ?? 64 * 1024,
  });
  const hostHeader = options.hostHeader === 'upstream' ? connector.target.authority : null;
  return { ...newHost(url), pool, connector, hostHeader };
};

const attach = (call: Call, exchange: Exchange, signal: AbortSignal | undefined): void => {
  call.onLeft(exchange);
  if (signal === undefined) return;
  if (signal.aborted) exchange.clientLeft();
  else signal.addEventListener('abort', () => exchange.clientLeft(), { once: true });
};
