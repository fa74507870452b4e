import type { Socket } from 'node:net';
import type { Connector } from './connect.ts';
import { failureOf } from './failures.ts';

const timedOut = (): Error => Object.assign(new Error('timed out'), { code: 'ETIMEDOUT' });

/**
 * A connection of its own, ready for the first byte, half-open. It has a listener for its errors from the beginning.
 * @throws AppError `upstream-unreachable` (sent: no)
 */
export const dial = (connector: Connector, connectMs: number): Promise<Socket> =>
  new Promise((resolve, reject) => {
    const socket = connector.open(true);
    const timer = setTimeout(() => socket.destroy(timedOut()), connectMs);
    socket.on('error', (error) => {
      clearTimeout(timer);
      reject(failureOf(error, { started: false, begun: false }));
    });
    socket.once(connector.ready, () => {
      clearTimeout(timer);
      resolve(socket);
    });
  });
