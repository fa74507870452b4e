import { once } from 'node:events';
import { connect } from 'node:net';
import type { Monolith } from '@banyan/dev-monolith/monolith.ts';
import { startMonolith } from '@banyan/dev-monolith/monolith.ts';
import { afterAll, beforeAll, expect, it } from '@jest/globals';
import { WebSocket } from 'ws';
import type { FreshDatabase } from '../harness/database.ts';
import { freshDatabase } from '../harness/database.ts';
import { describeShopPages } from '../harness/shop-pages-suite.ts';

let database: FreshDatabase;
let shop: Monolith;

beforeAll(async () => {
  database = await freshDatabase('empty');
  shop = await startMonolith({ databaseUrl: database.url, port: 0 });
});
afterAll(async () => {
  await shop.stop();
  await database.drop();
});

describeShopPages(() => shop.url);

it('ends streams, sockets and slow requests when it stops', async () => {
  const other = await startMonolith({ databaseUrl: database.url, port: 0 });
  const ws = new WebSocket(`${other.url.replace('http', 'ws')}/ws`);
  await once(ws, 'message');
  const events = await fetch(`${other.url}/events`);
  // Both requests in one write: when the first is answered, the second has been begun.
  const { hostname, port } = new URL(other.url);
  const socket = connect(Number(port), hostname).setEncoding('utf8');
  const answers = (async () => {
    let all = '';
    for await (const part of socket) all += String(part);
    return all;
  })();
  socket.write('GET /healthz HTTP/1.1\r\nHost: shop\r\n\r\nGET /slow?ms=30000 HTTP/1.1\r\nHost: shop\r\n\r\n');
  await once(socket, 'readable');
  const closed = once(ws, 'close');
  await other.stop();
  expect((await closed)[0]).toBe(1001);
  expect(await events.text()).toContain('event: hello');
  expect((await answers).match(/HTTP\/1\.1 \d+/g)).toEqual(['HTTP/1.1 200', 'HTTP/1.1 503']);
  await other.stop();
});

it('says why it cannot start, and leaves nothing open', async () => {
  const port = Number(new URL(shop.url).port);
  await expect(startMonolith({ databaseUrl: database.url, port })).rejects.toThrow('EADDRINUSE');
  await expect(startMonolith({ databaseUrl: 'postgres://127.0.0.1:1/x', port: 0 })).rejects.toThrow('ECONNREFUSED');
});
