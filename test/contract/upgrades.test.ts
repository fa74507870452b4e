import { once } from 'node:events';
import { mkdtemp, rm, writeFile } from 'node:fs/promises';
import { createServer, type IncomingMessage, type Server } from 'node:http';
import type { AddressInfo } from 'node:net';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterEach, beforeEach, describe, expect, it } from '@jest/globals';
import { WebSocket, WebSocketServer } from 'ws';
import { createGateway, type Gateway } from '../../gateway/compose.ts';
import { loadConfig } from '../../gateway/config.ts';
import { createLogger } from '../../gateway/telemetry/logger.ts';
import { rawConnect, statusOf } from '../harness/raw-http.ts';
import { until } from '../harness/wait.ts';

/** A side that says its name to each WebSocket and answers plain requests with it; `/no` refuses the upgrade with 503. */
type SideServer = {
  readonly url: string;
  readonly asked: string[];
  readonly plain: string[];
  readonly sockets: Set<WebSocket>;
  stop(): Promise<void>;
};

const startSide = async (name: string): Promise<SideServer> => {
  const asked: string[] = [];
  const plain: string[] = [];
  const server: Server = createServer((req, res) => {
    plain.push(`${req.method} ${req.url}`);
    req.resume();
    res.setHeader('x-side', name);
    res.end(name);
  });
  const webSockets = new WebSocketServer({ noServer: true });
  server.on('upgrade', (req: IncomingMessage, socket, head) => {
    asked.push(`${req.method} ${req.url}`);
    if (req.url === '/api/orders/no') {
      socket.end(`HTTP/1.1 503 Busy\r\nX-Side: ${name}\r\nContent-Length: 4\r\n\r\nbusy`);
      return;
    }
    webSockets.handleUpgrade(req, socket, head, (one) => one.send(name));
  });
  server.listen(0, '127.0.0.1');
  await once(server, 'listening');
  return {
    url: `http://127.0.0.1:${(server.address() as AddressInfo).port}`,
    asked,
    plain,
    sockets: webSockets.clients,
    async stop() {
      for (const one of webSockets.clients) one.terminate();
      server.closeAllConnections();
      if (!server.listening) return;
      server.close();
      await once(server, 'close');
    },
  };
};

let legacy: SideServer;
let extracted: SideServer;
let folder: string;
let gateway: Gateway | undefined;
let urls: { gateway: string; admin: string };
let lines: Record<string, unknown>[];

beforeEach(async () => {
  [legacy, extracted] = await Promise.all([startSide('legacy'), startSide('extracted')]);
  folder = await mkdtemp(join(tmpdir(), 'banyan-upgrades-'));
  lines = [];
});
afterEach(async () => {
  await Promise.all([legacy.stop(), extracted.stop()]);
  await gateway?.stop();
  gateway = undefined;
  await rm(folder, { recursive: true, force: true });
});

const order = (more: object): object => ({
  match: [
    { path: '/api/orders/**', methods: ['GET'] },
    { path: '/api/orders', methods: ['POST'] },
  ],
  else: 'legacy',
  extracted: { url: extracted.url },
  stickyKey: ['header:x-user-id'],
  ...more,
});

const write = (config: object): Promise<void> =>
  writeFile(
    join(folder, 'banyan.yaml'),
    JSON.stringify({
      version: 1,
      listen: '127.0.0.1:0',
      admin: { listen: '127.0.0.1:0' },
      legacy: { url: legacy.url },
      drain: '5s',
      ...config,
    }),
  );

const open = async (config: object): Promise<void> => {
  await write(config);
  const file = join(folder, 'banyan.yaml');
  const loaded = await loadConfig({ file });
  if (!loaded.ok) throw new Error(JSON.stringify(loaded.faults));
  const log = createLogger({ level: 'debug', destination: { write: (line: string) => void lines.push(JSON.parse(line)) } });
  gateway = await createGateway({ config: loaded.config, configFile: file, version: '0', log });
  urls = await gateway.start();
};

/** Which side a WebSocket came to. */
const dial = async (path: string, user?: string): Promise<{ socket: WebSocket; side: string }> => {
  const socket = new WebSocket(`${urls.gateway.replace('http', 'ws')}${path}`, {
    headers: user === undefined ? {} : { 'x-user-id': user },
  });
  const [data] = (await once(socket, 'message')) as [Buffer];
  return { socket, side: String(data) };
};

const closeOf = async (socket: WebSocket): Promise<[number, string]> => {
  const [code, reason] = (await once(socket, 'close')) as [number, Buffer];
  return [code, String(reason)];
};

const hangUp = async (socket: WebSocket): Promise<void> => {
  socket.close();
  await once(socket, 'close');
};

const kill = async (): Promise<void> => {
  const answer = await fetch(`${urls.admin}/api/v1/contexts/order/kill`, {
    method: 'POST',
    headers: { 'content-type': 'application/json' },
    body: JSON.stringify({ reason: 'test' }),
  });
  expect(answer.status).toBeLessThan(300);
};

const metrics = async (): Promise<string> => (await fetch(`${urls.admin}/metrics`)).text();

describe('an upgrade on a path that a context owns', () => {
  it('goes by the bucket of its sticky key, is copied to nobody, and without a key stays on legacy', async () => {
    // buckets of DESIGN.md: order:user-1 7271, order:user-2 6389
    await open({ contexts: { order: order({ stage: 'canary', share: '70%' }) } });
    const trips = await Promise.all([dial('/api/orders/1', 'user-1'), dial('/api/orders/2', 'user-2'), dial('/api/orders/3')]);
    expect(trips.map((trip) => trip.side)).toEqual(['legacy', 'extracted', 'legacy']);
    for (const { socket } of trips) await hangUp(socket);
    expect([legacy.asked.sort(), extracted.asked]).toEqual([['GET /api/orders/1', 'GET /api/orders/3'], ['GET /api/orders/2']]);
    expect([legacy.plain, extracted.plain]).toEqual([[], []]);
  });

  it('goes to legacy in shadow, and on paths of nobody', async () => {
    await open({ contexts: { order: order({ stage: 'shadow' }) } });
    const trips = [await dial('/api/orders/1', 'user-2'), await dial('/chat', 'user-2')];
    expect(trips.map((trip) => trip.side)).toEqual(['legacy', 'legacy']);
    for (const { socket } of trips) await hangUp(socket);
    expect(extracted.asked).toEqual([]);
  });

  it('falls back to legacy when extracted refuses the connection', async () => {
    await extracted.stop();
    await open({ contexts: { order: order({ stage: 'canary', share: '100%' }) } });
    const { socket, side } = await dial('/api/orders/1', 'user-1');
    expect(side).toBe('legacy');
    await hangUp(socket);
    const line = await until(() => lines.find((one) => one.msg === 'tunnel'), { describe: 'the line of the tunnel' });
    expect(line).toMatchObject({ context: 'order', upstream: 'legacy', reason: 'ERROR', stage: 'canary' });
  });

  it('does not fall back once extracted has answered', async () => {
    await open({ contexts: { order: order({ stage: 'canary', share: '100%' }) } });
    const socket = new WebSocket(`${urls.gateway.replace('http', 'ws')}/api/orders/no`);
    const [, response] = (await once(socket, 'unexpected-response')) as [unknown, IncomingMessage];
    expect([response.statusCode, response.headers['x-side']]).toEqual([503, 'extracted']);
    socket.on('error', () => {});
    socket.terminate();
    expect(legacy.asked).toEqual([]);
    const line = await until(() => lines.find((one) => one.msg === 'request'), { describe: 'the line of the refusal' });
    expect(line).toMatchObject({ context: 'order', upstream: 'extracted', status: 503, route: 'GET /api/orders/**' });
  });

  it('is closed with 1012 by a kill, and the next one is sent to legacy', async () => {
    await open({ contexts: { order: order({ stage: 'canary', share: '100%' }) } });
    const [diverted, other] = [await dial('/api/orders/1'), await dial('/chat')];
    expect(diverted.side).toBe('extracted');
    const [peer] = extracted.sockets;
    const told = closeOf(peer!);
    const closed = closeOf(diverted.socket);
    await kill();
    expect(await closed).toEqual([1012, 'the service has moved']);
    expect(await told).toEqual([1012, 'the service has moved']);
    const again = await dial('/api/orders/1');
    expect(again.side).toBe('legacy');
    expect(other.socket.readyState).toBe(WebSocket.OPEN);
    for (const { socket } of [other, again]) await hangUp(socket);
    expect(lines.find((one) => one.end === 'moved')).toMatchObject({ context: 'order', upstream: 'extracted', reason: 'SPLIT' });
  });

  it('by a command is answered as the plain request it is then', async () => {
    await open({ contexts: { order: order({ stage: 'shadow' }) } });
    for (const target of ['/api/orders', '//api/./orders', 'http://shop/api/orders']) {
      const client = await rawConnect(Number(new URL(urls.gateway).port));
      client.write(`POST ${target} HTTP/1.1\r\nHost: shop\r\nConnection: Upgrade\r\nUpgrade: tcp\r\nContent-Length: 0\r\n\r\n`);
      expect(statusOf(await client.answer())).toBe(200);
      client.destroy();
    }
    expect([legacy.asked, legacy.plain]).toEqual([[], ['POST /api/orders', 'POST //api/./orders', 'POST /api/orders']]);
  });
});

describe('upgrades', () => {
  it('follow the configuration as it is reloaded, and open tunnels stay', async () => {
    await open({});
    const first = await dial('/chat');
    await write({ legacy: { url: extracted.url } });
    await gateway!.reload();
    const second = await dial('/chat');
    expect([first.side, second.side]).toEqual(['legacy', 'extracted']);
    expect(first.socket.readyState).toBe(WebSocket.OPEN);
    for (const { socket } of [first, second]) await hangUp(socket);
  });

  it('are counted, and each tunnel writes one line when it ends', async () => {
    await open({});
    const { socket } = await dial('/chat');
    expect(await metrics()).toMatch(/^banyan_tunnels\{upstream="legacy"\} 1$/m);
    expect(lines.filter((one) => one.msg === 'tunnel')).toEqual([]);
    await hangUp(socket);
    const line = await until(() => lines.find((one) => one.msg === 'tunnel'), { describe: 'the line of the tunnel' });
    // an empty Close each way, and a frame of eight bytes
    expect(line).toMatchObject({ level: 'debug', status: 101, upstream: 'legacy', context: null, bytesUp: 6, bytesDown: 10 });
    expect(line.end).toMatch(/^(client|upstream)-closed$/);
    await legacy.stop();
    const failed = new WebSocket(`${urls.gateway.replace('http', 'ws')}/chat`);
    await once(failed, 'error');
    const text = await metrics();
    expect(text).toMatch(/^banyan_tunnels\{upstream="legacy"\} 0$/m);
    expect(text).toMatch(/^banyan_upgrades_total\{outcome="open"\} 1$/m);
    expect(text).toMatch(/^banyan_upgrades_total\{outcome="failed"\} 1$/m);
    expect(text).toMatch(/^banyan_requests_total\{.*status="5xx".*\} 1$/m);
    expect(text).not.toMatch(/^banyan_request_duration_seconds_count\{.*\} [2-9]$/m);
  });

  it('are over when the gateway stops: WebSockets get 1001 on both sides', async () => {
    await open({});
    const { socket } = await dial('/chat');
    const [peer] = legacy.sockets;
    const told = closeOf(peer!);
    const closed = closeOf(socket);
    await gateway!.stop();
    gateway = undefined;
    expect(await closed).toEqual([1001, 'the gateway is shutting down']);
    expect(await told).toEqual([1001, 'the gateway is shutting down']);
  });
});
