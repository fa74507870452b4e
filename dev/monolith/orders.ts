import type { Knex } from 'knex';

/** An order as the JSON API shows it. Money is a decimal number of `currency`; times are ISO 8601 in UTC with milliseconds. */
export type Order = {
  id: number;
  userId: string;
  items: { productId: number; quantity: number; price: number }[];
  total: number;
  currency: string;
  status: 'placed' | 'shipped' | 'cancelled';
  createdAt: string;
  cancelledAt: string | null;
};

/** What a customer asks for: 1..50 lines, each quantity 1..1000. */
export type OrderRequest = { userId: string; items: readonly { productId: number; quantity: number }[] };

/** A wish the shop cannot grant; `status` is the HTTP status that says so. */
export class OrderRefused extends Error {
  readonly status: 404 | 409 | 422;
  constructor(status: 404 | 409 | 422, message: string) {
    super(message);
    this.status = status;
  }
}

type Row = {
  ord_no: string;
  cust_ref: string;
  stat_cd: string;
  tot_amt_ct: number;
  curr_cd: string;
  crt: string;
  xcl: string | null;
  pos: { a: number; q: number; u: number }[];
};

// The columns hold Berlin wall time. Only the database knows Berlin's clock changes for sure, so it makes the UTC text; in the hour that
// happens twice each October it reads the later one, and nobody can tell.
const utc = (column: string): string =>
  `to_char(${column} at time zone 'Europe/Berlin' at time zone 'UTC', 'YYYY-MM-DD"T"HH24:MI:SS.MS"Z"')`;

const SELECT = `
  select o.ord_no, o.cust_ref, o.stat_cd, o.tot_amt_ct, o.curr_cd, ${utc('o.crt_ts')} as crt, ${utc('o.xcl_ts')} as xcl,
    coalesce((select json_agg(json_build_object('a', p.art_no, 'q', p.qty, 'u', p.unit_amt_ct) order by p.pos_no)
      from shop.t_order_pos p where p.ord_no = o.ord_no), '[]') as pos
  from shop.t_order o`;

const STATUS: Readonly<Record<string, Order['status']>> = { N: 'placed', S: 'shipped', X: 'cancelled' };

const toOrder = (row: Row): Order => ({
  id: Number(row.ord_no),
  userId: row.cust_ref,
  items: row.pos.map((line) => ({ productId: line.a, quantity: line.q, price: line.u / 100 })),
  total: row.tot_amt_ct / 100,
  currency: row.curr_cd,
  status: STATUS[row.stat_cd]!,
  createdAt: row.crt,
  cancelledAt: row.xcl,
});

const query = async (db: Knex, tail: string, bindings: readonly (string | number)[]): Promise<Order[]> => {
  const { rows } = await db.raw<{ rows: Row[] }>(`${SELECT} ${tail}`, [...bindings]);
  return rows.map(toOrder);
};

/** One order, or null. */
export const findOrder = async (db: Knex, id: number): Promise<Order | null> => (await query(db, 'where o.ord_no = ?', [id]))[0] ?? null;

/** The newest orders by number, at most `limit`; `userId` and `ref` (the Idempotency-Key it was placed with) narrow the list. */
export const listOrders = (db: Knex, by: { userId?: string; ref?: string; limit: number }): Promise<Order[]> => {
  const where: string[] = [];
  const bindings: (string | number)[] = [];
  if (by.userId !== undefined) {
    where.push('o.cust_ref = ?');
    bindings.push(by.userId);
  }
  if (by.ref !== undefined) {
    where.push('o.idem_key = ?');
    bindings.push(by.ref);
  }
  const filter = where.length > 0 ? `where ${where.join(' and ')}` : '';
  return query(db, `${filter} order by o.ord_no desc limit ?`, [...bindings, by.limit]);
};

const findByKey = async (db: Knex, key: string): Promise<Order | null> => (await listOrders(db, { ref: key, limit: 1 }))[0] ?? null;

/** The stored order as its first answer showed it. @throws OrderRefused 422 when the key was used for another wish. */
const repeat = (stored: Order, wish: OrderRequest): Order => {
  const same =
    stored.userId === wish.userId &&
    stored.items.length === wish.items.length &&
    stored.items.every((line, index) => line.productId === wish.items[index]!.productId && line.quantity === wish.items[index]!.quantity);
  if (!same) throw new OrderRefused(422, 'this Idempotency-Key was used for another order');
  return { ...stored, status: 'placed', cancelledAt: null };
};

/** Adds `sign` times the quantities to the stock. Rows are locked by article number, so two orders never wait for each other in a circle. */
const bookStock = async (trx: Knex.Transaction, items: readonly { productId: number; quantity: number }[], sign: 1 | -1): Promise<void> => {
  const wanted = new Map<number, number>();
  for (const { productId, quantity } of items) wanted.set(productId, (wanted.get(productId) ?? 0) + quantity);
  const numbers = [...wanted.keys()];
  const { rows } = await trx.raw<{ rows: { art_no: number; qty_on_hand: number }[] }>(
    'select art_no, qty_on_hand from shop.t_stock where art_no = any(?::int[]) order by art_no for update',
    [numbers],
  );
  const onHand = new Map(rows.map((row) => [row.art_no, row.qty_on_hand]));
  for (const [product, quantity] of wanted)
    if (sign < 0 && (onHand.get(product) ?? 0) < quantity) throw new OrderRefused(409, `product ${product} is out of stock`);
  await trx.raw(
    `update shop.t_stock s set qty_on_hand = s.qty_on_hand + ? * w.qty
     from unnest(?::int[], ?::int[]) as w (art_no, qty) where s.art_no = w.art_no`,
    [sign, numbers, [...wanted.values()]],
  );
};

/**
 * Places an order and takes its goods from the stock, in one transaction. A known `key` gives the order that it made (`repeated: true`).
 * @throws OrderRefused 422 unknown product or a key used for another order, 409 out of stock; then nothing has changed.
 */
export const placeOrder = async (db: Knex, wish: OrderRequest, key: string | null): Promise<{ order: Order; repeated: boolean }> => {
  const known = key === null ? null : await findByKey(db, key);
  if (known) return { order: repeat(known, wish), repeated: true };
  return db.transaction(async (trx) => {
    const numbers = [...new Set(wish.items.map((item) => item.productId))];
    const articles = await trx('shop.t_article')
      .where('actv_flg', 'Y')
      .whereIn('art_no', numbers)
      .select<{ art_no: number; unit_amt_ct: number }[]>('art_no', 'unit_amt_ct');
    const cents = new Map(articles.map((row) => [row.art_no, row.unit_amt_ct]));
    const unknown = numbers.find((number) => !cents.has(number));
    if (unknown !== undefined) throw new OrderRefused(422, `unknown product ${unknown}`);

    const tot_amt_ct = wish.items.reduce((sum, item) => sum + item.quantity * cents.get(item.productId)!, 0);
    // Waits for a running order with the same key; when that one commits nothing is inserted here.
    const [made] = await trx('shop.t_order')
      .insert({ cust_ref: wish.userId, tot_amt_ct, idem_key: key })
      .onConflict('idem_key')
      .ignore()
      .returning<{ ord_no: string }[]>('ord_no');
    if (!made) {
      const stored = key === null ? null : await findByKey(trx, key);
      if (!stored) throw new Error('an order was neither inserted nor found by its key');
      return { order: repeat(stored, wish), repeated: true };
    }
    await trx('shop.t_order_pos').insert(
      wish.items.map((item, index) => ({
        ord_no: made.ord_no,
        pos_no: index + 1,
        art_no: item.productId,
        qty: item.quantity,
        unit_amt_ct: cents.get(item.productId)!,
      })),
    );
    await bookStock(trx, wish.items, -1);
    const order = await findOrder(trx, Number(made.ord_no));
    return { order: order!, repeated: false };
  });
};

/**
 * Cancels an order and puts its goods back, in one transaction; a cancelled order stays as it is.
 * @throws OrderRefused 404 no such order, 409 already shipped.
 */
export const cancelOrder = (db: Knex, id: number, key: string | null): Promise<Order> =>
  db.transaction(async (trx) => {
    const [row] = await trx('shop.t_order').where('ord_no', id).forUpdate().select<{ stat_cd: string }[]>('stat_cd');
    if (!row) throw new OrderRefused(404, 'order not found');
    if (row.stat_cd === 'S') throw new OrderRefused(409, 'a shipped order cannot be cancelled');
    if (row.stat_cd === 'N') {
      await trx.raw(
        `update shop.t_order set stat_cd = 'X', xcl_ts = clock_timestamp() at time zone 'Europe/Berlin', xcl_idem_key = ? where ord_no = ?`,
        [key, id],
      );
      const order = await findOrder(trx, id);
      await bookStock(trx, order!.items, 1);
      return order!;
    }
    return (await findOrder(trx, id))!;
  });
