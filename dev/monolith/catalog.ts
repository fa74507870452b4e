import type { Knex } from 'knex';

/** One article as the JSON API shows it: `price` is a decimal number of `currency`, `stock` whole pieces. */
export type Product = { id: number; name: string; price: number; currency: string; stock: number };

type Row = { art_no: number; art_nm: string; unit_amt_ct: number; qty_on_hand: number | null };

const toProduct = (row: Row): Product => ({
  id: row.art_no,
  name: row.art_nm,
  price: row.unit_amt_ct / 100,
  currency: 'EUR',
  stock: row.qty_on_hand ?? 0,
});

const active = (db: Knex) =>
  db('shop.t_article as a')
    .leftJoin('shop.t_stock as s', 's.art_no', 'a.art_no')
    .where('a.actv_flg', 'Y')
    .select<Row[]>('a.art_no', 'a.art_nm', 'a.unit_amt_ct', 's.qty_on_hand');

/** Every active article, by id. */
export const listProducts = async (db: Knex): Promise<Product[]> => (await active(db).orderBy('a.art_no')).map(toProduct);

/** One active article, or null. `id` must fit a 32-bit integer. */
export const findProduct = async (db: Knex, id: number): Promise<Product | null> => {
  const [row] = await active(db).where('a.art_no', id);
  return row ? toProduct(row) : null;
};
