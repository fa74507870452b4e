import type { Socket } from 'node:net';
import type { ClientRequest } from './client.ts';

/** Is this address a proxy of ours, whose X-Forwarded-* and Forwarded are believed? IPv4-mapped addresses come as IPv4. */
export type Trusted = (address: string) => boolean;

/** Who is at the other end of a connection; the same for all its requests. */
export type Peer = {
  readonly address: string;
  readonly trusted: boolean;
  readonly scheme: 'http' | 'https';
  /** `for=` of RFC 7239, quoted as it must be. */
  readonly forwardedFor: string;
};

const peers = new WeakMap<Socket, { readonly judge: Trusted; readonly peer: Peer }>();

/** `::ffff:10.0.0.1` is `10.0.0.1`; a zone is dropped. */
export const plainAddress = (address: string): string => {
  const bare = address.startsWith('::ffff:') && address.includes('.') ? address.slice(7) : address;
  const zone = bare.indexOf('%');
  return zone === -1 ? bare : bare.slice(0, zone);
};

/** The peer of this request's connection, judged once for each connection and trust list. */
export const peerOf = (req: ClientRequest, judge: Trusted): Peer => {
  const known = peers.get(req.socket);
  if (known !== undefined && known.judge === judge) return known.peer;
  const address = plainAddress(req.socket.remoteAddress ?? 'unknown');
  const peer: Peer = {
    address,
    trusted: judge(address),
    scheme: 'encrypted' in req.socket ? 'https' : 'http',
    forwardedFor: address.includes(':') ? `"[${address}]"` : address,
  };
  peers.set(req.socket, { judge, peer });
  return peer;
};

/**
 * The client behind our own proxies: the right-most address of X-Forwarded-For that is not trusted; the left-most when all are.
 * Anything that is not an address ends the walk at the last one believed.
 */
export const clientAddressOf = (peer: Peer, forwardedFor: string | undefined, judge: Trusted): string => {
  if (!peer.trusted || forwardedFor === undefined) return peer.address;
  let client = peer.address;
  for (const part of forwardedFor.split(',').reverse()) {
    const address = plainAddress(
      part
        .trim()
        .replace(/^\[(.*)\](?::\d+)?$/, '$1')
        .replace(/^(\d+\.\d+\.\d+\.\d+):\d+$/, '$1'),
    );
    if (!/^[0-9A-Fa-f:.]{2,45}$/.test(address)) break;
    client = address;
    if (!judge(address)) break;
  }
  return client;
};
