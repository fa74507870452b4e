import type { Migration } from '@banyan/kit/schema.ts';
import type { Knex } from 'knex';
import type { Item, KnownProduct, Order } from './domain.ts';
import { totalOf } from './domain.ts';

export const SCHEMA = 'svc_order';

export const migrations: readonly Migration[] = [
  {
    name: '010-orders',
    up: async (trx) => {
      await trx.raw(`
create table svc_order.orders (
  id           bigint primary key,
  user_id      text not null,
  -- double precision, as JSON numbers are: a price comes out as it went in
  total        double precision,
  currency     text not null,
  status       text not null check (status in ('placed', 'shipped', 'cancelled')),
  created_at   timestamptz(3) not null,
  cancelled_at timestamptz(3),
  -- the Idempotency-Key; not unique, since facts may report what only legacy could prevent
  ref          text
);
create index orders_user on svc_order.orders (user_id, id);
create index orders_ref on svc_order.orders (ref) where ref is not null;
create table svc_order.order_item (
  order_id   bigint not null references svc_order.orders on delete cascade,
  position   integer not null,
  product_id bigint not null,
  quantity   integer not null,
  price      double precision,
  primary key (order_id, position)
);
create index order_item_unpriced on svc_order.order_item (product_id) where price is null;
-- what inventory's facts say; stock also goes down with every order placed here
create table svc_order.product (
  id     bigint primary key,
  price  double precision not null,
  stock  bigint not null,
  active boolean not null
);`);
    },
  },
  {
    name: '011-deltas',
    up: async (trx) => {
      // the last fact about the product that is in its row: a replay must not add a delta again
      await trx.raw(
        `alter table svc_order.product add column epoch integer not null default 0, add column fact_sequence bigint not null default 0`,
      );
    },
  },
  {
    name: '012-early-cancellations',
    up: async (trx) => {
      // an old order can be cancelled before the snapshot has told of it; the state that comes then may have been read before
      await trx.raw('create table svc_order.early_cancellation (order_id bigint primary key, cancelled_at timestamptz(3) not null)');
    },
  },
  {
    name: '013-commands',
    up: async (trx) => {
      await trx.raw(`
-- what became of commands that came over the stream
create table svc_order.command (
  id       text primary key,
  type     text not null,
  outcome  text not null check (outcome in ('done', 'refused')),
  status   integer not null,
  order_id bigint,
  detail   text,
  at       timestamptz(3) not null default now()
)`);
    },
  },
];

type Row = {
  id: string;
  user_id: string;
  total: number | null;
  currency: string;
  status: Order['status'];
  created_at: Date;
  cancelled_at: Date | null;
  ref: string | null;
  items: { p: number; q: number; u: number | null }[];
};

const SELECT = `
  select o.id, o.user_id, o.total, o.currency, o.status, o.created_at, o.cancelled_at, o.ref,
    coalesce((select json_agg(json_build_object('p', i.product_id, 'q', i.quantity, 'u', i.price) order by i.position)
      from svc_order.order_item i where i.order_id = o.id), '[]') as items
  from svc_order.orders o`;

const toOrder = (row: Row): Order => {
  const items: Item[] = row.items.map((line) => ({ productId: line.p, quantity: line.q, price: line.u }));
  return {
    id: Number(row.id),
    userId: row.user_id,
    items,
    total: row.total ?? totalOf(items),
    currency: row.currency,
    status: row.status,
    createdAt: row.created_at.toISOString(),
    cancelledAt: row.cancelled_at?.toISOString() ?? null,
    ref: row.ref,
  };
};

const query = async (db: Knex, tail: string, bindings: readonly (string | number)[]): Promise<Order[]> => {
  const { rows } = await db.raw<{ rows: Row[] }>(`${SELECT} ${tail}`, [...bindings]);
  return rows.map(toOrder);
};

export const findOrder = async (db: Knex, id: number): Promise<Order | null> => (await query(db, 'where o.id = ?', [id]))[0] ?? null;

/** Also locks it until the transaction ends. */
export const lockOrder = async (trx: Knex, id: number): Promise<Order | null> =>
  (await query(trx, 'where o.id = ? for update of o', [id]))[0] ?? null;

/** The newest orders by number, at most `limit`; `userId` and `ref` narrow the list. */
export const listOrders = (db: Knex, by: { userId?: string; ref?: string; limit: number }): Promise<Order[]> => {
  const where: string[] = [];
  const bindings: (string | number)[] = [];
  if (by.userId !== undefined) {
    where.push('o.user_id = ?');
    bindings.push(by.userId);
  }
  if (by.ref !== undefined) {
    where.push('o.ref = ?');
    bindings.push(by.ref);
  }
  const filter = where.length > 0 ? `where ${where.join(' and ')}` : '';
  return query(db, `${filter} order by o.id desc limit ?`, [...bindings, by.limit]);
};

export const findByRef = async (db: Knex, ref: string): Promise<Order | null> => (await listOrders(db, { ref, limit: 1 }))[0] ?? null;

/** Those of these numbers that there are; what cannot be a number of an order is none. */
export const ordersOf = (db: Knex, ids: readonly string[]): Promise<Order[]> => {
  const numbers = ids.filter((id) => /^\d{1,18}$/.test(id));
  return query(db, `where o.id in (select unnest(string_to_array(?, ','))::bigint)`, [numbers.join(',')]);
};

/** Every order by number, in chunks of 1,000. */
export async function* allOrders(db: Knex): AsyncGenerator<Order[]> {
  for (let after = -1; ; ) {
    const chunk = await query(db, 'where o.id > ? order by o.id limit 1000', [after]);
    if (chunk.length === 0) return;
    yield chunk;
    after = chunk.at(-1)!.id;
  }
}

/** Inserts or replaces an order with its lines; one statement, because most of what a page costs is round trips. */
export const putOrder = async (trx: Knex, order: Order): Promise<void> => {
  await trx.raw(
    `with o as (
       insert into svc_order.orders (id, user_id, total, currency, status, created_at, cancelled_at, ref)
       values (:id, :userId, :total, :currency, :status, :createdAt, :cancelledAt, :ref)
       on conflict (id) do update set user_id = excluded.user_id, total = excluded.total, currency = excluded.currency, status = excluded.status,
         created_at = excluded.created_at, cancelled_at = excluded.cancelled_at, ref = excluded.ref
     ), gone as (
       delete from svc_order.order_item where order_id = :id and position > :lines
     )
     insert into svc_order.order_item (order_id, position, product_id, quantity, price)
     select :id, l.n, l.p, l.q, l.u from json_to_recordset(:items::json) as l (n int, p bigint, q int, u double precision)
     on conflict (order_id, position) do update set product_id = excluded.product_id, quantity = excluded.quantity, price = excluded.price`,
    {
      ...order,
      lines: order.items.length,
      items: JSON.stringify(order.items.map((item, index) => ({ n: index + 1, p: item.productId, q: item.quantity, u: item.price }))),
    },
  );
};

/** False when there is no such order. */
export const markCancelled = async (trx: Knex, id: number, at: string): Promise<boolean> => {
  const changed = await trx('svc_order.orders').where({ id }).update({ status: 'cancelled', cancelled_at: at });
  return changed > 0;
};

export const deleteOrder = async (trx: Knex, id: number): Promise<void> => {
  await trx('svc_order.orders').where({ id }).delete();
};

type ProductRow = { id: string; price: number; stock: string; active: boolean };

const productsBy = async (db: Knex, ids: readonly number[], tail: string): Promise<Map<number, KnownProduct>> => {
  const { rows } = await db.raw<{ rows: ProductRow[] }>(
    `select id, price, stock, active from svc_order.product where id = any(?::bigint[]) ${tail}`,
    [[...ids]],
  );
  return new Map(rows.map((row) => [Number(row.id), { price: row.price, stock: Number(row.stock), active: row.active }]));
};

/** Locks by number, so that two orders never wait for each other in a circle. */
export const lockProducts = (trx: Knex, ids: readonly number[]): Promise<Map<number, KnownProduct>> =>
  productsBy(trx, ids, 'order by id for update');

export const pricesOf = async (db: Knex, ids: readonly number[]): Promise<Map<number, number>> =>
  new Map([...(await productsBy(db, ids, ''))].map(([id, product]) => [id, product.price]));

/** Where a fact stands among those about its product. */
export type Stamp = { readonly epoch: number; readonly sequence: string };

/**
 * Takes what a fact says of a product. The stock moves by `stockDelta` where there is one, because orders placed here are taken off it already.
 * Also gives lines that came without a price the product's.
 */
export const putProduct = async (
  trx: Knex,
  id: number,
  product: KnownProduct & { stockDelta?: number | undefined },
  stamp: Stamp,
): Promise<void> => {
  await trx.raw(
    `insert into svc_order.product as p (id, price, stock, active, epoch, fact_sequence) values (:id, :price, :stock, :active, :epoch, :sequence)
     on conflict (id) do update set price = excluded.price, stock = coalesce(p.stock + :delta::bigint, excluded.stock), active = excluded.active,
       epoch = excluded.epoch, fact_sequence = excluded.fact_sequence
     where (p.epoch, p.fact_sequence) < (excluded.epoch, excluded.fact_sequence)`,
    { id, price: product.price, stock: product.stock, active: product.active, delta: product.stockDelta ?? null, ...stamp },
  );
  await trx.raw('update svc_order.order_item set price = ? where product_id = ? and price is null', [product.price, id]);
};

export const deleteProduct = async (trx: Knex, id: number): Promise<void> => {
  await trx('svc_order.product').where({ id }).delete();
};

/** Adds `sign` times the quantities to what is known of the stock. Rows are changed by number (see `lockProducts`). */
export const bookStock = async (trx: Knex, quantities: ReadonlyMap<number, number>, sign: 1 | -1): Promise<void> => {
  const ids = [...quantities.keys()];
  await lockProducts(trx, ids);
  await trx.raw(
    `update svc_order.product p set stock = p.stock + ? * w.q from unnest(?::bigint[], ?::bigint[]) as w (id, q) where p.id = w.id`,
    [sign, ids, [...quantities.values()]],
  );
};

/** Remembers the cancellation of an order that nobody has told of yet. */
export const putEarlyCancellation = async (trx: Knex, id: number, at: string): Promise<void> => {
  await trx.raw('insert into svc_order.early_cancellation (order_id, cancelled_at) values (?, ?) on conflict do nothing', [id, at]);
};

/** When an order was cancelled before its state came, ISO 8601; null = it was not. */
export const earlyCancellation = async (trx: Knex, id: number): Promise<string | null> => {
  const row = await trx<{ order_id: number; cancelled_at: Date }>('svc_order.early_cancellation')
    .where({ order_id: id })
    .first('cancelled_at');
  return row?.cancelled_at.toISOString() ?? null;
};

/** What became of a command of the stream; `status` as HTTP would have answered, `detail` = why it was refused. */
export type CommandOutcome = {
  readonly outcome: 'done' | 'refused';
  readonly status: number;
  readonly orderId: number | null;
  readonly detail: string | null;
};

export const putOutcome = async (
  trx: Knex,
  id: string,
  type: string,
  { outcome, status, orderId, detail }: CommandOutcome,
): Promise<void> => {
  await trx('svc_order.command').insert({ id, type, outcome, status, order_id: orderId, detail });
};

export const findOutcome = async (db: Knex, id: string): Promise<(CommandOutcome & { id: string; type: string; at: string }) | null> => {
  const row = (await db('svc_order.command').where({ id }).first()) as
    | { type: string; outcome: 'done' | 'refused'; status: number; order_id: string | null; detail: string | null; at: Date }
    | undefined;
  if (!row) return null;
  const { type, outcome, status, detail } = row;
  return { id, type, outcome, status, orderId: row.order_id === null ? null : Number(row.order_id), detail, at: row.at.toISOString() };
};
