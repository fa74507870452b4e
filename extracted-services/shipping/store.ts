import { participantTables } from '@banyan/kit/participant.ts';
import type { Migration } from '@banyan/kit/schema.ts';
import type { Knex } from 'knex';
import type { ShipmentState } from './domain.ts';

export const SCHEMA = 'svc_shipping';

export const migrations: readonly Migration[] = [
  participantTables,
  {
    name: '010-shipment',
    up: async (trx) => {
      await trx.raw(`
-- one parcel an order
create table svc_shipping.shipment (
  order_id   text primary key,
  command_id text not null unique,
  state      text not null check (state in ('handed-over', 'called-back')),
  at         timestamptz(3) not null default now()
)`);
    },
  },
];

export type Shipment = { readonly orderId: string; readonly state: string; readonly at: string };

/** Hands a parcel over unless the order has one. Gives the state of the one that it had, null = none. */
export const handOver = async (trx: Knex, orderId: string, commandId: string): Promise<ShipmentState | null> => {
  const made = await trx('svc_shipping.shipment')
    .insert({ order_id: orderId, command_id: commandId, state: 'handed-over' })
    .onConflict('order_id')
    .ignore()
    .returning('order_id');
  if (made.length > 0) return null;
  const row = (await trx('svc_shipping.shipment').where({ order_id: orderId }).first('state')) as { state: ShipmentState };
  return row.state;
};

export const callBack = async (trx: Knex, commandId: string): Promise<void> => {
  await trx('svc_shipping.shipment').where({ command_id: commandId }).update({ state: 'called-back' });
};

/** The latest 1,000. */
export const listShipments = async (db: Knex): Promise<Shipment[]> => {
  const rows = (await db('svc_shipping.shipment').orderBy('at', 'desc').limit(1000)) as { order_id: string; state: string; at: Date }[];
  return rows.map((row) => ({ orderId: row.order_id, state: row.state, at: row.at.toISOString() }));
};
