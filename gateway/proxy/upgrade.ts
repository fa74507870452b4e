import { type AgentOptions, type ClientRequest, Agent as HttpAgent, type IncomingMessage, ServerResponse } from 'node:http';
import type { Socket } from 'node:net';
import { AppError } from '@banyan/contracts/errors.ts';
import { createProxyMiddleware } from 'http-proxy-middleware';
import { Answer } from './answer.ts';
import type { Call } from './call.ts';
import { clientLeft, failureOf } from './failures.ts';
import { cleanReason, filterTrailers, responseHeaders, VIA } from './headers.ts';
import { refuseRaw } from './refuse-raw.ts';
import { type Delivered, reply } from './reply.ts';
import { type Closure, Tunnel } from './tunnel.ts';

/** A connection to an upstream that stands, and how to speak on it. */
export type Standing = {
  readonly socket: Socket;
  /** The Host that the upstream wants instead of the client's; null = the client's. */
  readonly host: string | null;
  /** From the request to the upstream's answer to it. */
  readonly responseMs: number;
  /** Between two pieces of a refusal's body. A tunnel has no such limit. */
  readonly idleMs: number;
};

/** What the upstream made of an upgrade. */
export type Carried =
  | { readonly status: 101; readonly tunnel: Tunnel }
  /** The upstream's own answer, on its way to the client. */
  | { readonly status: number; readonly delivered: Promise<Delivered> };

export type Upgrader = {
  /**
   * Carries one upgrade over a standing connection, which is its own from now on: to a tunnel, or to the upstream's refusal. Nothing on either
   * socket crashes the process.
   * @throws AppError `upstream-timeout`, `upstream-reset`, `upstream-protocol`, `client-left`; the client has been answered then.
   */
  carry(call: Call, req: IncomingMessage, socket: Socket, head: Buffer, standing: Standing): Promise<Carried>;
  readonly tunnels: ReadonlySet<Tunnel>;
  /** Ends every tunnel, and those that come yet, as `Tunnel.close` says. Resolves when none is left, at the latest after `limitMs`. */
  drain(handshakeMs: number, limitMs: number): Promise<void>;
  stop(): void;
};

/** A tunnel with one way shut may stand still so long, ms. */
const HALF_CLOSED_MS = 60_000;

/** One upgrade under way. */
type Crossing = {
  readonly call: Call;
  readonly req: IncomingMessage;
  readonly socket: Socket;
  readonly standing: Standing;
  readonly resolve: (carried: Carried) => void;
  readonly reject: (error: AppError) => void;
  answered: boolean;
};

/** All that the middleware reads of a request: a GET for `/` that wants a WebSocket. Of the socket it wants to know only that it has a server. */
const standInFor = (): IncomingMessage =>
  ({
    method: 'GET',
    url: '/',
    httpVersionMajor: 1,
    headers: { connection: 'Upgrade', upgrade: 'websocket' },
    socket: { server: {} },
  }) as unknown as IncomingMessage;

const isWebSocket = (response: IncomingMessage): boolean => response.headers.upgrade?.toLowerCase() === 'websocket';

/** Fields of a 1xx, which has no length whatever it says (RFC 9110 8.6). */
const interimHeaders = (rawHeaders: readonly string[]): string[] => {
  const out: string[] = [];
  for (let i = 0; i + 1 < rawHeaders.length; i += 2)
    if (rawHeaders[i]!.toLowerCase() !== 'content-length') out.push(rawHeaders[i]!, rawHeaders[i + 1]!);
  return responseHeaders(out);
};

/** The fields of a 101 as the middleware writes them: names as sent, repeats as lists. */
const switchingHeaders = (response: IncomingMessage): NodeJS.Dict<string[]> => {
  const headers: NodeJS.Dict<string[]> = Object.create(null);
  const raw = [...interimHeaders(response.rawHeaders), 'Via', VIA, 'Connection', 'Upgrade', 'Upgrade', response.headers.upgrade ?? ''];
  for (let i = 0; i < raw.length; i += 2) {
    const values = headers[raw[i]!];
    if (values === undefined) headers[raw[i]!] = [raw[i + 1]!];
    else values.push(raw[i + 1]!);
  }
  return headers;
};

/** Hands out connections that stand already, by the names they were left under. */
class StandingAgent extends HttpAgent {
  readonly #left = new Map<string, Socket>();
  #count = 0;

  leave(socket: Socket): string {
    const name = `standing-${++this.#count}`;
    this.#left.set(name, socket);
    return name;
  }

  override createConnection(options: AgentOptions & { host?: string }): Socket {
    const name = options.host ?? '';
    const socket = this.#left.get(name);
    this.#left.delete(name);
    if (socket === undefined) throw new Error('no connection was left for this upgrade');
    return socket;
  }
}

/**
 * Carries connection upgrades through http-proxy-middleware: it sends the request, writes the 101 and lays the pipes. It knows only GET and
 * `websocket`, folds repeated fields, believes X-Forwarded-*, opens connections without a limit of time, and rewrites refusals; so it gets a stand-in for
 * the request and a connection that stands, what goes out is set here from the prepared call, and a refusal takes the path of every other answer.
 */
export const createUpgrader = (options: { readonly halfClosedMs?: number } = {}): Upgrader => {
  const halfClosedMs = options.halfClosedMs ?? HALF_CLOSED_MS;
  const crossings = new WeakMap<IncomingMessage, Crossing>();
  const names = new WeakMap<IncomingMessage, string>();
  const tunnels = new Set<Tunnel>();
  const agent = new StandingAgent({ keepAlive: false });
  let draining: { handshakeMs: number; limitMs: number } | null = null;
  let drained: (() => void) | null = null;

  const fail = (crossing: Crossing, error: AppError): void => {
    if (crossing.answered) return;
    crossing.answered = true;
    // before the middleware ends the socket
    if (error.code === 'client-left') crossing.socket.destroy();
    else refuseRaw(crossing.socket, error);
    crossing.standing.socket.destroy();
    crossing.reject(error);
  };

  const open = (crossing: Crossing, response: IncomingMessage, upstream: Socket): void => {
    crossing.answered = true;
    const tunnel = new Tunnel(crossing.socket, upstream, isWebSocket(response), halfClosedMs);
    // the middleware writes the head as text, which would be UTF-8
    crossing.socket.setDefaultEncoding('latin1');
    response.headers = switchingHeaders(response) as IncomingMessage['headers'];
    tunnels.add(tunnel);
    tunnel.onClosed = () => {
      tunnels.delete(tunnel);
      if (tunnels.size === 0) drained?.();
    };
    crossing.resolve({ status: 101, tunnel });
    // behind the middleware, which lays its pipes in this turn
    if (draining !== null) setImmediate(close, tunnel, 'drained');
  };
  const close = (tunnel: Tunnel, closure: Closure): void => {
    if (draining !== null) tunnel.close(closure, draining.handshakeMs, draining.limitMs);
  };

  const refuse = (crossing: Crossing, response: IncomingMessage): void => {
    const { req, socket, standing } = crossing;
    crossing.answered = true;
    const res = new ServerResponse(req);
    res.shouldKeepAlive = false;
    res.assignSocket(socket);
    socket.on('drain', () => res.emit('drain'));
    res.once('finish', () => socket.destroySoon());
    standing.socket.setTimeout(standing.idleMs, () => response.destroy(new Error('the upstream fell silent')));
    const answer = answerOf(response);
    const delivered = reply(res, answer).catch((error) => {
      socket.destroy();
      throw error;
    });
    crossing.resolve({ status: answer.status, delivered });
  };

  const send = (request: ClientRequest, standIn: IncomingMessage): void => {
    const crossing = crossings.get(standIn);
    if (crossing === undefined) return;
    const { call, req, socket, standing } = crossing;
    for (const name of request.getHeaderNames()) request.removeHeader(name);
    const headers = [...call.headers, 'Connection', 'Upgrade', 'Upgrade', req.headers.upgrade ?? 'websocket'];
    if (standing.host !== null) headers[1] = standing.host;
    for (let i = 0; i < headers.length; i += 2) request.appendHeader(headers[i]!, headers[i + 1]!);
    request.path = call.target;
    request.method = call.method;

    const timer = setTimeout(() => {
      fail(crossing, new AppError('upstream-timeout', 'The upstream did not answer in time', { sent: 'maybe' }));
      request.destroy();
    }, standing.responseMs);
    const leave = () => {
      fail(crossing, clientLeft('maybe'));
      request.destroy();
    };
    socket.once('close', leave);
    const settle = () => {
      clearTimeout(timer);
      socket.off('close', leave);
    };
    request.once('close', settle);
    request.on('information', (info) => inform(socket, info.statusCode, info.statusMessage, info.rawHeaders));
    const respond = (response: IncomingMessage): void => {
      settle();
      socket.once('close', () => request.destroy());
      try {
        refuse(crossing, response);
      } catch (error) {
        crossing.answered = false;
        fail(crossing, failureOf(error, { started: true, begun: true }));
        request.destroy();
      }
    };
    // the middleware has set its own when this runs
    queueMicrotask(() => request.removeAllListeners('response').once('response', respond));
    request.once('upgrade', (response, upstream: Socket) => {
      settle();
      open(crossing, response, upstream);
    });
  };

  const middleware = createProxyMiddleware<IncomingMessage>({
    target: 'http://standing',
    router: (standIn) => ({ protocol: 'http:', host: names.get(standIn)!, port: 80 }),
    pathFilter: () => true,
    agent,
    ejectPlugins: true,
    plugins: [
      (server) => {
        server.on('error', (error, standIn) => {
          const crossing = crossings.get(standIn as IncomingMessage);
          if (crossing === undefined || crossing.answered) return;
          fail(crossing, crossing.socket.errored ? clientLeft('maybe') : failureOf(error, { started: true, begun: false }));
        });
        server.on('proxyReqWs', (request, standIn) => send(request as ClientRequest, standIn as IncomingMessage));
      },
    ],
  });

  return {
    tunnels,
    carry: (call, req, socket, head, standing) =>
      new Promise((resolve, reject) => {
        const standIn = standInFor();
        names.set(standIn, agent.leave(standing.socket));
        crossings.set(standIn, { call, req, socket, standing, resolve, reject, answered: false });
        middleware.upgrade(standIn, socket, head);
      }),
    drain(handshakeMs, limitMs) {
      draining = { handshakeMs, limitMs };
      for (const tunnel of tunnels) close(tunnel, 'drained');
      return new Promise((resolve) => {
        drained = resolve;
        if (tunnels.size === 0) resolve();
      });
    },
    stop() {
      for (const tunnel of tunnels) tunnel.destroy();
      agent.destroy();
    },
  };
};

/** Interim answers other than 101 pass (RFC 9110 15.2). Written raw: there is no ServerResponse yet. */
const inform = (socket: Socket, status: number, reason: string, rawHeaders: readonly string[]): void => {
  if (!socket.writable) return;
  const raw = interimHeaders(rawHeaders);
  let head = `HTTP/1.1 ${status} ${cleanReason(reason)}\r\n`;
  for (let i = 0; i + 1 < raw.length; i += 2) head += `${raw[i]}: ${raw[i + 1]}\r\n`;
  socket.write(`${head}\r\n`, 'latin1');
};

/** @throws AppError `upstream-protocol` */
const answerOf = (response: IncomingMessage): Answer => {
  const headers = responseHeaders(response.rawHeaders);
  const answer = new Answer(response.statusCode ?? 502, cleanReason(response.statusMessage ?? ''), headers, {
    pause: () => response.pause(),
    resume: () => response.resume(),
    abort: () => response.destroy(),
  });
  response.on('data', (chunk: Buffer) => answer.push(chunk));
  response.on('end', () => {
    if (response.complete) answer.finish(filterTrailers(response.rawTrailers));
  });
  const broken = (error?: Error): void => answer.break(failureOf(error ?? new Error('closed'), { started: true, begun: true }));
  response.on('error', broken);
  response.on('close', () => broken());
  return answer;
};
