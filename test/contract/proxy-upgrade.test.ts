import type { AddressInfo } from 'node:net';
import { afterEach, describe, expect, it } from '@jest/globals';
import WebSocket, { WebSocketServer } from 'ws';
import { rawServer, statusOf, valuesOf } from '../harness/raw-http.ts';
import { until } from '../harness/wait.ts';
import { answering, OK, openRig, type Rig, type RigOptions } from './proxy-rig.ts';

let rig: Rig | undefined;
let sockets: WebSocketServer | undefined;
afterEach(async () => {
  await rig?.stop();
  rig = undefined;
  for (const client of sockets?.clients ?? []) client.terminate();
  await new Promise<void>((resolve) => (sockets === undefined ? resolve() : sockets.close(() => resolve())));
  sockets = undefined;
});

const UPGRADE =
  'GET //chat%2F?a=1 HTTP/1.1\r\nHost: shop\r\nConnection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nX-R: 1\r\nX-R: 2\r\nX-Forwarded-For: 6.6.6.6\r\n\r\n';
const SWITCH = 'HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\nX-Up: 1\r\n\r\n';

/** A WebSocket server that echoes, behind a rig. */
const openEcho = async (): Promise<{ url: string; server: WebSocketServer }> => {
  const server = new WebSocketServer({ port: 0, host: '127.0.0.1', handleProtocols: (offered) => [...offered].at(-1) ?? false });
  sockets = server;
  await new Promise((resolve) => server.once('listening', resolve));
  server.on('connection', (socket) => socket.on('message', (data, binary) => socket.send(data, { binary })));
  rig = await openRig(async () => {}, { url: `http://127.0.0.1:${(server.address() as AddressInfo).port}` });
  return { url: `ws://127.0.0.1:${rig.port}/chat`, server };
};

const once = <T>(socket: WebSocket, event: string): Promise<T[]> =>
  new Promise((resolve) => socket.once(event, (...args: T[]) => resolve(args)));

describe('a WebSocket', () => {
  it('carries messages both ways, in order', async () => {
    const { url } = await openEcho();
    const socket = new WebSocket(url);
    await once(socket, 'open');
    const got: string[] = [];
    const done = new Promise<void>((resolve) => {
      socket.on('message', (data) => {
        got.push(String(data));
        if (got.length === 100) resolve();
      });
    });
    for (let i = 0; i < 100; i++) socket.send(String(i));
    await done;
    expect(got).toEqual(Array.from({ length: 100 }, (_, i) => String(i)));
    socket.terminate();
  });

  it('carries a large message whole', async () => {
    const { url } = await openEcho();
    const socket = new WebSocket(url);
    await once(socket, 'open');
    const big = Buffer.alloc(4 * 1024 * 1024, 7);
    socket.send(big);
    const [data] = await once<Buffer>(socket, 'message');
    expect(big.equals(data!)).toBe(true);
    socket.terminate();
  });

  it('gets the subprotocol that the upstream chose', async () => {
    const { url } = await openEcho();
    const socket = new WebSocket(url, ['one', 'two']);
    await once(socket, 'open');
    expect(socket.protocol).toBe('two');
    socket.terminate();
  });

  it('keeps close codes, both ways', async () => {
    const { url, server } = await openEcho();
    const socket = new WebSocket(url);
    const [[peer]] = await Promise.all([
      new Promise<WebSocket[]>((resolve) => server.once('connection', (s) => resolve([s]))),
      once(socket, 'open'),
    ]);
    const closed = once<number | Buffer>(socket, 'close');
    peer!.close(4001, 'bye');
    expect((await closed).map(String)).toEqual(['4001', 'bye']);
    const second = new WebSocket(url);
    const [[other]] = await Promise.all([
      new Promise<WebSocket[]>((resolve) => server.once('connection', (s) => resolve([s]))),
      once(second, 'open'),
    ]);
    const told = once<number | Buffer>(other!, 'close');
    second.close(4002, 'so long');
    expect((await told).map(String)).toEqual(['4002', 'so long']);
  });

  it('passes pings', async () => {
    const { url } = await openEcho();
    const socket = new WebSocket(url);
    await once(socket, 'open');
    socket.ping('x');
    expect(String((await once<Buffer>(socket, 'pong'))[0])).toBe('x');
    socket.terminate();
  });
});

describe('an upgrade', () => {
  it('goes up with its target, repeats and true identity, and the 101 comes back with its fields', async () => {
    let seen = '';
    rig = await openRig(async (connection) => {
      seen = (await connection.head()).raw;
      connection.write(SWITCH);
      await connection.rest();
    });
    const client = (await rig.client()).write(UPGRADE);
    const answer = await client.message();
    expect([statusOf(answer), valuesOf(answer, 'x-up'), valuesOf(answer, 'upgrade')]).toEqual([101, ['1'], ['websocket']]);
    expect(seen).toContain('GET //chat%2F?a=1 HTTP/1.1\r\nHost: shop\r\n');
    expect(seen).toContain('X-R: 1\r\nX-R: 2\r\n');
    expect(seen).toContain('X-Forwarded-For: 127.0.0.1\r\n');
    expect(seen).toContain('Via: 1.1 banyan\r\n');
    expect(seen).toMatch(/\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n/);
    expect(seen).not.toContain('6.6.6.6');
  });

  it('to another protocol, by another method, is tunnelled too, early bytes included', async () => {
    rig = await openRig(async (connection) => {
      expect((await connection.head()).raw).toMatch(/^POST \/raw HTTP\/1.1\r\n[\s\S]*Upgrade: tcp\r\n/);
      connection.write('HTTP/1.1 101 UPGRADED\r\nConnection: Upgrade\r\nUpgrade: tcp\r\n\r\nhello');
      connection.write(await connection.bytes(5));
    });
    const client = (await rig.client()).write('POST /raw HTTP/1.1\r\nHost: shop\r\nConnection: Upgrade\r\nUpgrade: tcp\r\n\r\nearly');
    expect(statusOf(await client.message())).toBe(101);
    expect((await client.bytes(10)).toString()).toBe('helloearly');
  });

  it.each(['h2c', 'TLS/1.0', 'HTTP/2.0', 'h2c, websocket'])(
    'to %s is ignored: the request is answered as a plain one',
    async (protocol) => {
      const seen: string[] = [];
      rig = await openRig(
        answering((request) => {
          seen.push(request.raw);
          return OK;
        }),
      );
      const answer = await rig.ask(
        `GET / HTTP/1.1\r\nHost: shop\r\nConnection: Upgrade, HTTP2-Settings\r\nUpgrade: ${protocol}\r\nHTTP2-Settings: AA\r\n\r\n`,
      );
      expect(statusOf(answer)).toBe(200);
      expect(seen[0]!.toLowerCase()).not.toMatch(/upgrade|http2/);
    },
  );

  it('with a body is ignored, the body sent on', async () => {
    rig = await openRig(
      answering((request) => `HTTP/1.1 200 OK\r\nContent-Length: ${request.body.length}\r\n\r\n${request.body.toString()}`),
    );
    const answer = await rig.ask(
      'POST / HTTP/1.1\r\nHost: shop\r\nConnection: Upgrade\r\nUpgrade: websocket\r\nContent-Length: 3\r\n\r\nabc',
    );
    expect([statusOf(answer), answer.body.toString()]).toEqual([200, 'abc']);
  });

  it.each([
    ['with a length', 'HTTP/1.1 403 Forbidden\r\nX-Why: no\r\nSet-Cookie: a=1\r\nSet-Cookie: b=2\r\nContent-Length: 2\r\n\r\nno'],
    [
      'in chunks',
      'HTTP/1.1 403 Forbidden\r\nX-Why: no\r\nSet-Cookie: a=1\r\nSet-Cookie: b=2\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nno\r\n0\r\n\r\n',
    ],
  ])('that the upstream refuses brings its refusal, %s', async (_framing, refusal) => {
    rig = await openRig(async (connection) => {
      await connection.head();
      connection.write(refusal);
    });
    const client = (await rig.client()).write(UPGRADE);
    const answer = await client.message();
    expect([statusOf(answer), valuesOf(answer, 'x-why'), valuesOf(answer, 'set-cookie'), answer.body.toString(), answer.complete]).toEqual([
      403,
      ['no'],
      ['a=1', 'b=2'],
      'no',
      true,
    ]);
    expect(await client.rest()).toBe('');
  });

  it('to an upstream that is not there is 502', async () => {
    const gone = await rawServer(async () => {});
    await gone.close();
    rig = await openRig(async () => {}, { url: gone.url });
    const answer = await rig.ask(UPGRADE);
    expect([statusOf(answer), valuesOf(answer, 'proxy-status')]).toEqual([502, ['banyan; error=connection_refused']]);
    expect(rig.upgradeFailures[0]).toMatchObject({ code: 'upstream-unreachable', sent: 'no' });
  });

  it('that the upstream resets is 502', async () => {
    rig = await openRig(async (connection) => {
      await connection.head();
      connection.reset();
    });
    expect(statusOf(await rig.ask(UPGRADE))).toBe(502);
  });

  it('that is not answered in time is 504', async () => {
    rig = await openRig(
      async (connection) => {
        await connection.rest();
      },
      { timeouts: { responseMs: 300 } },
    );
    expect(statusOf(await rig.ask(UPGRADE))).toBe(504);
  });

  it('with a bad Host is 400', async () => {
    rig = await openRig(async () => {});
    expect(statusOf(await rig.ask(UPGRADE.replace('Host: shop', 'Host: shop\r\nHost: other')))).toBe(400);
  });
});

describe('a tunnel', () => {
  /** A rig whose upstream switches and then waits. */
  const openTunnel = async (options: RigOptions = {}) => {
    rig = await openRig(async (connection) => {
      await connection.head();
      connection.write(SWITCH);
      await connection.closed;
    }, options);
    const client = (await rig.client()).write(UPGRADE);
    expect(statusOf(await client.message())).toBe(101);
    return { client, upstream: rig.server.connections[0]!, rig };
  };

  it('dies with its upstream', async () => {
    const { client, upstream } = await openTunnel();
    upstream.reset();
    await client.closed;
  });

  it('dies with its client', async () => {
    const { client, upstream } = await openTunnel();
    client.reset();
    await upstream.closed;
  });

  it('stays open one way when the other is done', async () => {
    const { client, upstream } = await openTunnel();
    client.write('last').end();
    expect(await upstream.until('last')).toBe('last');
    upstream.write('answer');
    expect((await client.bytes(6)).toString()).toBe('answer');
    upstream.end();
    expect(await client.rest()).toBe('');
  });

  it.each(['client', 'upstream'] as const)('half-closed by its %s ends when nothing moves any more', async (who) => {
    const { client, upstream, rig } = await openTunnel({ halfClosedMs: 2_000 });
    const [done, other] = who === 'client' ? [client, upstream] : [upstream, client];
    done.write('last').end();
    expect(await other.rest()).toBe('last');
    for (let i = 0; i < 4; i++) {
      // each within the limit, all together beyond it
      await new Promise((resolve) => setTimeout(resolve, 700));
      other.write('x');
      expect((await done.bytes(1)).toString()).toBe('x');
    }
    expect(await done.rest()).toBe('');
    const report = await until(() => rig.tunnelled[0], { describe: 'the end of the tunnel' });
    expect(report.end).toBe(`${who}-closed`);
  });

  it('has no idle limit of the listener', async () => {
    rig = await openRig(
      async (connection) => {
        await connection.head();
        connection.write(SWITCH);
        connection.write(await connection.bytes(1));
      },
      { limits: { idleTimeoutMs: 200, headerTimeoutMs: 200 } },
    );
    const client = (await rig.client()).write(UPGRADE);
    await client.message();
    // Longer than both limits and the listener's checking interval: their passing is what is tested.
    await new Promise((resolve) => setTimeout(resolve, 1_000));
    expect((await client.write('x').bytes(1)).toString()).toBe('x');
  });

  it('ends when the listener drains', async () => {
    const { client, rig } = await openTunnel();
    const drained = Promise.all([rig.listener.drain(5_000), rig.upgrader.drain(200, 5_000)]);
    expect(await client.rest()).toBe('\x88\x1e\x03\xe9the gateway is shutting down');
    client.end();
    await drained;
    expect(rig.listener.tunnels).toBe(0);
  });
});

describe('an upgrade with too large a head', () => {
  it.each([
    [414, `GET /${'a'.repeat(1_100)} HTTP/1.1\r\nHost: shop\r\n`],
    [431, `GET / HTTP/1.1\r\nHost: shop\r\nX-Long: ${'a'.repeat(1_100)}\r\n`],
  ])('is refused with %i and reaches nobody', async (status, head) => {
    rig = await openRig(
      answering(() => SWITCH),
      { limits: { maxHeaderBytes: 1_000 } },
    );
    const answer = await rig.ask(`${head}Connection: Upgrade\r\nUpgrade: websocket\r\n\r\n`);
    expect(statusOf(answer)).toBe(status);
    expect(rig.server.connections).toHaveLength(0);
  });
});
