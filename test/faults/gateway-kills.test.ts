import { randomUUID } from 'node:crypto';
import { setTimeout as pause } from 'node:timers/promises';
import { afterEach, describe, expect, it } from '@jest/globals';
import pg from 'pg';
import { distinct, orderFaults, readFacts } from '../harness/facts.ts';
import { type Order, shopUser } from '../harness/shop-client.ts';
import { admin, type Stack, startStack } from '../harness/stack.ts';
import { until } from '../harness/wait.ts';

const KILLS = 20;
const COMMANDS_PER_SECOND = 50;

let stack: Stack | undefined;
afterEach(async () => {
  await stack?.stop();
  stack = undefined;
}, 180_000);

type Acknowledged = { key: string; id: number };

/** Places one order and repeats its key until somebody answers; what a careful client does. */
const placeSurely = async (url: () => string, n: number): Promise<Acknowledged> => {
  const key = randomUUID();
  const user = shopUser(url, `user-${(n % 20) + 1}`);
  for (let attempt = 0; attempt < 200; attempt++) {
    try {
      const answer = await user.place(key, [{ productId: (n % 8) + 1, quantity: 1 }]);
      if (answer.status === 201) return { key, id: answer.body.id };
      if (answer.status !== 202 && answer.status < 500)
        throw new Error(`refused with ${answer.status}: ${JSON.stringify(answer.body)}`, { cause: 'refused' });
    } catch (error) {
      if ((error as Error).cause === 'refused') throw error;
    }
    await pause(100 + Math.random() * 200);
  }
  throw new Error(`nobody answered for ${key}`);
};

describe.each(['ledger', 'capture'] as const)('a gateway killed %#, publisher %s', (publisher) => {
  it(`${KILLS} times under ${COMMANDS_PER_SECOND} commands/s loses, doubles and invents nothing`, async () => {
    stack = await startStack({ 'contexts.order.publisher': publisher });
    const running = stack;
    const url = () => running.urls.gateway;
    const sent: Promise<Acknowledged>[] = [];
    let stop = false;
    const load = (async () => {
      for (let n = 0; !stop; n++) {
        sent.push(placeSurely(url, n));
        await pause(1000 / COMMANDS_PER_SECOND);
      }
    })();
    const shop = new pg.Client({ connectionString: running.urls.shop });
    await shop.connect();
    for (let kill = 0; kill < KILLS; kill++) {
      // somebody writes around the gateway all the while
      await shop.query(
        "insert into shop.t_order (cust_ref, stat_cd, tot_amt_ct, curr_cd, crt_ts) values ('batch', 'N', 100, 'EUR', (now() at time zone 'Europe/Berlin')::timestamp(3))",
      );
      const pid = await until(
        async () => {
          const { gateway } = running.pids();
          return gateway !== undefined && (await fetch(`${running.urls.admin}/livez`).then((answer) => answer.ok)) ? gateway : null;
        },
        { describe: 'the gateway to be back', timeoutMs: 30_000 },
      );
      await pause(100 + Math.random() * 300);
      process.kill(pid, 'SIGKILL');
      await until(() => running.pids().gateway !== pid, { describe: 'the gateway to be gone' });
    }
    stop = true;
    await load;
    const acknowledged = await Promise.all(sent);
    expect(acknowledged.length).toBeGreaterThan(KILLS * 10);

    const { rows } = await shop.query<{ id: string; key: string | null }>('select ord_no as id, idem_key as key from shop.t_order');
    await shop.end();
    const orderOf = new Map(rows.map((row) => [row.key, Number(row.id)]));
    for (const { key, id } of acknowledged) expect(orderOf.get(key)).toBe(id);
    expect(rows.filter((row) => row.key !== null).length).toBe(new Set(rows.map((row) => row.key).filter((key) => key !== null)).size);

    const open = () => admin<{ items: { state: string }[] }>(running, 'ledger?context=order&limit=200');
    await until(async () => (await open()).items.every((row) => ['done', 'rejected'].includes(row.state)), {
      describe: 'the ledger to settle',
      timeoutMs: 60_000,
      intervalMs: 500,
    });
    const facts = await until(
      async () => {
        const now = distinct(await readFacts(running.urls.kinesis)).filter((fact) => fact.source === '/banyan/order/legacy');
        return now.length >= rows.length ? now : null;
      },
      { describe: 'a fact for every order', timeoutMs: 60_000, intervalMs: 2000 },
    );
    const bySubject = Map.groupBy(facts, (fact) => fact.subject);
    const orders = new Set(rows.map((row) => String(row.id)));
    expect([...bySubject.keys()].filter((subject) => !orders.has(subject))).toEqual([]);
    expect([...orders].filter((id) => bySubject.get(id)?.length !== 1)).toEqual([]);
    expect(orderFaults(await readFacts(running.urls.kinesis))).toEqual([]);
    expect(
      (await fetch(`${running.urls.order}/api/orders/${acknowledged.at(-1)!.id}`).then((answer) => answer.json() as Promise<Order>)).id,
    ).toBe(acknowledged.at(-1)!.id);
  }, 720_000);
});
