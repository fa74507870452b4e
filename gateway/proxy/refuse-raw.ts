import { STATUS_CODES } from 'node:http';
import type { Socket } from 'node:net';
import type { Duplex } from 'node:stream';
import { type AppError, problemOf } from '@banyan/contracts/errors.ts';
import { proxyStatusOf } from './failures.ts';
import { METHODS, PSEUDONYM } from './headers.ts';

/** An answer where no ServerResponse exists; to HEAD without its body. `destroySoon` because a paused socket would never notice the peer's leaving. */
export const refuseRaw = (stream: Duplex, error: AppError, method?: string): void => {
  const socket = stream as Socket;
  if (!socket.writable) {
    socket.destroy();
    return;
  }
  const problem = problemOf(error);
  const body = JSON.stringify(problem);
  socket.write(
    `HTTP/1.1 ${problem.status} ${STATUS_CODES[problem.status] ?? 'Error'}\r\nContent-Type: application/problem+json\r\n` +
      `Content-Length: ${Buffer.byteLength(body)}\r\nCache-Control: no-store\r\nProxy-Status: ${PSEUDONYM}; error=${proxyStatusOf(error)}\r\n` +
      `${problem.status === 405 ? `Allow: ${METHODS}\r\n` : ''}Date: ${new Date().toUTCString()}\r\nConnection: close\r\n\r\n${method === 'HEAD' ? '' : body}`,
  );
  socket.destroySoon();
};
