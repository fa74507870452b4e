import { type Monolith, startMonolith } from '@banyan/dev-monolith/monolith.ts';
import knex, { type Knex } from 'knex';
import { pino } from 'pino';
import type { CaptureState } from '../../legacy-adapter/api.ts';
import { type Adapter, type AdapterOptions, startAdapter } from '../../legacy-adapter/compose.ts';
import type { Publisher } from '../../legacy-adapter/config.ts';
import { shop } from '../../legacy-adapter/translate/shop.ts';
import { type FreshDatabase, freshDatabase } from '../harness/database.ts';
import { until } from '../harness/wait.ts';

export type Fact = { type: string; subject: string; sequence: string; origin: string; data: Record<string, unknown> };

/** The demo shop, its database, a store, and adapters between them. */
export type AdapterRig = {
  readonly legacy: Knex;
  readonly store: Knex;
  readonly shop: Monolith;
  readonly urls: { readonly legacy: string; readonly store: string };
  /** Starts an adapter; stopped with the rig. */
  start(contexts: Readonly<Record<string, Publisher>>, options?: AdapterOptions & { install?: boolean; token?: string }): Promise<Adapter>;
  /** Orders by HTTP and answers what the shop answered. */
  place(items: readonly [product: number, quantity: number][], key?: string): Promise<Record<string, unknown> & { id: number }>;
  cancel(id: number, key?: string): Promise<Record<string, unknown>>;
  /** All facts in the order of the outbox, of one context and subject when they are given. */
  facts(context?: string, subject?: number): Promise<Fact[]>;
  /** Waits until every change is settled and every snapshot is done. */
  settled(): Promise<void>;
  stop(): Promise<void>;
};

/** Asks the adapter. */
export const ask = async (
  adapter: Adapter,
  method: string,
  path: string,
  body?: unknown,
  headers: Record<string, string> = {},
): Promise<{ status: number; body: unknown }> => {
  const response = await fetch(`${adapter.url}${path}`, {
    method,
    headers: { connection: 'close', ...(body === undefined ? {} : { 'content-type': 'application/json' }), ...headers },
    ...(body === undefined ? {} : { body: JSON.stringify(body) }),
  });
  return { status: response.status, body: await response.json() };
};

export const captureState = async (adapter: Adapter): Promise<CaptureState> =>
  (await ask(adapter, 'GET', '/v1/capture')).body as CaptureState;

export const adapterRig = async (): Promise<AdapterRig> => {
  const databases: FreshDatabase[] = await Promise.all([freshDatabase('empty'), freshDatabase('store')]);
  const urls = { legacy: databases[0]!.url, store: databases[1]!.url };
  const open = (url: string): Knex => knex({ client: 'pg', connection: url, pool: { min: 0, max: 6 } });
  const [legacy, store] = [open(urls.legacy), open(urls.store)];
  const monolith = await startMonolith({ databaseUrl: urls.legacy, port: 0 });
  await store('banyan.context').insert(['order', 'inventory'].map((name) => ({ name, stage: 'legacy' })));
  const adapters: Adapter[] = [];

  const post = async (path: string, body: unknown, key?: string): Promise<Record<string, unknown>> => {
    const response = await fetch(`${monolith.url}${path}`, {
      method: 'POST',
      headers: { connection: 'close', 'content-type': 'application/json', ...(key === undefined ? {} : { 'idempotency-key': key }) },
      body: JSON.stringify(body),
    });
    const answer = (await response.json()) as Record<string, unknown>;
    if (!response.ok) throw new Error(`${path}: ${response.status} ${JSON.stringify(answer)}`);
    return answer;
  };
  const facts = async (context?: string, subject?: number): Promise<Fact[]> => {
    const rows = await store('banyan.outbox')
      .select<{ envelope: string }[]>('envelope')
      .where((query) => {
        if (context !== undefined) query.where({ context });
        if (subject !== undefined) query.where({ subject: String(subject) });
      })
      .orderBy('position');
    return rows.map(({ envelope }) => JSON.parse(envelope) as Fact);
  };

  return {
    legacy,
    store,
    shop: monolith,
    urls,
    start: async (contexts, { install = true, token, ...options } = {}) => {
      const config = {
        host: '127.0.0.1',
        port: 0,
        storeUrl: urls.store,
        legacyUrl: urls.legacy,
        token: token ?? null,
        contexts: new Map(Object.entries(contexts)),
        install,
      };
      const adapter = await startAdapter(config, shop, pino({ level: 'silent' }), options);
      adapters.push(adapter);
      return adapter;
    },
    place: async (items, key) =>
      (await post('/api/orders', { userId: 'user-9', items: items.map(([productId, quantity]) => ({ productId, quantity })) }, key)) as {
        id: number;
      },
    cancel: (id, key) => post(`/api/orders/${id}/cancel`, {}, key),
    facts,
    settled: async () => {
      await until(
        async () => {
          const { rows } = await legacy.raw<{ rows: { open: boolean }[] }>(
            'select exists (select from banyan_capture.change) or exists (select from banyan_capture.snapshot where done_at is null) as open',
          );
          return !rows[0]!.open;
        },
        { describe: 'every change to be settled' },
      );
    },
    stop: async () => {
      await Promise.all(adapters.map((adapter) => adapter.stop()));
      await monolith.stop();
      await Promise.all([legacy.destroy(), store.destroy()]);
      await Promise.all(databases.map((database) => database.drop()));
    },
  };
};
