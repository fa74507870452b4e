import { connect as connectTcp, isIP, type Socket } from 'node:net';
import { type ConnectionOptions, connect as connectTls, createSecureContext, type SecureContext } from 'node:tls';
import { AppError } from '@banyan/contracts/errors.ts';
import { readPem, stampOf } from './pem.ts';

/** As `tls:` of the configuration: PEM text or the path of a PEM file each; null = not given. */
export type TlsOptions = {
  /** Instead of the public authorities. */
  readonly ca: string | null;
  readonly cert: string | null;
  readonly key: string | null;
  /** Null = the host of the url. */
  readonly servername: string | null;
  readonly verify: boolean;
};

/** Where one host is. */
export type Target = {
  /** As configured; shows in logs, metrics and the admin API. */
  readonly url: string;
  /** The `Host` field of requests made in the upstream's own name: its authority, `localhost` behind a unix socket. */
  readonly authority: string;
  readonly secure: boolean;
} & ({ readonly kind: 'tcp'; readonly hostname: string; readonly port: number } | { readonly kind: 'unix'; readonly path: string });

export type Connector = {
  readonly target: Target;
  /** The event with which a socket of `open` may be written to as far as the other side is concerned. */
  readonly ready: 'connect' | 'secureConnect';
  /**
   * A socket that connects (and shakes hands); what is written to it waits for that. Never throws: failures are the socket's `error`.
   * @param halfOpen a FIN of the other side leaves our way open; for tunnels
   */
  open(halfOpen?: boolean): Socket;
};

export type ConnectorOptions = {
  readonly url: string;
  /** Null = the defaults, for an `https:` url. */
  readonly tls: TlsOptions | null;
  /** Told when files of certificates changed and cannot be used; the former ones stay. */
  readonly onTrouble?: ((error: Error) => void) | undefined;
};

/** TCP's own keep-alive finds connections whose other end vanished without a word. */
const KEEP_ALIVE_MS = 30_000;
/** How often files of certificates are looked at while connections are opened. */
const LOOK_MS = 1_000;

/** Reads `http://host:port`, `https://host:port` or `unix:/path`. @throws AppError `not-configured` for anything else */
const targetOf = (url: string): Target => {
  if (url.startsWith('unix:/')) return { kind: 'unix', url, authority: 'localhost', secure: false, path: url.slice('unix:'.length) };
  const read = URL.canParse(url) ? new URL(url) : null;
  if (read === null || (read.protocol !== 'http:' && read.protocol !== 'https:'))
    throw new AppError('not-configured', 'An upstream is an http:, https: or unix: address');
  const secure = read.protocol === 'https:';
  return {
    kind: 'tcp',
    url: read.origin,
    authority: read.host,
    secure,
    hostname: read.hostname.replace(/^\[|\]$/g, ''),
    port: read.port === '' ? (secure ? 443 : 80) : Number(read.port),
  };
};

/** Opens connections to one host; holds none. @throws AppError `not-configured` for an address or certificates that cannot be used */
export const createConnector = (options: ConnectorOptions): Connector => {
  const target = targetOf(options.url);
  if (target.kind === 'tcp' && target.secure) return createTlsConnector(target, options);
  const where = target.kind === 'unix' ? { path: target.path } : { host: target.hostname, port: target.port };
  return {
    target,
    ready: 'connect',
    open(halfOpen = false) {
      const socket = connectTcp({ ...where, allowHalfOpen: halfOpen });
      return target.kind === 'unix' ? socket : socket.setNoDelay(true).setKeepAlive(true, KEEP_ALIVE_MS);
    },
  };
};

const createTlsConnector = (target: Target & { readonly kind: 'tcp' }, { tls, onTrouble }: ConnectorOptions): Connector => {
  const files = [tls?.ca ?? null, tls?.cert ?? null, tls?.key ?? null];
  let context: SecureContext;
  let stamp = stampOf(files);
  let lookedAt = performance.now();
  /** Of the last handshake: resuming saves a round trip and the signature (RFC 8446 2.2). */
  let session: Buffer | undefined;
  try {
    context = contextOf(tls);
  } catch (error) {
    throw new AppError('not-configured', `the TLS material for ${target.url} cannot be used: ${reasonOf(error)}`, { cause: error });
  }

  const refresh = (): void => {
    const now = performance.now();
    if (now - lookedAt < LOOK_MS) return;
    lookedAt = now;
    const seen = stampOf(files);
    if (seen === stamp) return;
    stamp = seen;
    try {
      context = contextOf(tls);
      session = undefined;
    } catch (error) {
      onTrouble?.(error instanceof Error ? error : new Error(String(error)));
    }
  };

  // RFC 6066 3: an address is no server name. The certificate is then held against the address.
  const servername = tls?.servername ?? (isIP(target.hostname) === 0 ? target.hostname : undefined);
  const fixed: ConnectionOptions = {
    host: target.hostname,
    port: target.port,
    ALPNProtocols: ['http/1.1'],
    rejectUnauthorized: tls?.verify ?? true,
    ...(servername === undefined ? {} : { servername }),
  };
  return {
    target,
    ready: 'secureConnect',
    open(halfOpen = false) {
      refresh();
      const used = context;
      const now: ConnectionOptions & { allowHalfOpen: boolean } = { ...fixed, secureContext: used, allowHalfOpen: halfOpen };
      if (session !== undefined) now.session = session;
      const socket = connectTls(now);
      socket.on('session', (fresh: Buffer) => {
        if (used === context) session = fresh;
      });
      const forget = (): void => {
        session = undefined;
      };
      socket.once('error', forget);
      socket.once('secureConnect', () => socket.off('error', forget));
      return socket.setNoDelay(true).setKeepAlive(true, KEEP_ALIVE_MS);
    },
  };
};

const contextOf = (tls: TlsOptions | null): SecureContext => {
  const read = (part: string | null): string | undefined => (part === null ? undefined : readPem(part));
  const [ca, cert, key] = [read(tls?.ca ?? null), read(tls?.cert ?? null), read(tls?.key ?? null)];
  return createSecureContext({ ...(ca === undefined ? {} : { ca }), ...(cert === undefined || key === undefined ? {} : { cert, key }) });
};

const reasonOf = (error: unknown): string =>
  error instanceof Error ? ((error as NodeJS.ErrnoException).code ?? error.message) : String(error);
