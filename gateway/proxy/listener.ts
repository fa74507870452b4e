import { createServer as createHttpServer, type Server as HttpServer, type IncomingMessage, type ServerResponse } from 'node:http';
import { createServer as createHttpsServer, type Server as HttpsServer } from 'node:https';
import { type AddressInfo, Server as NetServer, type Socket } from 'node:net';
import type { TLSSocket } from 'node:tls';
import { AppError } from '@banyan/contracts/errors.ts';
import type { ClientRequest, ClientResponse } from './client.ts';
import { isRefused, markRefused } from './connection.ts';
import { answersItself, clientFault, oversize } from './first-look.ts';
import { createHttp2Front } from './http2/front.ts';
import { tellProtocol } from './preface.ts';
import { sendProblem } from './problem.ts';
import { refuseRaw } from './refuse-raw.ts';
import { type CertificateSource, createSecureListener } from './tls.ts';
import { watchFolders } from './watch-files.ts';

export type ListenerOptions = {
  readonly handler: (req: ClientRequest, res: ClientResponse) => void;
  /** Gets every upgrade that is taken; ending its tunnel at a drain is its own affair, up to the deadline. */
  readonly upgrade: (req: IncomingMessage, socket: Socket, head: Buffer) => void;
  /** An upgrade that it does not take is answered as a plain request. Default: takes all. */
  readonly takesUpgrade?: (req: IncomingMessage) => boolean;
  readonly limits: {
    /** From the first byte of a head (or the connection's start) to its last. */
    readonly headerTimeoutMs: number;
    /** An idle keep-alive connection is closed after it. */
    readonly idleTimeoutMs: number;
    /** Request line and fields together; more is 431, a target that alone is larger 414. */
    readonly maxHeaderBytes: number;
    readonly maxConnections: number;
    /** HTTP/2 streams that a client may have open at once on one connection. */
    readonly maxStreams: number;
  };
  /** Not empty = TLS; the first is for clients that ask for no name, or for none of these. */
  readonly certificates?: readonly CertificateSource[];
  /** Told when files of certificates changed and are used now (null), or cannot be used, when the former ones stay. */
  readonly onCertificates?: (error: Error | null) => void;
  /** HTTP/2 beside HTTP/1.1: by ALPN over TLS, else for clients that know beforehand. Default false. */
  readonly http2?: boolean;
};

export type Listener = {
  readonly server: HttpServer | HttpsServer;
  /** Resolves when bound; rejects with the system's error (EADDRINUSE, …). Port 0 picks a free one. */
  listen(host: string, port: number): Promise<AddressInfo>;
  address(): AddressInfo | null;
  /** True from `drain` on: answers then carry `Connection: close`. */
  readonly draining: boolean;
  readonly connections: number;
  readonly tunnels: number;
  /** Requests whose answer is not out yet; counted when asked. */
  readonly inFlight: number;
  /** For connections to come; files are read anew. Only for a listener that has certificates. @throws AppError `not-configured`, and keeps the former ones */
  setCertificates(sources: readonly CertificateSource[]): void;
  /** Stops accepting, closes idle connections, lets answers finish and tunnels be ended; whatever is left after `ms` is destroyed. Resolves to how many requests that cut. */
  drain(ms: number): Promise<number>;
};

/** Upgrades that must not be tunnelled: h2c would carry requests past every rule here; TLS is not ours to start. */
const NEVER_UPGRADED = /(?:^|,)\s*(?:h2c|h2|http\/[\d.]+|tls\/[\d.]+)\s*(?:,|$)/i;

/**
 * Is this upgrade taken? Not with a body, which would share one stream with the new protocol, and not for HEAD, whose refusal must have none.
 * Otherwise Upgrade is ignored (RFC 9110 7.8).
 */
const shouldUpgrade = (req: IncomingMessage): boolean =>
  req.headers.upgrade !== undefined &&
  req.method !== 'HEAD' &&
  !NEVER_UPGRADED.test(req.headers.upgrade) &&
  req.httpVersionMinor > 0 &&
  req.headers['transfer-encoding'] === undefined &&
  (req.headers['content-length'] ?? '0') === '0';

/**
 * Nothing behind it on its connection is read as a request. When an Upgrade is not taken Node drops whatever else the same read held, so that
 * what comes later may begin in the middle of a request. And Node keeps an HTTP/1.0 connection for `Proxy-Connection: keep-alive` too.
 */
const LAST = Symbol('last');
/** Its body would be lost: `readsNoBody`. */
const UNREADABLE = Symbol('unreadable');
type Incoming = IncomingMessage & { [LAST]?: true; [UNREADABLE]?: true };
const isLast = (req: IncomingMessage): boolean => (req as Incoming)[LAST] === true || (req.httpVersionMinor === 0 && closesAsOld(req));
const closesAsOld = (req: IncomingMessage): boolean => {
  const connection = req.headers.connection ?? '';
  return !/(?:^|,)\s*keep-alive\s*(?:,|$)/i.test(connection) || /(?:^|,)\s*close\s*(?:,|$)/i.test(connection);
};

/**
 * Node's parser knows no `chunked` with a tab behind it, refuses such a request, but not when it asks for an upgrade: then it takes it for one without a
 * body, and upstream would see an empty one. Node hands the value out without the tab, so it is looked for in the bytes of the read that ended the head.
 */
const readsNoBody = (req: IncomingMessage): boolean => {
  if (req.headers['transfer-encoding'] === undefined) return false;
  const { parser } = req.socket as Socket & { parser?: { getCurrentBuffer?(): Buffer | undefined } };
  const bytes = parser?.getCurrentBuffer?.()?.toString('latin1') ?? '';
  return /(?:^|\n)transfer-encoding:[^\r\n]*\t/i.test(bytes);
};

/** A client that asks again within this time of a drain's beginning learns from `Connection: close` that it has to go elsewhere. */
const IDLE_GRACE_MS = 500;
/** Requests that may wait on one connection for those before them; more than one read from a socket holds are not a browser's. */
const MAX_PIPELINED = 1_000;
/** A client that has sent FIN may be half-closed or gone, and only writing tells; so long it may hear nothing and still get its answer. */
const HALF_CLOSED_MS = 800;

const isOut = (res: ServerResponse): boolean => res.writableFinished || res.destroyed;

/** The public listener: Node's servers, set up to refuse what is ambiguous and never to die of a client. */
export const createListener = (options: ListenerOptions): Listener => {
  const { limits } = options;
  const secure =
    options.certificates === undefined || options.certificates.length === 0 ? null : createSecureListener(options.certificates);
  /** As taken in, those in the middle of a handshake among them. */
  const sockets = new Set<Socket>();
  /** The same as the requests come from: over TLS, its side of them. */
  const clients = secure === null ? sockets : new Set<Socket>();
  const tunnels = new Set<Socket>();
  /** The last response of each connection, and how many requests wait for their turn. */
  const latest = new WeakMap<Socket, ServerResponse>();
  const waiting = new WeakMap<Socket, number>();
  /** What was wrong with the bytes that a connection could not be read beyond. */
  const faults = new WeakMap<Socket, AppError>();
  let draining = false;

  const busy = (socket: Socket): boolean => {
    const res = latest.get(socket);
    return res !== undefined && !isOut(res);
  };

  const countInFlight = (): number => {
    let sum = http2?.streams ?? 0;
    for (const socket of clients) if (!tunnels.has(socket) && busy(socket)) sum += 1 + (waiting.get(socket) ?? 0);
    return sum;
  };

  const begin = (req: IncomingMessage, res: ServerResponse): void => {
    // Behind an answer that closes the connection nothing is a request any more (RFC 9112 9.6), though it may be read before the socket is gone.
    if (isRefused(req.socket) || !req.socket.writable) {
      // Where our side has ended already the client may still be reading the last answer.
      if (req.socket.writableEnded) req.resume();
      else res.destroy();
      return;
    }
    if (isLast(req)) {
      res.shouldKeepAlive = false;
      markRefused(req.socket);
    }
    if (draining) res.shouldKeepAlive = false;
    const fault = oversize(req, limits.maxHeaderBytes) ?? ((req as Incoming)[UNREADABLE] === true ? clientFault(undefined, 0) : null);
    if (fault !== null) {
      // It was looked at no further: what stands behind it may be no request.
      res.shouldKeepAlive = false;
      markRefused(req.socket);
      sendProblem(req, res, fault);
    } else if (!answersItself(req, res, limits.idleTimeoutMs)) options.handler(req, res);
  };

  /** Node hands out pipelined requests all at once and orders only the answers; a GET must not overtake the POST before it (RFC 9112 9.3.2). */
  const serve = (req: IncomingMessage, res: ServerResponse): void => {
    const { socket } = req;
    const before = latest.get(socket);
    latest.set(socket, res);
    if (before === undefined || isOut(before)) {
      begin(req, res);
      return;
    }
    const count = (waiting.get(socket) ?? 0) + 1;
    if (count > MAX_PIPELINED) {
      socket.destroy();
      return;
    }
    waiting.set(socket, count);
    before.once('close', () => {
      waiting.set(socket, waiting.get(socket)! - 1);
      if (!socket.writable) return;
      const fault = req.complete ? undefined : faults.get(socket);
      if (fault === undefined) begin(req, res);
      else refuseRaw(socket, fault, req.method);
    });
  };

  const giveUpHalfClosed = (socket: Socket): void => {
    if (tunnels.has(socket)) return;
    let written = socket.bytesWritten;
    const timer = setInterval(() => {
      if (socket.bytesWritten === written && socket.writableLength === 0) socket.destroy();
      written = socket.bytesWritten;
    }, HALF_CLOSED_MS);
    socket.once('close', () => clearInterval(timer));
  };

  const serverOptions = {
    connectionsCheckingInterval: 500,
    headersTimeout: limits.headerTimeoutMs,
    requestTimeout: 0,
    keepAliveTimeout: limits.idleTimeoutMs,
    maxHeaderSize: 2 * limits.maxHeaderBytes,
    insecureHTTPParser: false,
    requireHostHeader: false,
    noDelay: true,
    // One that comes while an answer is still due would mix its tunnel into it.
    shouldUpgradeCallback: (req: IncomingMessage) => {
      const taken = shouldUpgrade(req) && !busy(req.socket) && options.takesUpgrade?.(req) !== false;
      if (!taken) {
        (req as Incoming)[LAST] = true;
        if (readsNoBody(req)) (req as Incoming)[UNREADABLE] = true;
      }
      return taken;
    },
  };
  const server =
    secure === null
      ? createHttpServer(serverOptions, serve)
      : createHttpsServer(
          {
            ...serverOptions,
            ...secure.options,
            ALPNProtocols: options.http2 ? ['h2', 'http/1.1'] : ['http/1.1'],
            handshakeTimeout: limits.headerTimeoutMs,
          },
          serve,
        );
  const http2 = options.http2
    ? createHttp2Front({
        limits,
        handler: (req, res) => {
          const fault = oversize(req, limits.maxHeaderBytes, req.headBytes);
          if (fault !== null) sendProblem(req, res, fault);
          else if (!answersItself(req, res, limits.idleTimeoutMs)) options.handler(req, res);
        },
      })
    : null;
  server.maxConnections = limits.maxConnections;
  // A worker that is full would otherwise send the connection round among workers that are full too.
  (server as typeof server & { dropMaxConnection: boolean }).dropMaxConnection = true;
  // Bounded by bytes already; Node would drop the fields beyond a count in silence.
  server.maxHeadersCount = 0;
  server.timeout = 0;
  // Not in Node's documentation: without it a FIN makes the server drop the answer that is still due.
  (server as typeof server & { httpAllowHalfOpen: boolean }).httpAllowHalfOpen = true;

  const track = (set: Set<Socket>, socket: Socket): void => {
    set.add(socket);
    socket.on('close', () => set.delete(socket));
    socket.on('error', () => {});
  };
  const ready = secure === null ? 'connection' : 'secureConnection';
  if (http2 !== null) {
    // Node's own listener begins HTTP/1.1 with every connection.
    const [beginHttp1] = server.listeners(ready) as ((this: typeof server, socket: Socket) => void)[];
    server.removeAllListeners(ready);
    server.on(ready, (socket: Socket | TLSSocket) => {
      if ('alpnProtocol' in socket) {
        if (socket.alpnProtocol === 'h2') http2.accept(socket);
        else beginHttp1!.call(server, socket);
        return;
      }
      tellProtocol(socket, limits.headerTimeoutMs, (protocol) => {
        if (protocol === 'http2') http2.accept(socket);
        else {
          beginHttp1!.call(server, socket);
          socket.resume();
        }
      });
    });
  }
  if (secure !== null) {
    server.on('connection', (socket: Socket) => track(sockets, socket));
    // Nobody to answer: there is no HTTP yet.
    server.removeAllListeners('tlsClientError');
    server.on('tlsClientError', (_error, socket: Socket) => socket.destroy());
  }
  server.on(ready, (socket: Socket) => {
    // Over TLS only from here: a FIN amid the handshake ends it.
    socket.allowHalfOpen = true;
    track(clients, socket);
    socket.on('end', () => giveUpHalfClosed(socket));
  });
  server.on('checkContinue', serve);
  server.on('checkExpectation', serve);
  server.on('connect', (_req, stream) => {
    const socket = stream as Socket;
    socket.on('error', () => {});
    const refuse = (): void => refuseRaw(socket, new AppError('method-not-allowed', 'CONNECT is not offered here'));
    if (!busy(socket)) {
      refuse();
      return;
    }
    // Behind requests that are answered first. Node has let go of the connection and no longer tells an answer when it may go on.
    latest.get(socket)!.once('close', refuse);
    socket.on('drain', () => (socket as Socket & { _httpMessage?: ServerResponse })._httpMessage?.emit('drain'));
  });
  server.on('upgrade', (req, stream, head) => {
    const socket = stream as Socket;
    socket.on('error', () => {});
    if (draining || isRefused(socket)) {
      refuseRaw(socket, new AppError('draining', 'The gateway is shutting down', { retryable: true }));
      return;
    }
    const fault = oversize(req, limits.maxHeaderBytes);
    if (fault !== null) {
      refuseRaw(socket, fault);
      return;
    }
    tunnels.add(socket);
    socket.once('close', () => tunnels.delete(socket));
    options.upgrade(req, socket, head);
  });
  server.on('clientError', (error: NodeJS.ErrnoException, stream) => {
    const socket = stream as Socket;
    if (faults.has(socket)) return;
    const fault = clientFault(error.code, limits.maxHeaderBytes);
    faults.set(socket, fault);
    const res = latest.get(socket);
    if (error.code === 'HPE_CLOSED_CONNECTION' && res !== undefined) {
      // `Connection: close`, even in a trailer: what is behind it is nobody's request, and gets no answer.
      // a socket that is not read any more would not notice the client's leaving
      const close = (): void => socket.destroySoon();
      if (isOut(res)) close();
      else res.once('close', close);
      return;
    }
    if (error.code === 'ECONNRESET' || !socket.writable) socket.destroy();
    else if (res === undefined || isOut(res)) refuseRaw(socket, fault);
    else if (res.req.complete) {
      // Spoilt behind a whole request, which is answered first.
      res.once('close', () => refuseRaw(socket, fault));
    } else if (res.headersSent) socket.destroy();
    // One that still waits for its turn is refused when that comes.
    else if ((waiting.get(socket) ?? 0) === 0) refuseRaw(socket, fault, res.req.method);
  });

  let unwatch = (): void => undefined;
  const watchCertificates = (): void => {
    unwatch();
    if (secure === null || !isSecure(server) || draining) return;
    unwatch = watchFolders(secure.paths, () => {
      try {
        if (secure.refresh(server)) options.onCertificates?.(null);
      } catch (error) {
        options.onCertificates?.(error as Error);
      }
    });
  };

  return {
    server,
    listen: (host, port) =>
      new Promise((resolve, reject) => {
        server.once('error', reject);
        server.listen({ host, port }, () => {
          server.off('error', reject);
          watchCertificates();
          resolve(server.address() as AddressInfo);
        });
      }),
    address: () => server.address() as AddressInfo | null,
    get draining() {
      return draining;
    },
    get connections() {
      return sockets.size;
    },
    get tunnels() {
      return tunnels.size;
    },
    get inFlight() {
      return countInFlight();
    },
    setCertificates(sources) {
      if (secure === null || !isSecure(server)) return;
      secure.replace(server, sources);
      watchCertificates();
    },
    drain(ms) {
      draining = true;
      let cut = 0;
      return new Promise((resolve) => {
        http2?.drain();
        unwatch();
        for (const socket of clients) {
          const res = latest.get(socket);
          if (res !== undefined && !res.headersSent) res.shouldKeepAlive = false;
        }
        let grace = true;
        setTimeout(
          () => {
            grace = false;
          },
          Math.min(IDLE_GRACE_MS, ms / 2),
        ).unref();
        const idle = setInterval(() => {
          if (grace) return;
          server.closeIdleConnections();
          // Node holds a connection that has never said a word (a browser's, opened ahead) for a busy one.
          for (const socket of sockets) if (socket.bytesRead === 0) socket.destroy();
          if (secure !== null) for (const socket of clients) if (socket.bytesRead === 0) socket.destroy();
        }, 100);
        const deadline = setTimeout(() => {
          cut = countInFlight();
          for (const socket of sockets) socket.destroy();
        }, ms);
        // Node's own close would end idle connections at once, under a request that may be on its way.
        NetServer.prototype.close.call(server, () => {
          clearInterval(idle);
          // now only its timer
          server.close();
          clearTimeout(deadline);
          http2?.stop();
          // The server reports closed a moment before its last sockets do.
          const settle = () => (sockets.size === 0 ? resolve(cut) : setImmediate(settle));
          settle();
        });
      });
    },
  };
};

const isSecure = (server: HttpServer | HttpsServer): server is HttpsServer => 'setSecureContext' in server;
