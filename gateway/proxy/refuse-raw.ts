import { STATUS_CODES } from 'node:http';
import type { Socket } from 'node:net';
import type { Duplex } from 'node:stream';
import { PSEUDONYM } from './headers.ts';

/** An answer where no ServerResponse exists. `destroySoon` because a paused socket would never notice the peer's leaving. */
export const refuseRaw = (stream: Duplex, status: number, why: string, errorType = 'http_request_error'): void => {
  const socket = stream as Socket;
  if (!socket.writable) {
    socket.destroy();
    return;
  }
  const title = STATUS_CODES[status] ?? 'Error';
  const body = JSON.stringify({ type: 'about:blank', title, status, detail: why });
  socket.write(
    `HTTP/1.1 ${status} ${title}\r\nContent-Type: application/problem+json\r\nContent-Length: ${Buffer.byteLength(body)}\r\n` +
      `Proxy-Status: ${PSEUDONYM}; error=${errorType}\r\n${status === 405 ? 'Allow: GET, HEAD, POST, PUT, PATCH, DELETE, OPTIONS\r\n' : ''}` +
      `Date: ${new Date().toUTCString()}\r\nConnection: close\r\n\r\n${body}`,
  );
  socket.destroySoon();
};
