import type { IncomingMessage } from 'node:http';
import type { Duplex } from 'node:stream';
import type { Request, Response } from 'express';
import { WebSocket, WebSocketServer } from 'ws';
import type { Order } from './orders.ts';

const MAX_LISTENERS = 1000;
/** A reader this far behind is dropped; it may come back and start anew. */
const MAX_BEHIND_BYTES = 256 * 1024;
const MAX_MESSAGE_BYTES = 1024 * 1024;

/** What is pushed to browsers: the SSE stream `/events` and the echo WebSocket `/ws`. */
export type Live = {
  /** Answers `GET /events`: `hello` at once, then `tick` each second and `order-placed` for every new order. */
  events(req: Request, res: Response): void;
  /** Takes the upgrade of `/ws` (subprotocol `shop.v1` if offered, `welcome` first, then echo); 404 for any other path. */
  upgrade(req: IncomingMessage, socket: Duplex, head: Buffer): void;
  placed(order: Order): void;
  /** Ends every stream and socket. */
  stop(): void;
};

const refuse = (socket: Duplex, status: string): void => {
  socket.end(`HTTP/1.1 ${status}\r\nConnection: close\r\nContent-Length: 0\r\n\r\n`);
};

const eventStreams = (): Pick<Live, 'events' | 'placed' | 'stop'> => {
  const listeners = new Set<Response>();
  let ticks = 0;
  let sent = 0;
  const broadcast = (event: string, data: unknown): void => {
    sent += 1;
    const frame = `id: ${sent}\nevent: ${event}\ndata: ${JSON.stringify(data)}\n\n`;
    for (const res of listeners) {
      if (res.writableLength > MAX_BEHIND_BYTES) res.destroy();
      else res.write(frame);
    }
  };
  const timer = setInterval(() => {
    ticks += 1;
    broadcast('tick', { n: ticks });
  }, 1000);
  return {
    events: (req, res) => {
      if (listeners.size >= MAX_LISTENERS) {
        res.status(503).set('Retry-After', '5').json({ error: 'too many listeners' });
        return;
      }
      res.writeHead(200, { 'Content-Type': 'text/event-stream', 'Cache-Control': 'no-store', 'X-Accel-Buffering': 'no' });
      if (req.method === 'HEAD') {
        res.end();
        return;
      }
      res.write('retry: 2000\nevent: hello\ndata: {"shop":"garden"}\n\n');
      listeners.add(res);
      res.once('close', () => listeners.delete(res));
    },
    placed: (order) => broadcast('order-placed', order),
    stop: () => {
      clearInterval(timer);
      for (const res of listeners) res.end();
    },
  };
};

/** @returns a running `Live`; it holds a timer until `stop`. */
export const startLive = (): Live => {
  const streams = eventStreams();
  const sockets = new WebSocketServer({
    noServer: true,
    clientTracking: true,
    maxPayload: MAX_MESSAGE_BYTES,
    handleProtocols: (offered) => (offered.has('shop.v1') ? 'shop.v1' : false),
  });
  sockets.on('connection', (ws: WebSocket) => {
    ws.on('error', () => ws.terminate());
    ws.on('message', (data, isBinary) => {
      if (ws.bufferedAmount > MAX_MESSAGE_BYTES * 4) ws.terminate();
      else if (ws.readyState === WebSocket.OPEN) ws.send(data, { binary: isBinary });
    });
    ws.send('welcome');
  });
  return {
    ...streams,
    upgrade: (req, socket, head) => {
      socket.on('error', () => socket.destroy());
      if ((req.url ?? '').split('?')[0] !== '/ws') refuse(socket, '404 Not Found');
      else if (sockets.clients.size >= MAX_LISTENERS) refuse(socket, '503 Service Unavailable');
      else sockets.handleUpgrade(req, socket, head, (ws) => sockets.emit('connection', ws, req));
    },
    stop: () => {
      streams.stop();
      for (const ws of sockets.clients) {
        ws.close(1001, 'shop is closing');
        // A peer that does not answer the close frame must not hold the shop open.
        const timer = setTimeout(() => ws.terminate(), 1000);
        ws.once('close', () => clearTimeout(timer));
      }
      sockets.close();
    },
  };
};
