import { createHmac } from 'node:crypto';
import type { Upstream } from '@banyan/contracts/vocabulary.ts';
import type { Knex } from 'knex';
import type { Logger } from 'pino';
import { PIN_CHANNEL, type Pins } from '../ports.ts';
import type { Listener } from './listener.ts';

type Announcement = { readonly context: string; readonly client: string; readonly side: Upstream; readonly until: number };

export type PinsDeps = {
  /** null = this process only. */
  readonly db: Knex | null;
  readonly listener: Listener | null;
  /** Clients are known by a keyed hash: the store never holds a sticky key. */
  readonly secret: string;
  readonly now: () => number;
  readonly log: Logger;
  /** Default 100,000; the oldest go first. */
  readonly limit?: number;
};

type Pin = { side: Upstream; until: number; since: number };

/** PostgreSQL takes 8,000 bytes per notification. */
const PER_NOTIFICATION = 40;
const ANNOUNCE_MS = 5;
const MAX_QUEUE = 10_000;
const RECENT_MS = 60_000;

/**
 * Which side has a client's last command, in memory, bounded. A ledgered command's pin is written with its terminal commit and announced by the
 * dual write; the others are written and announced here, in batches.
 */
export const createPins = (
  deps: PinsDeps,
): Pins & {
  start(): Promise<void>;
  stop(): Promise<void>;
  clientOf(context: string, stickyKey: string): string;
  release(context: string, at: number): void;
} => {
  const limit = deps.limit ?? 100_000;
  const pins = new Map<string, Pin>();
  const released = new Map<string, number>();
  let queue: Announcement[] = [];
  let timer: NodeJS.Timeout | null = null;
  let sending: Promise<void> = Promise.resolve();
  let unlisten: (() => void) | null = null;

  const clientOf = (context: string, stickyKey: string): string =>
    createHmac('sha256', deps.secret).update(`${context}\n${stickyKey}`).digest('base64url');

  const keep = (context: string, client: string, side: Upstream, until: number): void => {
    const key = `${context}\n${client}`;
    pins.delete(key);
    pins.set(key, { side, until, since: deps.now() });
    if (pins.size <= limit) return;
    const oldest = pins.keys().next().value;
    if (oldest !== undefined) pins.delete(oldest);
  };

  const load = async (): Promise<void> => {
    if (!deps.db) return;
    const rows = await deps
      .db<{ context: string; client: string; side: Upstream; until: Date }>('banyan.pin')
      .where('until', '>', deps.db.fn.now())
      .limit(limit);
    for (const row of rows) keep(row.context, row.client, row.side, deps.now() + Math.min(RECENT_MS, row.until.getTime() - Date.now()));
  };

  const hear = (payload: string): void => {
    try {
      const wall = Date.now();
      for (const { context, client, side, until } of JSON.parse(payload) as Announcement[])
        keep(context, client, side, deps.now() + Math.min(RECENT_MS, until - wall));
    } catch {
      deps.log.warn('a pin announcement could not be read');
    }
  };

  const write = async (db: Knex, part: readonly Announcement[]): Promise<void> => {
    const latest = [...new Map(part.map((pin) => [`${pin.context}\n${pin.client}`, pin])).values()];
    await db.raw(
      `insert into banyan.pin (context, client, side, until)
         select x.context, x.client, x.side, to_timestamp(x.until / 1000.0) from jsonb_to_recordset(?::jsonb) as x(context text, client text, side text, until double precision)
         on conflict (context, client) do update set side = excluded.side, until = excluded.until`,
      [JSON.stringify(latest)],
    );
    await db.raw('select pg_notify(?, ?)', [PIN_CHANNEL, JSON.stringify(part)]);
  };

  const announce = (): void => {
    timer = null;
    const batch = queue;
    queue = [];
    const { db } = deps;
    if (!db) return;
    sending = sending.then(async () => {
      for (let i = 0; i < batch.length; i += PER_NOTIFICATION)
        await write(db, batch.slice(i, i + PER_NOTIFICATION)).catch((error) =>
          deps.log.warn({ err: error }, 'pins could not be announced'),
        );
    });
  };

  return {
    clientOf,
    async start() {
      unlisten =
        deps.listener?.on(PIN_CHANNEL, (payload) => {
          // an empty one: the connection was away, so announcements may have been missed
          if (payload === '') void load().catch((error) => deps.log.warn({ err: error }, 'pins could not be read again'));
          else hear(payload);
        }) ?? null;
      await load();
      await deps.db?.('banyan.pin').where('until', '<', deps.db.fn.now()).delete();
    },
    async stop() {
      unlisten?.();
      if (timer) {
        clearTimeout(timer);
        announce();
      }
      await sending;
    },
    release(context, at) {
      released.set(context, at);
    },
    set(context, stickyKey, side, forMs, stored) {
      if (forMs <= 0) return;
      const client = clientOf(context, stickyKey);
      keep(context, client, side, deps.now() + forMs);
      if (stored || !deps.db || queue.length >= MAX_QUEUE) return;
      queue.push({ context, client, side, until: Date.now() + forMs });
      timer ??= setTimeout(announce, ANNOUNCE_MS);
    },
    any: () => pins.size > 0,
    get(context, stickyKey) {
      if (pins.size === 0) return null;
      const key = `${context}\n${clientOf(context, stickyKey)}`;
      const pin = pins.get(key);
      if (!pin) return null;
      const free = pin.side === 'legacy' && pin.since < (released.get(context) ?? Number.NEGATIVE_INFINITY);
      if (!free && pin.until > deps.now()) return pin.side;
      pins.delete(key);
      return null;
    },
  };
};
