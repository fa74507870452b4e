import type { Migration } from '@banyan/kit/schema.ts';
import type { Knex } from 'knex';
import type { Item, KnownProduct, Order } from './domain.ts';
import { totalOf } from './domain.ts';
import type { KnownOrders, OrderChanges, ProductChanges, StampedProduct } from './fold.ts';

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

/** Inserts or replaces orders with their lines, each id once; one statement, because most of what a page costs is round trips. */
const putOrders = async (trx: Knex, orders: readonly Order[]): Promise<void> => {
  // in the order of their numbers, so that two never wait for each other in a circle
  const sorted = [...orders].sort((a, b) => a.id - b.id);
  await trx.raw(
    `with wanted as materialized (
       select * from json_to_recordset(:orders::json) as w (id bigint, "userId" text, total double precision, currency text, status text,
         "createdAt" timestamptz, "cancelledAt" timestamptz, ref text, lines int)
     ), o as (
       insert into svc_order.orders (id, user_id, total, currency, status, created_at, cancelled_at, ref)
       select id, "userId", total, currency, status, "createdAt", "cancelledAt", ref from wanted order by id
       on conflict (id) do update set user_id = excluded.user_id, total = excluded.total, currency = excluded.currency, status = excluded.status,
         created_at = excluded.created_at, cancelled_at = excluded.cancelled_at, ref = excluded.ref
     ), gone as (
       delete from svc_order.order_item i using wanted w where i.order_id = w.id and i.position > w.lines
     )
     insert into svc_order.order_item (order_id, position, product_id, quantity, price)
     select l.o, l.n, l.p, l.q, l.u from json_to_recordset(:items::json) as l (o bigint, n int, p bigint, q int, u double precision) order by l.o, l.n
     on conflict (order_id, position) do update set product_id = excluded.product_id, quantity = excluded.quantity, price = excluded.price`,
    {
      orders: JSON.stringify(sorted.map(({ items, ...order }) => ({ ...order, lines: items.length }))),
      items: JSON.stringify(
        sorted.flatMap(({ id, items }) =>
          items.map((item, index) => ({ o: id, n: index + 1, p: item.productId, q: item.quantity, u: item.price })),
        ),
      ),
    },
  );
};

export const putOrder = (trx: Knex, order: Order): Promise<void> => putOrders(trx, [order]);

export const markCancelled = async (trx: Knex, id: number, at: string): Promise<void> => {
  await trx('svc_order.orders').where({ id }).update({ status: 'cancelled', cancelled_at: at });
};

/** What `foldOrders` must know. */
export const knownOrders = async (trx: Knex, { orders, unpriced }: { orders: number[]; unpriced: number[] }): Promise<KnownOrders> => {
  const { rows } = await trx.raw<{ rows: { what: 'there' | 'early' | 'price'; id: string; at: Date | null; price: number | null }[] }>(
    `select 'there' as what, id, null::timestamptz as at, null::double precision as price from svc_order.orders where id = any(:orders::bigint[])
     union all select 'early', order_id, cancelled_at, null from svc_order.early_cancellation where order_id = any(:orders::bigint[])
     union all select 'price', id, null, price from svc_order.product where id = any(:unpriced::bigint[])`,
    { orders, unpriced },
  );
  const there = new Set<number>();
  const early = new Map<number, string>();
  const prices = new Map<number, number>();
  for (const { what, id, at, price } of rows) {
    if (what === 'there') there.add(Number(id));
    else if (what === 'early') early.set(Number(id), at!.toISOString());
    else prices.set(Number(id), price!);
  }
  return { there, early, prices };
};

export const saveOrders = async (trx: Knex, { put, cancelled, deleted, early }: OrderChanges): Promise<void> => {
  if (deleted.length > 0) await trx('svc_order.orders').whereIn('id', deleted).delete();
  if (put.length > 0) await putOrders(trx, put);
  if (cancelled.size > 0)
    await trx.raw(
      `update svc_order.orders o set status = 'cancelled', cancelled_at = c.at from unnest(?::bigint[], ?::timestamptz[]) as c (id, at) where o.id = c.id`,
      [[...cancelled.keys()], [...cancelled.values()]],
    );
  if (early.size > 0)
    await trx.raw(
      `insert into svc_order.early_cancellation (order_id, cancelled_at) select * from unnest(?::bigint[], ?::timestamptz[]) on conflict do nothing`,
      [[...early.keys()], [...early.values()]],
    );
};

type ProductRow = { id: string; price: number; stock: string; active: boolean };

/** Locks by number, so that two orders never wait for each other in a circle. */
export const lockProducts = async (trx: Knex, ids: readonly number[]): Promise<Map<number, KnownProduct>> => {
  const { rows } = await trx.raw<{ rows: ProductRow[] }>(
    `select id, price, stock, active from svc_order.product where id = any(?::bigint[]) order by id for update`,
    [[...ids]],
  );
  return new Map(rows.map((row) => [Number(row.id), { price: row.price, stock: Number(row.stock), active: row.active }]));
};

/** The same with where their last fact stands, for `foldProducts`. */
export const lockStamped = async (trx: Knex, ids: readonly number[]): Promise<Map<number, StampedProduct>> => {
  const { rows } = await trx.raw<{ rows: (ProductRow & { epoch: number; sequence: string })[] }>(
    `select id, price, stock, active, epoch, fact_sequence as sequence from svc_order.product where id = any(?::bigint[]) order by id for update`,
    [[...ids]],
  );
  return new Map(
    rows.map(({ id, price, stock, active, epoch, sequence }) => [
      Number(id),
      { price, stock: Number(stock), active, epoch, sequence: BigInt(sequence) },
    ]),
  );
};

/** Takes what facts say of products that are locked, and gives lines that came without a price the product's. */
export const saveProducts = async (trx: Knex, { put, deleted, prices }: ProductChanges): Promise<void> => {
  if (deleted.length > 0) await trx('svc_order.product').whereIn('id', deleted).delete();
  const products = [...put.values()];
  if (put.size > 0)
    await trx.raw(
      `insert into svc_order.product as p (id, price, stock, active, epoch, fact_sequence)
       select * from unnest(?::bigint[], ?::double precision[], ?::bigint[], ?::boolean[], ?::int[], ?::bigint[]) as w (id) order by w.id
       on conflict (id) do update set price = excluded.price, stock = excluded.stock, active = excluded.active,
         epoch = excluded.epoch, fact_sequence = excluded.fact_sequence`,
      [
        [...put.keys()],
        products.map(({ price }) => price),
        products.map(({ stock }) => stock),
        products.map(({ active }) => active),
        products.map(({ epoch }) => epoch),
        products.map(({ sequence }) => String(sequence)),
      ],
    );
  if (prices.size > 0)
    await trx.raw(
      `update svc_order.order_item i set price = w.price from unnest(?::bigint[], ?::double precision[]) as w (id, price)
       where i.product_id = w.id and i.price is null`,
      [[...prices.keys()], [...prices.values()]],
    );
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
