import type { Migration } from '@banyan/kit/schema.ts';
import type { Knex } from 'knex';
import type { Booking, Line, Move, Product } from './domain.ts';

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
  -- of the youngest state, with legacy's deltas since; bookings that are younger come on top
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
  {
    name: '011-deltas',
    up: async (trx) => {
      // the last fact about the product that is in its row: a replay must not add a delta again
      await trx.raw(
        `alter table svc_inventory.product add column epoch integer not null default 0, add column sequence bigint not null default 0`,
      );
    },
  },
  {
    name: '012-reservations',
    up: async (trx) => {
      await trx.raw(`
-- pieces that a saga has set aside for an order; counted until the order's own fact has booked them
create table svc_inventory.reservation (
  command_id text not null,
  fact_id    text not null,
  product_id bigint not null,
  pieces     bigint not null,
  primary key (command_id, product_id)
);
create index reservation_product on svc_inventory.reservation (product_id)`);
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

/** Where a fact stands among those about its product, and when it was appended. */
export type Stamp = { readonly epoch: number; readonly sequence: string; readonly at: string };

/** Locks the product until the transaction ends; says whether it is known and whether `stamp` is news about it. */
export const lockProduct = async (trx: Knex, id: number, { epoch, sequence }: Stamp): Promise<{ known: boolean; news: boolean }> => {
  const { rows } = await trx.raw<{ rows: { news: boolean; deleted: boolean }[] }>(
    `select (epoch, sequence) < (?::int, ?::bigint) as news, deleted from svc_inventory.product where id = ? for update`,
    [epoch, sequence, id],
  );
  const found = rows[0];
  return { known: found !== undefined && !found.deleted, news: found?.news ?? true };
};

/** Sets the product and, with the move `set`, makes void what was booked up to then. */
export const putProduct = async (trx: Knex, product: Product, move: Move, stamp: Stamp): Promise<void> => {
  await trx.raw(
    `insert into svc_inventory.product as p (id, name, price, currency, stock, active, state_at, epoch, sequence)
     values (:id, :name, :price, :currency, :pieces, :active, :at, :epoch, :sequence)
     on conflict (id) do update set name = excluded.name, price = excluded.price, currency = excluded.currency, active = excluded.active, deleted = false,
       stock = case when :kind = 'add' then p.stock + excluded.stock else excluded.stock end,
       state_at = case when :kind = 'add' then p.state_at else excluded.state_at end, epoch = excluded.epoch, sequence = excluded.sequence`,
    { ...product, ...move, ...stamp },
  );
  if (move.kind === 'set') await forgetBookings(trx, product.id);
};

export const markDeleted = async (trx: Knex, id: number, { epoch, sequence, at }: Stamp): Promise<void> => {
  await trx.raw('update svc_inventory.product set deleted = true, state_at = ?, epoch = ?, sequence = ? where id = ?', [
    at,
    epoch,
    sequence,
    id,
  ]);
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

/**
 * Sets pieces aside, or says which product has too few. Locks the products, in the order of their ids, so that two that want the last piece take turns.
 * What the order's own fact has booked already counts as available to it; what others have set aside, and not booked yet, does not.
 * @returns `unknown` = a product that no fact has told of yet
 */
export const reserve = async (
  trx: Knex,
  commandId: string,
  factId: string,
  lines: readonly Line[],
): Promise<{ readonly kind: 'done' | 'unknown' } | { readonly kind: 'short'; readonly productId: number }> => {
  const wanted = [...lines].sort((a, b) => a.productId - b.productId);
  for (const { productId, quantity } of wanted) {
    const locked = await trx.raw<{ rows: unknown[] }>('select from svc_inventory.product where id = ? and not deleted for update', [
      productId,
    ]);
    if (locked.rows.length === 0) return { kind: 'unknown' };
    const { rows } = await trx.raw<{ rows: [{ available: string }] }>(
      `select p.stock + coalesce((select sum(b.delta) from svc_inventory.booking b
           where b.product_id = p.id and b.at > p.state_at and b.fact_id <> :factId), 0)
         - coalesce((select sum(r.pieces) from svc_inventory.reservation r where r.product_id = p.id and r.fact_id <> :factId
             and not exists (select from svc_inventory.booking b where b.fact_id = r.fact_id and b.product_id = p.id)), 0) as available
       from svc_inventory.product p where p.id = :productId`,
      { factId, productId },
    );
    if (Number(rows[0].available) < quantity) return { kind: 'short', productId };
    await trx('svc_inventory.reservation')
      .insert({ command_id: commandId, fact_id: factId, product_id: productId, pieces: quantity })
      .onConflict(['command_id', 'product_id'])
      .ignore();
  }
  return { kind: 'done' };
};

export const release = async (trx: Knex, commandId: string): Promise<void> => {
  await trx('svc_inventory.reservation').where({ command_id: commandId }).delete();
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
