import { CreateStreamCommand, type KinesisClient } from '@aws-sdk/client-kinesis';
import type { Knex } from 'knex';
import { pino } from 'pino';
import { startConsumer } from '../../extracted-services/kit/consumer.ts';
import { project } from '../../extracted-services/kit/handlers.ts';
import { migrateSchema } from '../../extracted-services/kit/schema.ts';
import { preload } from './facts.ts';

const STREAM = 'drain';
const SCHEMA = 'svc_drain';
const SHARDS = 4;

export type Drained = { readonly facts: number; readonly records: number; readonly seconds: number; readonly effects: number };

/**
 * How fast a stream that lies there is applied: read, de-aggregated, checked against inbox and heads, and projected into a table (the state of an order,
 * one upsert per fact). The clock runs from the start of the consumer to the last commit.
 */
export const drain = async (kinesis: KinesisClient, db: Knex, facts: number, subjects: number): Promise<Drained> => {
  await kinesis.send(new CreateStreamCommand({ StreamName: STREAM, ShardCount: SHARDS }));
  await migrateSchema(db, SCHEMA, [
    {
      name: '010-orders',
      up: async (trx) => {
        await trx.raw(`create table ${SCHEMA}.orders (id bigint primary key, seen integer not null, state json not null)`);
      },
    },
  ]);
  const records = await preload(kinesis, STREAM, facts, subjects);
  let applied = 0;
  let finished: () => void = () => undefined;
  const all = new Promise<void>((resolve) => {
    finished = resolve;
  });
  const startedAt = performance.now();
  const consumer = startConsumer({
    kinesis,
    stream: STREAM,
    consumer: 'bench',
    db,
    schema: SCHEMA,
    log: pino({ level: 'warn' }, process.stderr),
    handlers: [
      project({
        types: ['order.changed.v1'],
        applyAll: async (trx, envelopes) => {
          // several facts about one order: their number counts, the last one's state stands
          const orders = new Map<string, { seen: number; state: string }>();
          for (const { subject, data } of envelopes)
            orders.set(subject, { seen: (orders.get(subject)?.seen ?? 0) + 1, state: JSON.stringify(data) });
          await trx.raw(
            `insert into ${SCHEMA}.orders as o (id, seen, state) select * from unnest(?::bigint[], ?::int[], ?::json[])
             on conflict (id) do update set seen = o.seen + excluded.seen, state = excluded.state`,
            [[...orders.keys()], [...orders.values()].map((each) => each.seen), [...orders.values()].map((each) => each.state)],
          );
        },
      }),
    ],
    onCounts: (counts) => {
      applied += counts.applied;
      if (applied >= facts) finished();
    },
  });
  await all;
  const seconds = (performance.now() - startedAt) / 1000;
  await consumer.stop();
  const { rows } = await db.raw<{ rows: [{ effects: string }] }>(`select sum(seen) as effects from ${SCHEMA}.orders`);
  return { facts, records, seconds, effects: Number(rows[0].effects) };
};
