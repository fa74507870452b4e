import { WebSocketServer } from 'ws';

/** A WebSocket server that says back what it hears. */
const server = new WebSocketServer({ host: '127.0.0.1', port: 0, perMessageDeflate: false, backlog: 4096 }, () => {
  const { port } = server.address() as { port: number };
  process.send?.({ type: 'ready', urls: { http: `http://127.0.0.1:${port}` } });
});
server.on('connection', (socket) => socket.on('message', (data, isBinary) => socket.send(data, { binary: isBinary })));
process.once('SIGTERM', () => process.exit(0));
