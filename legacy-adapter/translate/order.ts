import type { Envelope } from '@banyan/contracts/envelope.ts';
import { AppError } from '@banyan/contracts/errors.ts';
import type { OrderState } from '@banyan/contracts/events/order.ts';
import type { AggregateChange, AggregateRows, Finding, LegacyRow, LegacyWrite } from '../ports.ts';
import { toBerlin, toUtc } from './berlin-time.ts';
import { integerOf, optionalTextOf, textOf, wordOf } from './columns.ts';
import { toCents, toDecimal } from './money.ts';

const STATUS = { N: 'placed', S: 'shipped', X: 'cancelled' } as const;
const CODE = { placed: 'N', shipped: 'S', cancelled: 'X' } as const;

/** What the monolith's `GET /api/orders/:id` shows, and the key under which the order was placed. */
export type Order = Required<Pick<OrderState, 'userId' | 'total' | 'currency' | 'createdAt'>> & {
  readonly id: number;
  readonly items: readonly { productId: number; quantity: number; price: number }[];
  readonly status: (typeof STATUS)[keyof typeof STATUS];
  readonly cancelledAt: string | null;
  readonly ref: string | null;
};

const rootOf = (rows: AggregateRows): LegacyRow | undefined => rows.t_order?.[0];

const positions = (rows: AggregateRows): readonly LegacyRow[] =>
  [...(rows.t_order_pos ?? [])].sort((a, b) => integerOf('t_order_pos', a, 'pos_no') - integerOf('t_order_pos', b, 'pos_no'));

/** Rows of `t_order` and `t_order_pos` as an order, or null without the first. */
export const toOrder = (rows: AggregateRows): Order | null => {
  const row = rootOf(rows);
  if (!row) return null;
  const cancelled = optionalTextOf('t_order', row, 'xcl_ts');
  return {
    id: integerOf('t_order', row, 'ord_no'),
    userId: textOf('t_order', row, 'cust_ref'),
    items: positions(rows).map((position) => ({
      productId: integerOf('t_order_pos', position, 'art_no'),
      quantity: integerOf('t_order_pos', position, 'qty'),
      price: toDecimal(textOf('t_order_pos', position, 'unit_amt_ct')),
    })),
    total: toDecimal(textOf('t_order', row, 'tot_amt_ct')),
    currency: textOf('t_order', row, 'curr_cd'),
    status: wordOf('t_order', 'stat_cd', textOf('t_order', row, 'stat_cd'), STATUS),
    createdAt: toUtc(textOf('t_order', row, 'crt_ts')),
    cancelledAt: cancelled === null ? null : toUtc(cancelled),
    ref: optionalTextOf('t_order', row, 'idem_key'),
  };
};

const same = (a: Order, b: Order): boolean => JSON.stringify(a) === JSON.stringify(b);

const cancelled = (order: Order, rows: AggregateRows): Finding => ({
  kind: 'change',
  type: 'order.cancelled.v1',
  data: { id: order.id, cancelledAt: order.cancelledAt },
  key: optionalTextOf('t_order', rootOf(rows)!, 'xcl_idem_key'),
});

/** `order.imported.v1` of existing rows. */
export const importedOrder = (rows: AggregateRows): Finding | null => {
  const order = toOrder(rows);
  return order && { kind: 'snapshot', type: 'order.imported.v1', data: order, key: null };
};

/** What one transaction did to an order: each fact says one thing, so a change of content that also cancels gives two. */
export const orderFindings = ({ before, after, unseen }: AggregateChange): readonly Finding[] => {
  const [old, now] = [toOrder(before), toOrder(after)];
  if (!now) return old ? [{ kind: 'change', type: 'order.deleted.v1', data: { id: old.id }, key: null }] : [];
  const cancels = now.status === 'cancelled' && old?.status !== 'cancelled';
  if (!old) {
    const placed = cancels ? { ...now, status: 'placed', cancelledAt: null } : now;
    const finding: Finding = { kind: 'change', type: 'order.placed.v1', data: placed, key: now.ref };
    return cancels ? [finding, cancelled(now, after)] : [finding];
  }
  const content: Order = cancels ? { ...now, status: old.status, cancelledAt: old.cancelledAt } : now;
  const findings: Finding[] = [];
  if (!same(content, old)) findings.push({ kind: 'change', type: 'order.changed.v1', data: content, key: null });
  // A cancellation alone does not say what was cancelled: whoever has never heard of the order is told first.
  else if (cancels && unseen) findings.push({ kind: 'snapshot', type: 'order.imported.v1', data: old, key: null });
  if (cancels) findings.push(cancelled(now, after));
  return findings;
};

const numberOf = (id: OrderState['id'], name: string): string => {
  if (!/^\d{1,16}$/.test(String(id)))
    throw new AppError('unprocessable', `${name} ${JSON.stringify(id)} is no number that the legacy tables can hold`);
  return String(id);
};

/** Pieces that an order holds back, by article: none once it is cancelled. */
const reserved = (order: Pick<Order, 'status' | 'items'> | null): Map<number, number> => {
  const pieces = new Map<number, number>();
  if (order && order.status !== 'cancelled')
    for (const item of order.items) pieces.set(item.productId, (pieces.get(item.productId) ?? 0) + item.quantity);
  return pieces;
};

/** In the order of article numbers, as the monolith locks them. */
const stockWrites = (before: Map<number, number>, after: Map<number, number>): LegacyWrite[] =>
  [...new Set([...before.keys(), ...after.keys()])]
    .sort((a, b) => a - b)
    .map((article) => ({ article, by: (before.get(article) ?? 0) - (after.get(article) ?? 0) }))
    .filter(({ by }) => by !== 0)
    .map(({ article, by }) => ({ kind: 'add', table: 't_stock', key: { art_no: String(article) }, column: 'qty_on_hand', by }));

const content = (state: OrderState, fact: Envelope, old: Order | null): Order => {
  const items = state.items.map((item, index) => {
    if (item.price === undefined)
      throw new AppError('unprocessable', `${fact.type}: data.items.${index}.price is needed to write t_order_pos`);
    return { productId: Number(numberOf(item.productId, 'productId')), quantity: item.quantity, price: item.price };
  });
  const cents = items.reduce((sum, item) => sum + BigInt(toCents(item.price)) * BigInt(item.quantity), 0n);
  return {
    id: Number(numberOf(state.id, 'id')),
    userId: state.userId,
    items,
    total: state.total ?? toDecimal(String(cents)),
    currency: state.currency ?? old?.currency ?? 'EUR',
    status: state.status ?? old?.status ?? 'placed',
    createdAt: state.createdAt ?? old?.createdAt ?? fact.time,
    cancelledAt: state.cancelledAt === undefined ? (old?.cancelledAt ?? null) : state.cancelledAt,
    ref: state.ref === undefined ? (old?.ref ?? null) : state.ref,
  };
};

const rowsOf = (order: Order, current: AggregateRows): LegacyWrite[] => {
  const ord_no = String(order.id);
  const surplus = positions(current).slice(order.items.length);
  return [
    {
      kind: 'upsert',
      table: 't_order',
      key: { ord_no },
      set: {
        cust_ref: order.userId,
        stat_cd: CODE[order.status],
        tot_amt_ct: toCents(order.total),
        curr_cd: order.currency,
        crt_ts: toBerlin(order.createdAt),
        xcl_ts: order.cancelledAt === null ? null : toBerlin(order.cancelledAt),
        idem_key: order.ref,
      },
    },
    ...surplus.map(
      (row): LegacyWrite => ({ kind: 'delete', table: 't_order_pos', key: { ord_no, pos_no: textOf('t_order_pos', row, 'pos_no') } }),
    ),
    ...order.items.map(
      (item, index): LegacyWrite => ({
        kind: 'upsert',
        table: 't_order_pos',
        key: { ord_no, pos_no: String(index + 1) },
        set: { art_no: String(item.productId), qty: String(item.quantity), unit_amt_ct: toCents(item.price) },
      }),
    ),
  ];
};

const cancelWrites = (order: Order, at: string): readonly LegacyWrite[] => {
  if (order.status === 'cancelled') return [];
  const set = { stat_cd: CODE.cancelled, xcl_ts: toBerlin(at) };
  return [{ kind: 'upsert', table: 't_order', key: { ord_no: String(order.id) }, set }, ...stockWrites(reserved(order), new Map())];
};

/** An order is taken back by cancelling it; one that has left the house is not. */
export const undoOrder = (rows: AggregateRows, at: string): readonly LegacyWrite[] => {
  const order = toOrder(rows);
  if (!order) throw new AppError('unprocessable', 'there is no such order in t_order');
  if (order.status === 'shipped')
    throw new AppError('unprocessable', `t_order: order ${order.id} is shipped (stat_cd S) and cannot be taken back`);
  return cancelWrites(order, at);
};

/** Legacy writes for a fact of the extracted order service, with the stock that the monolith would have booked. */
export const orderWrites = (fact: Envelope, current: AggregateRows): readonly LegacyWrite[] => {
  const old = toOrder(current);
  const data = fact.data as OrderState & { cancelledAt?: string | null };
  switch (fact.type) {
    case 'order.placed.v1':
    case 'order.changed.v1':
    case 'order.imported.v1': {
      const now = content(data, fact, old);
      // An order that is there already was booked when it came: only what differs is booked now.
      return [...rowsOf(now, current), ...stockWrites(reserved(old), reserved(now))];
    }
    case 'order.cancelled.v1': {
      if (!old) throw new AppError('unprocessable', `order ${fact.subject} was cancelled but is not in t_order`);
      return cancelWrites(old, data.cancelledAt ?? fact.time);
    }
    case 'order.deleted.v1': {
      const ord_no = numberOf(data.id, 'id');
      return [
        ...positions(current).map(
          (row): LegacyWrite => ({ kind: 'delete', table: 't_order_pos', key: { ord_no, pos_no: textOf('t_order_pos', row, 'pos_no') } }),
        ),
        { kind: 'delete', table: 't_order', key: { ord_no } },
      ];
    }
    default:
      throw new AppError('unprocessable', `${fact.type} has no translation into the legacy tables`);
  }
};
