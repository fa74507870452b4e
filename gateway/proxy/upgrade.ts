import { type ClientRequest, Agent as HttpAgent, type IncomingMessage } from 'node:http';
import { Agent as HttpsAgent } from 'node:https';
import type { Socket } from 'node:net';
import { AppError } from '@banyan/contracts/errors.ts';
import { createProxyMiddleware } from 'http-proxy-middleware';
import { type Call, type PrepareOptions, prepare } from './call.ts';
import { failureOf } from './failures.ts';
import { refuseRaw } from './refuse-raw.ts';

export type UpgradeOptions = PrepareOptions & {
  /** As an upstream's; they take turns. */
  readonly urls: readonly string[];
  readonly hostHeader?: 'preserve' | 'upstream';
  /** From the request to the upstream's answer to it. A tunnel that stands has no time limit. */
  readonly responseMs: number;
  /** Told of every upgrade that failed; for the log. */
  readonly onFailure?: (error: AppError) => void;
};

export type Upgrader = {
  /** Carries one upgrade: to a tunnel, to the upstream's own refusal, or to 502/504. Never throws; nothing on either socket crashes the process. */
  readonly upgrade: (req: IncomingMessage, socket: Socket, head: Buffer) => void;
  stop(): void;
};

/** One upgrade under way. */
type Crossing = { readonly call: Call; readonly protocol: string; readonly socket: Socket; answered: boolean };

/**
 * Carries connection upgrades through http-proxy-middleware. It knows only GET and `websocket`, folds repeated fields, believes X-Forwarded-* and
 * leaves sockets behind, so it gets a plain stand-in for the request, and what goes out is set here, from the prepared call.
 */
export const createUpgrader = (options: UpgradeOptions): Upgrader => {
  const crossings = new WeakMap<IncomingMessage, Crossing>();
  const origins = options.urls.map((url) => new URL(url));
  // Half-open, so that a FIN from one side does not cut off what the other still sends.
  const agentOptions = { keepAlive: false, allowHalfOpen: true };
  const agent = origins[0]?.protocol === 'https:' ? new HttpsAgent(agentOptions) : new HttpAgent(agentOptions);
  let turn = 0;

  const fail = (crossing: Crossing, error: AppError): void => {
    options.onFailure?.(error);
    if (crossing.answered) crossing.socket.destroy();
    else refuseRaw(crossing.socket, error);
    crossing.answered = true;
  };

  const send = (request: ClientRequest, standIn: IncomingMessage): void => {
    const crossing = crossings.get(standIn);
    if (crossing === undefined) return;
    const { call, protocol, socket } = crossing;
    for (const name of request.getHeaderNames()) request.removeHeader(name);
    const headers = [...call.headers, 'Connection', 'Upgrade', 'Upgrade', protocol];
    if (options.hostHeader === 'upstream') headers[1] = request.host;
    for (let i = 0; i < headers.length; i += 2) request.appendHeader(headers[i]!, headers[i + 1]!);
    request.path = call.target;
    request.method = call.method;

    const timer = setTimeout(() => {
      fail(crossing, new AppError('upstream-timeout', 'The upstream did not answer in time', { sent: 'maybe' }));
      request.destroy();
    }, options.responseMs);
    const leave = () => request.destroy();
    socket.once('close', leave);
    const settle = () => {
      clearTimeout(timer);
      socket.off('close', leave);
    };
    request.once('close', settle);
    request.once('response', (response) => {
      settle();
      crossing.answered = true;
      socket.once('finish', () => socket.destroy());
      socket.once('close', () => response.destroy());
    });
    request.once('upgrade', (_response, upstreamSocket: Socket) => {
      settle();
      crossing.answered = true;
      tie(socket, upstreamSocket);
    });
  };

  const middleware = createProxyMiddleware<IncomingMessage>({
    router: () => origins[turn++ % origins.length]!.origin,
    target: options.urls[0],
    pathFilter: () => true,
    agent,
    ejectPlugins: true,
    plugins: [
      (server) => {
        server.on('error', (error, standIn) => {
          const crossing = crossings.get(standIn as IncomingMessage);
          if (crossing === undefined || crossing.answered) return;
          const code = (error as NodeJS.ErrnoException).code ?? '';
          fail(crossing, failureOf(error, { started: !UNREACHED.has(code), begun: false }));
        });
        server.on('proxyReqWs', (request, standIn) => send(request as ClientRequest, standIn as IncomingMessage));
      },
    ],
  });

  return {
    upgrade: (req, socket, head) => {
      socket.on('error', () => {});
      let call: Call;
      try {
        call = prepare(req, null, options);
      } catch (error) {
        refuseRaw(
          socket,
          error instanceof AppError ? error : new AppError('internal', 'Something went wrong inside the gateway', { cause: error }),
        );
        return;
      }
      const standIn = standInFor(req);
      crossings.set(standIn, { call, protocol: req.headers.upgrade ?? 'websocket', socket, answered: false });
      middleware.upgrade(standIn, socket, head);
    },
    stop: () => agent.destroy(),
  };
};

/** Failures that come before a connection stands. */
const UNREACHED: ReadonlySet<string> = new Set(['ECONNREFUSED', 'ENOTFOUND', 'EAI_AGAIN', 'EHOSTUNREACH', 'ENETUNREACH', 'ETIMEDOUT']);

/** What the middleware gets to read: a GET for `/` that wants a WebSocket. */
const standInFor = (req: IncomingMessage): IncomingMessage => {
  const standIn = Object.create(req) as IncomingMessage;
  standIn.method = 'GET';
  standIn.url = '/';
  standIn.headers = { connection: 'Upgrade', upgrade: 'websocket' };
  return standIn;
};

/**
 * When one side of a tunnel is gone the other has nobody to talk to; a FIN alone goes through by the pipe and leaves the way back open. A reset
 * goes on as a reset, ahead of the middleware's own listeners, which would make a clean end of it.
 */
const tie = (client: Socket, upstream: Socket): void => {
  upstream.prependListener('error', () => client.resetAndDestroy());
  client.prependListener('error', () => upstream.resetAndDestroy());
  client.once('close', () => upstream.destroySoon());
  upstream.once('close', () => client.destroySoon());
};
