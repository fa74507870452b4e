import type { Migration } from '@banyan/kit/schema.ts';
import type { Knex } from 'knex';
import type { Booking, Line, Product } from './domain.ts';

export const SCHEMA = 'svc_inventory';

export const migrations: readonly Migration[] = [
  {
    name: '010-products',
    up: async (trx) => {
      await trx.raw(`
create table svc_inventory.product (
  id       bigint primary key,
  name     text not null,
  -- double precision, as JSON numbers are: a price comes out as it went in
  price    double precision not null,
  currency text not null,
  -- of the youngest state; bookings that are younger come on top
  stock    bigint not null,
  active   boolean not null,
  -- kept as a mark, so that a fact that is read again does not bring it back
  deleted  boolean not null default false,
  state_at timestamptz(3) not null
);
-- What extracted orders took and gave back. Rows instead of a sum on the product: pages of several shards run at the same time, and if each
-- changed the rows of many products they would wait for each other in circles. A new state deletes what it makes void.
create table svc_inventory.booking (
  fact_id    text not null,
  product_id bigint not null,
  delta      bigint not null,
  at         timestamptz(3) not null,
  primary key (fact_id, product_id)
);
create index booking_product on svc_inventory.booking (product_id, at) include (delta);
-- a cancellation does not say what it gives back
create table svc_inventory.order_lines (order_id bigint primary key, lines json not null);`);
    },
  },
];

type Row = { id: string; name: string; price: number; currency: string; stock: string; active: boolean };

const query = async (db: Knex, tail: string, bindings: readonly number[] = []): Promise<Product[]> => {
  const { rows } = await db.raw<{ rows: Row[] }>(
    `select p.id, p.name, p.price, p.currency, p.active,
       p.stock + coalesce((select sum(b.delta) from svc_inventory.booking b where b.product_id = p.id and b.at > p.state_at), 0) as stock
     from svc_inventory.product p where not p.deleted ${tail}`,
    [...bindings],
  );
  return rows.map((row) => ({ ...row, id: Number(row.id), stock: Number(row.stock) }));
};

/** Every product that is on sale, by id. */
export const listProducts = (db: Knex): Promise<Product[]> => query(db, 'and p.active order by p.id');

export const findProduct = async (db: Knex, id: number): Promise<Product | null> =>
  (await query(db, 'and p.active and p.id = ?', [id]))[0] ?? null;

/** Every product by id, on sale or not, in chunks of 1,000. */
export async function* allProducts(db: Knex): AsyncGenerator<Product[]> {
  for (let after = -1; ; ) {
    const chunk = await query(db, 'and p.id > ? order by p.id limit 1000', [after]);
    if (chunk.length === 0) return;
    yield chunk;
    after = chunk.at(-1)!.id;
  }
}

const forgetBookings = (trx: Knex, id: number): Promise<unknown> =>
  trx.raw(
    `delete from svc_inventory.booking b using svc_inventory.product p where p.id = ? and b.product_id = p.id and b.at <= p.state_at`,
    [id],
  );

/** Keeps a state, unless a younger one is known. */
export const putProduct = async (trx: Knex, product: Product, at: string): Promise<void> => {
  await trx.raw(
    `insert into svc_inventory.product as p (id, name, price, currency, stock, active, state_at) values (?, ?, ?, ?, ?, ?, ?)
     on conflict (id) do update set name = excluded.name, price = excluded.price, currency = excluded.currency, stock = excluded.stock,
       active = excluded.active, deleted = false, state_at = excluded.state_at where p.state_at <= excluded.state_at`,
    [product.id, product.name, product.price, product.currency, product.stock, product.active, at],
  );
  await forgetBookings(trx, product.id);
};

export const markDeleted = async (trx: Knex, id: number, at: string): Promise<void> => {
  await trx.raw('update svc_inventory.product set deleted = true, state_at = ? where id = ? and state_at <= ?', [at, id, at]);
  await forgetBookings(trx, id);
};

/** Keeps the bookings of one fact, but for those that a younger state makes void. */
export const book = async (trx: Knex, factId: string, bookings: readonly Booking[]): Promise<void> => {
  await trx.raw(
    `insert into svc_inventory.booking (fact_id, product_id, delta, at)
     select ?, b.product_id, b.delta, b.at from unnest(?::bigint[], ?::bigint[], ?::timestamptz[]) as b (product_id, delta, at)
     where not exists (select from svc_inventory.product p where p.id = b.product_id and p.state_at >= b.at)
     on conflict do nothing`,
    [factId, bookings.map((each) => each.productId), bookings.map((each) => each.delta), bookings.map((each) => each.at)],
  );
};

export const putLines = async (trx: Knex, orderId: number, lines: readonly Line[]): Promise<void> => {
  await trx.raw(
    `insert into svc_inventory.order_lines (order_id, lines) values (?, ?) on conflict (order_id) do update set lines = excluded.lines`,
    [orderId, JSON.stringify(lines)],
  );
};

export const linesOf = async (trx: Knex, orderId: number): Promise<Line[] | null> => {
  const row = await trx<{ order_id: number; lines: Line[] }>('svc_inventory.order_lines').where('order_id', orderId).first('lines');
  return row?.lines ?? null;
};

export const deleteLines = async (trx: Knex, orderId: number): Promise<void> => {
  await trx('svc_inventory.order_lines').where('order_id', orderId).delete();
};
