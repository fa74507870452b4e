import { createHash, randomBytes } from 'node:crypto';
import { once } from 'node:events';
import { readFileSync } from 'node:fs';
import { mkdtemp, rm } from 'node:fs/promises';
import type { AddressInfo } from 'node:net';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterEach, beforeEach, describe, expect, it } from '@jest/globals';
import { WebSocket, WebSocketServer } from 'ws';
import { type Running, run } from '../harness/processes.ts';
import { until } from '../harness/wait.ts';

/** WebSockets through a gateway process of its own: what they cost it, and how it parts from them. */

const COUNT = 200;

let folder: string;
let server: WebSocketServer;
let gateway: Running;
let url: string;

beforeEach(async () => {
  folder = await mkdtemp(join(tmpdir(), 'banyan-tunnels-'));
  server = new WebSocketServer({ host: '127.0.0.1', port: 0, perMessageDeflate: false });
  await once(server, 'listening');
  server.on('connection', (socket) => {
    socket.on('error', () => undefined);
    socket.on('message', (data, binary) => socket.send(data, { binary }));
  });
  const legacy = `http://127.0.0.1:${(server.address() as AddressInfo).port}`;
  gateway = run('gateway/cli/main.ts', ['run', '--legacy', legacy, '--listen', '127.0.0.1:0', '--admin-listen', '127.0.0.1:0'], {
    cwd: folder,
  });
  url = `${(await gateway.ready()).gateway!.replace('http', 'ws')}/socket`;
});
afterEach(async () => {
  await gateway.stop();
  for (const client of server.clients) client.terminate();
  await new Promise<void>((resolve) => server.close(() => resolve()));
  await rm(folder, { recursive: true, force: true });
});

const rssKiB = (): number => Number(/^VmRSS:\s+(\d+) kB/m.exec(readFileSync(`/proc/${gateway.pid}/status`, 'latin1'))![1]);

const open = async (): Promise<WebSocket> => {
  const socket = new WebSocket(url, { perMessageDeflate: false });
  await once(socket, 'open');
  socket.on('error', () => undefined);
  return socket;
};
const echo = async (socket: WebSocket, data: Buffer): Promise<Buffer> => {
  const back = once(socket, 'message') as Promise<[Buffer]>;
  socket.send(data);
  return (await back)[0];
};
const closeOf = async (socket: WebSocket): Promise<number> => ((await once(socket, 'close')) as [number])[0];

describe('a gateway process', () => {
  it(`spends less than 60 KiB on each of ${COUNT} WebSockets and little on one whose reader stands still, and ends them all with 1001`, async () => {
    // what the process needs once, code and heap, is there after the first round
    const warm = await Promise.all(Array.from({ length: COUNT }, open));
    await Promise.all(warm.map((socket) => echo(socket, Buffer.from('warm'))));
    for (const socket of warm) socket.close();
    await Promise.all(warm.map(closeOf));
    const before = rssKiB();
    const sockets = await Promise.all(Array.from({ length: COUNT }, open));
    const back = await Promise.all(sockets.map((socket, i) => echo(socket, Buffer.from(`hello ${i}`))));
    expect(back.map(String)).toEqual(sockets.map((_, i) => `hello ${i}`));
    expect((rssKiB() - before) / COUNT).toBeLessThan(60);

    const [slow] = sockets as [WebSocket];
    const big = randomBytes(64 * 2 ** 20);
    const peer = await new Promise<WebSocket>((resolve) => {
      for (const one of server.clients) one.once('message', () => resolve(one));
      slow.send('it is me');
    });
    await once(slow, 'message');
    slow.pause();
    const atRest = rssKiB();
    peer.send(big);
    let left = -1;
    await until(
      () => {
        const same = peer.bufferedAmount === left;
        left = peer.bufferedAmount;
        return same;
      },
      { describe: 'the writer to be held back', intervalMs: 200 },
    );
    expect(left).toBeGreaterThan(0);
    expect(rssKiB() - atRest).toBeLessThan(16 * 1024);
    const whole = once(slow, 'message') as Promise<[Buffer]>;
    slow.resume();
    expect(
      createHash('sha256')
        .update((await whole)[0])
        .digest('hex'),
    ).toBe(createHash('sha256').update(big).digest('hex'));

    const told = Promise.all(sockets.map(closeOf));
    const toldFar = Promise.all([...server.clients].map(closeOf));
    const exit = await gateway.stop('SIGTERM');
    expect(exit).toEqual({ code: 0, signal: null });
    expect(new Set([...(await told), ...(await toldFar)])).toEqual(new Set([1001]));
  });
});
