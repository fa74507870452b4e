import type { Migration } from '@banyan/kit/schema.ts';
import type { Knex } from 'knex';
import type { Mail } from './domain.ts';

export const SCHEMA = 'svc_notification';

export const migrations: readonly Migration[] = [
  {
    name: '010-mail',
    up: async (trx) => {
      await trx.raw(`
-- the mail log stands for the mail server: one row is one mail sent
create table svc_notification.mail (
  id        bigint generated always as identity primary key,
  recipient text not null,
  subject   text not null,
  order_id  text not null,
  fact_id   text not null unique,
  sent_at   timestamptz(3) not null default now()
);
create index mail_order on svc_notification.mail (order_id, id);
-- a cancellation does not say whose order it was
create table svc_notification.customer (order_id text primary key, user_id text not null);`);
    },
  },
];

export type SentMail = Mail & { readonly id: number; readonly orderId: string; readonly factId: string; readonly sentAt: string };

type Row = { id: string; recipient: string; subject: string; order_id: string; fact_id: string; sent_at: Date };

/** The latest mails, at most 1,000, oldest first; `orderId` narrows the list. */
export const listMails = async (db: Knex, orderId?: string): Promise<SentMail[]> => {
  const { rows } = await db.raw<{ rows: Row[] }>(
    `select * from svc_notification.mail where order_id = coalesce(?, order_id) order by id desc limit 1000`,
    [orderId ?? null],
  );
  return rows.reverse().map((row) => ({
    id: Number(row.id),
    to: row.recipient,
    subject: row.subject,
    orderId: row.order_id,
    factId: row.fact_id,
    sentAt: row.sent_at.toISOString(),
  }));
};

/** The fact's id is unique here too: should the inbox ever forget it, the mail is still not sent twice. */
export const sendMails = async (
  trx: Knex,
  mails: readonly (Mail & { readonly orderId: string; readonly factId: string })[],
): Promise<void> => {
  await trx('svc_notification.mail')
    .insert(mails.map(({ to, subject, orderId, factId }) => ({ recipient: to, subject, order_id: orderId, fact_id: factId })))
    .onConflict('fact_id')
    .ignore();
};

/** @param customers by order; null = the order is gone */
export const saveCustomers = async (trx: Knex, customers: ReadonlyMap<string, string | null>): Promise<void> => {
  const known = [...customers].filter((entry): entry is [string, string] => entry[1] !== null);
  const gone = [...customers].filter(([, customer]) => customer === null).map(([order]) => order);
  if (gone.length > 0) await trx('svc_notification.customer').whereIn('order_id', gone).delete();
  if (known.length === 0) return;
  await trx.raw(
    `insert into svc_notification.customer (order_id, user_id) select * from unnest(?::text[], ?::text[]) as c (order_id) order by c.order_id
     on conflict (order_id) do update set user_id = excluded.user_id`,
    [known.map(([order]) => order), known.map(([, customer]) => customer)],
  );
};

/** Who ordered; an order of which nothing was told is left out. */
export const customersOf = async (trx: Knex, orders: readonly string[]): Promise<Map<string, string>> => {
  const { rows } = await trx.raw<{ rows: { order_id: string; user_id: string }[] }>(
    'select order_id, user_id from svc_notification.customer where order_id = any(?::text[])',
    [[...orders]],
  );
  return new Map(rows.map((row) => [row.order_id, row.user_id]));
};
