import { once } from 'node:events';
import { createServer, type Server } from 'node:http';
import type { AddressInfo } from 'node:net';
import { afterAll, beforeAll, describe, expect, it } from '@jest/globals';
import express from 'express';
import request from 'supertest';
import { WebSocket, WebSocketServer } from 'ws';
import { type Banyan, createBanyan } from '../../gateway/embed.ts';

const listen = async (server: Server): Promise<string> => {
  server.listen(0, '127.0.0.1');
  await once(server, 'listening');
  return `http://127.0.0.1:${(server.address() as AddressInfo).port}`;
};

let legacy: Server;
let extracted: Server;
let banyan: Banyan;
let app: express.Express;

beforeAll(async () => {
  legacy = createServer((req, res) => {
    const chunks: Buffer[] = [];
    req.on('data', (chunk: Buffer) => chunks.push(chunk));
    req.on('end', () => {
      res.setHeader('x-side', 'legacy');
      res.end(`${req.method} ${req.url} ${Buffer.concat(chunks).toString()}`);
    });
  });
  const sockets = new WebSocketServer({ server: legacy });
  sockets.on('connection', (socket) => socket.on('message', (data) => socket.send(`echo ${data}`)));
  extracted = createServer((req, res) => res.setHeader('x-side', 'extracted').end(`GET ${req.url} `));
  const [legacyUrl, extractedUrl] = await Promise.all([listen(legacy), listen(extracted)]);
  banyan = await createBanyan({
    version: 1,
    log: { level: 'silent' },
    debugHeaders: true,
    legacy: { url: legacyUrl },
    contexts: {
      things: {
        match: [{ path: '/things/**', methods: ['GET'] }],
        else: 'legacy',
        extracted: { url: extractedUrl },
        stage: 'canary',
        share: '100%',
      },
    },
  });
  app = express();
  app.get('/own', (_req, res) => void res.send('own'));
  app.use('/banyan', banyan.admin);
  app.use(banyan.handler);
});
afterAll(async () => {
  await banyan.close();
  for (const server of [legacy, extracted]) {
    server.closeAllConnections();
    server.close();
    await once(server, 'close');
  }
});

describe('createBanyan', () => {
  it('answers behind the routes of the application', async () => {
    expect((await request(app).get('/own')).text).toBe('own');
    const plain = await request(app).post('/form?a=%2F').type('form').send('x=1');
    expect([plain.status, plain.headers['x-side'], plain.text]).toEqual([200, 'legacy', 'POST /form?a=%2F x=1']);
  });
  it('diverts what a context owns', async () => {
    const answer = await request(app).get('/things/7');
    expect([answer.headers['x-side'], answer.headers['banyan-route']]).toEqual([
      'extracted',
      'things;upstream=extracted;reason=SPLIT;stage=canary',
    ]);
  });
  it('has its admin API mounted where the application wants it', async () => {
    const answer = await request(app).get('/banyan/api/v1/contexts').set('host', 'localhost');
    expect([answer.status, answer.body.items.map((context: { name: string; stage: string }) => [context.name, context.stage])]).toEqual([
      200,
      [['things', 'canary']],
    ]);
  });
  it('carries WebSockets of the server it is embedded in', async () => {
    const server = createServer(app).on('upgrade', banyan.upgrade);
    const url = await listen(server);
    const socket = new WebSocket(`${url.replace('http', 'ws')}/chat`);
    await once(socket, 'open');
    socket.send('hello');
    const [data] = (await once(socket, 'message')) as [Buffer];
    expect(data.toString()).toBe('echo hello');
    socket.close();
    await once(socket, 'close');
    server.closeAllConnections();
    server.close();
    await once(server, 'close');
  });
  it('refuses a bad configuration with every fault', async () => {
    await expect(createBanyan({ version: 1, legacy: { url: 'nowhere' }, nonsense: true } as never)).rejects.toThrow(
      /legacy\.url[\s\S]*nonsense|nonsense[\s\S]*legacy\.url/,
    );
  });
});
