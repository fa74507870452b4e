import type { Socket } from 'node:net';

/** What a client that knows of HTTP/2 beforehand begins with (RFC 9113 3.4). No request of HTTP/1.1 begins so. */
const PREFACE = 'PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n';

/**
 * Looks at the first bytes of a connection, puts them back, and tells what it speaks. A connection that has not said enough after `timeoutMs`, or
 * ends before, is closed without a word.
 */
export const tellProtocol = (socket: Socket, timeoutMs: number, tell: (protocol: 'http1' | 'http2') => void): void => {
  let head: Buffer = Buffer.alloc(0);
  const timer = setTimeout(() => socket.destroy(), timeoutMs);
  const stop = (): void => {
    clearTimeout(timer);
    socket.off('data', onData).off('end', onEnd).off('close', stop);
  };
  const onEnd = (): void => {
    socket.destroy();
  };
  const onData = (chunk: Buffer): void => {
    head = head.length === 0 ? chunk : Buffer.concat([head, chunk]);
    const seen = head.toString('latin1', 0, PREFACE.length);
    const fits = PREFACE.startsWith(seen);
    if (fits && seen.length < PREFACE.length) return;
    stop();
    socket.pause();
    socket.unshift(head);
    tell(fits ? 'http2' : 'http1');
  };
  socket.on('data', onData).on('end', onEnd).on('close', stop);
};
