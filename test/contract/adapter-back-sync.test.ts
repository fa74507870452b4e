import { EMPTY_CHECKSUM, fold } from '@banyan/contracts/checksum.ts';
import { afterEach, beforeEach, describe, expect, it } from '@jest/globals';
import type { Adapter } from '../../legacy-adapter/compose.ts';
import { until } from '../harness/wait.ts';
import { type AdapterRig, adapterRig, ask, captureState } from './adapter-rig.ts';

let rig: AdapterRig;
beforeEach(async () => {
  rig = await adapterRig();
  await rig.store('banyan.context').where({ name: 'order' }).update({ owner: 'extracted', stage: 'cutover', epoch: 2 });
});
afterEach(() => rig.stop());

/** What the extracted service does in its own transaction. */
const tell = async (type: string, data: Record<string, unknown>): Promise<void> => {
  await rig.store.raw(`select * from banyan.append_fact('order', 'extracted', ?, ?, ?::jsonb, 'command')`, [
    type,
    String(data.id),
    JSON.stringify(data),
  ]);
};
const order = (id: number, more: Record<string, unknown> = {}): Record<string, unknown> => ({
  id,
  userId: 'user-3',
  items: [
    { productId: 2, quantity: 3, price: 7.99 },
    { productId: 1, quantity: 1, price: 12.5 },
  ],
  total: 36.47,
  currency: 'EUR',
  status: 'placed',
  createdAt: '2026-07-01T10:00:00.123Z',
  cancelledAt: null,
  ref: `ref-${id}`,
  ...more,
});
const stock = async (article: number): Promise<number> =>
  ((await rig.legacy('shop.t_stock').where({ art_no: article }).first('qty_on_hand')) as { qty_on_hand: number }).qty_on_hand;
const shown = async (id: number): Promise<unknown> => (await fetch(`${rig.shop.url}/api/orders/${id}`)).json();
const waiting = async (): Promise<{ subject: string; attempts: number; error: string | null }[]> =>
  rig.store('banyan.back_sync').orderBy('position').select('subject', 'attempts', 'error');
const passed = async (adapter: Adapter): Promise<void> => {
  expect(await ask(adapter, 'POST', '/v1/contexts/order/back-sync/watermark', { timeoutMs: 15_000 })).toEqual({
    status: 200,
    body: { passed: true },
  });
};

describe('back-sync', () => {
  it('makes the shop show what the service did, stock and all, and echoes nothing', async () => {
    const adapter = await rig.start({ order: 'ledger', inventory: 'capture' });
    await rig.settled();
    const before = (await rig.facts()).length;
    const { body } = await ask(adapter, 'POST', '/v1/contexts/order/ids', { count: 3 });
    const { ids } = body as { ids: number[] };
    expect(ids).toEqual([1006, 1007, 1008]);
    const [id] = ids as [number];
    await tell('order.placed.v1', order(id));
    await passed(adapter);
    const { ref, ...visible } = order(id);
    expect(await shown(id)).toEqual(visible);
    expect(await (await fetch(`${rig.shop.url}/api/orders?ref=${String(ref)}`)).json()).toEqual([visible]);
    expect([await stock(1), await stock(2)]).toEqual([99_999, 99_997]);
    // the shop goes on numbering behind the block
    expect((await rig.place([[3, 1]])).id).toBe(1009);

    await tell('order.cancelled.v1', { id, cancelledAt: '2026-07-01T11:00:00.000Z' });
    await passed(adapter);
    expect(await shown(id)).toEqual({ ...visible, status: 'cancelled', cancelledAt: '2026-07-01T11:00:00.000Z' });
    expect([await stock(1), await stock(2)]).toEqual([100_000, 100_000]);
    await rig.settled();
    const own = (await rig.facts()).slice(before);
    // of legacy's origin only what the shop itself did
    const byOrigin = own.toSorted((a, b) => a.origin.localeCompare(b.origin));
    expect(byOrigin.map(({ type, subject, origin }) => [type, subject, origin])).toEqual([
      ['order.placed.v1', String(id), 'extracted'],
      ['order.cancelled.v1', String(id), 'extracted'],
      ['order.placed.v1', '1009', 'legacy'],
      ['inventory.changed.v1', '3', 'legacy'],
    ]);
    expect(await waiting()).toEqual([]);
  });

  it('applies a fact once, however often it is delivered, and never an older one over a newer', async () => {
    let crashes = 0;
    const first = await rig.start(
      { order: 'ledger' },
      {
        beforeBackSyncSettles: async () => {
          crashes += 1;
          throw new Error('crash');
        },
      },
    );
    await tell('order.placed.v1', order(1050));
    await until(() => crashes >= 3, { describe: 'three crashes' });
    await first.stop();
    expect(await stock(2)).toBe(99_997);
    expect(await waiting()).toHaveLength(1);
    const [late] = (await rig.store('banyan.back_sync').select('*')) as Record<string, unknown>[];
    const adapter = await rig.start({ order: 'ledger' });
    await passed(adapter);
    await tell('order.cancelled.v1', { id: 1050, cancelledAt: null });
    await passed(adapter);
    await rig.store('banyan.back_sync').insert(late!);
    await passed(adapter);
    expect(await shown(1050)).toMatchObject({ status: 'cancelled' });
    expect(await stock(2)).toBe(100_000);
  });

  it('keeps the order of a subject, and lets others pass one that cannot be written', async () => {
    const adapter = await rig.start({ order: 'ledger' });
    await rig.legacy('shop.t_stock').where({ art_no: 2 }).update({ qty_on_hand: 2 });
    await tell('order.placed.v1', order(1060));
    await tell('order.cancelled.v1', { id: 1060, cancelledAt: null });
    await tell('order.placed.v1', order(1061, { items: [{ productId: 1, quantity: 1, price: 1 }], total: 1 }));
    await until(async () => (await waiting()).length === 2 && (await waiting())[0]!.attempts >= 2, {
      describe: 'two attempts on the first order alone',
    });
    expect(await waiting()).toEqual([
      { subject: '1060', attempts: expect.any(Number), error: 't_stock art_no=2: qty_on_hand has no 3 left' },
      { subject: '1060', attempts: 0, error: null },
    ]);
    expect(await shown(1060)).toMatchObject({ error: 'order not found' });
    expect(await shown(1061)).toMatchObject({ id: 1061, total: 1 });
    expect(await stock(2)).toBe(2);
    expect((await captureState(adapter)).backSync).toMatchObject({ pending: 2, failing: [{ context: 'order', subject: '1060' }] });
    expect(await ask(adapter, 'POST', '/v1/contexts/order/back-sync/watermark', { timeoutMs: 30 })).toMatchObject({
      status: 504,
      body: { failing: [{ subject: '1060' }] },
    });
    await rig.legacy('shop.t_stock').where({ art_no: 2 }).update({ qty_on_hand: 3 });
    await passed(adapter);
    expect(await shown(1060)).toMatchObject({ status: 'cancelled' });
    expect(await stock(2)).toBe(3);
  });

  it('does not write a late fact over what legacy has changed after it took the writes', async () => {
    const adapter = await rig.start({ order: 'ledger' });
    await tell('order.placed.v1', order(1070));
    await tell('order.placed.v1', order(1071));
    await passed(adapter);
    await adapter.stop();
    for (const id of [1070, 1071]) await tell('order.cancelled.v1', { id, cancelledAt: '2026-07-01T11:00:00.000Z' });
    // kill --now: nothing waits for the two facts, and somebody changes one of the orders on legacy
    await rig.store('banyan.context').where({ name: 'order' }).update({ owner: 'legacy', stage: 'legacy', epoch: 3 });
    await rig.store.raw(`select * from banyan.append_fact('order', 'legacy', 'order.placed.v1', '1070', ?::jsonb, 'command')`, [
      JSON.stringify(order(1070)),
    ]);
    const again = await rig.start({ order: 'ledger' });
    await until(async () => (await waiting()).length === 1 && (await waiting())[0]!.error !== null, { describe: 'the conflict' });
    expect(await waiting()).toEqual([
      { subject: '1070', attempts: expect.any(Number), error: expect.stringContaining('legacy has changed order 1070 under epoch 3') },
    ]);
    expect([await shown(1070), await shown(1071)]).toMatchObject([{ status: 'placed' }, { status: 'cancelled' }]);
    expect((await captureState(again)).backSync).toMatchObject({ pending: 1, failing: [{ context: 'order', subject: '1070' }] });
  });

  it('survives a round trip under many orders: shop and service have the same checksum', async () => {
    const adapter = await rig.start({ order: 'ledger' });
    const states = new Map<number, Record<string, unknown>>();
    for (let id = 2000; id < 2100; id += 1) {
      await tell('order.placed.v1', order(id));
      const cancelledAt = id % 3 === 0 ? '2026-08-01T00:00:00.001Z' : null;
      if (cancelledAt) await tell('order.cancelled.v1', { id, cancelledAt });
      states.set(id, order(id, cancelledAt ? { cancelledAt, status: 'cancelled' } : {}));
    }
    await passed(adapter);
    await rig.legacy('shop.t_order').where('ord_no', '<', 2000).delete();
    const expected = fold(states.values());
    expect(expected.count).toBe(100);
    expect(await ask(adapter, 'GET', '/v1/contexts/order/checksum')).toEqual({ status: 200, body: expected });
    await rig.legacy.raw('update shop.t_order_pos set qty = qty + 1 where ord_no = 2000 and pos_no = 1');
    expect((await ask(adapter, 'GET', '/v1/contexts/order/checksum')).body).not.toEqual(expected);
    await rig.legacy('shop.t_order').delete();
    expect((await ask(adapter, 'GET', '/v1/contexts/order/checksum')).body).toEqual(EMPTY_CHECKSUM);
    const placed = await stock(2);
    expect(placed).toBe(100_000 - 3 * [...states.values()].filter(({ status }) => status === 'placed').length);
  });

  it('gives ids to any number of callers, each once, and none where legacy numbers nothing', async () => {
    const adapter = await rig.start({ order: 'ledger', inventory: 'ledger' });
    const blocks = await Promise.all(Array.from({ length: 8 }, () => ask(adapter, 'POST', '/v1/contexts/order/ids', { count: 50 })));
    const ids = blocks.flatMap(({ body }) => (body as { ids: number[] }).ids);
    expect(new Set(ids).size).toBe(400);
    expect(Math.min(...ids)).toBe(1006);
    for (const count of [0, 1001, 1.5, '1'])
      expect(await ask(adapter, 'POST', '/v1/contexts/order/ids', { count })).toMatchObject({ status: 400 });
    expect(await ask(adapter, 'POST', '/v1/contexts/inventory/ids', { count: 1 })).toMatchObject({
      status: 409,
      body: { code: 'not-configured' },
    });
    expect(await ask(adapter, 'POST', '/v1/contexts/nothing/ids', { count: 1 })).toMatchObject({ status: 404 });
  });

  it('takes an order back once for a key, stock and all, for everybody to hear, and refuses what has left the house', async () => {
    await rig.store('banyan.context').where({ name: 'order' }).update({ owner: 'legacy', stage: 'legacy', epoch: 1 });
    const adapter = await rig.start({ order: 'ledger', inventory: 'capture' });
    await rig.settled();
    const before = await stock(2);
    const { id } = await rig.place([[2, 3]]);
    const undo = (aggregate: string, key: string) => ask(adapter, 'POST', '/v1/contexts/order/compensate', { key, aggregate });
    const both = await Promise.all([undo(String(id), 'compensate-1'), undo(String(id), 'compensate-1')]);
    expect(both.map(({ body }) => (body as { compensated: string }).compensated).sort()).toEqual(['done', 'repeated']);
    expect(await shown(id)).toMatchObject({ status: 'cancelled' });
    expect(await stock(2)).toBe(before);
    // under another key there is nothing left to do
    expect(await undo(String(id), 'compensate-2')).toEqual({ status: 200, body: { compensated: 'done' } });
    expect(await stock(2)).toBe(before);
    await rig.settled();
    expect((await rig.facts('order', id)).map(({ type }) => type)).toEqual(['order.placed.v1', 'order.cancelled.v1']);

    const shipped = await rig.place([[2, 1]]);
    await rig.legacy('shop.t_order').where({ ord_no: shipped.id }).update({ stat_cd: 'S' });
    expect(await undo(String(shipped.id), 'compensate-3')).toMatchObject({
      status: 422,
      body: { detail: expect.stringContaining('shipped') },
    });
    expect(await undo('999999', 'compensate-4')).toMatchObject({ status: 422 });
    expect(await ask(adapter, 'POST', '/v1/contexts/inventory/compensate', { key: 'k', aggregate: '2' })).toMatchObject({ status: 422 });
    expect(await ask(adapter, 'POST', '/v1/contexts/nothing/compensate', { key: 'k', aggregate: '2' })).toMatchObject({ status: 404 });
    expect(await ask(adapter, 'POST', '/v1/contexts/order/compensate', { aggregate: '2' })).toMatchObject({ status: 400 });
  });
});
