import { createServer } from 'node:http';
import { parseArgs } from 'node:util';

/** One side: answers `GET /item/ID` and says at `GET /seen` which ids it was asked for, by clients and by copies. `--side legacy|extracted`. */
const { values } = parseArgs({ options: { side: { type: 'string' } } });
const asked = new Map<string, number>();
const copied = new Map<string, number>();

const server = createServer((req, res) => {
  const [, kind, id = ''] = (req.url ?? '/').split('/');
  if (kind === 'seen') {
    res.writeHead(200, { 'content-type': 'application/json' }).end(JSON.stringify({ asked: [...asked], copied: [...copied] }));
    return;
  }
  if (req.method !== 'GET' || kind !== 'item') {
    res.writeHead(404).end();
    return;
  }
  const seen = req.headers['banyan-shadow'] === undefined ? asked : copied;
  seen.set(id, (seen.get(id) ?? 0) + 1);
  const body = JSON.stringify({ id });
  res.writeHead(200, { 'content-type': 'application/json', 'content-length': body.length, 'x-side': values.side }).end(body);
});
server.keepAliveTimeout = 60_000;
server.listen(0, '127.0.0.1', () => {
  const { port } = server.address() as { port: number };
  process.send?.({ type: 'ready', urls: { upstream: `http://127.0.0.1:${port}` } });
});
