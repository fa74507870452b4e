import { afterEach, beforeEach, describe, expect, it } from '@jest/globals';
import { toUtc } from '../../legacy-adapter/translate/berlin-time.ts';
import { until } from '../harness/wait.ts';
import { type AdapterRig, adapterRig, ask, captureState } from './adapter-rig.ts';

let rig: AdapterRig;
beforeEach(async () => {
  rig = await adapterRig();
});
afterEach(() => rig.stop());

const types = async (context: string, subject: number): Promise<string[]> => (await rig.facts(context, subject)).map(({ type }) => type);
const FIRST = 1001;

/** Rows of `banyan_capture`-made things in the legacy database. */
const traces = async (): Promise<number> => {
  const { rows } = await rig.legacy.raw<{ rows: { n: number }[] }>(
    `select ((select count(*) from pg_trigger where tgname like 'banyan%') + (select count(*) from pg_namespace where nspname = 'banyan_capture'))::int as n`,
  );
  return rows[0]!.n;
};

describe('capture by triggers', () => {
  it('tells existing rows once as imported, in the shape of the shop’s own API', async () => {
    const adapter = await rig.start({ order: 'capture', inventory: 'capture' });
    await rig.settled();
    const imported = await rig.facts('order');
    expect(imported.map(({ type, subject }) => [type, subject])).toEqual(
      [1001, 1002, 1003, 1004, 1005].map((id) => ['order.imported.v1', String(id)]),
    );
    for (const fact of imported) {
      const { ref, ...shown } = fact.data;
      expect(shown).toEqual(await (await fetch(`${rig.shop.url}/api/orders/${fact.subject}`)).json());
      expect(ref).toBe({ '1003': 'before-3', '1005': 'before-5' }[fact.subject] ?? null);
    }
    expect((await rig.facts('inventory')).map(({ type }) => type)).toEqual(Array(8).fill('inventory.imported.v1'));
    // again: every subject has facts
    expect((await ask(adapter, 'POST', '/v1/capture/snapshot')).status).toBe(200);
    await rig.settled();
    expect(await rig.facts()).toHaveLength(13);
    expect(await captureState(adapter)).toMatchObject({
      mode: 'trigger',
      installed: true,
      tables: ['shop.t_order', 'shop.t_order_pos', 'shop.t_article', 'shop.t_stock'],
      pending: 0,
      oldestAgeMs: null,
      held: 0,
      lost: 0,
      snapshots: [
        { context: 'inventory', state: 'done', rows: 8 },
        { context: 'order', state: 'done', rows: 5 },
      ],
    });
  });

  it('tells placed, cancelled, changed and deleted orders, and the stock they moved', async () => {
    await rig.start({ order: 'capture', inventory: 'capture' });
    await rig.settled();
    const order = await rig.place(
      [
        [1, 2],
        [3, 1],
      ],
      'key-1',
    );
    await rig.cancel(order.id, 'key-2');
    await rig.legacy.raw(`update shop.t_order set stat_cd = 'S' where ord_no = ?`, [FIRST + 3]);
    await rig.legacy.raw('delete from shop.t_order where ord_no = ?', [FIRST + 4]);
    await rig.settled();
    const [placed, cancelled] = await rig.facts('order', order.id);
    expect(placed).toMatchObject({
      type: 'order.placed.v1',
      sequence: '000000000000000001',
      origin: 'legacy',
      data: { ...order, ref: 'key-1' },
    });
    expect(cancelled).toMatchObject({ type: 'order.cancelled.v1', sequence: '000000000000000002', data: { id: order.id } });
    expect((await rig.facts('order', FIRST + 3)).at(-1)).toMatchObject({
      type: 'order.changed.v1',
      data: { id: FIRST + 3, status: 'shipped', items: [{ productId: 3, quantity: 1, price: 24.9 }] },
    });
    expect((await rig.facts('order', FIRST + 4)).at(-1)).toMatchObject({ type: 'order.deleted.v1', data: { id: FIRST + 4 } });
    expect((await rig.facts('inventory', 1)).map(({ data }) => data.stock)).toEqual([100_000, 99_998, 100_000]);
  });

  it('tells nothing of rollbacks, savepoints, empty updates and columns that no contract shows', async () => {
    await rig.start({ order: 'capture', inventory: 'capture' });
    await rig.settled();
    const before = await rig.facts();
    await expect(
      rig.legacy.transaction(async (trx) => {
        await trx.raw(`insert into shop.t_order (cust_ref, tot_amt_ct) values ('gone', 1)`);
        throw new Error('never mind');
      }),
    ).rejects.toThrow('never mind');
    await rig.legacy.raw(`begin; savepoint a; update shop.t_stock set qty_on_hand = 1; rollback to a; commit`);
    await rig.legacy.raw('update shop.t_article set art_nm = art_nm, upd_ts = upd_ts');
    await rig.legacy.raw(`update shop.t_article set upd_ts = '2020-01-01'`);
    await rig.legacy.raw('update shop.t_order set stat_cd = stat_cd where false');
    await rig.settled();
    expect(await rig.facts()).toEqual(before);
  });

  it('keeps the order of what one transaction, and one aggregate, went through while nobody read', async () => {
    const first = await rig.start({ order: 'capture', inventory: 'capture' });
    await rig.settled();
    await first.stop();
    await rig.legacy.transaction(async (trx) => {
      await trx.raw(`insert into shop.t_order (ord_no, cust_ref, tot_amt_ct, idem_key) values (5000, 'u', 100, 'k')`);
      await trx.raw(`insert into shop.t_order_pos values (5000, 1, 1, 1, 100), (5000, 2, 2, 3, 7)`);
      await trx.raw(`update shop.t_order set stat_cd = 'X', xcl_ts = '2026-07-01 12:00:00' where ord_no = 5000`);
    });
    // as many as need three reads, of one stock row
    for (let index = 0; index < 450; index += 1) await rig.legacy.raw('update shop.t_stock set qty_on_hand = ? where art_no = 2', [index]);
    await rig.legacy.raw(`update shop.t_order_pos set qty = 4 where ord_no = 5000 and pos_no = 2`);
    await rig.legacy.raw('update shop.t_order_pos set ord_no = 1001, pos_no = 9 where ord_no = 5000 and pos_no = 1');
    await rig.start({ order: 'capture', inventory: 'capture' });
    await rig.settled();
    const facts = await rig.facts('order', 5000);
    expect(
      facts.map(({ type, data }) => [
        type,
        data.status,
        (data.items as { quantity: number }[] | undefined)?.map(({ quantity }) => quantity),
      ]),
    ).toEqual([
      ['order.placed.v1', 'placed', [1, 3]],
      ['order.cancelled.v1', undefined, undefined],
      ['order.changed.v1', 'cancelled', [1, 4]],
      ['order.changed.v1', 'cancelled', [4]],
    ]);
    expect(facts[1]!.data).toEqual({ id: 5000, cancelledAt: toUtc('2026-07-01 12:00:00') });
    expect((await rig.facts('order', 1001)).at(-1)!.data.items).toHaveLength(3);
    expect((await rig.facts('inventory', 2)).slice(1).map(({ data }) => data.stock)).toEqual(
      Array.from({ length: 450 }, (_, index) => index),
    );
  });

  it('misses nothing and repeats nothing when orders are placed while the snapshot runs', async () => {
    await rig.legacy.raw(`insert into shop.t_order (cust_ref, tot_amt_ct) select 'bulk', 5 from generate_series(1, 1500)`);
    let placing = true;
    const place = async (): Promise<void> => {
      while (placing) await rig.cancel((await rig.place([[1, 1]])).id);
    };
    const placers = [place(), place()];
    // a row that the snapshot has not reached is cancelled before it is told of
    await rig.start({ order: 'capture', inventory: 'capture' });
    await rig.legacy.raw(
      `update shop.t_order set stat_cd = 'X' where ord_no = (select max(ord_no) from shop.t_order where cust_ref = 'bulk')`,
    );
    await until(async () => (await rig.facts('order')).length > 1000, { describe: 'the snapshot to be under way', timeoutMs: 20_000 });
    placing = false;
    await Promise.all(placers);
    await rig.settled();
    const facts = await rig.facts('order');
    const orders = await rig.legacy('shop.t_order').select<{ ord_no: string; stat_cd: string }[]>('ord_no', 'stat_cd');
    const bySubject = Map.groupBy(facts, ({ subject }) => subject);
    expect([...bySubject.keys()].sort()).toEqual(orders.map(({ ord_no }) => ord_no).sort());
    for (const { ord_no, stat_cd } of orders) {
      const told = bySubject.get(ord_no)!;
      expect(['order.imported.v1', 'order.placed.v1']).toContain(told[0]!.type);
      expect(told.length).toBeLessThanOrEqual(2);
      const status = told.some(({ type }) => type === 'order.cancelled.v1') ? 'cancelled' : told[0]!.data.status;
      expect(status).toBe({ N: 'placed', X: 'cancelled', S: 'shipped' }[stat_cd]);
    }
  }, 180_000);

  it('repeats nothing after a crash between the store’s commit and the removal of the change', async () => {
    const first = await rig.start({ order: 'capture', inventory: 'capture' });
    await rig.settled();
    await first.stop();
    let crashes = 0;
    const second = await rig.start(
      { order: 'capture', inventory: 'capture' },
      {
        beforeCaptureSettles: async () => {
          crashes += 1;
          throw new Error('crash');
        },
      },
    );
    const order = await rig.place([[1, 1]]);
    await rig.cancel(order.id);
    await until(() => crashes >= 3, { describe: 'three crashes' });
    await second.stop();
    expect((await rig.legacy('banyan_capture.change').count())[0]).toEqual({ count: expect.stringMatching(/^[1-9]/) });
    await rig.start({ order: 'capture', inventory: 'capture' });
    await rig.settled();
    expect(await types('order', order.id)).toEqual(['order.placed.v1', 'order.cancelled.v1']);
    expect(await types('inventory', 1)).toEqual(['inventory.imported.v1', 'inventory.changed.v1', 'inventory.changed.v1']);
  });

  it('lets one of two adapters read, and the other one go on when it stops', async () => {
    const one = await rig.start({ order: 'capture' });
    await rig.start({ order: 'capture' });
    const ids: number[] = [];
    for (let index = 0; index < 20; index += 1) {
      ids.push((await rig.place([[1, 1]])).id);
      if (index === 10) await one.stop();
    }
    await rig.settled();
    for (const id of ids) expect(await types('order', id)).toEqual(['order.placed.v1']);
    expect(await rig.facts('inventory')).toEqual([]);
  });

  it('holds only the aggregate that cannot be told, says so, and goes on when it can', async () => {
    const adapter = await rig.start({ order: 'capture' });
    await rig.settled();
    await rig.legacy.raw('alter table shop.t_order drop constraint t_order_stat_cd_check');
    await rig.legacy.raw(`update shop.t_order set stat_cd = 'Q' where ord_no = ?`, [FIRST]);
    const other = await rig.place([[1, 1]]);
    await until(async () => (await types('order', other.id)).length === 1, { describe: 'the other order to be told' });
    expect(await captureState(adapter)).toMatchObject({
      held: 1,
      heldSubjects: [{ context: 'order', subject: String(FIRST), error: 't_order.stat_cd is "Q", which is none of N, S, X' }],
    });
    const watermark = await ask(adapter, 'POST', '/v1/contexts/order/watermark', { timeoutMs: 50 });
    expect(watermark).toMatchObject({ status: 504, body: { code: 'upstream-timeout', held: 1 } });
  });

  it('tells the others when the store refuses one', async () => {
    await rig.store('banyan.context').where({ name: 'inventory' }).delete();
    const adapter = await rig.start({ order: 'capture', inventory: 'capture' });
    const order = await rig.place([[1, 1]]);
    await until(async () => (await types('order', order.id)).length === 1, { describe: 'the order to be told' });
    await until(async () => (await captureState(adapter)).held === 8, { describe: 'all products to be held' });
    expect((await captureState(adapter)).heldSubjects[0]).toMatchObject({
      context: 'inventory',
      error: expect.stringContaining('context inventory is not known'),
    });
  });

  it('installs twice without harm, removes without a trace, and begins anew', async () => {
    expect(await traces()).toBe(0);
    const adapter = await rig.start({ order: 'capture', inventory: 'capture' }, { install: false });
    expect((await ask(adapter, 'GET', '/readyz')).body).toMatchObject({ missing: ['capture is not installed'] });
    expect((await ask(adapter, 'POST', '/v1/capture/snapshot')).status).toBe(409);
    for (let round = 0; round < 2; round += 1)
      expect((await ask(adapter, 'POST', '/v1/capture/install')).body).toMatchObject({ installed: true });
    expect(await traces()).toBe(17);
    await rig.settled();
    expect((await ask(adapter, 'POST', '/v1/capture/remove')).body).toMatchObject({ installed: false, pending: 0, snapshots: [] });
    expect(await traces()).toBe(0);
    const unseen = await rig.place([[1, 1]]);
    await ask(adapter, 'POST', '/v1/capture/install');
    const seen = await rig.place([[1, 1]]);
    await rig.settled();
    expect(await types('order', unseen.id)).toEqual(['order.imported.v1']);
    expect(await types('order', seen.id)).toEqual(['order.placed.v1']);
    await until(async () => (await ask(adapter, 'GET', '/readyz')).status === 200, { describe: 'readiness' });
  });

  it('refuses a table without primary key in words, and changes nothing', async () => {
    await rig.legacy.raw('alter table shop.t_order_pos drop constraint t_order_pos_pkey');
    await expect(rig.start({ order: 'capture' })).rejects.toThrow(/table shop\.t_order_pos has no primary key: capture needs one/);
    expect(await traces()).toBe(0);
  });

  it('never fails the shop: a change that cannot be kept is counted', async () => {
    const adapter = await rig.start({ order: 'capture' });
    await rig.settled();
    await rig.legacy.raw('alter table banyan_capture.change add constraint broken check (false) not valid');
    const order = await rig.place([[1, 1]]);
    expect(order.status).toBe('placed');
    expect(await captureState(adapter)).toMatchObject({ lost: 2 });
    expect(await ask(adapter, 'GET', '/readyz')).toMatchObject({ status: 503 });
  });

  it('works for a role of the shop that may not see capture at all', async () => {
    await rig.start({ order: 'capture' });
    await rig.settled();
    const role = `shopper_${process.pid}_${Date.now()}`;
    await rig.legacy.raw(
      `create role ${role}; grant usage on schema shop to ${role}; grant all on all tables in schema shop to ${role}; grant all on all sequences in schema shop to ${role}`,
    );
    try {
      await rig.legacy.transaction(async (trx) => {
        await trx.raw(`set local role ${role}`);
        await expect(trx.transaction((inner) => inner.raw('select 1 from banyan_capture.change'))).rejects.toThrow(/permission denied/);
        await trx.raw(`insert into shop.t_order (ord_no, cust_ref, tot_amt_ct) values (7000, 'u', 1)`);
      });
      await rig.settled();
      expect(await types('order', 7000)).toEqual(['order.placed.v1']);
    } finally {
      await rig.legacy.raw(`drop owned by ${role}; drop role ${role}`);
    }
  });

  it('tells a truncation as deletions', async () => {
    await rig.start({ order: 'capture' });
    await rig.settled();
    await rig.legacy.raw('truncate shop.t_order cascade');
    await rig.settled();
    for (let id = FIRST; id < FIRST + 5; id += 1) expect(await types('order', id)).toEqual(['order.imported.v1', 'order.deleted.v1']);
  });

  it('reads Berlin’s clocks exactly as the database does', async () => {
    const { rows } = await rig.legacy.raw<{ rows: { local: string; utc: string }[] }>(
      `select to_char(t, 'YYYY-MM-DD"T"HH24:MI:SS.MS') as local, to_char(t at time zone 'Europe/Berlin' at time zone 'UTC', 'YYYY-MM-DD"T"HH24:MI:SS.MS"Z"') as utc
       from (select timestamp '1996-01-01' + i * interval '47 min 0.007 s' as t from generate_series(0, 3000) i
         union all select d + i * interval '7 min' from unnest(array['2024-03-31', '2024-10-27', '2026-03-29', '2026-10-25', '2037-03-29', '2037-10-25']::timestamp[]) d, generate_series(0, 40) i) x`,
    );
    expect(rows.map(({ local }) => toUtc(local))).toEqual(rows.map(({ utc }) => utc));
  });
});
