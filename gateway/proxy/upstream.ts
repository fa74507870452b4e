import { AppError } from '@banyan/contracts/errors.ts';
import type { Dispatcher, Pool } from 'undici';
import type { Answer } from './answer.ts';
import type { Call, Leaver } from './call.ts';
import { type Connector, ConnectorAgent, createConnector, type TlsOptions } from './connect.ts';
import { dial } from './dial.ts';
import { clientLeft, failureOf } from './failures.ts';
import { withHeaders } from './headers.ts';
import { createPool, Exchange, type Information, type Load } from './pooled.ts';
import { StreamedExchange } from './streamed.ts';
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
  /** Most connections to each url. Default 256. Streamed bodies have as many of their own. */
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

export type ForwardOptions = {
  /** Sent as the body, with its length; a client's own body then stays untouched. */
  readonly body?: Buffer;
  /** Flat pairs that replace fields of the same name; an empty value removes. */
  readonly headers?: readonly string[];
  readonly signal?: AbortSignal;
  /** Interim answers go here instead of to the client. */
  readonly onInformation?: Information;
  /** Instead of `timeouts.responseMs`. */
  readonly timeoutMs?: number;
};

export type Upstream = {
  readonly name: string;
  /**
   * Sends a call on and gives the answer as soon as its head is here.
   * @throws AppError `upstream-unreachable` (sent: no), `upstream-timeout`, `upstream-reset`, `upstream-protocol`, `overloaded`, `client-left`.
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

type Host = Load & {
  readonly connector: Connector;
  readonly pool: Pool;
  readonly agent: ConnectorAgent;
  /** Epoch ms until which it is passed over. */
  downUntil: number;
  /** It has sent a `100 Continue` that nobody asked for, which undici takes for a broken answer: Node's client asks from now on. */
  says100: boolean;
};

type Reject = (error: AppError) => void;

const NOTHING: ForwardOptions = {};

/** How long a host that refused a connection is passed over while another is there. */
const DOWN_MS = 5_000;
/** Requests that may wait for a connection, as a multiple of the connections. */
const QUEUE_FACTOR = 8;

/** Safe methods (RFC 9110 9.2.1): a second try changes nothing. */
const SAFE: ReadonlySet<string> = new Set(['GET', 'HEAD', 'OPTIONS', 'TRACE', 'PROPFIND', 'REPORT', 'SEARCH']);

/** An upstream: where calls are sent on to. Holds connections until `stop()`. */
export const createUpstream = (options: UpstreamOptions): Upstream => {
  const connections = options.connections ?? 256;
  const maxHeaderBytes = options.maxHeaderBytes ?? 64 * 1024;
  const { connectMs, responseMs, idleMs } = options.timeouts;
  const hosts = options.urls.map((url) => openHost(url, options, connections, maxHeaderBytes));
  if (hosts.length === 0) throw new AppError('not-configured', `No url for the upstream ${options.name}`);
  let turn = 0;
  const inFlight = (): number => {
    let sum = 0;
    for (const host of hosts) sum += host.open;
    return sum;
  };

  const pick = (): Host => {
    if (hosts.length === 1) return hosts[0]!;
    const now = Date.now();
    for (let i = 0; i < hosts.length; i++) {
      const host = hosts[turn++ % hosts.length]!;
      if (host.downUntil <= now) return host;
    }
    return hosts[turn++ % hosts.length]!;
  };

  const headersFor = (call: Call, host: Host, forward: ForwardOptions): readonly string[] => {
    let headers = call.headers;
    if (options.hostHeader === 'upstream') headers = ['Host', host.connector.target.authority, ...headers.slice(2)];
    return forward.headers === undefined ? headers : withHeaders(headers, forward.headers);
  };

  /** Settles through callbacks rather than promises of its own: one promise for a request is enough. */
  const send = (call: Call, forward: ForwardOptions, tries: number, resolve: (answer: Answer) => void, reject: Reject): void => {
    const host = pick();
    const failed: Reject = (error) => {
      if (error.code === 'upstream-unreachable') {
        host.downUntil = Date.now() + DOWN_MS;
        // A body that streams may have lost its first bytes to the dead host.
        if (tries < hosts.length && (call.body === 'none' || forward.body !== undefined)) {
          send(call, forward, tries + 1, resolve, reject);
          return;
        }
      }
      reject(error);
    };
    if (host.says100 || needsStream(call, forward)) sendStreamed(call, host, forward, false, resolve, failed);
    else sendPooled(call, host, forward, resolve, failed);
  };

  const sendPooled = (call: Call, host: Host, forward: ForwardOptions, resolve: (answer: Answer) => void, reject: Reject): void => {
    const exchange: Exchange = new Exchange(call, host, forward.onInformation ?? null, resolve, (error) => {
      const unasked100 = isUnasked100(error);
      host.says100 ||= unasked100;
      if (isStale(call, forward, exchange, error) || (unasked100 && SAFE.has(call.method) && !call.left))
        sendStreamed(call, host, forward, true, resolve, reject);
      else reject(error);
    });
    const dispatch: Dispatcher.DispatchOptions = {
      path: call.target,
      method: call.method as Dispatcher.HttpMethod,
      headers: headersFor(call, host, forward) as string[],
      body: forward.body ?? null,
      headersTimeout: forward.timeoutMs ?? responseMs,
      bodyTimeout: idleMs,
    };
    host.pool.dispatch(dispatch, exchange);
    attach(call, exchange, forward.signal);
    if (host.open > connections) boundTheWait(exchange, forward.timeoutMs ?? responseMs);
  };

  const sendStreamed = (
    call: Call,
    host: Host,
    forward: ForwardOptions,
    fresh: boolean,
    resolve: (answer: Answer) => void,
    reject: Reject,
  ): void => {
    try {
      const exchange: StreamedExchange = new StreamedExchange(
        call,
        host,
        {
          connector: host.connector,
          agent: fresh ? null : host.agent,
          headers: headersFor(call, host, forward),
          body: forward.body,
          connectMs,
          responseMs: forward.timeoutMs ?? responseMs,
          idleMs,
          maxHeaderBytes,
          information: forward.onInformation ?? null,
        },
        resolve,
        (error) => {
          if (!fresh && isStale(call, forward, exchange, error)) sendStreamed(call, host, forward, true, resolve, reject);
          else reject(error);
        },
      );
      attach(call, exchange, forward.signal);
    } catch (error) {
      reject(failureOf(error, { started: false, begun: false }));
    }
  };

  return {
    name: options.name,
    authority: hosts[0]!.connector.target.authority,
    get inFlight() {
      return inFlight();
    },
    forward(call, forward = NOTHING) {
      if (call.left) return Promise.reject(clientLeft('no'));
      if (inFlight() >= connections * hosts.length * (1 + QUEUE_FACTOR)) {
        return Promise.reject(
          new AppError('overloaded', 'Too many requests are waiting for this upstream', { retryable: true, retryAfterSeconds: 1 }),
        );
      }
      return new Promise((resolve, reject) => send(call, forward, 1, resolve, reject));
    },
    async stand() {
      for (let tries = 1; ; tries++) {
        const host = pick();
        try {
          const socket = await dial(host.connector, connectMs);
          return { socket, host: options.hostHeader === 'upstream' ? host.connector.target.authority : null, responseMs, idleMs };
        } catch (error) {
          host.downUntil = Date.now() + DOWN_MS;
          if (tries >= hosts.length) throw error;
        }
      }
    },
    async stop() {
      await Promise.all(
        hosts.map((host) => {
          host.agent.destroy();
          return host.pool.destroy();
        }),
      );
    },
  };
};

const openHost = (url: string, options: UpstreamOptions, connections: number, maxHeaderBytes: number): Host => {
  const connector = createConnector({ url, tls: options.tls ?? null, onTrouble: options.onTrouble });
  return {
    connector,
    pool: createPool(connector, { connections, connectMs: options.timeouts.connectMs, maxHeaderBytes }),
    agent: new ConnectorAgent(connector, {
      keepAlive: true,
      maxSockets: connections,
      keepAliveMsecs: 1000,
      timeout: 0,
      scheduling: 'lifo',
    }),
    downUntil: 0,
    says100: false,
    open: 0,
  };
};

/** What undici refuses or would not send as it came: streamed bodies, Expect, `Connection: TE`, `*`, and a GET that says Content-Length: 0. */
const needsStream = (call: Call, forward: ForwardOptions): boolean => {
  if (call.target === '*') return true;
  if (forward.body !== undefined || call.req === null) return false;
  return call.body === 'stream' || call.expectContinue || call.acceptsTrailers || (call.contentLength === 0 && SAFE.has(call.method));
};

/** RFC 9110 9.2.2, RFC 9112 9.3.1: the server may close an idle connection just as we reuse it; nothing but a replay tells. */
const isStale = (call: Call, forward: ForwardOptions, exchange: Exchange | StreamedExchange, error: AppError): boolean =>
  exchange.reused &&
  !exchange.begun &&
  error.code === 'upstream-reset' &&
  forward.body === undefined &&
  call.body === 'none' &&
  SAFE.has(call.method) &&
  !call.left;

const isUnasked100 = (error: AppError): boolean => error.cause instanceof Error && error.cause.message === 'bad response';

const attach = (call: Call, exchange: Leaver, signal: AbortSignal | undefined): void => {
  if (call.res !== null) call.onLeft(exchange);
  if (signal === undefined) return;
  if (signal.aborted) exchange.clientLeft();
  else signal.addEventListener('abort', () => exchange.clientLeft(), { once: true });
};

/** undici's clocks start with the request on the wire; one that waits for a connection gets the same patience here. */
const boundTheWait = (exchange: Exchange, ms: number): void => {
  const timer = setTimeout(() => {
    if (!exchange.started)
      exchange.cancel(new AppError('upstream-timeout', 'No connection to the upstream became free in time', { retryable: true }));
  }, ms);
  timer.unref();
};
