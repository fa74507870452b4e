import { createHash } from 'node:crypto';
import { once } from 'node:events';
import { request, type ServerResponse } from 'node:http';
import { type AddressInfo, createServer, type Server, type Socket } from 'node:net';
import { gzipSync } from 'node:zlib';
import type { PairView, ParityView } from '@banyan/contracts/admin-api.ts';
import { afterAll, afterEach, beforeAll, describe, expect, it } from '@jest/globals';
import knex from 'knex';
import supertest from 'supertest';
import { WebSocket, WebSocketServer } from 'ws';
import { type FreshDatabase, freshDatabase } from '../harness/database.ts';
import { get, openTwoSides, type TwoSides } from '../harness/two-sides.ts';
import { until } from '../harness/wait.ts';

/** Scenarios of the live shadow path that need real sockets; the table in docs/parity.md says which. */

const MIB = 1_048_576;
let sides: TwoSides | undefined;
const stops: (() => void)[] = [];
afterEach(async () => {
  for (const stop of stops.splice(0)) stop();
  await sides?.stop();
  sides = undefined;
});

const open = async (order: Parameters<typeof openTwoSides>[0], more: Parameters<typeof openTwoSides>[1] = {}): Promise<TwoSides> => {
  const context: Parameters<typeof openTwoSides>[0] = {
    stage: 'shadow',
    shadow: { maxPerSecond: 1_000 },
    ...order,
    parity: { sample: '100%', probe: '0%', ignore: [{ at: 'header:x-side', because: 'says who answers' }], ...order.parity },
  };
  sides = await openTwoSides(context, more);
  return sides;
};
const reportOf = async ({ banyan }: TwoSides): Promise<ParityView> =>
  (await supertest(banyan.admin).get('/api/v1/contexts/order/parity').expect(200)).body as ParityView;
const pairsOf = async ({ banyan }: TwoSides): Promise<readonly PairView[]> =>
  ((await supertest(banyan.admin).get('/api/v1/pairs?context=order').expect(200)).body as { items: PairView[] }).items;
const json = (res: ServerResponse, status: number, body: unknown): true => {
  res.writeHead(status, { 'content-type': 'application/json' }).end(JSON.stringify(body));
  return true;
};
const sha = (bytes: Buffer): string => createHash('sha256').update(bytes).digest('hex');

describe('large answers (scenario 10)', () => {
  const download = (url: string): Promise<string> =>
    new Promise((resolve, reject) => {
      const req = request(url, (res) => {
        const hash = createHash('sha256');
        res.on('data', (chunk: Buffer) => hash.update(chunk));
        res.on('end', () => resolve(hash.digest('hex')));
        res.on('error', reject);
      });
      req.on('error', reject);
      req.end();
    });

  it('arrive unchanged and are compared by digest, to the last byte', async () => {
    const body = Buffer.alloc(8 * MIB, 'large ');
    const other = Buffer.from(body);
    other[other.length - 1]! ^= 1;
    const both = await open({});
    const send = (bytes: Buffer) => (res: ServerResponse) => {
      res.writeHead(200, { 'content-type': 'application/octet-stream', 'content-length': bytes.length }).end(bytes);
      return true;
    };
    both.legacy.answer = (_req, res) => send(body)(res);
    both.extracted.answer = (req, res) => send(req.url!.endsWith('/other') ? other : body)(res);
    const got = await Promise.all(
      Array.from({ length: 6 }, (_, i) => download(`${both.url}/api/orders/files/${i < 5 ? 'same' : 'other'}`)),
    );
    expect(new Set(got)).toEqual(new Set([sha(body)]));
    const report = await until(
      async () => {
        const found = await reportOf(both);
        return found.compared + found.incomparable === 6 && found;
      },
      { describe: 'six judged pairs', timeoutMs: 25_000 },
    );
    expect(report).toMatchObject({ noise: 5, incomparable: 1, dropped: 0, skipped: 0 });
    // digests that differ prove nothing about what a text says: it is counted, and no mismatch
    expect(report.byRoute.map(({ route, reasons }) => [route, reasons])).toEqual([
      ['GET /api/orders/files/other', { 'incomparable:too-large': 1 }],
      ['GET /api/orders/files/same', {}],
    ]);
  });
});

describe('streams (scenario 11)', () => {
  it('of events flow one by one, are never mirrored, and end with their client', async () => {
    const both = await open({});
    let stream: ServerResponse | undefined;
    let over = 0;
    both.legacy.answer = (req, res) => {
      if (req.url !== '/api/orders/events') return false;
      res.writeHead(200, { 'content-type': 'text/event-stream' });
      res.write('data: 1\n\n');
      res.on('close', () => over++);
      stream = res;
      return true;
    };
    const received: string[] = [];
    const client = request(`${both.url}/api/orders/events`, (res) =>
      res.setEncoding('utf8').on('data', (text: string) => received.push(text)),
    );
    client.on('error', () => undefined);
    client.end();
    // the second is sent only once the first has arrived: nothing is held back
    for (const n of [2, 3]) {
      await until(() => received.length === n - 1, { describe: `event ${n - 1}`, timeoutMs: 25_000 });
      stream!.write(`data: ${n}\n\n`);
    }
    await until(() => received.length === 3, { describe: 'event 3' });
    expect(received).toEqual(['data: 1\n\n', 'data: 2\n\n', 'data: 3\n\n']);
    client.destroy();
    await until(() => over === 1, { describe: 'the end of the stream at legacy' });
    // one that legacy ends is left out by its type
    const ended = get(`${both.url}/api/orders/events`);
    await until(() => stream !== undefined && over === 1 && !stream.writableEnded && both.legacy.seen.length === 2, {
      describe: 'the second stream',
    });
    stream!.end();
    expect((await ended).body).toBe('data: 1\n\n');
    const report = await until(
      async () => {
        const found = await reportOf(both);
        return found.skipped === 1 && found;
      },
      { describe: 'what was left out', timeoutMs: 25_000 },
    );
    expect(report.byRoute[0]!.reasons).toEqual({ 'skipped:stream': 1 });
    expect(both.extracted.seen).toEqual([]);
  });

  it('that nobody waits for any more are not asked for again: a long poll whose client left', async () => {
    const both = await open({});
    let over = 0;
    both.legacy.answer = (_req, res) => {
      res.on('close', () => over++);
      return true;
    };
    const client = request(`${both.url}/api/orders/poll`);
    client.on('error', () => undefined);
    client.end();
    await until(() => both.legacy.seen.length === 1, { describe: 'the poll at legacy' });
    client.destroy();
    await until(() => over === 1, { describe: 'its end at legacy' });
    both.legacy.answer = null;
    await get(`${both.url}/api/orders/plain`);
    await until(async () => (await reportOf(both)).compared === 1, { describe: 'a judged pair', timeoutMs: 25_000 });
    expect(both.extracted.seen.map(({ url }) => url)).toContain('/api/orders/plain');
    expect(both.extracted.seen.map(({ url }) => url)).not.toContain('/api/orders/poll');
  });

  it('by WebSocket stay with legacy alone', async () => {
    const both = await open({});
    const [near, far] = [both.legacy, both.extracted].map(({ server }) => new WebSocketServer({ server }));
    near!.on('connection', (socket) => socket.on('message', (data) => socket.send(`you said ${String(data)}`)));
    const client = new WebSocket(`${both.url.replace('http', 'ws')}/api/orders/live`);
    await once(client, 'open');
    client.send('hello');
    const [said] = (await once(client, 'message')) as [Buffer];
    expect(said.toString()).toBe('you said hello');
    expect([near!.clients.size, far!.clients.size]).toEqual([1, 0]);
    const gone = once([...near!.clients][0]!, 'close');
    client.terminate();
    await gone;
    expect(both.extracted.seen).toEqual([]);
  });
});

describe('a hostile extracted side (scenario 14)', () => {
  const member = gzipSync(Buffer.alloc(100 * MIB), { level: 9 });
  const head = (more: string): string => `HTTP/1.1 200 OK\r\nContent-Type: application/json\r\n${more}\r\n`;
  const gzipped = (times: number): Buffer =>
    Buffer.concat([
      Buffer.from(head(`Content-Encoding: gzip\r\nContent-Length: ${member.length * times}\r\n`)),
      ...Array.from({ length: times }, () => member),
    ]);
  const early = 'HTTP/1.1 103 Early Hints\r\nLink: </x>\r\n\r\n';
  const answers: Readonly<Record<string, (socket: Socket) => void>> = {
    reset: (socket) => {
      socket.write(`${head('Content-Length: 1000\r\n')}{"a":`);
      setImmediate(() => socket.resetAndDestroy());
    },
    headers: (socket) => {
      socket.write('HTTP/1.1 200 OK\r\n');
      socket.write(Array.from({ length: 100_000 }, (_, i) => `X-${i}: y\r\n`).join(''));
      socket.end('\r\n');
    },
    text: (socket) => socket.end(Buffer.concat([Buffer.from(head('Content-Length: 9\r\n')), Buffer.from('7b2261223a22fffe7d', 'hex')])),
    // 1 MB that would be 1 GB: stops at bodyLimit
    bomb: (socket) => socket.end(gzipped(10)),
    // 10 MB that would be 10 GB: not even begun
    'large-bomb': (socket) => socket.end(gzipped(100)),
    redirect: (socket) => socket.end('HTTP/1.1 302 Found\r\nLocation: /api/orders/hostile/redirect\r\nContent-Length: 0\r\n\r\n'),
    early: (socket) => socket.end(`${early.repeat(20)}${head('Content-Length: 7\r\n')}{"a":1}`),
    'early-flood': (socket) => socket.end(`${early.repeat(100_000)}${head('Content-Length: 7\r\n')}{"a":1}`),
    silent: () => undefined,
    garbage: (socket) => socket.end('\u0000\u0001 no HTTP at all\r\n\r\n'),
  };

  it('costs its own pairs and nothing else, and each trick has a word of its own', async () => {
    const seen: string[] = [];
    const hostile: Server = createServer((socket) => {
      let text = '';
      socket.on('error', () => undefined);
      socket.on('data', (chunk) => {
        text += chunk.toString('latin1');
        if (!text.includes('\r\n\r\n')) return;
        const trick = /^GET \/api\/orders\/hostile\/(\S+)/.exec(text)?.[1] ?? '';
        text = '';
        seen.push(trick);
        answers[trick]?.(socket);
      });
    }).listen(0, '127.0.0.1');
    await once(hostile, 'listening');
    const sockets = new Set<Socket>();
    hostile.on('connection', (socket: Socket) => sockets.add(socket));
    stops.push(() => {
      for (const socket of sockets) socket.destroy();
      hostile.close();
    });
    const both = await open({
      extracted: { url: `http://127.0.0.1:${(hostile.address() as AddressInfo).port}`, timeouts: { response: '1500ms' } },
    });
    both.legacy.answer = (_req, res) => json(res, 200, { a: 1 });
    for (const trick of Object.keys(answers)) {
      const answer = await get(`${both.url}/api/orders/hostile/${trick}`);
      expect([answer.status, answer.body]).toEqual([200, '{"a":1}']);
    }
    const report = await until(
      async () => {
        const found = await reportOf(both);
        return found.compared + found.incomparable === Object.keys(answers).length && found;
      },
      { describe: 'all tricks judged', timeoutMs: 28_000 },
    );
    const words = Object.fromEntries(
      report.byRoute.map(({ route, match, noise, mismatch, reasons }) => {
        const kinds = report.byField.filter((one) => one.route === route && one.rule === null).map(({ kind, field }) => `${kind} ${field}`);
        return [
          route.split('/').at(-1)!,
          match + noise > 0 ? 'same' : mismatch > 0 ? kinds.sort().join(', ') : Object.keys(reasons).join(),
        ];
      }),
    );
    expect(words).toEqual({
      bomb: 'incomparable:too-large',
      early: 'same',
      'early-flood': 'incomparable:protocol',
      garbage: 'incomparable:protocol',
      headers: 'incomparable:protocol',
      'large-bomb': 'incomparable:too-large',
      redirect: 'extra header:location, missing $, missing header:content-type, status status',
      reset: 'incomparable:truncated',
      silent: 'incomparable:timeout',
      text: 'encoding $',
    });
    expect(report.dropped).toBe(0);
  });
});

describe('the service answers, and legacy is compared with it (scenario 18)', () => {
  let database: FreshDatabase;
  const owned = { seal: { key: 'of this test alone' } };
  beforeAll(async () => {
    database = await freshDatabase('store');
    const db = knex({ client: 'pg', connection: database.url, pool: { min: 0, max: 1 } });
    await db.raw(`insert into banyan.context (name, stage, owner, epoch) values ('order', 'cutover', 'extracted', 1)`);
    await db.destroy();
  });
  afterAll(() => database.drop());
  const cutover = { stage: 'shadow', breaker: { volumeThreshold: 5, resetTimeoutMs: 60_000 } } as const;
  it('sides keep their names, and legacy stands in for queries while the breaker is open', async () => {
    const both = await open(cutover, { ...owned, store: database.url });
    both.legacy.answer = (_req, res) => json(res, 200, { total: 1 });
    both.extracted.answer = (_req, res) => json(res, 200, { total: 2 });
    expect((await get(`${both.url}/api/orders/7`)).body).toBe('{"total":2}');
    await until(async () => (await reportOf(both)).mismatch === 1, { describe: 'a judged pair', timeoutMs: 25_000 });
    expect((await pairsOf(both))[0]).toMatchObject({ primary: 'extracted', confirmed: true, route: '/api/orders/:id' });
    both.extracted.answer = (_req, res) => json(res, 500, {});
    for (let i = 0; i < 30; i++) expect((await get(`${both.url}/api/orders/7`)).body).toBe('{"total":1}');
    const asked = both.extracted.seen.length;
    for (let i = 0; i < 10; i++) expect((await get(`${both.url}/api/orders/7`)).body).toBe('{"total":1}');
    expect(both.extracted.seen.length).toBe(asked);
    expect((await supertest(both.banyan.admin).get('/api/v1/contexts/order').expect(200)).body).toMatchObject({
      breaker: { state: 'open' },
    });
  });

  it('a command that was sent is never sent again, to nobody', async () => {
    const both = await open({ ...cutover, breaker: { volumeThreshold: 100 } }, { ...owned, store: database.url });
    const commands = (side: 'legacy' | 'extracted') => both[side].seen.filter(({ method }) => method === 'POST').length;
    const post = () => get(`${both.url}/api/orders/7`, { 'content-length': '0' }, 'POST');
    both.extracted.answer = (req) => {
      req.socket.destroy();
      return true;
    };
    const lost = await post();
    expect([lost.status, lost.headers['retry-after'], commands('extracted'), commands('legacy')]).toEqual([502, undefined, 1, 0]);
    both.extracted.answer = (_req, res) => json(res, 503, { own: true });
    const refused = await post();
    expect([refused.status, refused.body, commands('extracted'), commands('legacy')]).toEqual([503, '{"own":true}', 2, 0]);
  });
});
