import { createHash, randomBytes } from 'node:crypto';
import { once } from 'node:events';
import { mkdtemp, rm } from 'node:fs/promises';
import { createServer, type Server } from 'node:http';
import { createServer as createTlsServer } from 'node:https';
import { type AddressInfo, connect, createServer as createNetServer, type Socket } from 'node:net';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterEach, describe, expect, it } from '@jest/globals';
import { type RawData, WebSocket, WebSocketServer } from 'ws';
import { Tunnel } from '../../gateway/proxy/tunnel.ts';
import { createAuthority } from '../harness/certificates.ts';
import { type RawConnection, statusOf, valuesOf } from '../harness/raw-http.ts';
import { until } from '../harness/wait.ts';
import { openRig, type Rig, type RigOptions } from './proxy-rig.ts';

let rig: Rig | undefined;
const stops: (() => Promise<unknown>)[] = [];
afterEach(async () => {
  await rig?.stop();
  rig = undefined;
  for (const stop of stops.splice(0).reverse()) await stop();
});

type Kind = 'http' | 'https' | 'unix';
/** How the gateway is reached: by TLS or not, HTTP/2 offered beside it or not. */
type Front = 'ws' | 'wss' | 'ws beside HTTP/2' | 'wss beside HTTP/2';

/** A WebSocket server behind a rig, reached in one of several ways. */
const openServer = async (
  kind: Kind = 'http',
  serverOptions: ConstructorParameters<typeof WebSocketServer>[0] = {},
  front: Front = 'ws',
): Promise<{ url: string; ca: string; server: WebSocketServer; rig: Rig }> => {
  let http: Server;
  const options: RigOptions = { http2: front.endsWith('HTTP/2') };
  const authority = await createAuthority();
  if (front.startsWith('wss')) options.certificates = [await authority.issue({ names: ['127.0.0.1'] })];
  if (kind === 'https') {
    http = createTlsServer(await authority.issue({ names: ['127.0.0.1'] }));
    options.tls = { ca: authority.ca, cert: null, key: null, servername: null, verify: true };
  } else http = createServer();
  const server = new WebSocketServer({ server: http, ...serverOptions });
  if (kind === 'unix') {
    const folder = await mkdtemp(join(tmpdir(), 'banyan-tunnels-'));
    stops.push(() => rm(folder, { recursive: true, force: true }));
    const path = join(folder, 's');
    http.listen(path);
    options.url = `unix:${path}`;
  } else http.listen(0, '127.0.0.1');
  await once(http, 'listening');
  if (kind !== 'unix') options.url = `${kind}://127.0.0.1:${(http.address() as AddressInfo).port}`;
  stops.push(async () => {
    for (const client of server.clients) client.terminate();
    http.closeAllConnections();
    http.close();
    await once(http, 'close');
  });
  rig = await openRig(async () => {}, options);
  return { url: `${front.split(' ')[0]}://127.0.0.1:${rig.port}/chat`, ca: authority.ca, server, rig };
};

const meet = async (
  at: { url: string; ca: string; server: WebSocketServer },
  options: ConstructorParameters<typeof WebSocket>[2] = {},
): Promise<{ near: WebSocket; far: WebSocket }> => {
  const arrived = once(at.server, 'connection') as Promise<[WebSocket]>;
  const near = new WebSocket(at.url, { ca: at.ca, ...options });
  const [[far]] = await Promise.all([arrived, once(near, 'open')]);
  near.on('error', () => {});
  far.on('error', () => {});
  return { near, far };
};

const message = async (socket: WebSocket): Promise<{ data: RawData; binary: boolean }> => {
  const [data, binary] = (await once(socket, 'message')) as [RawData, boolean];
  return { data, binary };
};
const sha = (bytes: Buffer): string => createHash('sha256').update(bytes).digest('hex');
const hangUp = async (socket: WebSocket): Promise<void> => {
  socket.close();
  if (socket.readyState !== WebSocket.CLOSED) await once(socket, 'close');
};

describe.each<[Front, Kind]>([
  ['ws', 'http'],
  ['ws', 'https'],
  ['ws', 'unix'],
  ['wss', 'http'],
  ['ws beside HTTP/2', 'http'],
  ['wss beside HTTP/2', 'https'],
])('a WebSocket by %s to an upstream by %s', (front, kind) => {
  it('keeps text and binary, fragments, pings from both sides and close codes', async () => {
    const at = await openServer(kind, {}, front);
    const { near, far } = await meet(at);
    near.send('ä');
    expect(await message(far)).toEqual({ data: Buffer.from('ä'), binary: false });
    far.send(Buffer.from([0, 255]));
    expect(await message(near)).toEqual({ data: Buffer.from([0, 255]), binary: true });
    near.send('one ', { fin: false });
    near.send('two ', { fin: false });
    near.send('three', { fin: true });
    expect(String((await message(far)).data)).toBe('one two three');
    far.ping('x');
    expect(String((await once(far, 'pong'))[0])).toBe('x');
    near.ping('y');
    expect(String((await once(near, 'pong'))[0])).toBe('y');
    const closed = once(near, 'close');
    far.close(4321, 'enough');
    expect((await closed).map(String)).toEqual(['4321', 'enough']);
    await until(() => at.rig.upgrader.tunnels.size === 0, { describe: 'the end of the tunnel' });
  });

  it('sees the other end die, either way', async () => {
    const at = await openServer(kind, {}, front);
    const first = await meet(at);
    first.far.terminate();
    expect((await once(first.near, 'close'))[0]).toBe(1006);
    const second = await meet(at);
    second.near.terminate();
    expect((await once(second.far, 'close'))[0]).toBe(1006);
    await until(() => at.rig.upgrader.tunnels.size === 0, { describe: 'the end of both tunnels' });
  });

  it('is ended with 1001 on both sides, in the middle of what it carries', async () => {
    const at = await openServer(kind, {}, front);
    const held: Socket[] = [];
    at.rig.listener.server.on(front.startsWith('wss') ? 'secureConnection' : 'connection', (socket: Socket) => held.push(socket));
    const { near, far } = await meet(at);
    const arrived = message(near);
    const big = randomBytes(24 * 2 ** 20);
    near.pause();
    far.send(big, { compress: false });
    near.send('fragment', { fin: false });
    await until(() => held[0]!.writableLength > 0, { describe: 'the gateway to be held back in the middle of a frame' });
    const closed = Promise.all([once(near, 'close'), once(far, 'close')]);
    const drained = at.rig.upgrader.drain(5_000, 20_000);
    near.resume();
    expect(sha((await arrived).data as Buffer)).toBe(sha(big));
    expect((await closed).map(([code]) => code)).toEqual([1001, 1001]);
    await drained;
  });
});

describe('a WebSocket', () => {
  it('is compressed end to end, untouched in between', async () => {
    const at = await openServer('http', { perMessageDeflate: { threshold: 0 } });
    const { near, far } = await meet(at, { perMessageDeflate: { threshold: 0 } });
    expect(near.extensions).toContain('permessage-deflate');
    const text = 'again and '.repeat(10_000);
    near.send(text);
    expect(String((await message(far)).data)).toBe(text);
    far.send(text);
    expect(String((await message(near)).data)).toBe(text);
    await hangUp(near);
    const [report] = await until(() => (at.rig.tunnelled.length > 0 ? at.rig.tunnelled : null), { describe: 'the report' });
    expect(report!.bytesUp).toBeLessThan(text.length / 10);
    expect(report!.bytesDown).toBeLessThan(text.length / 10);
  });

  it('carries one message of 64 MB each way, whole', async () => {
    const at = await openServer('http', { maxPayload: 128 * 2 ** 20, perMessageDeflate: false });
    const { near, far } = await meet(at, { maxPayload: 128 * 2 ** 20, perMessageDeflate: false });
    const [up, down] = [randomBytes(64 * 2 ** 20), randomBytes(64 * 2 ** 20)];
    const arrived = Promise.all([message(far), message(near)]);
    near.send(up);
    far.send(down);
    const [atFar, atNear] = await arrived;
    expect([sha(atFar.data as Buffer), sha(atNear.data as Buffer)]).toEqual([sha(up), sha(down)]);
    await hangUp(near);
    const [report] = await until(() => (at.rig.tunnelled.length > 0 ? at.rig.tunnelled : null), { describe: 'the report' });
    // a header of 10 bytes, masked 14; Close 2 bytes, masked 6
    expect(report).toMatchObject({ bytesUp: up.length + 14 + 6, bytesDown: down.length + 10 + 2 });
  });

  it('holds a writer back while the reader stands still, either way', async () => {
    const at = await openServer('http', { perMessageDeflate: false, maxPayload: 128 * 2 ** 20 });
    const held: Socket[] = [];
    at.rig.listener.server.on('connection', (socket: Socket) => held.push(socket));
    const { near, far } = await meet(at, { perMessageDeflate: false, maxPayload: 128 * 2 ** 20 });
    const big = randomBytes(32 * 2 ** 20);
    for (const [writer, reader] of [
      [far, near],
      [near, far],
    ] as const) {
      reader.pause();
      writer.send(big);
      let before = -1;
      // what the kernel takes differs; it ends where the gateway stops reading
      await until(
        () => {
          const same = writer.bufferedAmount === before;
          before = writer.bufferedAmount;
          return same;
        },
        { describe: 'the writer to be held back', intervalMs: 200 },
      );
      expect(writer.bufferedAmount).toBeGreaterThan(0);
      // at most one read beyond the mark of Node's streams
      expect(held[0]!.writableLength).toBeLessThan(512 * 1024);
      expect(held[0]!.readableLength).toBeLessThan(512 * 1024);
      const got = message(reader);
      reader.resume();
      expect(sha((await got).data as Buffer)).toBe(sha(big));
    }
    await hangUp(near);
  });
});

describe('a tunnel', () => {
  it('is gone for good when one side is reset while the FIN of the other is being sent', async () => {
    const peers = createNetServer({ allowHalfOpen: true }, (socket) => socket.on('error', () => {}));
    peers.listen(0, '127.0.0.1');
    await once(peers, 'listening');
    const { port } = peers.address() as AddressInfo;
    const [client, upstream] = [connect(port, '127.0.0.1'), connect(port, '127.0.0.1')];
    await Promise.all([once(client, 'connect'), once(upstream, 'connect')]);
    for (const socket of [client, upstream]) socket.on('error', () => {});
    const tunnel = new Tunnel(client, upstream, false, 60_000);
    const ended = new Promise((resolve) => {
      tunnel.onEnd = resolve;
    });
    client.end();
    process.nextTick(() => upstream.destroy(new Error('reset')));
    // ahead of the test's own limit, so that a socket that never closes cannot hold up the others
    const late = setTimeout(() => {
      client.destroy();
      tunnel.onEnd?.({ end: 'drained', bytesUp: 0, bytesDown: 0 });
    }, 15_000);
    expect(await ended).toEqual({ end: 'upstream-reset', bytesUp: 0, bytesDown: 0 });
    clearTimeout(late);
    peers.close();
  });
});

const UPGRADE = 'GET /chat HTTP/1.1\r\nHost: shop\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n';

describe('an upgrade', () => {
  it('brings the fields of the 101 as sent, without those of the connection', async () => {
    rig = await openRig(async (connection) => {
      await connection.head();
      connection.write(
        'HTTP/1.1 101 Switching Protocols\r\nX-Two: a\r\nSec-WebSocket-Accept: s3\r\nConnection: Upgrade, X-Hop\r\nUpgrade: WebSocket\r\nX-Hop: 1\r\nKeep-Alive: 5\r\nSet-Cookie: a=1\r\nSet-Cookie: b=\xe4\r\nX-Two: b\r\n\r\n',
      );
      await connection.closed;
    });
    const head = await (await rig.client()).write(UPGRADE).head();
    expect(head.line).toBe('HTTP/1.1 101 Switching Protocols');
    const names = head.fields.map(([name]) => name);
    expect(names).not.toContain('X-Hop');
    expect(names).not.toContain('Keep-Alive');
    expect(names).toContain('Sec-WebSocket-Accept');
    const values = (name: string) => head.fields.filter(([field]) => field === name).map(([, value]) => value);
    expect([values('X-Two'), values('Set-Cookie'), values('Upgrade'), values('Connection'), values('Via')]).toEqual([
      ['a', 'b'],
      ['a=1', 'b=\xe4'],
      ['WebSocket'],
      ['Upgrade'],
      ['1.1 banyan'],
    ]);
  });

  it('passes interim answers on before its own', async () => {
    rig = await openRig(async (connection) => {
      await connection.head();
      connection.write(
        'HTTP/1.1 103 Early Hints\r\nLink: </a>\r\n\r\nHTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n',
      );
      await connection.closed;
    });
    const client = (await rig.client()).write(UPGRADE);
    const early = await client.message();
    expect([statusOf(early), valuesOf(early, 'link'), statusOf(await client.message())]).toEqual([103, ['</a>'], 101]);
  });

  it('takes no notice of a length in answers that have none', async () => {
    const length = 'Content-Length: 5\r\n';
    rig = await openRig(async (connection) => {
      await connection.head();
      connection.write(`HTTP/1.1 103 Early Hints\r\n${length}\r\n`);
      connection.write(`HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n${length}\r\nhello`);
      await connection.closed;
    });
    const client = (await rig.client()).write(UPGRADE);
    const heads = [await client.head(), await client.head()];
    expect(heads.map((head) => [head.line, /content-length/i.test(head.raw)])).toEqual([
      ['HTTP/1.1 103 Early Hints', false],
      ['HTTP/1.1 101 Switching Protocols', false],
    ]);
    expect(String(await client.bytes(5))).toBe('hello');
  });

  it('refused in chunks brings reason, repeats and trailers', async () => {
    rig = await openRig(async (connection) => {
      await connection.head();
      connection.write(
        'HTTP/1.1 426 No Way\r\nWWW-Authenticate: A\r\nWWW-Authenticate: B\r\nTrailer: X-End\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nno\r\n0\r\nX-End: 1\r\n\r\n',
      );
    });
    const client = (await rig.client()).write(UPGRADE);
    const answer = await client.message();
    expect([answer.line, valuesOf(answer, 'www-authenticate'), answer.body.toString(), answer.trailers]).toEqual([
      'HTTP/1.1 426 No Way',
      ['A', 'B'],
      'no',
      [['X-End', '1']],
    ]);
    expect(await client.rest()).toBe('');
  });

  it('refused with a body that breaks off shows that it broke off', async () => {
    rig = await openRig(async (connection) => {
      await connection.head();
      connection.write('HTTP/1.1 403 Forbidden\r\nContent-Length: 10\r\n\r\nhalf');
      await connection.bytes(0);
      setImmediate(() => connection.reset());
      await connection.closed;
    });
    const answer = await (await rig.client()).write(UPGRADE).message();
    expect([statusOf(answer), answer.complete]).toEqual([403, false]);
  });

  it('refused with a body that stands still is cut off in time', async () => {
    rig = await openRig(
      async (connection) => {
        await connection.head();
        connection.write('HTTP/1.1 403 Forbidden\r\nContent-Length: 10\r\n\r\nhalf');
        await connection.closed;
      },
      { timeouts: { idleMs: 100 } },
    );
    const answer = await (await rig.client()).write(UPGRADE).message();
    expect([statusOf(answer), answer.complete]).toEqual([403, false]);
  });

  it('refused with a large body brings it at the pace of a slow reader', async () => {
    const body = randomBytes(8 * 2 ** 20);
    rig = await openRig(async (connection) => {
      await connection.head();
      connection.write(`HTTP/1.1 403 Forbidden\r\nContent-Length: ${body.length}\r\n\r\n`).write(body);
      await connection.closed;
    });
    const held: Socket[] = [];
    rig.listener.server.on('connection', (socket: Socket) => held.push(socket));
    const client = (await rig.client()).write(UPGRADE);
    client.socket.pause();
    await until(() => held[0]!.writableNeedDrain, { describe: 'the gateway to be held back' });
    expect(held[0]!.writableLength).toBeLessThan(2 ** 20);
    client.socket.resume();
    const answer = await client.message();
    expect(sha(answer.body)).toBe(sha(body));
  });

  it('whose client goes while the upstream thinks is given up', async () => {
    const asked = Promise.withResolvers<RawConnection>();
    rig = await openRig(async (connection) => {
      await connection.head();
      asked.resolve(connection);
      await connection.closed;
    });
    const client = (await rig.client()).write(UPGRADE);
    const upstream = await asked.promise;
    client.reset();
    expect(await upstream.rest()).toBe('');
    upstream.end();
    await until(() => rig!.upgradeFailures[0]?.code === 'client-left', { describe: 'the failure' });
  });

  it.each([
    ['that is not HTTP', 'SSH-2.0-x\r\n\r\n'],
    ['with two lengths', 'HTTP/1.1 403 No\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\nab'],
  ])('answered by something %s is 502', async (_what, bytes) => {
    rig = await openRig(async (connection) => {
      await connection.head();
      connection.write(bytes);
      await connection.closed;
    });
    expect(statusOf(await rig.ask(UPGRADE))).toBe(502);
  });
});
