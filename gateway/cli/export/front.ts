import type { Config } from '../../config.ts';

/** Where a front proxy sends what to; the same for every kind of it. */
export type Front = {
  /** HOST:PORT that the front proxy listens on. */
  readonly listen: string;
  /** HOST:PORT of each gateway. */
  readonly gateways: readonly string[];
  readonly legacy: readonly FrontHost[];
  /** Name that TLS to the monolith asks for; null = the host's. */
  readonly servername: string | null;
  /** Does anybody check the monolith's certificate? */
  readonly verify: boolean;
  /** Paths that a gateway must see: `exact` alone, or all that begin so. Everything else may go to the monolith at once. */
  readonly owned: readonly { readonly path: string; readonly exact: boolean }[];
  readonly owners: readonly string[];
};

/** `at` is HOST:PORT, or the path of a unix socket. */
export type FrontHost = { readonly kind: 'http' | 'https' | 'unix'; readonly at: string; readonly host: string };

/** Where clients read what became of a write (docs/dual-write.md). */
const WRITES = '/_banyan/writes/';

/** Segments that every proxy's matching and quoting agree about; at any other a prefix ends, which sends a few paths more to the gateway, never fewer. */
const PLAIN = /^[A-Za-z0-9._~-]+$/;

/** Paths under which a route may match. More than it matches is harmless, because a gateway passes on what nobody owns; less would let requests past it. */
export const ownedPaths = (patterns: readonly string[]): Front['owned'] => {
  const exact = new Set<string>();
  const begins = new Set<string>();
  for (const pattern of patterns) {
    const segments = pattern.replace(/\/$/, '').split('/').slice(1);
    const wild = segments.findIndex((segment) => !PLAIN.test(segment));
    const literal = `/${(wild === -1 ? segments : segments.slice(0, wild)).join('/')}`;
    exact.add(literal);
    if (wild !== -1) begins.add(literal === '/' ? '/' : `${literal}/`);
    else if (literal !== '/') exact.add(`${literal}/`);
  }
  const covered = (path: string): boolean => [...begins].some((prefix) => prefix !== path && path.startsWith(prefix));
  const left = [
    ...[...exact].filter((path) => !covered(path) && !begins.has(path)).map((path) => ({ path, exact: true })),
    ...[...begins].filter((path) => !covered(path)).map((path) => ({ path, exact: false })),
  ];
  return left.sort((a, b) => (a.path < b.path ? -1 : 1));
};

const hostOf = (url: string): FrontHost => {
  if (url.startsWith('unix:')) return { kind: 'unix', at: url.slice('unix:'.length), host: 'localhost' };
  const { protocol, hostname, port } = new URL(url);
  const kind = protocol === 'https:' ? 'https' : 'http';
  return { kind, at: `${hostname}:${port === '' ? (kind === 'https' ? 443 : 80) : port}`, host: hostname };
};

const addressOf = ({ host, port }: { readonly host: string; readonly port: number }): string => {
  const reachable = host === '0.0.0.0' ? '127.0.0.1' : host === '::' ? '::1' : host;
  return `${reachable.includes(':') ? `[${reachable}]` : reachable}:${port}`;
};

/** @throws RangeError in words, where the gateways cannot be told from the configuration, or the monolith's hosts speak differently */
export const frontOf = (config: Config, given: { readonly listen: string; readonly gateways: readonly string[] }): Front => {
  const plain = config.listen.find(({ tls, port }) => tls === null && port !== 0);
  if (given.gateways.length === 0 && plain === undefined)
    throw new RangeError('no listener of the gateway is without TLS and has a port of its own; say --gateway HOST:PORT');
  const legacy = config.legacy.urls.map(hostOf);
  if (new Set(legacy.map(({ kind }) => kind === 'https')).size > 1)
    throw new RangeError('some hosts of the monolith speak TLS and some do not; one front proxy cannot take them for the same');
  const contexts = Object.entries(config.contexts);
  return {
    listen: given.listen,
    gateways: given.gateways.length > 0 ? given.gateways : [addressOf(plain!)],
    legacy,
    servername: config.legacy.tls?.servername ?? null,
    verify: config.legacy.tls?.verify ?? true,
    owned: ownedPaths([
      ...(contexts.length > 0 && config.store !== null ? [`${WRITES}:id`] : []),
      ...contexts.flatMap(([, { match }]) => match.map(({ path }) => path)),
    ]),
    owners: contexts.map(([name]) => name),
  };
};
