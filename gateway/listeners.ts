import type { Logger } from 'pino';
import type { Config } from './config.ts';
import { createListener, type ListenerOptions } from './proxy/listener.ts';

type ListenEntry = Config['listen'][number];

export type ListenersDeps = Pick<ListenerOptions, 'handler' | 'upgrade' | 'takesUpgrade'> & {
  readonly config: Config;
  readonly log: Logger;
};

/** Every public listener of one process. */
export type Listeners = {
  /** Gives the address of the first, as a URL. @throws the system's error for a busy port */
  listen(): Promise<string>;
  readonly listening: boolean;
  /**
   * Takes over the certificates of a configuration that was read again; the rest of `listen` needs a restart, which is logged.
   * @throws AppError `not-configured` for a pair that cannot be used
   */
  renew(config: Config): void;
  /** What clients have under way. */
  load(): { readonly requests: number; readonly tunnels: number };
  /** Resolves to how many requests were cut after `ms`. */
  drain(ms: number): Promise<number>;
};

const urlOf = ({ host, tls }: ListenEntry, port: number): string =>
  `${tls === null ? 'http' : 'https'}://${host.includes(':') ? `[${host}]` : host}:${port}`;

const sum = (counts: readonly number[]): number => counts.reduce((total, one) => total + one, 0);

/** @throws AppError `not-configured` for a certificate that cannot be used */
export const createListeners = ({ config, log, handler, upgrade, takesUpgrade }: ListenersDeps): Listeners => {
  const { headerTimeout, idleTimeout, maxHeaderBytes, maxConnections, maxStreams } = config.client;
  const all = config.listen.map((entry) => ({
    entry,
    listener: createListener({
      handler,
      upgrade,
      ...(takesUpgrade ? { takesUpgrade } : {}),
      limits: { headerTimeoutMs: headerTimeout, idleTimeoutMs: idleTimeout, maxHeaderBytes, maxConnections, maxStreams },
      http2: entry.http2,
      certificates: entry.tls ?? [],
      onCertificates: (error) => {
        if (error === null) log.info({ listen: `${entry.host}:${entry.port}` }, 'certificates changed: new connections get them');
        else log.error({ err: error, listen: `${entry.host}:${entry.port}` }, 'changed certificates are refused; the former ones stay');
      },
    }),
  }));
  return {
    async listen() {
      const bound = await Promise.all(all.map(({ entry, listener }) => listener.listen(entry.host, entry.port)));
      return urlOf(config.listen[0]!, bound[0]!.port);
    },
    get listening() {
      return all.every(({ listener }) => listener.address() !== null);
    },
    renew(next) {
      let same = next.listen.length === all.length;
      for (const [i, { entry, listener }] of all.entries()) {
        const now = next.listen[i];
        same &&=
          now?.host === entry.host && now.port === entry.port && now.http2 === entry.http2 && (now.tls === null) === (entry.tls === null);
        if (same && now?.tls) listener.setCertificates(now.tls);
      }
      if (!same) log.warn('`listen` changed in more than its certificates: that takes effect at the next start');
    },
    load: () => ({
      requests: sum(all.map(({ listener }) => listener.inFlight)),
      tunnels: sum(all.map(({ listener }) => listener.tunnels)),
    }),
    drain: async (ms) => sum(await Promise.all(all.map(({ listener }) => listener.drain(ms)))),
  };
};
