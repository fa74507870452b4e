import type { Migration } from '@banyan/kit/schema.ts';
import type { Knex } from 'knex';
import type { Line, Product } from './domain.ts';
import type { Kept, OrderChanges, ProductChanges } from './fold.ts';

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

/** Locks products until the transaction ends, in the order of their ids, so that two never wait for each other in a circle. */
export const lockProducts = async (trx: Knex, ids: readonly number[]): Promise<Map<number, Kept>> => {
  const { rows } = await trx.raw<{ rows: (Row & { deleted: boolean; state_at: Date; epoch: number; sequence: string })[] }>(
    `select id, name, price, currency, stock, active, deleted, state_at, epoch, sequence from svc_inventory.product
     where id = any(?::bigint[]) order by id for update`,
    [[...ids]],
  );
  return new Map(
    rows.map(({ id, stock, state_at, sequence, ...row }) => [
      Number(id),
      { ...row, id: Number(id), stock: Number(stock), stateAt: state_at.toISOString(), sequence: BigInt(sequence) },
    ]),
  );
};

/** Writes products that are locked, and forgets what their new states make void. */
export const saveProducts = async (trx: Knex, { put, set }: ProductChanges): Promise<void> => {
  if (put.length > 0)
    await trx.raw(
      `insert into svc_inventory.product (id, name, price, currency, stock, active, deleted, state_at, epoch, sequence)
       select * from unnest(?::bigint[], ?::text[], ?::double precision[], ?::text[], ?::bigint[], ?::boolean[], ?::boolean[], ?::timestamptz[],
         ?::int[], ?::bigint[]) as w (id) order by w.id
       on conflict (id) do update set name = excluded.name, price = excluded.price, currency = excluded.currency, stock = excluded.stock,
         active = excluded.active, deleted = excluded.deleted, state_at = excluded.state_at, epoch = excluded.epoch, sequence = excluded.sequence`,
      [
        put.map(({ id }) => id),
        put.map(({ name }) => name),
        put.map(({ price }) => price),
        put.map(({ currency }) => currency),
        put.map(({ stock }) => stock),
        put.map(({ active }) => active),
        put.map(({ deleted }) => deleted),
        put.map(({ stateAt }) => stateAt),
        put.map(({ epoch }) => epoch),
        put.map(({ sequence }) => String(sequence)),
      ],
    );
  if (set.length > 0)
    await trx.raw(
      `delete from svc_inventory.booking b using svc_inventory.product p where p.id = any(?::bigint[]) and b.product_id = p.id and b.at <= p.state_at`,
      [[...set]],
    );
};

/** Writes what is in the orders, and keeps the bookings, but for those that a younger state makes void. */
export const saveOrders = async (trx: Knex, { put, deleted, bookings }: OrderChanges): Promise<void> => {
  if (deleted.length > 0) await trx('svc_inventory.order_lines').whereIn('order_id', deleted).delete();
  if (put.size > 0)
    await trx.raw(
      `insert into svc_inventory.order_lines (order_id, lines) select * from unnest(?::bigint[], ?::json[]) as w (id) order by w.id
       on conflict (order_id) do update set lines = excluded.lines`,
      [[...put.keys()], [...put.values()].map((lines) => JSON.stringify(lines))],
    );
  if (bookings.length > 0)
    await trx.raw(
      `insert into svc_inventory.booking (fact_id, product_id, delta, at)
       select b.* from unnest(?::text[], ?::bigint[], ?::bigint[], ?::timestamptz[]) as b (fact_id, product_id, delta, at)
       where not exists (select from svc_inventory.product p where p.id = b.product_id and p.state_at >= b.at)
       on conflict do nothing`,
      [
        bookings.map(({ factId }) => factId),
        bookings.map(({ productId }) => productId),
        bookings.map(({ delta }) => delta),
        bookings.map(({ at }) => at),
      ],
    );
};

/** What is in these orders; one of which nothing was told is left out. */
export const linesOf = async (trx: Knex, orderIds: readonly number[]): Promise<Map<number, Line[]>> => {
  const { rows } = await trx.raw<{ rows: { order_id: string; lines: Line[] }[] }>(
    'select order_id, lines from svc_inventory.order_lines where order_id = any(?::bigint[])',
    [[...orderIds]],
  );
  return new Map(rows.map((row) => [Number(row.order_id), row.lines]));
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
