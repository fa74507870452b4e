import { Agent, createServer, request } from 'node:http';
import { parseArgs } from 'node:util';

/**
 * Stands before one side and keeps account: answers `GET /item/ID` itself, passes everything else on to `--to URL`, and says at `GET /seen` which
 * ids it was asked for, by clients and by copies, and which commands (by key) with which status. `--side legacy|extracted`.
 */
const { values } = parseArgs({ options: { side: { type: 'string' }, to: { type: 'string' } } });
const asked = new Map<string, number>();
const copied = new Map<string, number>();
const commands = new Map<string, number[]>();
const agent = new Agent({ keepAlive: true, maxSockets: 64 });
const to = new URL(values.to!);

const server = createServer((req, res) => {
  const [, kind, id = ''] = (req.url ?? '/').split('/');
  if (kind === 'seen') {
    res
      .writeHead(200, { 'content-type': 'application/json' })
      .end(JSON.stringify({ asked: [...asked], copied: [...copied], commands: [...commands] }));
    return;
  }
  if (req.method === 'GET' && kind === 'item') {
    const seen = req.headers['banyan-shadow'] === undefined ? asked : copied;
    seen.set(id, (seen.get(id) ?? 0) + 1);
    const body = JSON.stringify({ id });
    res.writeHead(200, { 'content-type': 'application/json', 'content-length': body.length, 'x-side': values.side }).end(body);
    return;
  }
  const outgoing = request(
    { agent, host: to.hostname, port: to.port, method: req.method, path: req.url, headers: req.headers },
    (incoming) => {
      const key = req.headers['idempotency-key'];
      if (req.method === 'POST' && typeof key === 'string') commands.set(key, [...(commands.get(key) ?? []), incoming.statusCode ?? 0]);
      res.writeHead(incoming.statusCode ?? 502, incoming.rawHeaders);
      incoming.pipe(res);
      incoming.on('error', () => res.destroy());
    },
  );
  // whoever asks must see that there was no answer
  outgoing.on('error', () => res.destroy());
  res.on('close', () => outgoing.destroy());
  req.pipe(outgoing);
});
server.keepAliveTimeout = 60_000;
server.listen(0, '127.0.0.1', () => {
  const { port } = server.address() as { port: number };
  process.send?.({ type: 'ready', urls: { upstream: `http://127.0.0.1:${port}` } });
});
