import { request } from 'node:http';
import type { Connector } from './connect.ts';

export type Check = {
  /** Asked by GET on a connection of its own; null = the connection (with TLS its handshake) is all. */
  readonly path: string | null;
  /** For all of it. */
  readonly timeoutMs: number;
  /** Ends it at once. */
  readonly signal?: AbortSignal;
};

const late = (ms: number): Error => Object.assign(new Error(`nothing in ${ms} ms`), { code: 'ETIMEDOUT' });

/** Looks whether somebody is there. Resolves to the status, or null where none was asked for. @throws the system's or TLS's error, or `ETIMEDOUT` */
export const checkHost = (connector: Connector, { path, timeoutMs, signal }: Check): Promise<number | null> =>
  new Promise((resolve, reject) => {
    const socket = connector.open();
    const timer = setTimeout(() => socket.destroy(late(timeoutMs)), timeoutMs);
    const giveUp = (): void => void socket.destroy(new Error('given up'));
    signal?.addEventListener('abort', giveUp, { once: true });
    if (signal?.aborted === true) giveUp();
    let status: number | null = null;
    let failure: Error | null = null;
    const noted = (error: Error): void => {
      failure ??= error;
    };
    socket.on('error', noted);
    socket.once('close', () => {
      clearTimeout(timer);
      signal?.removeEventListener('abort', giveUp);
      if (status !== null || (path === null && failure === null)) resolve(status);
      else reject(failure ?? new Error('closed without an answer'));
    });
    if (path === null) {
      socket.once(connector.ready, () => socket.destroy());
      return;
    }
    const asked = request({
      createConnection: () => socket,
      path,
      headers: { host: connector.target.authority, 'user-agent': 'banyan-health', accept: '*/*', connection: 'close' },
    });
    asked.once('response', (response) => {
      status = response.statusCode ?? null;
      socket.destroy();
    });
    asked.on('error', noted);
    asked.end();
  });
