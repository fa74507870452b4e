import { X509Certificate } from 'node:crypto';
import { once } from 'node:events';
import type { AddressInfo } from 'node:net';
import { connect, createServer, type TLSSocket } from 'node:tls';
import { beforeAll, describe, expect, it } from '@jest/globals';
import { type Authority, type Certificate, createAuthority, selfSigned } from './certificates.ts';

/** Both ends of one handshake: whom each took the other for, or why it did not. */
const handshake = async (
  server: Certificate,
  client: { ca: string; servername: string; own?: Certificate },
): Promise<{ client: unknown; server: unknown }> => {
  const listener = createServer({ ...server, ca: client.own?.ca, requestCert: client.own !== undefined, rejectUnauthorized: false });
  listener.listen(0, '127.0.0.1');
  await once(listener, 'listening');
  const accepted = once(listener, 'secureConnection');
  const socket = connect({
    host: '127.0.0.1',
    port: (listener.address() as AddressInfo).port,
    servername: client.servername,
    ca: client.ca,
    cert: client.own?.cert,
    key: client.own?.key,
    rejectUnauthorized: false,
  });
  socket.on('error', () => undefined);
  await once(socket, 'secureConnect');
  const [other] = (await accepted) as [TLSSocket];
  const result = {
    client: socket.authorized ? null : socket.authorizationError,
    server: client.own === undefined || other.authorized ? null : other.authorizationError,
  };
  socket.destroy();
  other.destroy();
  listener.close();
  await once(listener, 'close');
  return result;
};

describe('throw-away certificates', () => {
  let authority: Authority;
  let shop: Certificate;
  beforeAll(async () => {
    authority = await createAuthority();
    shop = await authority.issue({ names: ['shop.test', '*.shop.test', '127.0.0.1', '::1'] });
  });

  it('are believed for each of their names by who trusts the authority, and for no other', async () => {
    for (const servername of ['shop.test', 'www.shop.test'])
      expect(await handshake(shop, { ca: authority.ca, servername })).toEqual({ client: null, server: null });
    expect((await handshake(shop, { ca: authority.ca, servername: 'other.test' })).client).toBe('ERR_TLS_CERT_ALTNAME_INVALID');
  });

  it('name addresses too', () => {
    const parsed = new X509Certificate(shop.cert);
    expect(parsed.checkIP('127.0.0.1')).toBe('127.0.0.1');
    expect(parsed.checkIP('::1')).toBeDefined();
    expect(parsed.checkIP('127.0.0.2')).toBeUndefined();
  });

  it('are not believed by who trusts another authority', async () => {
    const stranger = await createAuthority('A stranger');
    expect((await handshake(shop, { ca: stranger.ca, servername: 'shop.test' })).client).not.toBeNull();
  });

  it('are not believed once they have expired', async () => {
    const expired = await authority.issue({ names: ['shop.test'], notAfter: new Date(Date.now() - 60_000) });
    expect((await handshake(expired, { ca: authority.ca, servername: 'shop.test' })).client).toBe('CERT_HAS_EXPIRED');
  });

  it('serve a client that has to show who it is', async () => {
    const own = await authority.issue({ names: ['worker-1'], use: 'client' });
    expect(await handshake(shop, { ca: authority.ca, servername: 'shop.test', own })).toEqual({ client: null, server: null });
    expect(
      (await handshake(shop, { ca: authority.ca, servername: 'shop.test', own: { ...shop, ca: authority.ca } })).server,
    ).not.toBeNull();
  });

  it('can vouch for themselves', async () => {
    const own = await selfSigned({ names: ['shop.test'] });
    expect(await handshake(own, { ca: own.ca, servername: 'shop.test' })).toEqual({ client: null, server: null });
  });
});
