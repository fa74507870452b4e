import { createServer as createHttp1 } from 'node:http';
import { createServer as createHttp2, type Http2Session } from 'node:http2';
import { createServer, type Server, type Socket } from 'node:net';
import { StartError } from './errors.ts';
import type { HttpRequest, HttpResponse } from './protocol.ts';

export type ListenerDeps = {
  readonly host: string;
  /** 0 = any free one. */
  readonly port: number;
  readonly maxConnections: number;
  readonly handle: (req: HttpRequest, res: HttpResponse) => Promise<void>;
};

export type Listener = { readonly url: string; readonly stop: () => Promise<void> };

/** A connection that says nothing, or nothing more, for so long is closed. Longer than any SDK keeps an idle socket. */
const IDLE_MS = 120_000;
const STOP_MS = 2_000;

const listen = (server: Server, host: string, port: number): Promise<number> =>
  new Promise((resolve, reject) => {
    server.once('error', (error: NodeJS.ErrnoException) =>
      reject(
        new StartError(
          error.code === 'EADDRINUSE'
            ? `${host}:${port} is in use; stop what listens there or choose another --port`
            : `cannot listen on ${host}:${port}: ${error.message}`,
        ),
      ),
    );
    server.listen(port, host, () => {
      const address = server.address();
      resolve(typeof address === 'object' && address ? address.port : port);
    });
  });

/**
 * One port for HTTP/1.1 and for HTTP/2 without TLS, which the SDK's default client speaks: an HTTP/2 connection opens with `PRI * HTTP/2.0`
 * (RFC 9113, 3.4), so its first three bytes tell. `stop` lets requests finish for at most 2 s.
 * @throws StartError when the port cannot be had.
 */
export const startListener = async (d: ListenerDeps): Promise<Listener> => {
  const sockets = new Set<Socket>();
  const sessions = new Set<Http2Session>();
  let busy = 0;
  let idle: (() => void) | undefined;
  const handle = (req: HttpRequest, res: HttpResponse): void => {
    busy += 1;
    res.once('close', () => {
      busy -= 1;
      if (busy === 0) idle?.();
    });
    res.on('error', () => undefined);
    void d.handle(req, res);
  };

  const http1 = createHttp1({ keepAliveTimeout: IDLE_MS }, handle);
  http1.timeout = IDLE_MS;
  const http2 = createHttp2({}, handle);
  http2.on('session', (session) => {
    sessions.add(session);
    session.setTimeout(IDLE_MS, () => session.close());
    session.once('close', () => sessions.delete(session));
    session.on('error', () => undefined);
  });
  http2.on('sessionError', () => undefined);

  const choose = (socket: Socket, start: Buffer): void => {
    socket.setTimeout(0);
    socket.removeAllListeners('timeout');
    socket.unshift(start);
    (start.subarray(0, 3).toString('latin1') === 'PRI' ? http2 : http1).emit('connection', socket);
  };
  const server = createServer((socket) => {
    sockets.add(socket);
    socket.once('close', () => sockets.delete(socket));
    socket.on('error', () => socket.destroy());
    socket.setNoDelay(true);
    socket.setTimeout(IDLE_MS, () => socket.destroy());
    let start: Buffer = Buffer.alloc(0);
    const peek = (): void => {
      const chunk = socket.read() as Buffer | null;
      if (chunk === null) return;
      start = Buffer.concat([start, chunk]);
      if (start.length < 3) return;
      socket.off('readable', peek);
      choose(socket, start);
    };
    socket.on('readable', peek);
  });
  server.maxConnections = d.maxConnections;
  const port = await listen(server, d.host, d.port);
  const host = d.host.includes(':') ? `[${d.host}]` : d.host;

  return {
    url: `http://${host}:${port}`,
    stop: async () => {
      const closed = new Promise<void>((resolve) => void server.close(() => resolve()));
      if (busy > 0) {
        let timer: NodeJS.Timeout | undefined;
        await Promise.race([
          new Promise<void>((resolve) => {
            idle = resolve;
          }),
          new Promise<void>((resolve) => {
            timer = setTimeout(resolve, STOP_MS);
          }),
        ]);
        clearTimeout(timer);
      }
      for (const session of sessions) session.destroy();
      for (const socket of sockets) socket.destroy();
      http1.close();
      http2.close();
      await closed;
    },
  };
};
