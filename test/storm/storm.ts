import { once } from 'node:events';
import { createServer, type Server } from 'node:http';
import type { AddressInfo } from 'node:net';
import { setTimeout as pause } from 'node:timers/promises';
import { startProvider } from '@banyan/dev-payment-provider/provider.ts';
import { answerProblem } from '@banyan/kit/http.ts';
import { participantRoutes } from '@banyan/kit/participant.ts';
import { migrateSchema } from '@banyan/kit/schema.ts';
import express, { type RequestHandler } from 'express';
import knex, { type Knex } from 'knex';
import { pino } from 'pino';
import { inventoryService } from '../../extracted-services/inventory/compose.ts';
import { inventoryActions } from '../../extracted-services/inventory/participant.ts';
import { SCHEMA as INVENTORY } from '../../extracted-services/inventory/store.ts';
import { createCommands } from '../../extracted-services/order/commands.ts';
import { orderService } from '../../extracted-services/order/compose.ts';
import { orderActions } from '../../extracted-services/order/participant.ts';
import { SCHEMA as ORDER } from '../../extracted-services/order/store.ts';
import { paymentService } from '../../extracted-services/payment/compose.ts';
import { createHttpProvider } from '../../extracted-services/payment/provider.ts';
import { ORDER_SAGA } from '../../extracted-services/saga/definition.ts';
import { commandId } from '../../extracted-services/saga/domain.ts';
import { type Orchestrator, startOrchestrator } from '../../extracted-services/saga/orchestrator.ts';
import { createParticipants } from '../../extracted-services/saga/participants.ts';
import { begin, SCHEMA as SAGA, migrations as sagaMigrations } from '../../extracted-services/saga/store.ts';
import { shippingService } from '../../extracted-services/shipping/compose.ts';

const silent = pino({ level: 'silent' });
const PRODUCTS = 5;
const STOCK = 100_000;
const PRICE = 10;
/** How long an orchestrator waits for a participant: most calls that are late come after it, on a busy machine some others too. */
const CALL_MS = 800;
const LIMITS = { deadlineMs: 12_000, limitMs: 55_000 };

/** mulberry32 */
const seeded = (seed: number): (() => number) => {
  let state = seed;
  return () => {
    state = (state + 0x6d2b79f5) | 0;
    let t = Math.imul(state ^ (state >>> 15), 1 | state);
    t = (t + Math.imul(t ^ (t >>> 7), 61 | t)) ^ t;
    return ((t ^ (t >>> 14)) >>> 0) / 2 ** 32;
  };
};

/** What the sagas that have not ended did last. */
const lastOf = async (db: Knex): Promise<string> => {
  const { rows } = await db.raw<{ rows: { id: string; state: string; last: string }[] }>(
    `select s.id, s.state, (select string_agg(concat_ws(' ', l.step, l.what, l.detail), '; ' order by l.n)
       from (select * from ${SAGA}.event e where e.saga = s.id order by n desc limit 4) l) as last
     from ${SAGA}.saga s where s.state in ('running', 'compensating') limit 5`,
  );
  return rows.map((row) => `${row.id} ${row.state}: ${row.last}`).join(' | ');
};

export type StormOptions = {
  /** A store that the gateway has migrated. */
  readonly databaseUrl: string;
  readonly sagas: number;
  /** Of orchestrators, while the storm lasts. */
  readonly kills: number;
  readonly seed: number;
  /** How long to wait for the end at most. */
  readonly patienceMs: number;
};

export type StormReport = {
  readonly states: Readonly<Record<string, number>>;
  readonly kills: number;
  readonly calls: number;
  readonly disturbed: number;
  readonly seconds: number;
  /** From the beginning of a saga to its end, or to where it was parked; the longest. */
  readonly longestSeconds: number;
  /** What does not add up; empty = money, stock and parcels are conserved. */
  readonly faults: readonly string[];
};

/** knex tells stdout about every connection that is cut off here on purpose. */
const quiet = { warn: () => undefined, error: () => undefined, debug: () => undefined, deprecate: () => undefined };
const openDatabase = (url: string): Knex =>
  knex({ client: 'pg', connection: url, pool: { min: 0, max: 8 }, acquireConnectionTimeout: 500, log: quiet });

/**
 * Orders whose every saga step fails, hangs, answers late or loses its answer at random, while orchestrators are cut off from their database in the middle of
 * what they do. Then the books are checked: an order is either placed, reserved, paid and shipped, or none of it.
 */
export const storm = async (options: StormOptions): Promise<StormReport> => {
  const random = seeded(options.seed);
  const db = openDatabase(options.databaseUrl);
  const closers: (() => unknown)[] = [() => db.destroy()];
  let calls = 0;
  let disturbed = 0;

  const chaos: RequestHandler = (req, res, next) => {
    calls += 1;
    const dice = random();
    if (dice < 0.6) return next();
    disturbed += 1;
    if (dice < 0.7) return void res.status(500).end();
    if (dice < 0.8) return void setTimeout(() => next(), 300 + random() * 1000).unref();
    if (dice < 0.9) {
      // done, but the answer is lost
      res.json = () => {
        req.socket.destroy();
        return res;
      };
      return next();
    }
    // never answered: the caller gives up
  };
  const serve = async (routes: RequestHandler): Promise<string> => {
    const server: Server = createServer(
      express().use(
        chaos,
        routes,
        answerProblem(() => undefined),
      ),
    );
    server.listen(0, '127.0.0.1');
    await once(server, 'listening');
    closers.push(async () => {
      const closed = once(server, 'close');
      server.close();
      server.closeAllConnections();
      await closed;
    });
    return `http://127.0.0.1:${(server.address() as AddressInfo).port}`;
  };

  try {
    const provider = await startProvider({ random, moods: { fail: 0.1, failAfter: 0.1, hang: 0.1, late: 0.1, lateMs: 400, refuse: 0.15 } });
    closers.push(() => provider.stop());
    const payment = paymentService(createHttpProvider({ url: provider.url, timeoutMs: 500 }));
    for (const spec of [orderService, inventoryService, payment, shippingService]) await migrateSchema(db, spec.schema, spec.migrations);
    await migrateSchema(db, SAGA, sagaMigrations);
    await db.raw(
      `insert into banyan.context (name, stage, owner) values ('order', 'cutover', 'extracted') on conflict (name) do update set owner = 'extracted', stage = 'cutover'`,
    );
    for (let id = 1; id <= PRODUCTS; id += 1) {
      await db.raw(`insert into ${ORDER}.product (id, price, stock, active) values (?, ?, ?, true)`, [id, PRICE, STOCK]);
      // the last one is scarce here: some reservations are refused
      await db.raw(
        `insert into ${INVENTORY}.product (id, name, price, currency, stock, active, state_at) values (?, 'p', ?, 'EUR', ?, true, now())`,
        [id, PRICE, id === PRODUCTS ? Math.ceil(options.sagas / 10) : STOCK],
      );
    }
    let nextId = 1000;
    const commands = createCommands({
      db,
      ids: { take: async () => nextId++, stop: async () => undefined } as never,
      now: () => new Date(),
    });
    const base = { config: undefined as never, db, log: silent };
    const urls = {
      order: await serve(participantRoutes({ db, schema: ORDER, actions: orderActions(commands) })),
      inventory: await serve(participantRoutes({ db, schema: INVENTORY, actions: inventoryActions })),
      payment: await serve(payment.compose(base).routes),
      shipping: await serve(shippingService.compose(base).routes),
    };

    const definitions = [{ ...ORDER_SAGA, ...LIMITS }];
    const launch = (): { orchestrator: Orchestrator; pool: Knex } => {
      const pool = openDatabase(options.databaseUrl);
      const orchestrator = startOrchestrator({
        db: pool,
        definitions,
        participants: createParticipants({ urls, timeoutMs: CALL_MS }),
        log: silent,
        leaseMs: 2 * CALL_MS + 1500,
        pollMs: 50,
        retryMs: 20,
      });
      return { orchestrator, pool };
    };
    let crew = [launch(), launch(), launch()];
    const startedAt = performance.now();
    for (let i = 0; i < options.sagas; i += 1) {
      const items = [{ productId: 1 + Math.floor(random() * PRODUCTS), quantity: 1 + Math.floor(random() * 3) }];
      const order = await commands.place({ userId: 'u', items }, { key: null, epoch: null, causation: null, traceparent: null });
      await begin(db, {
        id: `saga-${order.id}`,
        definition: 'order',
        version: 1,
        subject: String(order.id),
        ...LIMITS,
        data: { orderId: String(order.id), factId: `fact-${order.id}`, items, amount: items[0]!.quantity * PRICE, currency: 'EUR' },
      });
    }
    const live = async (): Promise<number> => {
      const row = (await db(`${SAGA}.saga`).whereIn('state', ['running', 'compensating']).count('* as n').first()) as { n: string };
      return Number(row.n);
    };
    let kills = 0;
    const dead: Promise<void>[] = [];
    while ((await live()) > 0 && performance.now() - startedAt < options.patienceMs) {
      await pause(100);
      if (kills >= options.kills) continue;
      kills += 1;
      // cut off in the middle: from the database's side nothing tells this from a kill -9
      const [victim, ...others] = crew;
      const dying = victim!.pool.destroy().catch(() => undefined);
      dead.push(victim!.orchestrator.stop());
      crew = [...others, launch()];
      await dying;
    }
    const seconds = (performance.now() - startedAt) / 1000;
    await Promise.all([...dead, ...crew.map(({ orchestrator }) => orchestrator.stop())]);
    await Promise.all(crew.map(({ pool }) => pool.destroy()));
    // what the participants still have in hand comes to its end
    await pause(2000);

    const rows = (await db(`${SAGA}.saga`).select('id', 'subject', 'state', 'data')) as {
      subject: string;
      state: string;
      data: { amount: number; items: { productId: number; quantity: number }[] };
    }[];
    const states: Record<string, number> = {};
    for (const { state } of rows) states[state] = (states[state] ?? 0) + 1;
    const faults: string[] = [];
    const ended = rows.filter((row) => row.state === 'done' || row.state === 'compensated');
    if (ended.length + (states.parked ?? 0) < rows.length)
      faults.push(`${rows.length - ended.length - (states.parked ?? 0)} sagas did not end: ${await lastOf(db)}`);
    // a person looks at these: they are left out of the sums
    const parked = rows.filter((row) => row.state === 'parked');
    const parkedOrders = new Set(parked.map((row) => row.subject));
    const parkedCommands = new Set(parked.flatMap((row) => ORDER_SAGA.steps.map((step) => commandId(`saga-${row.subject}`, step.name))));
    const { rows: lives } = await db.raw<{ rows: [{ longest: number }] }>(
      `select coalesce(max(extract(epoch from updated_at - created_at)), 0)::float8 as longest from ${SAGA}.saga`,
    );
    const longestSeconds = lives[0].longest;
    if (longestSeconds > 60) faults.push(`a saga took ${longestSeconds} s to end`);
    const good = new Map(rows.filter((row) => row.state === 'done').map((row) => [row.subject, row]));
    const same = (what: string, found: number, expected: number): void => {
      if (found !== expected) faults.push(`${what}: ${found}, not ${expected}`);
    };
    const sum = <T>(values: readonly T[], of: (value: T) => number): number => values.reduce((total, value) => total + of(value), 0);
    const done = [...good.values()];
    const donePieces = sum(done, (row) => row.data.items[0]!.quantity);
    const charged = provider.charges().filter((charge) => charge.state === 'charged' && !parkedCommands.has(charge.key));
    same(
      'money',
      sum(charged, (charge) => charge.amount),
      sum(done, (row) => row.data.amount),
    );
    const reserved = (await db(`${INVENTORY}.reservation`)) as { command_id: string; pieces: string }[];
    same(
      'pieces reserved',
      sum(
        reserved.filter((row) => !parkedCommands.has(row.command_id)),
        (row) => Number(row.pieces),
      ),
      donePieces,
    );
    const { rows: lines } = await db.raw<{ rows: { id: string; quantity: number }[] }>(
      `select o.id, i.quantity from ${ORDER}.orders o join ${ORDER}.order_item i on i.order_id = o.id where o.status <> 'cancelled'`,
    );
    const stock = (await db(`${ORDER}.product`).sum('stock as n').first()) as { n: string };
    same(
      'stock gone',
      PRODUCTS * STOCK - Number(stock.n),
      sum(lines, (line) => line.quantity),
    );
    same(
      'pieces sold',
      sum(
        lines.filter((line) => !parkedOrders.has(line.id)),
        (line) => line.quantity,
      ),
      donePieces,
    );
    const parcels = ((await db('svc_shipping.shipment').where({ state: 'handed-over' }).pluck('order_id')) as string[]).filter(
      (order) => !parkedOrders.has(order),
    );
    same('parcels', parcels.length, good.size);
    for (const order of parcels) if (!good.has(order)) faults.push(`order ${order} was shipped, but taken back`);
    return { states, kills, calls, disturbed, seconds, longestSeconds, faults };
  } finally {
    for (const close of closers.reverse()) await close();
  }
};
