import { randomUUID } from 'node:crypto';
import { afterEach, beforeEach, describe, expect, it } from '@jest/globals';
import { until } from '../harness/wait.ts';
import { type AdapterRig, adapterRig, ask, captureState } from './adapter-rig.ts';

let rig: AdapterRig;
beforeEach(async () => {
  rig = await adapterRig();
});
afterEach(() => rig.stop());

const TYPE = { place: 'order.placed.v1', cancel: 'order.cancelled.v1' } as const;

/** A ledger row as the gateway commits it before it sends a command to the monolith. */
const begin = async (
  what: keyof typeof TYPE,
  key: string,
  publisher: 'ledger' | 'capture',
  aggregate: string | null = null,
): Promise<string> => {
  const id = randomUUID();
  const row = {
    id,
    context: 'order',
    route: `POST ${what}`,
    event_types: [TYPE[what]],
    key,
    key_supplied: true,
    scope: 'somebody',
    request_hash: 'h',
    method: 'POST',
    target: '/api/orders',
    aggregate,
    upstream: 'legacy',
    publisher,
    epoch: 1,
    owner: randomUUID(),
    settle_ms: 60_000,
    deadline_ms: 60_000,
    resend: false,
  };
  const { rows } = await rig.store.raw<{ rows: { outcome: string }[] }>('select outcome from banyan.ledger_begin(?::jsonb)', [
    JSON.stringify([row]),
  ]);
  expect(rows).toEqual([{ outcome: 'sent' }]);
  return id;
};

/** The gateway's terminal commit for an answer of the monolith. */
const settle = async (id: string, event: 'ok' | 'lost', facts: { type: string; subject: string; data: unknown }[] = []): Promise<void> => {
  const row = { id, fence: 1, from_state: 'sent', event, by: 'answer', facts, status: event === 'ok' ? 201 : null };
  const { rows } = await rig.store.raw<{ rows: { moved: boolean }[] }>('select moved from banyan.ledger_settle(?::jsonb)', [
    JSON.stringify([row]),
  ]);
  expect(rows).toEqual([{ moved: true }]);
};

const entry = async (id: string): Promise<{ state: string; evidence: { type: string; subject: string }[] }> =>
  (await rig.store('banyan.ledger').where({ id }).first('state', 'evidence')) as {
    state: string;
    evidence: { type: string; subject: string }[];
  };

const told = async (subject: number): Promise<string[]> => (await rig.facts('order', subject)).map(({ type }) => type);

describe.each(['ledger', 'capture'] as const)('publisher %s', (publisher) => {
  it('publishes what went around the gateway', async () => {
    await rig.start({ order: publisher });
    await rig.settled();
    const { id } = await rig.place([[1, 1]]);
    await rig.cancel(id);
    await rig.settled();
    expect(await told(id)).toEqual([TYPE.place, TYPE.cancel]);
  });

  it('publishes a command of the gateway once, whoever comes first', async () => {
    await rig.start({ order: publisher });
    await rig.settled();
    // capture comes first
    const early = await begin('place', 'early', publisher);
    const first = await rig.place([[1, 1]], 'early');
    await rig.settled();
    expect((await entry(early)).evidence).toMatchObject([{ type: TYPE.place, subject: String(first.id) }]);
    await settle(early, 'ok', publisher === 'ledger' ? [{ type: TYPE.place, subject: String(first.id), data: first }] : []);
    // the answer comes first; cancelled by subject, with a key
    const cancel = await begin('cancel', 'cancel-1', publisher, String(first.id));
    const row = await rig.legacy.transaction(async (trx) => {
      await trx.raw(
        `update shop.t_order set stat_cd = 'X', xcl_ts = now() at time zone 'Europe/Berlin', xcl_idem_key = 'cancel-1' where ord_no = ?`,
        [first.id],
      );
      await settle(cancel, 'ok', publisher === 'ledger' ? [{ type: TYPE.cancel, subject: String(first.id), data: { id: first.id } }] : []);
      return first.id;
    });
    await rig.settled();
    expect(await told(row)).toEqual([TYPE.place, TYPE.cancel]);
  });

  it('proves a command whose answer was lost', async () => {
    await rig.start({ order: publisher });
    await rig.settled();
    const lost = await begin('place', 'lost', publisher);
    const { id } = await rig.place([[2, 1]], 'lost');
    await settle(lost, 'lost');
    await until(async () => ['applied', 'published', 'done'].includes((await entry(lost)).state), { describe: 'the row to be proven' });
    await rig.settled();
    expect(await told(id)).toEqual([TYPE.place]);
  });

  it('holds a change behind commands that may be its cause, and only that aggregate', async () => {
    const adapter = await rig.start({ order: publisher, inventory: 'capture' });
    await rig.settled();
    const open = await begin('place', 'other-key', publisher);
    const { id } = await rig.place([[1, 1]]);
    await rig.cancel(id);
    await until(async () => (await captureState(adapter)).held === 1, { describe: 'the order to be held' });
    await until(async () => (await rig.facts('inventory', 1)).length === 3, { describe: 'the stock to be told meanwhile' });
    expect(await told(id)).toEqual([]);
    expect(await ask(adapter, 'POST', '/v1/contexts/order/watermark', { timeoutMs: 30 })).toMatchObject({ status: 504 });
    expect(await ask(adapter, 'POST', '/v1/contexts/inventory/watermark', { timeoutMs: 10_000 })).toEqual({
      status: 200,
      body: { passed: true },
    });
    const passing = ask(adapter, 'POST', '/v1/contexts/order/watermark', { timeoutMs: 20_000 });
    await settle(
      open,
      'ok',
      publisher === 'ledger' ? [{ type: TYPE.place, subject: '4711', data: { id: 4711, userId: 'u', items: [] } }] : [],
    );
    expect(await passing).toEqual({ status: 200, body: { passed: true } });
    expect(await told(id)).toEqual([TYPE.place, TYPE.cancel]);
  });
});

describe('the watermark', () => {
  it('waits for transactions that had written before the call, and for none that came later', async () => {
    const adapter = await rig.start({ order: 'capture' });
    await rig.settled();
    expect(await ask(adapter, 'POST', '/v1/contexts/order/watermark', { timeoutMs: 5000 })).toEqual({
      status: 200,
      body: { passed: true },
    });
    const open = await rig.legacy.transaction();
    await open.raw(`insert into shop.t_order (ord_no, cust_ref, tot_amt_ct) values (8000, 'u', 1)`);
    expect(await ask(adapter, 'POST', '/v1/contexts/order/watermark', { timeoutMs: 60 })).toMatchObject({ status: 504 });
    const passing = ask(adapter, 'POST', '/v1/contexts/order/watermark', { timeoutMs: 20_000 });
    await open.commit();
    expect(await passing).toEqual({ status: 200, body: { passed: true } });
    expect(await told(8000)).toEqual([TYPE.place]);
  });

  it('is refused in words for a context or a time that makes no sense', async () => {
    const adapter = await rig.start({ order: 'capture' });
    expect(await ask(adapter, 'POST', '/v1/contexts/inventory/watermark', { timeoutMs: 1 })).toMatchObject({
      status: 404,
      body: { code: 'not-found', detail: 'context inventory is not one of order' },
    });
    for (const body of [{}, { timeoutMs: -1 }, { timeoutMs: 'x' }, { timeoutMs: 1, more: 1 }])
      expect(await ask(adapter, 'POST', '/v1/contexts/order/watermark', body)).toMatchObject({
        status: 400,
        body: { code: 'bad-request' },
      });
  });
});
