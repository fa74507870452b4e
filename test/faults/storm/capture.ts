import { setTimeout as pause } from 'node:timers/promises';
import pg from 'pg';
import type { Effect, Legacy } from './legacy.ts';
import { TYPES } from './world.ts';

/** What an adapter does: tells the store of every change in its order, again until it is taken. */
export const startCapture = (store: string, legacy: Legacy): { finish: () => Promise<void> } => {
  let finished = false;
  const tell = async (client: pg.Client, { key, kind, subject, n }: Effect): Promise<boolean> => {
    const { rows } = await client.query<{ said: string }>(
      "select banyan.observe_change('order', 'capture', 'change', $1, $2, $3::jsonb, $4, $5) as said",
      [TYPES[kind], subject, JSON.stringify({ ref: key, n }), key, `change-${n}`],
    );
    return rows[0]!.said !== 'wait';
  };
  const run = async (): Promise<void> => {
    let next = 0;
    const idle = () => finished && next >= legacy.changes.length;
    while (!idle()) {
      const client = new pg.Client({ connectionString: store, connectionTimeoutMillis: 2_000, statement_timeout: 10_000 });
      client.on('error', () => undefined);
      try {
        await client.connect();
        while (!idle()) {
          const change = legacy.changes[next];
          if (change && (await tell(client, change))) next += 1;
          else await pause(10);
        }
      } catch {
        await pause(50);
      } finally {
        await client.end().catch(() => undefined);
      }
    }
  };
  const running = run();
  return {
    finish: () => {
      finished = true;
      return running;
    },
  };
};
