import type { Socket } from 'node:net';
import type { ClientRequest, ClientResponse } from './client.ts';

/** How long a client that still uploads may go on after its answer, so that it reads the answer and not a reset. */
const LINGER_MS = 2_000;

const refused = new WeakSet<Socket>();

/** What comes on this connection is no longer served: it may be no request at all, or the client was told that the last answer is the last. */
export const isRefused = (socket: Socket): boolean => refused.has(socket);

export const markRefused = (socket: Socket): void => {
  refused.add(socket);
};

/**
 * Ends the connection with this answer, whose head must not be out yet, though the request's body is not read: `Connection: close`, then a
 * lingering close (RFC 9112 9.6), for a plain one would reset the connection under the client's still unread answer. An HTTP/2 stream sees to that itself.
 */
export const closeAfterReply = (req: ClientRequest, res: ClientResponse): void => {
  if (res.stream !== undefined) return;
  res.shouldKeepAlive = false;
  const { socket } = req;
  // What the client sent behind the body is read, but no longer served (RFC 9112 9.6).
  markRefused(socket);
  socket.destroySoon = () => {
    if (socket.destroyed) return;
    socket.end();
    req.resume();
    const timer = setTimeout(() => socket.destroy(), LINGER_MS);
    socket.once('close', () => clearTimeout(timer));
    socket.once('end', () => socket.destroy());
  };
};

/**
 * A reset, where there is one: only TCP knows it, so TLS and unix sockets are cut off without the farewell that a clean end has (RFC 8446 6.1). Nor is a
 * socket reset whose FIN is being sent: libuv refuses that (EINVAL), and Node 24 then never closes the socket.
 */
export const reset = (socket: Socket): void => {
  if (socket.writableEnded && !socket.writableFinished) {
    socket.destroy();
    return;
  }
  try {
    socket.resetAndDestroy();
  } catch {
    socket.destroy();
  }
};

/**
 * Makes a broken-off answer look broken off, never like a clean end: what came goes out, then the connection closes short of the announced
 * length or the last chunk. An HTTP/1.0 answer may end by closing, so there only a reset can say it.
 */
export const breakOff = (res: ClientResponse): void => {
  const { socket, stream } = res;
  if (stream !== undefined) stream.breakOff();
  else if (socket === null || socket.destroyed) res.destroy();
  else if (!res.headersSent) socket.destroy();
  else if (res.req.httpVersionMinor === 0) reset(socket);
  else {
    socket.destroySoon();
    const timer = setTimeout(() => socket.destroy(), LINGER_MS);
    socket.once('close', () => clearTimeout(timer));
  }
};
