import { randomUUID } from 'node:crypto';
import { rm, writeFile } from 'node:fs/promises';
import { setTimeout as pause } from 'node:timers/promises';
import { afterAll, beforeAll, describe, expect, it } from '@jest/globals';
import pg from 'pg';
import { openTwoGateways, type Replica, type TwoGateways } from '../harness/two-gateways.ts';
import { until } from '../harness/wait.ts';

let system: TwoGateways;
let db: pg.Client;
beforeAll(async () => {
  system = await openTwoGateways();
  db = new pg.Client({ connectionString: system.database.url, application_name: 'the test' });
  await db.connect();
}, 270_000);
afterAll(async () => {
  await db.end();
  await system.stop();
}, 180_000);

type Context = { name: string; stage: string; killed: boolean; epoch: number; version: number; flip: { id: string } | null };
type Problem = { code: string; detail: string };

const ask = async <T>(
  replica: Replica,
  method: string,
  path: string,
  body?: object,
): Promise<{ status: number; body: T; headers: Headers }> => {
  const response = await fetch(`${replica.admin}/api/v1/${path}`, {
    method,
    headers: { connection: 'close', ...(body ? { 'content-type': 'application/json' } : {}) },
    ...(body ? { body: JSON.stringify(body) } : {}),
  });
  return { status: response.status, body: (await response.json()) as T, headers: response.headers };
};
const order = async (replica: Replica): Promise<Context> => (await ask<Context>(replica, 'GET', 'contexts/order')).body;
const both = async (field: 'killed' | 'stage' | 'epoch'): Promise<unknown[]> =>
  Promise.all(system.replicas.map(async (replica) => (await order(replica))[field]));
/** A connection of its own each time, so that both workers are met. */
const query = async (replica: Replica, path = '/api/orders/1'): Promise<{ status: number; side: string | null; route: string | null }> => {
  const response = await fetch(`${replica.gateway}${path}`, { headers: { connection: 'close', 'x-user-id': 'user-1' } });
  await response.body?.cancel();
  return { status: response.status, side: response.headers.get('x-side'), route: response.headers.get('banyan-route') };
};
const place = async (replica: Replica, key: string = randomUUID()) => {
  const response = await fetch(`${replica.gateway}/api/orders`, {
    method: 'POST',
    headers: { connection: 'close', 'content-type': 'application/json', 'idempotency-key': key, 'x-user-id': 'a buyer' },
    body: '{"userId":"user-1","items":[{"productId":1,"quantity":1}]}',
  });
  return {
    key,
    status: response.status,
    retryAfter: response.headers.get('retry-after'),
    body: (await response.json()) as Partial<Problem>,
  };
};
const move = async (stage: string, more: object = {}): Promise<{ status: number; body: unknown }> =>
  ask(system.replicas[0], 'PUT', 'contexts/order/stage', { stage, reason: 'the test says so', ...more });
const flipOf = (answer: { body: unknown }): string => (answer.body as { flip: { id: string } }).flip.id;
const flipEnds = (id: string, replica = system.replicas[0]): Promise<{ state: string; detail: string | null }> =>
  until(
    async () => {
      const { body } = await ask<{ state: string; detail: string | null }>(replica, 'GET', `flips/${id}`);
      return body.state === 'done' || body.state === 'undone' ? body : null;
    },
    { describe: 'the flip to end', timeoutMs: 40_000 },
  );
/** Also ends what stands on a line that hung: a network that is back resets it. */
const heal = async (replica: Replica): Promise<void> => {
  replica.store.cut();
  await replica.store.heal();
};
const reasoned = { reason: 'the test says so' };
const revive = async (): Promise<void> => {
  await until(async () => (await ask(system.replicas[0], 'POST', 'contexts/order/revive', reasoned)).status === 200, {
    describe: 'the revive',
    timeoutMs: 20_000,
  });
  await until(async () => !(await both('killed')).includes(true), { describe: 'the revive everywhere' });
};
const sides = async (replica: Replica): Promise<(string | null)[]> =>
  (await Promise.all(Array.from({ length: 6 }, () => query(replica)))).map(({ side }) => side);

describe('while the store is down', () => {
  it('queries and plain routes are answered, commands of the ledger are refused for now, changes clearly, and a kill works here and at the peers', async () => {
    const [one, two] = system.replicas;
    await move('shadow');
    await move('canary', { percent: 100 });
    await until(async () => (await both('stage')).every((stage) => stage === 'canary'), { describe: 'canary everywhere' });
    for (const replica of system.replicas) expect(new Set(await sides(replica))).toEqual(new Set(['extracted']));
    expect((await place(two)).status).toBe(201);

    for (const replica of system.replicas) replica.store.cut();
    for (const replica of system.replicas) {
      expect(new Set(await sides(replica))).toEqual(new Set(['extracted']));
      expect(await query(replica, '/anything/else')).toMatchObject({ status: 200, side: 'legacy' });
      const refused = await place(replica);
      expect(refused).toMatchObject({ status: 503, retryAfter: expect.stringMatching(/^\d+$/), body: { code: 'store-unavailable' } });
      expect(system.placed.legacy).not.toContain(refused.key);
      expect(system.placed.extracted).not.toContain(refused.key);
    }
    for (const [method, path, body] of [
      ['PUT', 'contexts/order/stage', { stage: 'shadow', ...reasoned }],
      ['PUT', 'contexts/order/stage', { stage: 'cutover', ...reasoned }],
      ['POST', 'contexts/order/revive', reasoned],
      ['POST', 'contexts/order/kill', { now: true, ...reasoned }],
    ] as const)
      expect(await ask<Problem>(one, method, path, body)).toMatchObject({
        status: 503,
        body: { code: 'store-unavailable', detail: expect.stringMatching(/store/) },
      });

    const killed = await ask<Context>(one, 'POST', 'contexts/order/kill', reasoned);
    expect(killed).toMatchObject({ status: 200, body: { killed: true } });
    expect(killed.headers.get('banyan-peers')).toBe('1/1');
    for (const replica of system.replicas) expect(new Set(await sides(replica))).toEqual(new Set(['legacy']));
    expect(await both('killed')).toEqual([true, true]);

    for (const replica of system.replicas) await replica.store.heal();
    await until(async () => (await db.query('select killed from banyan.context where name = $1', ['order'])).rows[0].killed, {
      describe: 'the kill in the store',
      timeoutMs: 20_000,
    });
    await until(
      async () => {
        const [a, b] = await Promise.all(system.replicas.map(order));
        return a!.killed && b!.killed && a!.version === b!.version;
      },
      { describe: 'the same state on both', timeoutMs: 20_000 },
    );
    await until(async () => (await place(one)).status === 201, { describe: 'commands to go on', timeoutMs: 20_000 });
    await revive();
    expect(new Set(await sides(two))).toEqual(new Set(['extracted']));
  }, 270_000);

  it('a file and a signal kill at the machine, the file for as long as it is there', async () => {
    const [one, two] = system.replicas;
    for (const replica of system.replicas) replica.store.hang();
    await writeFile(one.killFile, '# by hand\norder the totals are wrong\n');
    await until(async () => (await both('killed')).every(Boolean), { describe: 'the kill on both', timeoutMs: 20_000 });
    for (const replica of system.replicas) expect(new Set(await sides(replica))).toEqual(new Set(['legacy']));
    expect((await ask<Context>(two, 'GET', 'contexts/inventory')).body.killed).toBe(false);
    for (const replica of system.replicas) await heal(replica);
    await until(
      async () =>
        (await db.query(`select from banyan.audit where action = 'kill' and reason like '%the totals are wrong%'`)).rowCount === 1,
      { describe: 'the audit of the kill', timeoutMs: 30_000 },
    );
    const held = await ask<Problem>(one, 'POST', 'contexts/order/revive', reasoned);
    expect(held).toMatchObject({ status: 409, body: { detail: expect.stringContaining(one.killFile) } });
    await rm(one.killFile);
    await revive();

    two.process.signal('SIGUSR1');
    await until(
      async () =>
        (await Promise.all(system.replicas.map(async (one) => (await ask<{ items: Context[] }>(one, 'GET', 'contexts')).body.items)))
          .flat()
          .every(({ killed }) => killed),
      { describe: 'all to be killed on both', timeoutMs: 20_000 },
    );
    expect((await ask(one, 'POST', 'revive', reasoned)).status).toBe(200);
    await until(async () => !(await both('killed')).includes(true), { describe: 'the revive everywhere' });
  }, 270_000);
});

describe('a flip', () => {
  it('goes on without a replica that is cut off from the store, which sends no command of the context', async () => {
    const [one, two] = system.replicas;
    two.store.hang();
    const began = system.placed.legacy.length;
    const answers: Promise<Awaited<ReturnType<typeof place>>>[] = [];
    let stop = false;
    const load = (async () => {
      while (!stop) {
        const answer = place(two);
        answer.catch(() => undefined);
        answers.push(answer);
        await pause(50);
      }
    })();
    expect(await flipEnds(flipOf(await move('cutover')))).toMatchObject({
      state: 'done',
      detail: expect.stringContaining('nothing was compared'),
    });
    const after = await place(one);
    expect(after).toMatchObject({ status: 201 });
    expect(system.placed.extracted).toContain(after.key);
    stop = true;
    await load;
    const refused = await Promise.all(answers);
    expect(refused.length).toBeGreaterThan(0);
    expect(refused.filter(({ status, retryAfter }) => status !== 503 || retryAfter === null)).toEqual([]);
    expect(system.placed.legacy.length).toBe(began);
    const late = new Set(refused.map(({ key }) => key));
    expect(system.placed.extracted.filter((key) => late.has(key))).toEqual([]);
    // its connections stand and are dead for good: it must let go of them by itself
    await two.store.heal();
    await until(async () => (await place(two)).status === 201, { describe: 'the replica to go on', timeoutMs: 30_000 });
    expect(await both('stage')).toEqual(['cutover', 'cutover']);
  }, 270_000);

  it('is undone when the store goes away under the freeze and comes back, so that commands go on', async () => {
    const [one, two] = system.replicas;
    // somebody holds the commands back while the flip is frozen
    await db.query(
      `insert into banyan.ledger (id, context, route, event_types, idempotency_key, key_supplied, scope, request_hash, method, target, state, upstream, publisher, epoch, owner, settle_ms, deadline_ms, settle_after, deadline)
       select gen_random_uuid(), 'order', 'POST /api/orders', '{}', 'stuck', true, 'stuck', 'x', 'POST', '/api/orders', 'sent', 'extracted', 'ledger', 2, id, 1000, 600000, now(), now() + interval '10 minutes' from banyan.member limit 1`,
    );
    const id = flipOf(await move('canary', { percent: 100 }));
    await until(async () => (await ask<{ state: string }>(one, 'GET', `flips/${id}`)).body.state === 'draining', {
      describe: 'the flip to drain',
      timeoutMs: 20_000,
    });
    for (const replica of system.replicas) replica.store.cut();
    await pause(500);
    for (const replica of system.replicas) await replica.store.heal();
    expect(await flipEnds(id, two)).toMatchObject({ state: 'undone' });
    expect((await db.query('select frozen_by, stage from banyan.context where name = $1', ['order'])).rows).toEqual([
      { frozen_by: null, stage: 'cutover' },
    ]);
    await db.query(`update banyan.ledger set state = 'rejected' where idempotency_key = 'stuck'`);
    await until(async () => (await place(one)).status === 201, { describe: 'commands to go on', timeoutMs: 30_000 });
  }, 270_000);

  it('into legacy after a kill at cutover waits for back-sync, not for writes that nobody has settled', async () => {
    const [one, two] = system.replicas;
    await db.query(
      `update banyan.ledger set id = id where false; 
       insert into banyan.ledger (id, context, route, event_types, idempotency_key, key_supplied, scope, request_hash, method, target, state, upstream, publisher, epoch, owner, settle_ms, deadline_ms, settle_after, deadline)
       values ('00000000-0000-7000-8000-000000000001', 'order', 'POST /api/orders', '{}', 'open', true, 'open', 'x', 'POST', '/api/orders', 'sent', 'extracted', 'ledger', 2, gen_random_uuid(), 1000, 600000, now() + interval '10 minutes', now() + interval '10 minutes')`,
    );
    await until(
      async () => (await db.query(`select state from banyan.ledger where idempotency_key = 'open'`)).rows[0].state === 'unknown',
      { describe: 'the write to be unknown', timeoutMs: 20_000 },
    );
    const refused = await move('canary', { percent: 100 });
    expect(refused).toMatchObject({
      status: 409,
      body: { detail: expect.stringContaining('00000000-0000-7000-8000-000000000001 unknown') },
    });
    system.level = false;
    await ask(one, 'POST', 'contexts/order/kill', reasoned);
    for (const replica of system.replicas) {
      await until(async () => new Set(await sides(replica)).isSubsetOf(new Set(['legacy'])), { describe: 'queries on legacy' });
      const held = await place(replica);
      expect(held).toMatchObject({ status: 503, retryAfter: expect.stringMatching(/^\d+$/) });
    }
    system.level = true;
    const taken = await until(
      async () => {
        const answer = await place(two);
        return answer.status === 201 ? answer : null;
      },
      { describe: 'commands on legacy', timeoutMs: 40_000 },
    );
    expect(system.placed.legacy).toContain(taken.key);
    expect(await order(one)).toMatchObject({ stage: 'legacy', killed: true, epoch: 3 });
  }, 270_000);
});
