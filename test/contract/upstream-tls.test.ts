import { mkdtemp, rm, utimes, writeFile } from 'node:fs/promises';
import { createServer as createHttpServer, type RequestListener } from 'node:http';
import { createServer, type Server, type ServerOptions } from 'node:https';
import type { AddressInfo, Server as NetServer, Socket } from 'node:net';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import type { TLSSocket } from 'node:tls';
import { AppError } from '@banyan/contracts/errors.ts';
import { afterEach, beforeAll, describe, expect, it, jest } from '@jest/globals';
import { askUpstream } from '../../gateway/proxy/ask.ts';
import type { TlsOptions } from '../../gateway/proxy/connect.ts';
import { proxyStatusOf } from '../../gateway/proxy/failures.ts';
import { createUpstream, type HostWatch, type Upstream } from '../../gateway/proxy/upstream.ts';
import { type Authority, type Certificate, createAuthority, selfSigned } from '../harness/certificates.ts';
import { openRig } from './proxy-rig.ts';

const timeouts = { connectMs: 2_000, responseMs: 2_000, idleMs: 2_000 };
const plain: TlsOptions = { ca: null, cert: null, key: null, servername: null, verify: true };

let authority: Authority;
let good: Certificate;
beforeAll(async () => {
  authority = await createAuthority();
  good = await authority.issue({ names: ['localhost', '127.0.0.1'] });
});

const stops: (() => Promise<unknown>)[] = [];
afterEach(async () => {
  for (const stop of stops.splice(0).reverse()) await stop();
});

const listening = async <S extends NetServer>(server: S, at: { port: number; host: string } | { path: string }): Promise<S> => {
  const sockets = new Set<Socket>();
  server.on('connection', (socket: Socket) => {
    sockets.add(socket);
    socket.once('close', () => sockets.delete(socket));
    socket.on('error', () => undefined);
  });
  await new Promise<void>((resolve) => server.listen(at, resolve));
  stops.push(() => {
    for (const socket of sockets) socket.destroy();
    return new Promise((resolve) => server.close(resolve));
  });
  return server;
};

/** Answers with what it knows of the connection. */
const tellConnection: RequestListener = (req, res) => {
  const socket = req.socket as TLSSocket;
  res.end(
    JSON.stringify({
      servername: socket.servername,
      alpn: socket.alpnProtocol,
      resumed: socket.isSessionReused(),
      client: socket.getPeerCertificate().subject?.CN ?? null,
      host: req.headers.host,
    }),
  );
};

const secure = (options: ServerOptions, handler: RequestListener = tellConnection): Promise<Server> =>
  listening(createServer(options, handler), { host: '127.0.0.1', port: 0 });

const urlOf = (server: NetServer, host = '127.0.0.1'): string => `https://${host}:${(server.address() as AddressInfo).port}`;

const upstreamOf = (url: string, tls: Partial<TlsOptions> = {}, watch: HostWatch = {}): Upstream => {
  const upstream = createUpstream({ name: 'legacy', urls: [url], timeouts, tls: { ...plain, ...tls } }, watch);
  stops.push(() => upstream.stop());
  return upstream;
};

const tell = async (upstream: Upstream): Promise<Record<string, unknown>> => {
  const { status, body } = await askUpstream(upstream, { path: '/', limitBytes: 10_000 });
  expect(status).toBe(200);
  return JSON.parse(body.toString()) as Record<string, unknown>;
};

/** Code, Proxy-Status and what is known of the sending of the error of a question. */
const failureOf = async (upstream: Upstream): Promise<readonly [string, string, string]> => {
  const error = await askUpstream(upstream, { path: '/', limitBytes: 10_000 }).then(
    () => new Error('answered'),
    (thrown: unknown) => thrown,
  );
  if (!(error instanceof AppError)) throw error;
  // what a client gets to read says nothing of certificates
  expect(error.message).toBe('The upstream could not be reached');
  return [error.code, proxyStatusOf(error), error.sent];
};

describe('an upstream behind TLS', () => {
  it('is spoken to in HTTP/1.1 when its authority is trusted, by name or by address', async () => {
    const server = await secure({ ...good });
    expect(await tell(upstreamOf(urlOf(server), { ca: authority.ca }))).toMatchObject({ servername: false, alpn: 'http/1.1' });
    expect(await tell(upstreamOf(urlOf(server, 'localhost'), { ca: authority.ca }))).toMatchObject({ servername: 'localhost' });
  });

  it('is asked for the name that `servername` says', async () => {
    const certificate = await authority.issue({ names: ['shop.internal'] });
    const server = await secure({ ...certificate });
    const upstream = upstreamOf(urlOf(server), { ca: authority.ca, servername: 'shop.internal' });
    expect(await tell(upstream)).toMatchObject({ servername: 'shop.internal' });
  });

  it.each([
    ['nobody vouches for', () => selfSigned({ names: ['127.0.0.1'] })],
    ['another authority signed', async () => (await createAuthority('another')).issue({ names: ['127.0.0.1'] })],
    ['names another host', () => authority.issue({ names: ['other.internal'] })],
    ['has expired', () => authority.issue({ names: ['127.0.0.1'], notBefore: new Date(1e12), notAfter: new Date(1.1e12) })],
    ['is not valid yet', () => authority.issue({ names: ['127.0.0.1'], notBefore: new Date(4e12), notAfter: new Date(4.1e12) })],
  ])('is not sent a byte when its certificate %s', async (_why, make) => {
    const { cert, key } = await make();
    let requests = 0;
    const server = await secure({ cert, key }, (_req, res) => {
      requests++;
      res.end();
    });
    expect(await failureOf(upstreamOf(urlOf(server), { ca: authority.ca }))).toEqual([
      'upstream-unreachable',
      'tls_certificate_error',
      'no',
    ]);
    expect(requests).toBe(0);
    // and all of them are taken when verification is off
    expect((await askUpstream(upstreamOf(urlOf(server), { verify: false }), { path: '/', limitBytes: 10 })).status).toBe(200);
  });

  it('gets our certificate when it demands one', async () => {
    const server = await secure({ ...good, ca: authority.ca, requestCert: true, rejectUnauthorized: true });
    const own = await authority.issue({ names: ['gateway'], use: 'client' });
    expect(await tell(upstreamOf(urlOf(server), { ca: authority.ca, cert: own.cert, key: own.key }))).toMatchObject({ client: 'gateway' });
  });

  it('that demands one of which there is none ends the handshake (TLS 1.2), or the first exchange (TLS 1.3)', async () => {
    const demand = { ...good, ca: authority.ca, requestCert: true, rejectUnauthorized: true };
    const old = upstreamOf(urlOf(await secure({ ...demand, maxVersion: 'TLSv1.2' })), { ca: authority.ca });
    expect(await failureOf(old)).toEqual(['upstream-unreachable', 'tls_alert_received', 'no']);
    let requests = 0;
    const server = await secure(demand, (_req, res) => {
      requests++;
      res.end();
    });
    expect(await failureOf(upstreamOf(urlOf(server), { ca: authority.ca }))).toEqual(['upstream-unreachable', 'tls_alert_received', 'no']);
    expect(requests).toBe(0);
  });

  it('that speaks no TLS is a protocol error', async () => {
    const server = await listening(
      createHttpServer((_req, res) => res.end()),
      { host: '127.0.0.1', port: 0 },
    );
    expect(await failureOf(upstreamOf(urlOf(server)))).toEqual(['upstream-unreachable', 'tls_protocol_error', 'no']);
  });

  it('is not shaken hands with in full again on a second connection', async () => {
    const server = await secure({ ...good }, (req, res) => {
      res.setHeader('connection', 'close');
      tellConnection(req, res);
    });
    const upstream = upstreamOf(urlOf(server), { ca: authority.ca });
    expect(await tell(upstream)).toMatchObject({ resumed: false });
    expect(await tell(upstream)).toMatchObject({ resumed: true });
  });

  it('is met with new material once the file changed, and with the former while the new cannot be used', async () => {
    const folder = await mkdtemp(join(tmpdir(), 'banyan-tls-'));
    stops.push(() => rm(folder, { recursive: true }));
    const file = join(folder, 'ca.pem');
    const second = await createAuthority('second');
    await writeFile(file, second.ca);
    const server = await secure({ ...good }, (_req, res) => res.setHeader('connection', 'close').end('{}'));
    const troubles: Error[] = [];
    const started = performance.now();
    const clock = jest.spyOn(performance, 'now');
    stops.push(async () => clock.mockRestore());
    const upstream = upstreamOf(urlOf(server), { ca: file }, { onTrouble: (error) => troubles.push(error) });
    expect((await failureOf(upstream))[1]).toBe('tls_certificate_error');
    await writeFile(file, authority.ca);
    await utimes(file, 1, 1);
    clock.mockReturnValue(started + 60_000);
    await tell(upstream);
    await writeFile(file, 'nonsense');
    clock.mockReturnValue(started + 120_000);
    await tell(upstream);
    expect(troubles.map(({ message }) => message)).toEqual(['no PEM file']);
  });

  it('cannot be built on material that is not there', () => {
    expect(() => upstreamOf('https://127.0.0.1:1', { ca: '/nowhere/ca.pem' })).toThrow(/TLS material .* ENOENT/);
  });

  it('takes streamed bodies too, and shows a client nothing of its certificate', async () => {
    const server = await secure({ ...good }, (req, res) => req.pipe(res));
    const rig = await openRig(async () => undefined, { url: urlOf(server), tls: { ...plain, ca: authority.ca } });
    stops.push(rig.stop);
    const POST = 'POST / HTTP/1.1\r\nHost: shop\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\n\r\n';
    expect((await rig.ask(POST)).body.toString()).toBe('abc');
    const wary = await openRig(async () => undefined, { url: urlOf(server) });
    stops.push(wary.stop);
    for (const bytes of [POST, 'GET / HTTP/1.1\r\nHost: shop\r\n\r\n']) {
      const refused = await wary.ask(bytes);
      expect(refused.line).toBe('HTTP/1.1 502 Bad Gateway');
      expect(refused.raw).toContain('error=tls_certificate_error');
      expect(refused.raw).not.toMatch(/UNABLE|issuer|certificate of|127\.0\.0\.1/i);
    }
  });
});

describe('an upstream behind a unix socket', () => {
  it('is reached, with the Host of the client or its own', async () => {
    const folder = await mkdtemp(join(tmpdir(), 'banyan-unix-'));
    stops.push(() => rm(folder, { recursive: true, force: true }));
    const path = join(folder, 'shop.sock');
    await listening(
      createHttpServer((req, res) => {
        res.setHeader('x-host', String(req.headers.host));
        req.pipe(res);
      }),
      { path },
    );
    for (const [hostHeader, host] of [
      ['preserve', 'shop'],
      ['upstream', 'localhost'],
    ] as const) {
      const rig = await openRig(async () => undefined, { url: `unix:${path}`, hostHeader });
      stops.push(rig.stop);
      expect((await rig.ask('GET / HTTP/1.1\r\nHost: shop\r\n\r\n')).raw).toContain(`x-host: ${host}\r\n`);
      expect((await rig.ask('POST / HTTP/1.1\r\nHost: shop\r\nContent-Length: 3\r\n\r\nabc')).body.toString()).toBe('abc');
    }
  });

  it('that is not there is a refused connection', async () => {
    expect(await failureOf(upstreamOf('unix:/tmp/banyan-nowhere/shop.sock'))).toEqual(['upstream-unreachable', 'connection_refused', 'no']);
  });
});
