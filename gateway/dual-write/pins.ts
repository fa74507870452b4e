import type { Upstream } from '@banyan/contracts/vocabulary.ts';
import type { Knex } from 'knex';
import { PIN_CHANNEL } from '../ports.ts';

/** `client` is the keyed hash of the sticky key; `until` in ms since 1970. */
export type Pin = { readonly context: string; readonly client: string; readonly side: Upstream; readonly until: number };

/** NOTIFY refuses 8,000 bytes and more. */
const PAYLOAD_BYTES = 7_500;
const MAX_PENDING = 10_000;

export type PinsDeps = { readonly db: Knex; readonly warn: (error: unknown) => void; readonly delayMs?: number };

/**
 * Tells the other replicas of pins, many at a time and outside the terminal commit: NOTIFY takes a lock over all commits of the database.
 * Best effort; the table `banyan.pin` is the truth.
 */
export const createPinAnnouncer = (deps: PinsDeps): { announce: (pin: Pin) => void; stop: () => Promise<void> } => {
  let pending: string[] = [];
  let timer: NodeJS.Timeout | undefined;
  let running: Promise<void> = Promise.resolve();
  const flush = async (): Promise<void> => {
    timer = undefined;
    const texts = pending;
    pending = [];
    try {
      while (texts.length > 0) {
        let bytes = 2;
        let count = 0;
        while (count < texts.length && (count === 0 || bytes + texts[count]!.length + 1 <= PAYLOAD_BYTES))
          bytes += texts[count++]!.length + 1;
        await deps.db.raw('select pg_notify(?, ?)', [PIN_CHANNEL, `[${texts.splice(0, count).join(',')}]`]);
      }
    } catch (error) {
      deps.warn(error);
    }
  };
  return {
    announce: (pin) => {
      if (pending.length >= MAX_PENDING) return;
      pending.push(JSON.stringify(pin));
      timer ??= setTimeout(() => {
        running = running.then(flush);
      }, deps.delayMs ?? 5);
    },
    stop: async () => {
      clearTimeout(timer);
      await running;
      await flush();
    },
  };
};
