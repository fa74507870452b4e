import { once } from 'node:events';
import { mkdtempSync, renameSync, rmSync, writeFileSync } from 'node:fs';
import { connect as connectHttp2 } from 'node:http2';
import { connect as connectTcp } from 'node:net';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { type ConnectionOptions, connect, type TLSSocket } from 'node:tls';
import { afterAll, afterEach, beforeAll, describe, expect, it } from '@jest/globals';
import { createListener, type Listener } from '../../gateway/proxy/listener.ts';
import type { CertificateSource } from '../../gateway/proxy/tls.ts';
import { type Authority, type Certificate, createAuthority } from '../harness/certificates.ts';
import { RawConnection, rawServer, statusOf, valuesOf } from '../harness/raw-http.ts';
import { until } from '../harness/wait.ts';
import { answering, OK, openRig, type Rig, type RigOptions } from './proxy-rig.ts';

let authority: Authority;
let shop: Certificate;
let other: Certificate;
let folder: string;
beforeAll(async () => {
  authority = await createAuthority();
  shop = await authority.issue({ names: ['shop.test'] });
  other = await authority.issue({ names: ['*.other.test', 'other.test'] });
  folder = mkdtempSync(join(tmpdir(), 'banyan-tls-'));
});
afterAll(() => rmSync(folder, { recursive: true, force: true }));

let rig: Rig | undefined;
const sockets: TLSSocket[] = [];
afterEach(async () => {
  for (const socket of sockets.splice(0)) socket.destroy();
  await rig?.stop();
  rig = undefined;
});

const open = async (options: RigOptions = {}, script: Parameters<typeof openRig>[0] = answering(() => OK)): Promise<Rig> => {
  rig = await openRig(script, { certificates: [shop], ...options });
  return rig;
};

const dial = async (port: number, options: ConnectionOptions = {}): Promise<TLSSocket> => {
  const socket = connect({ host: '127.0.0.1', port, ca: authority.ca, servername: 'shop.test', ALPNProtocols: ['http/1.1'], ...options });
  sockets.push(socket);
  socket.on('error', () => undefined);
  await once(socket, 'secureConnect');
  return socket;
};

const client = async (port: number, options: ConnectionOptions = {}): Promise<RawConnection> =>
  new RawConnection(await dial(port, options));

/** Why a handshake fails. */
const failure = async (port: number, options: ConnectionOptions = {}): Promise<string> => {
  const socket = connect({ host: '127.0.0.1', port, ca: authority.ca, servername: 'shop.test', ...options });
  sockets.push(socket);
  const [error] = (await once(socket, 'error')) as [NodeJS.ErrnoException];
  return error.code ?? error.message;
};

/** The names of the certificate that is shown. */
const shown = async (port: number, servername: string): Promise<string | undefined> => {
  const socket = await dial(port, { servername, rejectUnauthorized: false });
  const { subjectaltname } = socket.getPeerCertificate();
  socket.destroy();
  return subjectaltname;
};

const GET = 'GET /a HTTP/1.1\r\nHost: shop.test\r\n\r\n';

describe('HTTP/1.1 over TLS', () => {
  it('is passed on as https, on the port that https has', async () => {
    const seen = Promise.withResolvers<Parameters<typeof valuesOf>[0]>();
    const { port } = await open(
      {},
      answering((request) => {
        seen.resolve(request);
        return OK;
      }),
    );
    const answer = await (await client(port)).write(GET).answer();
    expect([statusOf(answer), answer.body.toString()]).toEqual([200, 'ok']);
    const request = await seen.promise;
    expect(valuesOf(request, 'x-forwarded-proto')).toEqual(['https']);
    expect(valuesOf(request, 'x-forwarded-port')).toEqual(['443']);
    expect(valuesOf(request, 'forwarded')).toEqual(['for=127.0.0.1;host="shop.test";proto=https']);
    expect(valuesOf(request, 'via')).toEqual(['1.1 banyan']);
  });

  it('refuses what two could read differently, in problem+json', async () => {
    const { port, server } = await open();
    const answer = await (await client(port))
      .write('POST /a HTTP/1.1\r\nHost: shop.test\r\nContent-Length: 3\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n')
      .answer();
    expect([statusOf(answer), valuesOf(answer, 'content-type')]).toEqual([400, ['application/problem+json']]);
    expect(server.connections).toHaveLength(0);
  });

  it('lets a client read an early answer before the connection ends', async () => {
    const { port } = await open({}, async (connection) => {
      await connection.head();
      connection.write('HTTP/1.1 413 Too Large\r\nContent-Length: 2\r\n\r\nno');
      await connection.rest();
    });
    const raw = await client(port);
    raw.write('POST /a HTTP/1.1\r\nHost: shop.test\r\nContent-Length: 1000000\r\n\r\n').write('x'.repeat(100_000));
    const answer = await raw.answer();
    expect([statusOf(answer), answer.body.toString(), valuesOf(answer, 'connection')]).toEqual([413, 'no', ['close']]);
    raw.end();
    await raw.closed;
  });

  it('never ends a cut answer to HTTP/1.0, which has no length, with the alert of a whole one (RFC 8446 6.1)', async () => {
    const { port } = await open({}, async (connection) => {
      await connection.message();
      connection.write('HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n').end();
    });
    // Node tells nobody whether an alert came, so a relay looks at the records; TLS 1.2 shows their types.
    const records: number[] = [];
    const relay = await rawServer(async (near) => {
      const far = connectTcp(port, '127.0.0.1');
      near.socket.pipe(far);
      let bytes: Buffer = Buffer.alloc(0);
      far.on('data', (chunk) => {
        near.write(chunk);
        bytes = Buffer.concat([bytes, chunk]);
        for (; bytes.length >= 5 && bytes.length >= 5 + bytes.readUInt16BE(3); bytes = bytes.subarray(5 + bytes.readUInt16BE(3)))
          records.push(bytes[0]!);
      });
      await once(far, 'close');
      near.end();
    });
    const raw = await client(relay.port, { maxVersion: 'TLSv1.2' });
    raw.write('GET /a HTTP/1.0\r\nHost: shop.test\r\n\r\n');
    expect(await raw.rest()).toMatch(/abc$/);
    await relay.close();
    const ALERT = 21;
    expect(records).not.toContain(ALERT);
    expect(records.length).toBeGreaterThan(3);
  });

  it('gives 408 to a head that does not come, and closes a handshake that does not', async () => {
    const { port } = await open({ limits: { headerTimeoutMs: 300 } });
    const raw = await client(port);
    raw.write('GET /a HTTP/1.1\r\nHo');
    expect(statusOf(await raw.answer())).toBe(408);
    const silent = connectTcp(port, '127.0.0.1');
    await once(silent, 'close');
    await raw.closed;
  });

  it('answers a client that has closed its sending side, and holds nothing for one that left in the handshake', async () => {
    const { port, listener } = await open({ limits: { headerTimeoutMs: 60_000 } });
    const raw = await client(port);
    raw.write(GET);
    raw.end();
    expect((await raw.answer()).body.toString()).toBe('ok');
    await raw.closed;
    const hello = connectTcp(port, '127.0.0.1');
    hello.end(Buffer.from([22, 3, 1, 0, 200, 1]));
    hello.resume();
    await once(hello, 'close');
    await dial(port).then((socket) => socket.destroy());
    await until(() => listener.connections === 0, { describe: 'no connection' });
  });

  it('survives who speaks no TLS at all', async () => {
    const { port } = await open();
    const stranger = connectTcp(port, '127.0.0.1');
    stranger.on('error', () => undefined);
    stranger.write(GET);
    stranger.resume();
    await once(stranger, 'close');
    expect(statusOf(await (await client(port)).write(GET).answer())).toBe(200);
  });

  it('takes no more connections than it may', async () => {
    const { port } = await open({ limits: { maxConnections: 1 } });
    const first = await client(port);
    await first.write(GET).answer();
    expect(await failure(port)).toBe('ECONNRESET');
    expect(statusOf(await first.write(GET).answer())).toBe(200);
  });

  it('refuses TLS 1.1', async () => {
    const { port } = await open();
    expect(await failure(port, { minVersion: 'TLSv1', maxVersion: 'TLSv1.1', ciphers: 'DEFAULT@SECLEVEL=0' })).toMatch(/ERR_SSL/);
  });
});

describe('drain over TLS', () => {
  it('lets what is under way finish and closes what is idle or silent', async () => {
    const release = Promise.withResolvers<void>();
    const begun = Promise.withResolvers<void>();
    const { port, listener } = await open(
      {},
      answering(async ({ line }) => {
        if (line.includes('/slow')) {
          begun.resolve();
          await release.promise;
        }
        return OK;
      }),
    );
    const idle = await client(port);
    await idle.write(GET).answer();
    const silent = await client(port);
    const slow = await client(port);
    slow.write('GET /slow HTTP/1.1\r\nHost: shop.test\r\n\r\n');
    await begun.promise;
    const drained = listener.drain(60_000);
    await Promise.all([idle.closed, silent.closed]);
    release.resolve();
    const answer = await slow.answer();
    expect(answer.body.toString()).toBe('ok');
    await drained;
    expect(listener.connections).toBe(0);
  });
});

describe('which protocol', () => {
  it('ALPN tells', async () => {
    const { port } = await open({ http2: true });
    const session = connectHttp2(`https://127.0.0.1:${port}`, { ca: authority.ca, servername: 'shop.test' });
    const stream = session.request({ ':path': '/a', ':authority': 'shop.test' });
    const [head] = (await once(stream, 'response')) as unknown as [Record<string, unknown>];
    expect([head[':status'], session.alpnProtocol]).toEqual([200, 'h2']);
    stream.resume();
    await once(stream, 'close');
    session.close();
    expect(statusOf(await (await client(port)).write(GET).answer())).toBe(200);
    expect(statusOf(await (await client(port, { ALPNProtocols: [] })).write(GET).answer())).toBe(200);
  });

  it('is HTTP/1.1 alone where HTTP/2 is not asked for; a client that knows neither is told so', async () => {
    const { port } = await open();
    expect((await dial(port, { ALPNProtocols: ['h2', 'http/1.1'] })).alpnProtocol).toBe('http/1.1');
    expect(await failure(port, { ALPNProtocols: ['h2'] })).toBe('ERR_SSL_TLSV1_ALERT_NO_APPLICATION_PROTOCOL');
  });
});

describe('which certificate', () => {
  it.each([
    ['shop.test', 'DNS:shop.test'],
    ['other.test', 'DNS:*.other.test, DNS:other.test'],
    ['www.other.test', 'DNS:*.other.test, DNS:other.test'],
    ['WWW.Other.TEST', 'DNS:*.other.test, DNS:other.test'],
    ['a.b.other.test', 'DNS:shop.test'],
    ['stranger.test', 'DNS:shop.test'],
    ['', 'DNS:shop.test'],
  ])('%p gets %s', async (servername, names) => {
    const { port } = await open({ certificates: [shop, other] });
    expect(await shown(port, servername)).toBe(names);
  });
});

describe('certificates that change', () => {
  let listener: Listener | undefined;
  afterEach(async () => {
    await listener?.drain(0);
    listener = undefined;
  });
  /** As careful writers do: a new file, then its name. */
  const save = (name: string, text: string): void => {
    writeFileSync(join(folder, `${name}.new`), text);
    renameSync(join(folder, `${name}.new`), join(folder, name));
  };
  const files: () => CertificateSource = () => ({ cert: join(folder, 'shop.crt'), key: join(folder, 'shop.key') });

  const listen = async (): Promise<{ port: number; told: () => Promise<Error | null> }> => {
    const waiting: ((error: Error | null) => void)[] = [];
    save('shop.crt', shop.cert);
    save('shop.key', shop.key);
    listener = createListener({
      handler: (_req, res) => {
        res.writeHead(200, 'OK', ['Content-Length', '2']);
        res.end(Buffer.from('ok'));
      },
      upgrade: (_req, socket) => socket.destroy(),
      limits: { headerTimeoutMs: 5_000, idleTimeoutMs: 5_000, maxHeaderBytes: 65_536, maxConnections: 100, maxStreams: 128 },
      certificates: [files()],
      onCertificates: (error) => waiting.shift()?.(error),
    });
    const { port } = await listener.listen('127.0.0.1', 0);
    return { port, told: () => new Promise((resolve) => waiting.push(resolve)) };
  };

  it('are taken from their files as they are saved; who is connected stays', async () => {
    const { port, told } = await listen();
    const before = await client(port);
    await before.write(GET).answer();
    const renewed = told();
    save('shop.crt', other.cert);
    save('shop.key', other.key);
    expect(await renewed).toBeNull();
    expect(await shown(port, 'shop.test')).toBe('DNS:*.other.test, DNS:other.test');
    expect((await before.write(GET).answer()).body.toString()).toBe('ok');
  });

  it('that cannot be used are told of, and the former ones stay until better ones come', async () => {
    const { port, told } = await listen();
    const mismatched = told();
    save('shop.crt', other.cert);
    const error = await mismatched;
    expect(error).toMatchObject({ code: 'not-configured', message: expect.stringContaining('the key is not the one of the certificate') });
    expect(String(error)).not.toContain('PRIVATE');
    expect(await shown(port, 'shop.test')).toBe('DNS:shop.test');
    const gone = told();
    rmSync(join(folder, 'shop.key'));
    expect(await gone).toMatchObject({ message: expect.stringContaining('its key cannot be read (ENOENT)') });
    expect(await shown(port, 'shop.test')).toBe('DNS:shop.test');
    const mended = told();
    save('shop.key', other.key);
    expect(await mended).toBeNull();
    expect(await shown(port, 'shop.test')).toBe('DNS:*.other.test, DNS:other.test');
  });

  it('are refused when the listener is made of them', () => {
    const make = (source: CertificateSource) => () =>
      createListener({
        handler: () => undefined,
        upgrade: () => undefined,
        limits: { headerTimeoutMs: 1, idleTimeoutMs: 1, maxHeaderBytes: 1, maxConnections: 1, maxStreams: 1 },
        certificates: [source],
      });
    expect(make({ cert: shop.cert, key: other.key })).toThrow('the key is not the one of the certificate');
    expect(make({ cert: join(folder, 'absent'), key: shop.key })).toThrow('its cert cannot be read (ENOENT)');
    expect(make({ cert: shop.cert, key: '-----BEGIN PRIVATE KEY-----\nMIIB\n-----END PRIVATE KEY-----\n' })).toThrow(
      'no pair that TLS can use',
    );
  });
});
