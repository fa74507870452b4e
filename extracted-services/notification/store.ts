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
export const sendMail = async (trx: Knex, mail: Mail, orderId: string, factId: string): Promise<void> => {
  await trx('svc_notification.mail')
    .insert({ recipient: mail.to, subject: mail.subject, order_id: orderId, fact_id: factId })
    .onConflict('fact_id')
    .ignore();
};

export const putCustomer = async (trx: Knex, orderId: string, userId: string): Promise<void> => {
  await trx('svc_notification.customer').insert({ order_id: orderId, user_id: userId }).onConflict('order_id').merge();
};

export const customerOf = async (trx: Knex, orderId: string): Promise<string | null> => {
  const row = await trx<{ order_id: string; user_id: string }>('svc_notification.customer').where('order_id', orderId).first('user_id');
  return row?.user_id ?? null;
};

export const forgetCustomer = async (trx: Knex, orderId: string): Promise<void> => {
  await trx('svc_notification.customer').where('order_id', orderId).delete();
};
