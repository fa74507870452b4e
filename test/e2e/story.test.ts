import { afterAll, beforeAll, describe, expect, it } from '@jest/globals';
import pg from 'pg';
import { distinct, orderFaults, readFacts } from '../harness/facts.ts';
import { type Order, shopUser, sideOf } from '../harness/shop-client.ts';
import { admin, contextNow, moveTo, type Stack, startStack } from '../harness/stack.ts';
import { until } from '../harness/wait.ts';

type Parity = { compared: number; match: number; noise: number; mismatch: number; incomparable: number };
type Pair = { id: string; verdict: string };
type PairDetail = Pair & { differences: { path: string; legacy?: unknown; extracted?: unknown }[] };
type Mail = { id: string };

let stack: Stack;
let shop: pg.Client;
let store: pg.Client;

const gateway = () => stack.urls.gateway;
const user = (n: number) => shopUser(gateway, `user-${n}`);
const factsOf = async (subject: number | string) =>
  distinct(await readFacts(stack.urls.kinesis)).filter(
    (fact) => fact.subject === String(subject) && fact.source.startsWith('/banyan/order/'),
  );
const onService = async (id: number): Promise<Order | null> => {
  const response = await fetch(`${stack.urls.order}/api/orders/${id}`);
  return response.ok ? ((await response.json()) as Order) : null;
};
const onLegacy = async (id: number): Promise<Order | null> => {
  const response = await fetch(`${stack.urls.monolith}/api/orders/${id}`);
  return response.ok ? ((await response.json()) as Order) : null;
};
const mails = async (): Promise<Mail[]> => (await fetch(`${stack.urls.notification}/api/mails`)).json() as Promise<Mail[]>;
const parity = () => admin<Parity>(stack, 'contexts/order/parity');

const connect = async (): Promise<void> => {
  shop = new pg.Client({ connectionString: stack.urls.shop });
  store = new pg.Client({ connectionString: stack.urls.store });
  // a failed step may leave them open when the server stops
  for (const client of [shop, store]) client.on('error', () => undefined);
  await Promise.all([shop.connect(), store.connect()]);
};
const disconnect = async (): Promise<void> => void (await Promise.all([shop.end(), store.end()]));

beforeAll(async () => {
  stack = await startStack();
  await connect();
}, 270_000);
afterAll(async () => {
  await disconnect();
  await stack.stop();
}, 180_000);

describe('the story of the order context', () => {
  const placed: Order[] = [];

  it('brings orders from before the first start into the service', async () => {
    const old = await until(() => onService(1003), { describe: 'order 1003 in the service', timeoutMs: 30_000 });
    expect(old).toEqual(await onLegacy(1003));
    expect((await factsOf(1003)).map((fact) => fact.type)).toEqual(['order.imported.v1']);
  }, 120_000);

  it('places an order on legacy: one fact, and the service has it', async () => {
    const answer = await user(1).place();
    expect([answer.status, sideOf(answer.route)]).toEqual([201, 'legacy']);
    placed.push(answer.body);
    await until(() => onService(answer.body.id), { describe: 'the order in the service' });
    const facts = await until(async () => ((await factsOf(answer.body.id)).length > 0 ? factsOf(answer.body.id) : null), {
      describe: 'its fact',
    });
    expect(facts.map((fact) => [fact.type, fact.origin, fact.sequence])).toEqual([['order.placed.v1', 'legacy', '000000000000000001']]);
    expect(await onService(answer.body.id)).toEqual(await onLegacy(answer.body.id));
  });

  it('catches a write that goes around the gateway, once', async () => {
    const { rows } = await shop.query(
      "insert into shop.t_order (cust_ref, stat_cd, tot_amt_ct, curr_cd, crt_ts) values ('user-9', 'N', 700, 'EUR', (now() at time zone 'Europe/Berlin')::timestamp(3)) returning ord_no",
    );
    const id = Number(rows[0].ord_no);
    await until(() => onService(id), { describe: 'the order that went around', timeoutMs: 20_000 });
    expect((await factsOf(id)).map((fact) => fact.type)).toEqual(['order.placed.v1']);
  }, 90_000);

  it('compares in shadow: matches, no mismatch, and nobody gets a mail', async () => {
    await moveTo(stack, 'order', 'shadow');
    for (let i = 0; i < 100; i++) placed.push((await user(1 + (i % 20)).place()).body);
    await until(async () => (await onService(placed.at(-1)!.id)) !== null, {
      describe: 'the last of 100 orders in the service',
      timeoutMs: 30_000,
    });
    for (const order of placed) expect((await user(99).order(order.id)).status).toBe(200);
    const report = await until(async () => ((await parity()).compared >= 50 ? parity() : null), {
      describe: '50 comparisons',
      timeoutMs: 20_000,
    });
    expect(report.mismatch).toBe(0);
    expect(report.match + report.noise).toBeGreaterThan(0);
    expect(await mails()).toEqual([]);
  }, 360_000);

  it('shows a broken answer with its path and both values', async () => {
    const order = placed[0]!;
    await store.query('update svc_order.orders set total = total + 1 where id = $1', [String(order.id)]).catch(async () => {
      throw new Error('the order service keeps its totals elsewhere');
    });
    const pair = await until(
      async () => {
        await user(98).order(order.id);
        const { items } = await admin<{ items: Pair[] }>(stack, 'pairs?context=order&verdict=mismatch');
        return items[0] ?? null;
      },
      { describe: 'a mismatch', timeoutMs: 20_000, intervalMs: 200 },
    );
    const detail = await admin<PairDetail>(stack, `pairs/${pair.id}`);
    expect(detail.differences).toContainEqual(
      expect.objectContaining({ path: '$.total', legacy: order.total, extracted: order.total + 1 }),
    );
    await store.query('update svc_order.orders set total = total - 1 where id = $1', [String(order.id)]);
  }, 90_000);

  it('keeps the same tenth of users on the extracted side, and nobody misses an order just placed', async () => {
    await moveTo(stack, 'order', 'canary', { percent: 10 });
    const sides = new Map<string, string | undefined>();
    for (let round = 0; round < 2; round++) {
      for (let n = 0; n < 400; n++) {
        const answer = await shopUser(gateway, `person-${n}`).order(placed[n % placed.length]!.id);
        expect(answer.status).toBe(200);
        const side = sideOf(answer.route);
        if (round === 0) sides.set(`person-${n}`, side);
        else expect(side).toBe(sides.get(`person-${n}`));
      }
    }
    const extracted = [...sides.values()].filter((side) => side === 'extracted').length;
    expect(extracted).toBeGreaterThan(40 - 4 * 6);
    expect(extracted).toBeLessThan(40 + 4 * 6);
    await moveTo(stack, 'order', 'canary', { percent: 100 });
    for (let n = 0; n < 30; n++) {
      const { body } = await user(n).place();
      const found = await user(n).order(body.id);
      expect([found.status, found.body]).toEqual([200, body]);
    }
  }, 270_000);

  it('answers from legacy when the service is stopped: breaker open, no client error', async () => {
    const pid = stack.pids().order!;
    process.kill(pid, 'SIGTERM');
    await until(() => stack.pids().order === undefined, { describe: 'the order service to be gone', timeoutMs: 20_000 });
    const opened = async (): Promise<boolean> => (await contextNow(stack, 'order')).breaker.state !== 'closed';
    let asked = 0;
    for (; asked < 1000 && !(asked % 20 === 0 && (await opened())); asked++)
      expect((await user(asked).order(placed[0]!.id)).status).toBe(200);
    expect(await opened()).toBe(true);
    const served = await user(1).order(placed[0]!.id);
    expect([served.status, sideOf(served.route)]).toEqual([200, 'legacy']);
    await disconnect();
    await stack.restart();
    await connect();
  }, 270_000);

  it('keeps orders, stage and events over a restart', async () => {
    expect(await contextNow(stack, 'order')).toMatchObject({ stage: 'canary', percent: 100 });
    expect((await user(1).order(placed[0]!.id)).body).toEqual(placed[0]);
    expect((await factsOf(placed[0]!.id)).length).toBe(1);
  }, 90_000);

  it('is not cut over while the two sides differ, and says in which order', async () => {
    const order = placed[0]!;
    await store.query('update svc_order.orders set total = total + 1 where id = $1', [String(order.id)]);
    try {
      await expect(moveTo(stack, 'order', 'cutover')).rejects.toThrow(`the two sides of order differ: ${order.id}`);
    } finally {
      await store.query('update svc_order.orders set total = total - 1 where id = $1', [String(order.id)]);
    }
    expect(await contextNow(stack, 'order')).toMatchObject({ stage: 'canary', epoch: 1 });
  }, 270_000);

  it('cuts over: a new order lives in the service and, back-synced, in the legacy tables; one mail each', async () => {
    await moveTo(stack, 'order', 'cutover');
    expect(await contextNow(stack, 'order')).toMatchObject({ stage: 'cutover', epoch: 2 });
    const orders: Order[] = [];
    for (let n = 0; n < 20; n++) {
      const answer = await user(n).place();
      expect([answer.status, sideOf(answer.route)]).toEqual([201, 'extracted']);
      orders.push(answer.body);
      expect((await user(n).order(answer.body.id)).body).toEqual(answer.body);
    }
    const cancelled = await user(3).cancel(orders[3]!.id);
    expect([cancelled.status, cancelled.body.status]).toEqual([200, 'cancelled']);
    for (const order of orders.slice(0, 3)) expect(await until(() => onLegacy(order.id), { describe: 'back-sync' })).toEqual(order);
    await until(async () => (await onLegacy(orders[3]!.id))?.status === 'cancelled', { describe: 'the cancellation in legacy' });
    await until(async () => (await mails()).length >= 21, { describe: '20 orders and a cancellation mailed', timeoutMs: 20_000 });
    stack.kill('notification');
    await until(async () => (await mails()).length === 21, { describe: 'the mails after a kill', timeoutMs: 20_000 });
    const placements = distinct(await readFacts(stack.urls.kinesis)).filter(
      (fact) => fact.type === 'order.placed.v1' && fact.origin === 'extracted',
    );
    expect(placements.map((fact) => fact.subject).sort()).toEqual(orders.map((order) => String(order.id)).sort());
    const sagas = await until(
      async () => {
        const { items } = await admin<{ items: { subject: string; state: string }[] }>(stack, 'sagas?limit=100');
        return items.length >= orders.length && items.every(({ state }) => state === 'done' || state === 'compensated') ? items : null;
      },
      { describe: 'a saga for each order to end', timeoutMs: 60_000 },
    );
    expect(sagas.map(({ subject }) => subject).sort()).toEqual(orders.map((order) => String(order.id)).sort());
    placed.push(...orders);
  }, 270_000);

  it('goes back to legacy: it reads the same there, nothing lost on either side', async () => {
    await moveTo(stack, 'order', 'legacy');
    expect(await contextNow(stack, 'order')).toMatchObject({ stage: 'legacy', epoch: 3 });
    for (const order of placed) {
      const legacy = await onLegacy(order.id);
      expect(legacy).not.toBeNull();
      expect(legacy).toEqual(await onService(order.id));
    }
    const answer = await user(5).place();
    expect([answer.status, sideOf(answer.route)]).toEqual([201, 'legacy']);
    await until(() => onService(answer.body.id), { describe: 'the order placed after the way back' });
    const facts = await readFacts(stack.urls.kinesis);
    expect(orderFaults(facts)).toEqual([]);
    const { rows } = await shop.query(
      'select count(*)::int as n, count(distinct idem_key)::int as keys from shop.t_order where idem_key is not null',
    );
    expect(rows[0].n).toBe(rows[0].keys);
    expect((await admin<{ items: unknown[] }>(stack, 'ledger?context=order&state=parked')).items).toEqual([]);
  }, 180_000);
});
