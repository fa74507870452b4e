import pg from 'pg';
import type { Logger } from 'pino';

/** One connection that LISTENs for everybody in this process; it reconnects by itself, and pollers are the net under it. */
export type Listener = {
  start(): void;
  stop(): Promise<void>;
  on(channel: string, callback: (payload: string) => void): () => void;
};

const CHANNEL = /^[a-z_]+$/;

export const createListener = (deps: { databaseUrl: string; log: Logger; retryMs?: number }): Listener => {
  const callbacks = new Map<string, Set<(payload: string) => void>>();
  let client: pg.Client | null = null;
  let timer: NodeJS.Timeout | null = null;
  let stopped = false;
  let warned = false;
  let connecting: Promise<void> | null = null;

  const connect = async (): Promise<void> => {
    const next = new pg.Client({
      connectionString: deps.databaseUrl,
      connectionTimeoutMillis: 5000,
      application_name: 'banyan-listen',
      keepAlive: true,
    });
    next.on('error', () => undefined); // 'end' follows and reconnects
    next.on('notification', (message) => {
      for (const callback of callbacks.get(message.channel) ?? []) callback(message.payload ?? '');
    });
    next.on('end', () => {
      if (client === next) client = null;
      retry();
    });
    try {
      await next.connect();
      for (const channel of callbacks.keys()) await next.query(`listen ${channel}`);
      if (stopped) {
        await next.end();
        return;
      }
      client = next;
      warned = false;
      // whatever was announced while we were away: let every listener look
      for (const set of callbacks.values()) for (const callback of set) callback('');
    } catch (error) {
      if (!warned) deps.log.warn({ err: error }, 'cannot LISTEN on the store: polling only');
      warned = true;
      await next.end().catch(() => undefined);
      retry();
    }
  };
  const open = (): void => {
    connecting = connect();
  };
  const retry = (): void => {
    if (stopped || timer) return;
    timer = setTimeout(() => {
      timer = null;
      if (!stopped && !client) open();
    }, deps.retryMs ?? 1000);
  };

  return {
    start() {
      open();
    },
    async stop() {
      stopped = true;
      if (timer) clearTimeout(timer);
      // one that is still connecting sees `stopped` and ends itself
      await connecting;
      const current = client;
      client = null;
      await current?.end().catch(() => undefined);
    },
    on(channel, callback) {
      if (!CHANNEL.test(channel)) throw new Error(`not a channel name: ${channel}`);
      const set = callbacks.get(channel) ?? new Set();
      callbacks.set(channel, set);
      set.add(callback);
      if (set.size === 1) client?.query(`listen ${channel}`).catch(() => undefined);
      return () => set.delete(callback);
    },
  };
};
