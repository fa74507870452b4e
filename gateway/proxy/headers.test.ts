import { describe, expect, it } from '@jest/globals';
import { filterTrailers, isIdentity, namedByConnection, withHeaders } from './headers.ts';
import { clientAddressOf, type Peer, plainAddress } from './peer.ts';

describe('namedByConnection', () => {
  it('lists what may be dropped and nothing that frames, routes or identifies', () => {
    expect([...(namedByConnection('close, X-A , host, Content-Length, x-forwarded-for, x_forwarded_for, x-b') ?? [])]).toEqual([
      'x-a',
      'x-b',
    ]);
    expect(namedByConnection('keep-alive')).toBeNull();
  });
});

describe('isIdentity', () => {
  it.each(['x-forwarded-for', 'x_forwarded_host', 'forwarded', 'x-real-ip', 'x_real-ip'])('%s says who the client is', (name) => {
    expect(isIdentity(name)).toBe(true);
  });
  it.each(['x-request-id', 'from', 'x-forward', 'accept'])('%s does not', (name) => {
    expect(isIdentity(name)).toBe(false);
  });
});

describe('withHeaders', () => {
  it('replaces every field of a name and removes where the value is empty', () => {
    expect(withHeaders(['Host', 'x', 'A', '1', 'a', '2', 'B', '3'], ['a', '9', 'b', ''])).toEqual(['Host', 'x', 'a', '9']);
  });
});

describe('filterTrailers', () => {
  it('lets no framing, routing or identity arrive late', () => {
    expect(filterTrailers(['X-Sum', '1', 'Content-Length', '2', 'Forwarded', 'for=x', 'banyan-write', '3'])).toEqual(['X-Sum', '1']);
  });
});

describe('clientAddressOf', () => {
  const peer: Peer = { address: '10.0.0.1', trusted: true, scheme: 'http', forwardedFor: '10.0.0.1' };
  const ours = (address: string) => address.startsWith('10.');
  it.each([
    ['1.1.1.1, 2.2.2.2, 10.0.0.2', '2.2.2.2'],
    ['10.0.0.9, 10.0.0.2', '10.0.0.9'],
    ['2.2.2.2:4711', '2.2.2.2'],
    ['[2001:db8::1]:80', '2001:db8::1'],
    ['unknown', '10.0.0.1'],
    ['1.1.1.1, nonsense, 10.0.0.3', '10.0.0.3'],
  ])('of %s is %s', (forwardedFor, client) => {
    expect(clientAddressOf(peer, forwardedFor, ours)).toBe(client);
  });
  it('is the peer when the peer is not trusted', () => {
    expect(clientAddressOf({ ...peer, trusted: false }, '1.1.1.1', ours)).toBe('10.0.0.1');
  });
});

describe('plainAddress', () => {
  it.each([
    ['::ffff:127.0.0.1', '127.0.0.1'],
    ['fe80::1%eth0', 'fe80::1'],
    ['::1', '::1'],
  ])('of %s is %s', (address, plain) => {
    expect(plainAddress(address)).toBe(plain);
  });
});
