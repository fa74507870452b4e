import { createServer } from 'node:http';
import { parseArgs } from 'node:util';

/** A tiny upstream: answers 1 KiB of JSON after `--delay` ms, or never with `--hang`; sends a POST's body back as it comes. */
const { values } = parseArgs({ options: { delay: { type: 'string', default: '0' }, hang: { type: 'boolean', default: false } } });
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
server.listen(0, '127.0.0.1', () => {
  const { port } = server.address() as { port: number };
  process.send?.({ type: 'ready', urls: { http: `http://127.0.0.1:${port}` } });
});
process.once('SIGTERM', () => process.exit(0));
