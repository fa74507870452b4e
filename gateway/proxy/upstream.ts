import { AppError } from '@banyan/contracts/errors.ts';
import type { Answer } from './answer.ts';
import type { Call } from './call.ts';
import { Exchange, type ForwardOptions, type Host, type Owner } from './client-exchange.ts';
import { Pool } from './client-pool.ts';
import { type Connector, createConnector, type TlsOptions } from './connect.ts';
import { dial } from './dial.ts';
import { clientLeft } from './failures.ts';
import type { Standing } from './upgrade.ts';

export type UpstreamOptions = {
  /** For messages only. */
  readonly name: string;
  /** `http://host:port`, `https://…` without a path, or `unix:/path`. Several take turns; one that cannot be reached is left out for a while. */
  readonly urls: readonly string[];
  /** For `https:` urls. Default: the public authorities, no certificate of our own. */
  readonly tls?: TlsOptions | null;
  /** Told when files of certificates changed and cannot be used; the former ones stay. */
  readonly onTrouble?: (error: Error) => void;
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
   * A connection of its own for an upgrade, to the host whose turn it is, or to the next one while nobody can be reached. Whoever gets it closes it.
   * @throws AppError `upstream-unreachable` (sent: no)
   */
  stand(): Promise<Standing>;
  /** Exchanges that have not ended, whether they wait for a connection, a head or the rest of a body. */
  readonly inFlight: number;
  /** Closes every connection, breaking what is in flight. */
  stop(): Promise<void>;
};

type KnownHost = Host & {
  readonly connector: Connector;
  /** Epoch ms until which it is passed over. */
  downUntil: number;
};

const NOTHING: ForwardOptions = {};

/** How long a host that refused a connection is passed over while another is there. */
const DOWN_MS = 5_000;
/** Requests that may wait for a connection, as a multiple of the connections. */
const QUEUE_FACTOR = 8;

/** An upstream: where calls are sent on to. Holds connections until `stop()`. */
export const createUpstream = (options: UpstreamOptions): Upstream => {
  const connections = options.connections ?? 256;
  const { connectMs, responseMs, idleMs } = options.timeouts;
  const hosts = options.urls.map((url) => openHost(url, options, connections));
  if (hosts.length === 0) throw new AppError('not-configured', `No url for the upstream ${options.name}`);
  const most = connections * hosts.length * (1 + QUEUE_FACTOR);
  let turn = 0;
  const inFlight = (): number => {
    let sum = 0;
    for (const host of hosts) sum += host.pool.open;
    return sum;
  };

  const pick = (): KnownHost => {
    if (hosts.length === 1) return hosts[0]!;
    const now = Date.now();
    for (let i = 0; i < hosts.length; i++) {
      const host = hosts[turn++ % hosts.length]!;
      if (host.downUntil <= now) return host;
    }
    return hosts[turn++ % hosts.length]!;
  };

  const owner: Owner = {
    responseMs,
    idleMs,
    again(exchange, host, error) {
      if (error.code === 'upstream-unreachable') {
        (host as KnownHost).downUntil = Date.now() + DOWN_MS;
        if (exchange.tries >= hosts.length || (exchange.started && exchange.bodied)) return false;
        exchange.send(pick(), false);
        return true;
      }
      if (!isStale(exchange, error)) return false;
      exchange.send(host, true);
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
        exchange.send(pick(), false);
        attach(call, exchange, forward.signal);
      });
    },
    async stand() {
      for (let tries = 1; ; tries++) {
        const host = pick();
        try {
          const socket = await dial(host.connector, connectMs);
          return { socket, host: host.hostHeader, responseMs, idleMs };
        } catch (error) {
          host.downUntil = Date.now() + DOWN_MS;
          if (tries >= hosts.length) throw error;
        }
      }
    },
    stop() {
      for (const host of hosts) host.pool.stop();
      return Promise.resolve();
    },
  };
};

const openHost = (url: string, options: UpstreamOptions, connections: number): KnownHost => {
  const connector = createConnector({ url, tls: options.tls ?? null, onTrouble: options.onTrouble });
  return {
    connector,
    pool: new Pool({
      connector,
      connections,
      connectMs: options.timeouts.connectMs,
      maxHeaderBytes: options.maxHeaderBytes ?? 64 * 1024,
    }),
    hostHeader: options.hostHeader === 'upstream' ? connector.target.authority : null,
    downUntil: 0,
  };
};

/** RFC 9110 9.2.2, RFC 9112 9.3.1: the server may close an idle connection just as we reuse it; nothing but a replay tells. */
const isStale = (exchange: Exchange, error: AppError): boolean =>
  exchange.reused && !exchange.begun && error.code === 'upstream-reset' && !exchange.bodied && exchange.safe;

const attach = (call: Call, exchange: Exchange, signal: AbortSignal | undefined): void => {
  if (call.res !== null) call.onLeft(exchange);
  if (signal === undefined) return;
  if (signal.aborted) exchange.clientLeft();
  else signal.addEventListener('abort', () => exchange.clientLeft(), { once: true });
};
