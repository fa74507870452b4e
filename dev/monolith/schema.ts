import { scryptSync } from 'node:crypto';
import type { Knex } from 'knex';

/** Held while the schema is made, so that two shops which start together do not both make it. The number is arbitrary but must never change. */
const SETUP_LOCK = 7_340_031;

const TABLES = `
create schema if not exists shop;
create sequence shop.seq_ord_no as bigint start with 1001;
create table shop.t_article (
  art_no integer primary key,
  art_nm text not null,
  unit_amt_ct integer not null check (unit_amt_ct >= 0),
  actv_flg char(1) not null default 'Y' check (actv_flg in ('Y', 'N')),
  upd_ts timestamp(3) not null default (clock_timestamp() at time zone 'Europe/Berlin')
);
create table shop.t_stock (
  art_no integer primary key references shop.t_article,
  qty_on_hand integer not null check (qty_on_hand >= 0)
);
create table shop.t_order (
  ord_no bigint primary key default nextval('shop.seq_ord_no'),
  cust_ref text not null,
  stat_cd char(1) not null default 'N' check (stat_cd in ('N', 'S', 'X')),
  tot_amt_ct integer not null,
  curr_cd char(3) not null default 'EUR',
  crt_ts timestamp(3) not null default (clock_timestamp() at time zone 'Europe/Berlin'),
  xcl_ts timestamp(3) null,
  idem_key text null unique,
  xcl_idem_key text null
);
create index t_order_cust_ref on shop.t_order (cust_ref, ord_no);
create table shop.t_order_pos (
  ord_no bigint not null references shop.t_order on delete cascade,
  pos_no integer not null,
  art_no integer not null,
  qty integer not null,
  unit_amt_ct integer not null,
  primary key (ord_no, pos_no)
);
create table shop.t_user (usr_id text primary key, usr_nm text not null, pw_hash text not null);
create table shop.t_session (
  sess_id text primary key,
  usr_id text not null references shop.t_user on delete cascade,
  exp_ts timestamp(3) not null
);
create table shop.t_upload (
  upl_id bigint generated always as identity primary key,
  file_nm text not null,
  mime_cd text not null,
  content bytea not null,
  crt_ts timestamp(3) not null default (clock_timestamp() at time zone 'Europe/Berlin')
);`;

/** [number, name, cents]. The dearest article keeps the largest possible order (50 lines of 1000) inside a 32-bit number of cents. */
const ARTICLES: readonly (readonly [number, string, number])[] = [
  [1, 'Watering can', 1250],
  [2, 'Garden gloves', 799],
  [3, 'Pruning shears', 2490],
  [4, 'Terracotta pot, 20 cm', 620],
  [5, 'Potting soil, 40 l', 1199],
  [6, 'Fig tree', 4900],
  [7, 'Bamboo trellis', 1575],
  [8, 'Wheelbarrow', 8995],
];

/** Orders that were there before anybody looked: [customer, status, created, cancelled, idempotency key, [article, quantity, cents then][]], times in Berlin. */
const OLD_ORDERS: readonly (readonly [
  string,
  string,
  string,
  string | null,
  string | null,
  readonly (readonly [number, number, number])[],
])[] = [
  [
    'user-1',
    'S',
    '2025-01-14 09:12:07.031',
    null,
    null,
    [
      [1, 1, 1150],
      [2, 2, 799],
    ],
  ],
  ['user-2', 'X', '2025-03-30 03:00:00.000', '2025-03-30 18:45:10.250', null, [[8, 1, 8995]]],
  [
    'user-3',
    'S',
    '2025-07-02 23:59:59.999',
    null,
    'before-3',
    [
      [4, 12, 620],
      [5, 3, 1199],
      [6, 1, 4900],
    ],
  ],
  ['user-1', 'N', '2025-10-30 17:20:00.500', null, null, [[3, 1, 2490]]],
  [
    'user-4',
    'N',
    '2025-11-01 08:00:00.000',
    null,
    'before-5',
    [
      [7, 2, 1575],
      [1, 1, 1250],
    ],
  ],
];

const STOCK = 100_000;
const USERS = 20;

/** `scrypt$salt$hash`, both parts base64url. Pure: the same salt gives the same text. */
export const hashPassword = (password: string, salt: string): string =>
  `scrypt$${salt}$${scryptSync(password, salt, 32, { N: 4096 }).toString('base64url')}`;

const seed = async (trx: Knex.Transaction): Promise<void> => {
  await trx('shop.t_article').insert(ARTICLES.map(([art_no, art_nm, unit_amt_ct]) => ({ art_no, art_nm, unit_amt_ct })));
  await trx('shop.t_stock').insert(ARTICLES.map(([art_no]) => ({ art_no, qty_on_hand: STOCK })));
  const users = Array.from({ length: USERS }, (_, index) => `user-${index + 1}`);
  await trx('shop.t_user').insert(
    users.map((id) => ({ usr_id: id, usr_nm: `Customer ${id.slice(5)}`, pw_hash: hashPassword('secret', `seed-${id}`) })),
  );
  for (const [cust_ref, stat_cd, crt_ts, xcl_ts, idem_key, lines] of OLD_ORDERS) {
    const tot_amt_ct = lines.reduce((sum, [, qty, cents]) => sum + qty * cents, 0);
    const [order] = await trx('shop.t_order')
      .insert({ cust_ref, stat_cd, tot_amt_ct, crt_ts, xcl_ts, idem_key })
      .returning<{ ord_no: string }[]>('ord_no');
    await trx('shop.t_order_pos').insert(
      lines.map(([art_no, qty, unit_amt_ct], index) => ({ ord_no: order!.ord_no, pos_no: index + 1, art_no, qty, unit_amt_ct })),
    );
  }
};

/**
 * Makes schema `shop` with its tables and first rows; does nothing when it is there already. One transaction under an advisory lock, so the
 * schema exists wholly or not at all and any number of shops may start at once.
 */
export const prepareSchema = (db: Knex): Promise<void> =>
  db.transaction(async (trx) => {
    await trx.raw('select pg_advisory_xact_lock(?)', [SETUP_LOCK]);
    const { rows } = await trx.raw<{ rows: { found: boolean }[] }>(`select to_regclass('shop.t_upload') is not null as found`);
    if (rows[0]?.found) return;
    await trx.raw(TABLES);
    await seed(trx);
  });
