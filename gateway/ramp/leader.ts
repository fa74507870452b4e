import pg from 'pg';
import type { Logger } from 'pino';

export type LeaderDeps = { readonly databaseUrl: string; readonly log: Logger };

/**
 * At most one process of a store leads. The lock is a session's advisory lock on a connection of its own: it ends with the connection, also when the
 * process is killed. That alone cannot keep a process from acting that was cut off without noticing: every write is fenced besides (ramp-store.ts, `rev`).
 */
export type Leader = {
  /** Takes the lock, or asks the connection whether it still has it. Never throws. */
  lead(): Promise<boolean>;
  /** Was it the leader when it was last asked? */
  leading(): boolean;
  /** Lets another one lead. */
  yield(): Promise<void>;
};

/** Any number that no other lock of the store has. */
const LOCK = 7_311_430;
const ANSWER_MS = 3_000;

export const createLeader = ({ databaseUrl, log }: LeaderDeps): Leader => {
  let client: pg.Client | null = null;
  let asking: Promise<boolean> | null = null;

  const drop = async (): Promise<void> => {
    const former = client;
    client = null;
    await former?.end().catch(() => undefined);
  };

  const ask = async (): Promise<boolean> => {
    try {
      if (client) {
        await client.query('select 1');
        // its end may have come with the answer
        return client !== null;
      }
      const next = new pg.Client({
        connectionString: databaseUrl,
        application_name: 'banyan-ramp',
        connectionTimeoutMillis: ANSWER_MS,
        query_timeout: ANSWER_MS,
        keepAlive: true,
      });
      const lost = (): void => {
        if (client !== next) return;
        client = null;
        void next.end().catch(() => undefined);
        log.warn('the connection of the ramp’s leader is lost: another one may lead');
      };
      next.on('error', lost);
      next.on('end', lost);
      try {
        await next.connect();
        const { rows } = await next.query<{ taken: boolean }>('select pg_try_advisory_lock($1) as taken', [LOCK]);
        if (rows[0]?.taken === true) {
          client = next;
          return true;
        }
      } catch (error) {
        log.debug({ err: error }, 'the lock of the ramp could not be asked for');
      }
      await next.end().catch(() => undefined);
      return false;
    } catch {
      await drop();
      return false;
    }
  };

  return {
    lead() {
      asking ??= ask().finally(() => {
        asking = null;
      });
      return asking;
    },
    leading: () => client !== null,
    async yield() {
      await asking;
      await drop();
    },
  };
};
