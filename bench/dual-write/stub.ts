import { createServer } from 'node:net';
import { bodyLength, HEAD_END } from './http.ts';

/**
 * A monolith that costs as little as one can, so that the two commits are what is measured: every request, whatever it asks, is answered 201 with an id
 * of its own. Bytes on bare sockets; requests on one connection come one after the other.
 */
let id = 0;
const server = createServer((socket) => {
  let pending = Buffer.alloc(0);
  socket.setNoDelay(true);
  socket.on('error', () => socket.destroy());
  socket.on('data', (chunk) => {
    pending = pending.length === 0 ? chunk : Buffer.concat([pending, chunk]);
    for (;;) {
      const end = pending.indexOf(HEAD_END);
      if (end < 0) return;
      const length = end + HEAD_END.length + bodyLength(pending.toString('latin1', 0, end));
      if (pending.length < length) return;
      pending = pending.subarray(length);
      id += 1;
      const body = `{"id":${id},"userId":"user-1","status":"placed"}`;
      socket.write(`HTTP/1.1 201 Created\r\nContent-Type: application/json\r\nContent-Length: ${body.length}\r\n\r\n${body}`);
    }
  });
});
server.listen(0, '127.0.0.1', () => {
  const { port } = server.address() as { port: number };
  process.send?.({ type: 'ready', urls: { http: `http://127.0.0.1:${port}` } });
});
process.once('SIGTERM', () => process.exit(0));
