import { createServer, type IncomingMessage, type Server, type ServerResponse } from 'node:http';
import type { AddressInfo, Socket } from 'node:net';
import { AppError } from '@banyan/contracts/errors.ts';
import { isRefused } from './connection.ts';
import { sendProblem } from './problem.ts';
import { refuseRaw } from './refuse-raw.ts';

export type ListenerOptions = {
  readonly handler: (req: IncomingMessage, res: ServerResponse) => void;
  readonly upgrade: (req: IncomingMessage, socket: Socket, head: Buffer) => void;
  readonly limits: {
    /** From the first byte of a head (or the connection's start) to its last. */
    readonly headerTimeoutMs: number;
    /** An idle keep-alive connection is closed after it. */
    readonly idleTimeoutMs: number;
    readonly maxHeaderBytes: number;
    readonly maxConnections: number;
  };
};

export type Listener = {
  readonly server: Server;
  /** Resolves when bound; rejects with the system's error (EADDRINUSE, …). Port 0 picks a free one. */
  listen(host: string, port: number): Promise<AddressInfo>;
  address(): AddressInfo | null;
  /** True from `drain` on: answers then carry `Connection: close`. */
  readonly draining: boolean;
  readonly connections: number;
  readonly tunnels: number;
  /** Stops accepting, closes idle connections, lets answers finish, ends tunnels; whatever is left after `ms` is destroyed. */
  drain(ms: number): Promise<void>;
};

/** Upgrades that must not be tunnelled: h2c would carry requests past every rule here; TLS is not ours to start. */
const NEVER_UPGRADED = /(?:^|,)\s*(?:h2c|h2|http\/[\d.]+|tls\/[\d.]+)\s*(?:,|$)/i;

/** Is this upgrade taken? A request with a body is not: its body and the new protocol would share one stream. Otherwise Upgrade is ignored (RFC 9110 7.8). */
const shouldUpgrade = (req: IncomingMessage): boolean =>
  req.headers.upgrade !== undefined &&
  !NEVER_UPGRADED.test(req.headers.upgrade) &&
  req.httpVersionMinor > 0 &&
  req.headers['transfer-encoding'] === undefined &&
  (req.headers['content-length'] ?? '0') === '0';

/** The public HTTP/1.1 listener: Node's server, set up to refuse what is ambiguous and never to die of a client. */
export const createListener = (options: ListenerOptions): Listener => {
  const { limits } = options;
  const sockets = new Set<Socket>();
  const tunnels = new Set<Socket>();
  const current = new WeakMap<Socket, ServerResponse>();
  let draining = false;

  const serve = (req: IncomingMessage, res: ServerResponse): void => {
    if (isRefused(req.socket)) {
      res.destroy();
      return;
    }
    current.set(req.socket, res);
    if (draining) res.shouldKeepAlive = false;
    options.handler(req, res);
  };

  const server = createServer(
    {
      connectionsCheckingInterval: 500,
      headersTimeout: limits.headerTimeoutMs,
      requestTimeout: 0,
      keepAliveTimeout: limits.idleTimeoutMs,
      maxHeaderSize: limits.maxHeaderBytes,
      insecureHTTPParser: false,
      requireHostHeader: false,
      noDelay: true,
      shouldUpgradeCallback: shouldUpgrade,
    },
    serve,
  );
  server.maxConnections = limits.maxConnections;
  // Bounded by bytes already; Node would drop the fields beyond a count in silence.
  server.maxHeadersCount = 0;
  server.timeout = 0;

  server.on('connection', (socket) => {
    sockets.add(socket);
    socket.on('close', () => sockets.delete(socket));
    socket.on('error', () => {});
  });
  server.on('checkContinue', serve);
  server.on('checkExpectation', (req, res) => {
    sendProblem(req, res, new AppError('expectation-failed', 'The only expectation met here is 100-continue'));
  });
  server.on('connect', (_req, socket) => refuseRaw(socket, 405, 'CONNECT is not offered here'));
  server.on('upgrade', (req, stream, head) => {
    const socket = stream as Socket;
    socket.on('error', () => {});
    if (draining || isRefused(socket)) {
      refuseRaw(socket, 503, 'The gateway is shutting down');
      return;
    }
    tunnels.add(socket);
    socket.once('close', () => tunnels.delete(socket));
    options.upgrade(req, socket, head);
  });
  server.on('clientError', (error: NodeJS.ErrnoException, stream) => {
    const socket = stream as Socket;
    const res = current.get(socket);
    const answering = res?.headersSent && !res.writableFinished;
    if (error.code === 'ECONNRESET' || !socket.writable || answering) socket.destroy();
    else refuseRaw(socket, ...clientFault(error.code));
  });

  return {
    server,
    listen: (host, port) =>
      new Promise((resolve, reject) => {
        server.once('error', reject);
        server.listen({ host, port }, () => {
          server.off('error', reject);
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
    drain(ms) {
      draining = true;
      return new Promise((resolve) => {
        const idle = setInterval(() => server.closeIdleConnections(), 100);
        const deadline = setTimeout(() => {
          for (const socket of sockets) socket.destroy();
        }, ms);
        server.close(() => {
          clearInterval(idle);
          clearTimeout(deadline);
          // The server reports closed a moment before its last sockets do.
          const settle = () => (sockets.size === 0 ? resolve() : setImmediate(settle));
          settle();
        });
        server.closeIdleConnections();
        for (const socket of tunnels) socket.end();
      });
    },
  };
};

const clientFault = (code: string | undefined): [number, string] => {
  switch (code) {
    case 'HPE_HEADER_OVERFLOW':
      return [431, 'The head is too large'];
    case 'HPE_CHUNK_EXTENSIONS_OVERFLOW':
      return [413, 'The chunk extensions are too large'];
    case 'ERR_HTTP_REQUEST_TIMEOUT':
      return [408, 'The head did not come in time'];
    default:
      return [400, 'This is not HTTP/1.1 as we read it'];
  }
};
