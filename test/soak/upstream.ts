import { appendFileSync } from 'node:fs';
import { createServer } from 'node:http';
import { parseArgs } from 'node:util';
import { WebSocketServer } from 'ws';
import { bytesOf } from './bytes.ts';

/** A monolith that is killed often: everything it did stands in a file before it says so. `--port N --log FILE`. */
const { values } = parseArgs({ options: { port: { type: 'string' }, log: { type: 'string' } } });
const port = Number(values.port);
const log = values.log!;
const SLOW_MS = 300;
const EVENT_MS = 50;
const EVENTS = 8;

const server = createServer((req, res) => {
  const [, kind, detail = ''] = (req.url ?? '/').split('/');
  res.on('error', () => {});
  req.on('error', () => {});
  switch (`${req.method} ${kind}`) {
    case 'GET item': {
      const body = JSON.stringify({ id: detail, text: 'x'.repeat(1000) });
      res.writeHead(200, { 'content-type': 'application/json', 'content-length': body.length }).end(body);
      return;
    }
    case 'GET bytes':
      res.writeHead(200, { 'content-type': 'application/octet-stream' });
      bytesOf(Number(detail)).pipe(res);
      return;
    case 'POST echo':
      res.writeHead(200, { 'content-type': 'application/octet-stream' });
      req.pipe(res);
      return;
    case 'POST order':
      appendFileSync(log, `${detail}\n`);
      req.resume().on('end', () => res.writeHead(201, { 'content-type': 'application/json' }).end(JSON.stringify({ id: detail })));
      return;
    case 'GET slow':
      setTimeout(() => res.end(detail), SLOW_MS);
      return;
    case 'GET events': {
      res.writeHead(200, { 'content-type': 'text/event-stream' });
      let sent = 0;
      const timer = setInterval(() => {
        res.write(`data: ${++sent}\n\n`);
        if (sent < EVENTS) return;
        clearInterval(timer);
        res.end('data: end\n\n');
      }, EVENT_MS);
      res.on('close', () => clearInterval(timer));
      return;
    }
    default:
      res.writeHead(404).end();
  }
});
new WebSocketServer({ server }).on('connection', (socket) => {
  socket.on('error', () => {});
  socket.on('message', (data, isBinary) => socket.send(data, { binary: isBinary }));
});
server.listen(port, '127.0.0.1', () => process.send?.({ type: 'ready', urls: { upstream: `http://127.0.0.1:${port}` } }));
