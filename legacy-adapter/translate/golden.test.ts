import { readFileSync } from 'node:fs';
import type { Envelope } from '@banyan/contracts/envelope.ts';
import { checkEventData } from '@banyan/contracts/events/index.ts';
import { describe, expect, it } from '@jest/globals';
import type { AggregateRows, LegacyWrite } from '../ports.ts';
import { shop } from './shop.ts';

type Golden = {
  states: { name: string; rows: AggregateRows; state: Record<string, unknown> }[];
  writes: { name: string; type: string; data: Record<string, unknown>; current: AggregateRows; writes: LegacyWrite[] }[];
};

const load = (context: string): Golden =>
  JSON.parse(readFileSync(new URL(`../../test/golden/translate/${context}.json`, import.meta.url), 'utf8')) as Golden;

const factOf = (context: string, type: string, data: Record<string, unknown>): Envelope => ({
  specversion: '1.0',
  id: '019a0000-0000-7000-8000-000000000001',
  source: `/banyan/${context}/extracted`,
  type,
  subject: String(data.id),
  time: '2026-11-22T12:00:00.000Z',
  datacontenttype: 'application/json',
  data,
  partitionkey: String(data.id),
  sequence: '000000000000000001',
  epoch: 2,
  origin: 'extracted',
});

describe.each(['order', 'inventory'])('translation of %s', (context) => {
  const golden = load(context);
  it.each(golden.states)('reads $name', ({ rows, state }) => {
    expect(shop.state(context, rows)).toEqual(state);
    const imported = shop.imported(context, rows);
    expect(imported?.kind).toBe('snapshot');
    expect(checkEventData(imported!.type, imported!.data)).toEqual(state);
  });
  it.each(golden.writes)('writes $name', ({ type, data, current, writes }) => {
    expect(checkEventData(type, data)).toEqual(data);
    expect(shop.writes(context, factOf(context, type, data), current)).toEqual(writes);
  });
  it('says that there is nothing without the root row', () => {
    expect(shop.state(context, { t_order_pos: [], t_stock: [] })).toBeNull();
    expect(shop.imported(context, {})).toBeNull();
  });
  it('refuses a fact it has no words for', () => {
    expect(() => shop.writes(context, factOf(context, 'order.paid.v1', { id: 1 }), {})).toThrow(/order\.paid\.v1 has no translation/);
  });
});

describe('what cannot be translated', () => {
  const row = { ...load('order').states[0]!.rows.t_order![0]! };
  it.each([
    ['a code nobody knows', { stat_cd: 'Q' }, /t_order\.stat_cd is "Q", which is none of N, S, X/],
    ['an id beyond 2^53', { ord_no: '9007199254740993' }, /t_order\.ord_no is "9007199254740993"/],
    ['a missing column', { cust_ref: null }, /t_order\.cust_ref must not be null/],
    ['a time of infinity', { crt_ts: 'infinity' }, /"infinity" is no local time/],
  ])('is named: %s', (_name, change, message) => {
    expect(() => shop.state('order', { t_order: [{ ...row, ...change }] })).toThrow(message);
  });
  it('is a cancellation of an order that is not there', () => {
    expect(() => shop.writes('order', factOf('order', 'order.cancelled.v1', { id: 77 }), {})).toThrow(
      /order 77 was cancelled but is not in t_order/,
    );
  });
  it('is a line without its price', () => {
    const data = { id: 77, userId: 'u', items: [{ productId: 1, quantity: 1 }] };
    expect(() => shop.writes('order', factOf('order', 'order.placed.v1', data), {})).toThrow(/items\.0\.price is needed/);
  });
});

describe('what a transaction means', () => {
  const [placed, cancelled] = load('order').states;
  const dead = {
    ...placed!.rows,
    t_order: [{ ...placed!.rows.t_order![0]!, stat_cd: 'X', xcl_ts: '2026-01-15T00:00:00', xcl_idem_key: 'c-9' }],
  };
  const types = (before: AggregateRows, after: AggregateRows, unseen = false): (string | null)[][] =>
    shop.findings({ context: 'order', before, after, unseen }).map((finding) => [finding.type, finding.key]);
  it.each<[string, AggregateRows, AggregateRows, boolean, (string | null)[][]]>([
    ['insert', {}, placed!.rows, false, [['order.placed.v1', 'k-1']]],
    [
      'insert and cancel',
      {},
      dead,
      false,
      [
        ['order.placed.v1', 'k-1'],
        ['order.cancelled.v1', 'c-9'],
      ],
    ],
    ['cancel', placed!.rows, dead, false, [['order.cancelled.v1', 'c-9']]],
    [
      'cancel before the snapshot came by',
      placed!.rows,
      dead,
      true,
      [
        ['order.imported.v1', null],
        ['order.cancelled.v1', 'c-9'],
      ],
    ],
    ['new lines', placed!.rows, { ...placed!.rows, t_order_pos: [] }, false, [['order.changed.v1', null]]],
    [
      'new lines and cancel',
      placed!.rows,
      { ...dead, t_order_pos: [] },
      false,
      [
        ['order.changed.v1', null],
        ['order.cancelled.v1', 'c-9'],
      ],
    ],
    ['back from cancelled', dead, placed!.rows, false, [['order.changed.v1', null]]],
    [
      'a column no contract shows',
      cancelled!.rows,
      { ...cancelled!.rows, t_order: [{ ...cancelled!.rows.t_order![0]!, xcl_idem_key: 'other' }] },
      false,
      [],
    ],
    ['delete', dead, {}, false, [['order.deleted.v1', null]]],
    ['insert and delete', {}, {}, false, []],
  ])('%s', (_name, before, after, unseen, expected) => {
    expect(types(before, after, unseen)).toEqual(expected);
  });
  it('tells an order placed and cancelled at once as placed first', () => {
    const [first, second] = shop.findings({ context: 'order', before: {}, after: dead, unseen: false });
    expect(first!.data).toMatchObject({ status: 'placed', cancelledAt: null });
    expect(second!.data).toEqual({ id: 1006, cancelledAt: '2026-01-14T23:00:00.000Z' });
  });
});
