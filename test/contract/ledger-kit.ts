import { randomUUID } from 'node:crypto';
import knex, { type Knex } from 'knex';
import { compileEvents } from '../../gateway/core/event-mapping.ts';
import type { Command, RouteWrites } from '../../gateway/dual-write/route-writes.ts';
import { createSeal } from '../../gateway/dual-write/seal.ts';
import { createDualWrite, type DualWrite, type DualWriteDeps } from '../../gateway/dual-write/write.ts';
import { freshDatabase } from '../harness/database.ts';

/** What the ledger's tests share: a store with one context, members, commands. */

export const seal = createSeal('a secret of the tests');
export const quiet = { warn: () => {}, error: (fields: object, message: string) => console.error(message, fields) };

const events = compileEvents([
  {
    when: 'POST /api/orders 2xx',
    type: 'order.placed.v1',
    aggregate: '$.response.body.id',
    data: { id: '$.response.body.id', userId: '$.request.body.userId', items: '$.request.body.items' },
  },
  { when: 'POST /api/orders/:id/cancel 200', type: 'order.cancelled.v1', aggregate: '$.params.id', data: { id: '$.params.id' } },
  {
    when: 'PUT /api/notes/:id 2xx',
    type: 'note.set.v1',
    aggregate: '$.params.id',
    data: { text: '$.request.body.text' },
    mode: 'tentative',
  },
]);

export const placing: RouteWrites = {
  context: 'order',
  route: 'POST /api/orders',
  events,
  publisher: 'ledger',
  idempotency: 'key',
  resolve: { get: '/api/orders?ref={key}', applied: '$[0].id', body: '$[0]', status: 201 },
  compensate: null,
  responseTimeoutMs: 5_000,
  settleMs: 35_000,
  deadlineMs: 5_000,
  answerLimitBytes: 262_144,
};
export const cancelling: RouteWrites = {
  ...placing,
  route: 'POST /api/orders/:id/cancel',
  resolve: { get: '/api/orders/{id}', applied: '$.cancelledAt', body: null, status: 200 },
};
export const noting: RouteWrites = { ...placing, route: 'PUT /api/notes/:id', resolve: null };

const json = { 'content-type': 'application/json' };

export const place = (over: Partial<Command> = {}): Command => ({
  writes: placing,
  method: 'POST',
  target: '/api/orders',
  headers: json,
  body: Buffer.from(JSON.stringify({ userId: 'u1', items: [{ productId: 7, quantity: 1 }], card: '4111-1111' })),
  key: randomUUID(),
  scope: 'scope-a',
  upstream: 'legacy',
  epoch: 1,
  ...over,
});
export const cancel = (id: string, over: Partial<Command> = {}): Command =>
  place({ writes: cancelling, target: `/api/orders/${id}/cancel`, body: Buffer.from('{}'), ...over });

export const answer = (status: number, body: unknown = {}) =>
  ({
    kind: 'answered',
    response: {
      status,
      headers: [
        ['Content-Type', 'application/json'],
        ['Set-Cookie', 'session=secret'],
        ['X-Kept', 'a'],
        ['X-Kept', 'b'],
      ],
      body: Buffer.from(JSON.stringify(body)),
    },
  }) as const;

export type Store = {
  readonly url: string;
  readonly db: Knex;
  /** A member that is alive, and its dual write. */
  readonly member: (over?: Partial<DualWriteDeps>) => Promise<DualWrite & { memberId: string }>;
  readonly context: (name: string) => Promise<void>;
  /** A member stops beating. */
  readonly die: (memberId: string) => Promise<void>;
  readonly row: (id: string) => Promise<Record<string, unknown>>;
  readonly facts: (subject: string) => Promise<{ type: string; sequence: string; phase: string | null; data: Record<string, unknown> }[]>;
  readonly observe: (
    over: Partial<{
      context: string;
      publisher: string;
      kind: string;
      type: string;
      subject: string;
      data: unknown;
      key: string | null;
      change: string | null;
    }>,
  ) => Promise<string>;
  readonly close: () => Promise<void>;
};

export const openStore = async (): Promise<Store> => {
  const store = await freshDatabase('store');
  const db = knex({ client: 'pg', connection: store.url, pool: { min: 0, max: 10 } });
  const writes: DualWrite[] = [];
  const context = async (name: string): Promise<void> => {
    await db('banyan.context').insert({ name, stage: 'shadow' });
  };
  await context('order');
  return {
    url: store.url,
    db,
    context,
    die: async (id) => {
      await db('banyan.member').where({ id }).update({ heartbeat_at: 'epoch' });
    },
    member: async (over = {}) => {
      const memberId = randomUUID();
      await db('banyan.member').insert({ id: memberId, name: 'test', heartbeat_at: db.raw("now() + interval '1 hour'") });
      const write = createDualWrite({
        db,
        memberId,
        seal,
        backlogFull: () => false,
        ask: () => Promise.reject(new Error('nobody answers')),
        wakeRelay: () => {},
        log: quiet,
        ...over,
      });
      writes.push(write);
      return { ...write, memberId };
    },
    row: async (id) => (await db('banyan.ledger').where({ id }).first()) as Record<string, unknown>,
    facts: async (subject) =>
      (await db('banyan.outbox').where({ subject }).orderBy('position')).map((fact) => {
        const envelope = JSON.parse(fact.envelope) as { phase?: string; data: Record<string, unknown> };
        return { type: fact.type, sequence: fact.sequence, phase: envelope.phase ?? null, data: envelope.data };
      }),
    observe: async (over) => {
      const change = {
        context: 'order',
        publisher: 'ledger',
        kind: 'change',
        type: 'order.placed.v1',
        subject: '1',
        data: { captured: true },
        key: null,
        change: randomUUID(),
        ...over,
      };
      const result = (await db.raw('select banyan.observe_change(?, ?, ?, ?, ?, ?::jsonb, ?, ?) as said', [
        change.context,
        change.publisher,
        change.kind,
        change.type,
        change.subject,
        JSON.stringify(change.data),
        change.key as string,
        change.change as string,
      ])) as { rows: { said: string }[] };
      return result.rows[0]!.said;
    },
    close: async () => {
      await Promise.all(writes.map((write) => write.stop(0)));
      await db.destroy();
      await store.drop();
    },
  };
};
