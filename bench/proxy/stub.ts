import { createServer } from 'node:http';
import { createServer as createTcpServer, type Socket } from 'node:net';
import { Duplex } from 'node:stream';
import { parseArgs } from 'node:util';

/**
 * A tiny upstream: answers 1 KiB of JSON after `--delay` ms, or never with `--hang`; sends a POST's body back as it comes. With `--read N` it takes
 * N bytes of requests a second and connection.
 */
const { values } = parseArgs({
  options: { delay: { type: 'string', default: '0' }, hang: { type: 'boolean', default: false }, read: { type: 'string' } },
});
const delayMs = Number(values.delay);
const head = '{"name":"bench","text":"';
const body = Buffer.from(`${head}${'x'.repeat(1024 - head.length - 2)}"}`);

const server = createServer((req, res) => {
  if (req.method === 'POST') {
    res.writeHead(200, { 'content-type': 'application/octet-stream' });
    req.pipe(res);
    return;
  }
  req.resume();
  const answer = (): void => {
    res.writeHead(200, { 'content-type': 'application/json', 'content-length': body.length });
    res.end(body);
  };
  if (values.hang) return;
  if (delayMs > 0) setTimeout(answer, delayMs);
  else answer();
});
server.keepAliveTimeout = 60_000;

const PIECE_MS = 100;

/** A connection whose bytes are taken slowly: what is not taken yet stays in the kernel and, behind that, with whoever sends. */
const takenSlowly = (socket: Socket, bytesPerSecond: number): Duplex => {
  const piece = Math.max(1, Math.round((bytesPerSecond * PIECE_MS) / 1_000));
  const timer = setInterval(() => {
    const chunk = socket.read(Math.min(piece, socket.readableLength)) as Buffer | null;
    if (chunk !== null) slow.push(chunk);
  }, PIECE_MS);
  const slow = new Duplex({
    read: () => undefined,
    write: (chunk: Buffer, _encoding, done) => void socket.write(chunk, done),
    destroy: (error, done) => {
      clearInterval(timer);
      socket.destroy();
      done(error);
    },
  });
  socket.on('error', () => slow.destroy()).on('close', () => slow.destroy());
  // fills the buffer that the timer empties
  socket.on('readable', () => undefined);
  return slow;
};

const listener =
  values.read === undefined
    ? server
    : createTcpServer((socket) => void server.emit('connection', takenSlowly(socket, Number(values.read))));
listener.listen(0, '127.0.0.1', () => {
  const { port } = listener.address() as { port: number };
  process.send?.({ type: 'ready', urls: { http: `http://127.0.0.1:${port}` } });
});
process.once('SIGTERM', () => process.exit(0));
