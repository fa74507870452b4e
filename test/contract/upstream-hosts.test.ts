import { mkdtemp, rm, writeFile } from 'node:fs/promises';
import { createServer, request as httpRequest, type RequestListener } from 'node:http';
import { createServer as createTlsServer } from 'node:https';
import type { AddressInfo, Server, Socket } from 'node:net';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { statusSchema } from '@banyan/contracts/admin-api.ts';
import { afterEach, describe, expect, it } from '@jest/globals';
import { pino } from 'pino';
import request from 'supertest';
import { WebSocket, WebSocketServer } from 'ws';
import { createGateway, type Gateway } from '../../gateway/compose.ts';
import { loadConfig } from '../../gateway/config.ts';
import { createHealth } from '../../gateway/proxy/health.ts';
import { createUpstream, type HostWatch, type Upstream, type UpstreamOptions } from '../../gateway/proxy/upstream.ts';
import { createAuthority } from '../harness/certificates.ts';
import { rawConnect, rawServer, statusOf } from '../harness/raw-http.ts';
import { tcpSwitch } from '../harness/tcp-switch.ts';
import { until } from '../harness/wait.ts';
import { openRig, type Rig } from './proxy-rig.ts';

const timeouts = { connectMs: 1_000, responseMs: 2_000, idleMs: 2_000 };
const stops: (() => Promise<unknown>)[] = [];
afterEach(async () => {
  for (const stop of stops.splice(0).reverse()) await stop();
});

const listening = async <S extends Server>(server: S): Promise<S> => {
  const sockets = new Set<Socket>();
  server.on('connection', (socket: Socket) => {
    sockets.add(socket);
    socket.once('close', () => sockets.delete(socket));
    socket.on('error', () => undefined);
  });
  await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve));
  stops.push(() => {
    for (const socket of sockets) socket.destroy();
    return new Promise((resolve) => server.close(resolve));
  });
  return server;
};

const portOf = (server: Server): number => (server.address() as AddressInfo).port;

/** A server that says its name, and with what status. */
const named = async (name: string, state = { status: 200 }): Promise<string> => {
  const handler: RequestListener = (req, res) => {
    req.resume();
    req.on('end', () => res.writeHead(state.status, { 'x-host': name }).end(name));
  };
  return `http://127.0.0.1:${portOf(await listening(createServer(handler)))}`;
};

const OUTLIER = { consecutiveFailures: 3, ejection: 150, maxEjected: 5_000 };
const LONG = { ...OUTLIER, ejection: 60_000 };

const rigOf = async (urls: readonly string[], more: Partial<UpstreamOptions> = {}, watch: HostWatch = {}): Promise<Rig> => {
  const upstream: Upstream = createUpstream({ name: 'legacy', urls, timeouts, outlier: OUTLIER, ...more }, watch);
  const rig = await openRig(async () => undefined, { upstream });
  stops.push(rig.stop);
  return rig;
};

const GET = 'GET / HTTP/1.1\r\nHost: shop\r\n\r\n';
const POST = 'POST / HTTP/1.1\r\nHost: shop\r\nContent-Length: 3\r\n\r\nabc';
const CHUNKED = 'POST / HTTP/1.1\r\nHost: shop\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\n\r\n';

/** Statuses of so many answers, one after the other on one connection. */
const statuses = async (rig: Rig, bytes: string, count: number): Promise<readonly number[]> => {
  const client = await rig.client();
  const found: number[] = [];
  for (let i = 0; i < count; i++) found.push(statusOf(await client.write(bytes).answer()));
  client.destroy();
  return found;
};

const statesOf = (rig: Rig): readonly string[] => rig.upstream.hosts().map(({ state }) => state);

describe('a host that dies and returns', () => {
  it('costs no request, with a body or without, is left out meanwhile and used again afterwards', async () => {
    const [a, b] = [await named('a'), await named('b')];
    const hop = await tcpSwitch({ host: '127.0.0.1', port: Number(new URL(b).port) });
    stops.push(hop.stop);
    const events: (number | null)[] = [];
    const rig = await rigOf([a, `http://127.0.0.1:${hop.port}`], {}, { onEjection: (_url, ms) => events.push(ms) });
    expect(new Set(await statuses(rig, GET, 20))).toEqual(new Set([200]));
    hop.cut();
    for (const bytes of [POST, CHUNKED, GET]) expect(new Set(await statuses(rig, bytes, 10))).toEqual(new Set([200]));
    expect(events[0]).toBe(150);
    expect(rig.upstream.hosts()[0]).toMatchObject({ state: 'healthy', detail: null });
    await hop.heal();
    await until(async () => (await rig.ask(GET)).raw.includes('x-host: b'), { describe: 'an answer of b' });
    expect(events).toContain(null);
    expect(statesOf(rig)).toEqual(['healthy', 'healthy']);
  });

  it('leaves a 502 that says why once all are gone, and each is asked all the same', async () => {
    const b = await named('b');
    const hop = await tcpSwitch({ host: '127.0.0.1', port: Number(new URL(b).port) });
    stops.push(hop.stop);
    const dead = await tcpSwitch({ host: '127.0.0.1', port: 1 });
    dead.cut();
    stops.push(dead.stop);
    const rig = await rigOf([`http://127.0.0.1:${hop.port}`, `http://127.0.0.1:${dead.port}`], {
      outlier: { ...OUTLIER, ejection: 60_000 },
    });
    hop.cut();
    for (let i = 0; i < 10; i++) {
      const answer = await rig.ask(GET);
      expect(answer.line).toBe('HTTP/1.1 502 Bad Gateway');
      expect(answer.raw).toContain('error=connection_refused');
    }
    expect([...statesOf(rig)].sort()).toEqual(['ejected', 'healthy']);
    await hop.heal();
    expect(statusOf(await rig.ask(POST))).toBe(200);
  });
});

describe('a host that answers 500s', () => {
  it('is ejected after so many in a row, and returns; its 4xx harm nobody', async () => {
    const state = { status: 404 };
    const [a, b] = [await named('a', state), await named('b')];
    // longer than the questions take on a busy machine
    const rig = await rigOf([a, b], { outlier: { ...OUTLIER, ejection: 3_000 } });
    expect((await statuses(rig, GET, 40)).includes(404)).toBe(true);
    expect(statesOf(rig)).toEqual(['healthy', 'healthy']);
    state.status = 500;
    const found = await statuses(rig, GET, 40);
    expect(found.filter((status) => status === 500)).toHaveLength(3);
    expect(statesOf(rig)).toEqual(['ejected', 'healthy']);
    expect(rig.upstream.hosts()[0]?.detail).toBe('failed 3 times in a row');
    state.status = 200;
    await until(async () => (await rig.ask(GET)).raw.includes('x-host: a'), { describe: 'an answer of a' });
    expect(statesOf(rig)).toEqual(['healthy', 'healthy']);
  });

  it('is ejected for answers that break off and for silence as well, but not for clients that leave', async () => {
    const how = { answer: 'HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nhalf' };
    const bad = await rawServer(async (connection) => {
      await connection.message();
      if (how.answer !== '') connection.write(how.answer);
      if (how.answer !== '') connection.end();
    });
    stops.push(bad.close);
    const broken = await rigOf([bad.url, await named('b')], { outlier: LONG });
    for (let i = 0; i < 40; i++) await broken.ask(GET).catch(() => undefined);
    expect(statesOf(broken)).toEqual(['ejected', 'healthy']);

    how.answer = '';
    const silent = await rigOf([bad.url, await named('b')], { timeouts: { ...timeouts, responseMs: 60_000 } });
    const clients = await Promise.all(Array.from({ length: 12 }, () => silent.client()));
    for (const client of clients) client.write(GET);
    await until(() => silent.upstream.inFlight < 12 && bad.connections.length > 0, { describe: 'every request to be at its host' });
    for (const client of clients) client.destroy();
    await until(() => silent.upstream.inFlight === 0, { describe: 'the clients to be gone' });
    expect(statesOf(silent)).toEqual(['healthy', 'healthy']);

    const late = await rigOf([bad.url, await named('b')], { timeouts: { ...timeouts, responseMs: 50 }, outlier: LONG });
    // most requests go past a host that holds on to what it got
    await until(
      async () => {
        await Promise.all(Array.from({ length: 4 }, () => late.ask(GET)));
        return statesOf(late)[0] === 'ejected';
      },
      { describe: 'the silent host to be ejected' },
    );
  });
});

describe('a host that resets what it was sent', () => {
  it('gets no command sent again to another, while a query without a body is', async () => {
    let seen = 0;
    const rude = async () => {
      const server = await rawServer(async (connection) => {
        await connection.message();
        seen++;
        connection.reset();
      });
      stops.push(server.close);
      return server.url;
    };
    const urls = [await rude(), await rude(), await rude()];
    const rig = await rigOf(urls, { outlier: null });
    for (const bytes of [
      POST,
      CHUNKED,
      'DELETE / HTTP/1.1\r\nHost: shop\r\n\r\n',
      'GET / HTTP/1.1\r\nHost: shop\r\nContent-Length: 3\r\n\r\nabc',
    ]) {
      seen = 0;
      expect(statusOf(await rig.ask(bytes))).toBe(502);
      expect(seen).toBe(1);
    }
    seen = 0;
    expect(statusOf(await rig.ask(GET))).toBe(502);
    expect(seen).toBe(2);
  });
});

describe('active checks', () => {
  it('follow a path that flaps, over TLS, and take the host out and in', async () => {
    const authority = await createAuthority();
    const state = { status: 200 };
    const asked: (string | undefined)[] = [];
    const server = await listening(
      createTlsServer(await authority.issue({ names: ['localhost'] }), (req, res) => {
        if (req.url === '/healthz') asked.push(req.headers.host);
        res.writeHead(req.url === '/healthz' ? state.status : 200, { 'x-host': 'a' }).end();
      }),
    );
    const a = `https://localhost:${portOf(server)}`;
    const b = await named('b');
    const tls = { ca: authority.ca, cert: null, key: null, servername: null, verify: true };
    const changes: string[] = [];
    const health = createHealth({
      urls: [a, b],
      tls,
      options: { path: '/healthz', interval: 20, timeout: 1_000, healthyAfter: 2, unhealthyAfter: 3, status: { from: 200, to: 299 } },
      onChange: (url, healthy, why) => changes.push(`${url === a ? 'a' : 'b'} ${healthy} ${why}`),
    });
    stops.push(async () => health.stop());
    const rig = await rigOf([a, b], { tls }, { health });
    health.start();
    await until(() => asked.length > 2, { describe: 'three checks' });
    expect(asked[0]).toBe(`localhost:${portOf(server)}`);
    state.status = 503;
    await until(() => changes.length === 1, { describe: 'the host to be out' });
    expect(rig.upstream.hosts()[0]).toMatchObject({ url: a, state: 'unhealthy', detail: '/healthz answers 503' });
    const client = await rig.client();
    for (let i = 0; i < 20; i++) expect((await client.write(GET).answer()).raw).toContain('x-host: b');
    state.status = 204;
    await until(() => changes.length === 2, { describe: 'the host to be in' });
    await until(async () => (await rig.ask(GET)).raw.includes('x-host: a'), { describe: 'an answer of a' });
    expect(changes).toEqual(['a false /healthz answers 503', 'a true null']);
  });

  it('without a path find a host that shows the wrong certificate, one that hangs, and one that is gone', async () => {
    const authority = await createAuthority();
    const stranger = await createAuthority('stranger');
    const good = await listening(createTlsServer(await authority.issue({ names: ['127.0.0.1'] })));
    const wrong = await listening(createTlsServer(await stranger.issue({ names: ['127.0.0.1'] })));
    const mute = await rawServer(() => new Promise(() => undefined));
    stops.push(mute.close);
    const urls = [good, wrong].map((server) => `https://127.0.0.1:${portOf(server)}`);
    const health = createHealth({
      urls: [...urls, mute.url.replace('http:', 'https:'), 'unix:/tmp/banyan-nowhere.sock'],
      tls: { ca: authority.ca, cert: null, key: null, servername: null, verify: true },
      options: { path: null, interval: 60_000, timeout: 200, healthyAfter: 2, unhealthyAfter: 3, status: { from: 200, to: 399 } },
    });
    stops.push(async () => health.stop());
    health.start();
    await until(() => [...health.vitals.values()].every(({ checked }) => checked), { describe: 'a check of each host' });
    expect([...health.vitals.values()].map(({ why }) => why)).toEqual([null, expect.stringMatching(/CERT|VERIFY/), 'ETIMEDOUT', 'ENOENT']);
  });
});

describe('a tunnel', () => {
  it('goes over TLS, past a host that is gone', async () => {
    const authority = await createAuthority();
    const server = await listening(createTlsServer(await authority.issue({ names: ['127.0.0.1'] })));
    new WebSocketServer({ server }).on('connection', (socket) => socket.on('message', (data) => socket.send(`echo ${data}`)));
    const dead = await tcpSwitch({ host: '127.0.0.1', port: 1 });
    dead.cut();
    stops.push(dead.stop);
    const tls = { ca: authority.ca, cert: null, key: null, servername: null, verify: true };
    const rig = await rigOf([`https://127.0.0.1:${portOf(server)}`, `https://127.0.0.1:${dead.port}`], { tls, outlier: LONG });
    // two hosts without load are taken by chance: 40 picks that all spare the dead one do not happen
    for (let i = 0; i < 40 && !statesOf(rig).includes('ejected'); i++) {
      const socket = new WebSocket(`ws://127.0.0.1:${rig.port}/`);
      const echoed = await new Promise((resolve, reject) => {
        socket.on('error', reject);
        socket.on('open', () => socket.send('hi'));
        socket.on('message', (data) => resolve(String(data)));
      });
      expect(echoed).toBe('echo hi');
      socket.terminate();
    }
    expect(statesOf(rig)).toEqual(['healthy', 'ejected']);
  });
});

describe('a gateway', () => {
  it('reloads hosts and TLS under load without losing a request, shows its hosts, and stays ready when they are away', async () => {
    const authority = await createAuthority();
    const folder = await mkdtemp(join(tmpdir(), 'banyan-hosts-'));
    stops.push(() => rm(folder, { recursive: true, force: true }));
    const ca = join(folder, 'ca.pem');
    await writeFile(ca, authority.ca);
    const slow: RequestListener = (_req, res) => void setTimeout(() => res.end('ok'), 5);
    const secure = await listening(createTlsServer(await authority.issue({ names: ['127.0.0.1'] }), slow));
    const plain = `http://127.0.0.1:${portOf(await listening(createServer(slow)))}`;
    const file = join(folder, 'banyan.yaml');
    const legacies = [
      `{ url: "${plain}" }`,
      `{ url: "https://127.0.0.1:${portOf(secure)}", tls: { ca: "${ca}" } }`,
      `{ urls: [ "${plain}", "https://127.0.0.1:${portOf(secure)}" ], tls: { ca: "${ca}" }, health: { interval: 100ms } }`,
      `{ url: "https://127.0.0.1:${portOf(secure)}", tls: { verify: false } }`,
    ];
    const write = (legacy: string): Promise<void> =>
      writeFile(file, `version: 1\nlisten: 127.0.0.1:0\nadmin: { listen: 127.0.0.1:0 }\nlegacy: ${legacy}\n`);
    await write(legacies[0]!);
    const loaded = await loadConfig({ file, env: {} });
    if (!loaded.ok) throw new Error('not valid');
    const gateway: Gateway = await createGateway({
      config: loaded.config,
      configFile: file,
      version: '0',
      log: pino({ level: 'silent' }),
    });
    const { gateway: url } = await gateway.start();
    stops.push(() => gateway.stop());

    const answers = new Map<number, number>();
    let loading = true;
    const ask = (): Promise<number> =>
      new Promise((resolve, reject) => {
        const asked = httpRequest(url, { method: answers.size % 2 === 0 ? 'POST' : 'GET' }, (response) => {
          response.resume().on('end', () => resolve(response.statusCode ?? 0));
        });
        asked.on('error', reject).end('abc');
      });
    const client = async (): Promise<void> => {
      while (loading) {
        const status = await ask();
        answers.set(status, (answers.get(status) ?? 0) + 1);
      }
    };
    const load = Promise.all(Array.from({ length: 4 }, client));
    const total = (): number => [...answers.values()].reduce((sum, count) => sum + count, 0);
    for (let round = 1; round <= 12; round++) {
      await write(legacies[round % legacies.length]!);
      expect(await gateway.reload()).toMatchObject({ ok: true });
      const before = total();
      await until(() => total() >= before + 12, { describe: 'twelve answers' });
    }
    loading = false;
    await load;
    expect([...answers.keys()]).toEqual([200]);

    await write(`{ urls: [ "${plain}", "unix:${folder}/nobody.sock" ], health: { interval: 100ms } }`);
    await gateway.reload();
    const status = async () =>
      statusSchema.parse((await request(gateway.admin).get('/api/v1/status').set('host', 'localhost').expect(200)).body).upstreams;
    await until(async () => (await status())[0]?.hosts[1]?.state === 'unhealthy', { describe: 'the socket nobody listens on to be out' });
    expect(await status()).toEqual([
      {
        context: null,
        upstream: 'legacy',
        hosts: [
          { url: plain, state: 'healthy', detail: null },
          { url: `unix:${folder}/nobody.sock`, state: 'unhealthy', detail: 'ENOENT' },
        ],
      },
    ]);
    const ready = await request(gateway.admin).get('/readyz?verbose').expect(200);
    expect(ready.body).toMatchObject({ status: 'ready' });
    expect(ready.body.checks).toContainEqual({ name: 'upstream legacy', ok: false, detail: '1 of 2 hosts in use' });
    const { text } = await request(gateway.admin).get('/metrics').set('host', 'localhost').expect(200);
    expect(text).toContain('banyan_upstream_hosts{context="none",upstream="legacy",state="unhealthy"} 1');
    expect(text).toContain('banyan_upstream_hosts{context="none",upstream="legacy",state="healthy"} 1');
  });

  it('lets an answer that outlives drain and reload end over the host that it came from', async () => {
    const folder = await mkdtemp(join(tmpdir(), 'banyan-hosts-'));
    stops.push(() => rm(folder, { recursive: true, force: true }));
    let finish = (): void => undefined;
    const former = await listening(
      createServer((_req, res) => {
        res.write('begun, ');
        finish = () => void res.end('ended');
      }),
    );
    const file = join(folder, 'banyan.yaml');
    const write = (url: string): Promise<void> =>
      writeFile(file, `version: 1\nlisten: 127.0.0.1:0\nadmin: { listen: 127.0.0.1:0 }\ndrain: 10ms\nlegacy: { url: "${url}" }\n`);
    await write(`http://127.0.0.1:${portOf(former)}`);
    const loaded = await loadConfig({ file, env: {} });
    if (!loaded.ok) throw new Error('not valid');
    const gateway = await createGateway({ config: loaded.config, configFile: file, version: '0', log: pino({ level: 'silent' }) });
    const { gateway: url } = await gateway.start();
    stops.push(() => gateway.stop());

    const client = await rawConnect(Number(new URL(url).port));
    stops.push(async () => client.destroy());
    client.write(GET);
    await client.until('begun, ');
    await write(await named('b'));
    await gateway.reload();
    const other = await fetch(url);
    expect(await other.text()).toBe('b');
    // longer than drain and the next look
    await new Promise((resolve) => setTimeout(resolve, 400));
    finish();
    await client.until('ended\r\n0\r\n\r\n');
    await until(() => new Promise<boolean>((resolve) => former.getConnections((_error, count) => resolve(count === 0))), {
      describe: 'the former host to be left',
    });
  });
});
