import { randomInt, randomUUID } from 'node:crypto';
import { setTimeout as sleep } from 'node:timers/promises';
import { Pool } from 'undici';

/** `gateway` is an http(s) origin; rates are per second, above 0 and at most 500; `users` 1..1000 customers named `user-1`… `log` gets a line every 10 s. */
export type TrafficOptions = {
  gateway: string;
  ordersPerSecond?: number;
  queriesPerSecond?: number;
  users?: number;
  log(line: string): void;
};

/**
 * What happened since the start. `missed`: a client did not find the order it had just placed, or found it not cancelled after its cancel.
 * `failed`: requests without a usable answer, also after their repeats; `lastFailure` says why the newest did. `retried`: repeats of a command
 * with the same key. `skipped`: turns left out because too many requests were still running.
 */
export type Summary = {
  placed: number;
  cancelled: number;
  queries: number;
  missed: number;
  failed: number;
  retried: number;
  skipped: number;
  p50Ms: number;
  p99Ms: number;
  lastFailure: string | null;
};

/** Running traffic. `stop` starts nothing new, lets what runs end (at most 5 s) and gives the final summary; it may be called more than once. */
export type Traffic = { stop(): Promise<Summary>; summary(): Summary };

type Answer = { status: number; body: unknown };
type Client = {
  get(path: string, user: string): Promise<Answer>;
  send(path: string, user: string, key: string, body: unknown): Promise<Answer>;
};

const MAX_RUNNING = 64;
const MAX_ATTEMPTS = 5;
const RETRY_MS = 500;
const MAX_BODY_BYTES = 1024 * 1024;
const SUMMARY_MS = 10_000;
const STOP_GRACE_MS = 5000;
/** Latencies of the newest this many answers. */
const WINDOW = 1000;

const share = (sorted: readonly number[], part: number): number => {
  const value = sorted[Math.min(sorted.length - 1, Math.floor(sorted.length * part))];
  return value === undefined ? 0 : Math.round(value * 10) / 10;
};

/** One line for people. */
export const summaryLine = (s: Summary): string =>
  `traffic: ${s.placed} orders, ${s.cancelled} cancelled, ${s.queries} queries, ${s.missed} missed, ${s.failed} failed, ${s.retried} retried, ` +
  `${s.skipped} skipped, p50 ${s.p50Ms} ms, p99 ${s.p99Ms} ms${s.lastFailure === null ? '' : `, last failure: ${s.lastFailure}`}`;

const idOf = (value: unknown): number | string | null => {
  const id = typeof value === 'object' && value !== null && 'id' in value ? value.id : null;
  return typeof id === 'number' || typeof id === 'string' ? id : null;
};

const statusOf = (value: unknown): unknown => (typeof value === 'object' && value !== null && 'status' in value ? value.status : null);

const readBounded = async (stream: AsyncIterable<Uint8Array>): Promise<unknown> => {
  const parts: Uint8Array[] = [];
  let size = 0;
  for await (const part of stream) {
    size += part.byteLength;
    if (size > MAX_BODY_BYTES) throw new Error(`an answer has more than ${MAX_BODY_BYTES} bytes`);
    parts.push(part);
  }
  const text = Buffer.concat(parts).toString('utf8');
  try {
    return JSON.parse(text) as unknown;
  } catch {
    return null;
  }
};

/** Requests over one pool; commands without a final answer are repeated with their key, as a careful client does. */
const shopClient = (pool: Pool, prefix: string, stopping: AbortSignal, seen: { retried(): void; took(ms: number): void }): Client => {
  const once = async (
    method: 'GET' | 'POST',
    path: string,
    headers: Record<string, string>,
    body?: string,
  ): Promise<Answer & { retryMs: number }> => {
    const started = performance.now();
    const answer = await pool.request({ method, path: prefix + path, headers, signal: stopping, ...(body === undefined ? {} : { body }) });
    const parsed = await readBounded(answer.body);
    seen.took(performance.now() - started);
    const wait = Number(answer.headers['retry-after']);
    return { status: answer.statusCode, body: parsed, retryMs: wait > 0 ? Math.min(wait * 1000, 2000) : RETRY_MS };
  };
  return {
    get: (path, user) => once('GET', path, { accept: 'application/json', 'x-user-id': user }),
    send: async (path, user, key, body) => {
      const headers = { accept: 'application/json', 'content-type': 'application/json', 'x-user-id': user, 'idempotency-key': key };
      for (let attempt = 1; ; attempt += 1) {
        let retryMs = RETRY_MS;
        try {
          const answer = await once('POST', path, headers, JSON.stringify(body));
          // 202: still under way; 5xx: nobody knows. Both are asked again with the same key.
          if ((answer.status !== 202 && answer.status < 500) || attempt === MAX_ATTEMPTS) return answer;
          retryMs = answer.retryMs;
        } catch (error) {
          if (stopping.aborted || attempt === MAX_ATTEMPTS) throw error;
        }
        seen.retried();
        await sleep(retryMs, undefined, { signal: stopping });
      }
    },
  };
};

const checkRate = (name: string, value: number, max: number): void => {
  if (!(value > 0 && value <= max)) throw new Error(`${name} must be above 0 and at most ${max}, not ${value}`);
};

/**
 * Places orders, reads them back, cancels some and lists products, at steady rates with at most 64 turns running.
 * @throws for an address or a rate that cannot be used; a shop that is away only counts as `failed`.
 */
export const startTraffic = ({ gateway, ordersPerSecond = 2, queriesPerSecond = 10, users = 20, log }: TrafficOptions): Traffic => {
  checkRate('ordersPerSecond', ordersPerSecond, 500);
  checkRate('queriesPerSecond', queriesPerSecond, 500);
  if (!Number.isInteger(users) || users < 1 || users > 1000) throw new Error(`users must be a whole number from 1 to 1000, not ${users}`);
  const { origin, pathname } = new URL(gateway);
  const pool = new Pool(origin, { connections: 32, headersTimeout: 15_000, bodyTimeout: 15_000, connectTimeout: 5000 });

  const count = { placed: 0, cancelled: 0, queries: 0, missed: 0, failed: 0, retried: 0, skipped: 0 };
  let lastFailure: string | null = null;
  const latencies: number[] = [];
  const stopping = new AbortController();
  const client = shopClient(pool, pathname.replace(/\/+$/, ''), stopping.signal, {
    retried: () => {
      count.retried += 1;
    },
    took: (ms) => {
      latencies.push(ms);
      if (latencies.length > WINDOW) latencies.shift();
    },
  });

  const summary = (): Summary => {
    const sorted = [...latencies].sort((a, b) => a - b);
    return { ...count, p50Ms: share(sorted, 0.5), p99Ms: share(sorted, 0.99), lastFailure };
  };
  const fail = (why: string): void => {
    count.failed += 1;
    lastFailure = why;
  };
  const someUser = (): string => `user-${randomInt(users) + 1}`;

  const orderTurn = async (): Promise<void> => {
    const user = someUser();
    const items = Array.from({ length: randomInt(3) + 1 }, () => ({ productId: randomInt(8) + 1, quantity: randomInt(3) + 1 }));
    const made = await client.send('/api/orders', user, randomUUID(), { userId: user, items });
    const id = idOf(made.body);
    if (made.status !== 201 || id === null) return fail(`POST /api/orders answered ${made.status}`);
    count.placed += 1;
    const path = `/api/orders/${id}`;
    const own = await client.get(path, user);
    if (own.status === 404) count.missed += 1;
    else if (own.status !== 200) return fail(`GET /api/orders/:id answered ${own.status}`);
    if (randomInt(10) > 0) return;
    const cancelled = await client.send(`${path}/cancel`, user, randomUUID(), {});
    if (cancelled.status !== 200) return fail(`POST /api/orders/:id/cancel answered ${cancelled.status}`);
    count.cancelled += 1;
    const after = await client.get(path, user);
    if (after.status !== 200 && after.status !== 404) return fail(`GET /api/orders/:id answered ${after.status}`);
    if (after.status === 404 || statusOf(after.body) !== 'cancelled') count.missed += 1;
  };
  const queryTurn = async (): Promise<void> => {
    const user = someUser();
    const paths = ['/api/products', `/api/products/${randomInt(8) + 1}`, `/api/orders?userId=${user}&limit=10`];
    const path = paths[randomInt(paths.length)]!;
    const answer = await client.get(path, user);
    count.queries += 1;
    if (answer.status !== 200) fail(`GET ${path} answered ${answer.status}`);
  };

  const running = new Set<Promise<void>>();
  const turn = (work: () => Promise<void>): void => {
    if (running.size >= MAX_RUNNING) {
      count.skipped += 1;
      return;
    }
    const done: Promise<void> = work()
      .catch((error: unknown) => {
        if (!stopping.signal.aborted) fail(error instanceof Error ? error.message || error.name : String(error));
      })
      .finally(() => running.delete(done));
    running.add(done);
  };
  const timers = [
    setInterval(() => turn(orderTurn), 1000 / ordersPerSecond),
    setInterval(() => turn(queryTurn), 1000 / queriesPerSecond),
    setInterval(() => log(summaryLine(summary())), SUMMARY_MS),
  ];

  const end = async (): Promise<Summary> => {
    for (const timer of timers) clearInterval(timer);
    const impatient = setTimeout(() => stopping.abort(), STOP_GRACE_MS);
    await Promise.all(running);
    clearTimeout(impatient);
    await pool.close();
    return summary();
  };
  let ended: Promise<Summary> | undefined;
  return {
    summary,
    stop: () => {
      ended ??= end();
      return ended;
    },
  };
};
