import { CreateStreamCommand, type KinesisClient } from '@aws-sdk/client-kinesis';
import type { Knex } from 'knex';
import { pino } from 'pino';
import { startConsumer } from '../../extracted-services/kit/consumer.ts';
import { type Handler, project } from '../../extracted-services/kit/handlers.ts';
import { type Migration, migrateSchema } from '../../extracted-services/kit/schema.ts';
import { preload } from './facts.ts';

const SHARDS = 4;

export type Drained = { readonly facts: number; readonly records: number; readonly seconds: number; readonly effects: number };

/** Who applies the facts: handlers, and the tables that they write. */
export type Reader = {
  readonly name: string;
  readonly schema: string;
  readonly migrations: readonly Migration[];
  readonly handlers: readonly Handler[];
  /** How many facts have had their effect, from the tables; null = the tables do not tell. */
  readonly effects: (db: Knex) => Promise<number | null>;
};

/** The state of an order, one upsert per fact. */
export const PLAIN: Reader = {
  name: 'drain',
  schema: 'svc_drain',
  migrations: [
    {
      name: '010-orders',
      up: async (trx) => {
        await trx.raw(`create table svc_drain.orders (id bigint primary key, seen integer not null, state json not null)`);
      },
    },
  ],
  handlers: [
    project({
      types: ['order.changed.v1'],
      applyAll: async (trx, envelopes) => {
        // several facts about one order: their number counts, the last one's state stands
        const orders = new Map<string, { seen: number; state: string }>();
        for (const { subject, data } of envelopes)
          orders.set(subject, { seen: (orders.get(subject)?.seen ?? 0) + 1, state: JSON.stringify(data) });
        await trx.raw(
          `insert into svc_drain.orders as o (id, seen, state) select * from unnest(?::bigint[], ?::int[], ?::json[])
           on conflict (id) do update set seen = o.seen + excluded.seen, state = excluded.state`,
          [[...orders.keys()], [...orders.values()].map((each) => each.seen), [...orders.values()].map((each) => each.state)],
        );
      },
    }),
  ],
  effects: async (db) => {
    const { rows } = await db.raw<{ rows: [{ effects: string }] }>('select sum(seen) as effects from svc_drain.orders');
    return Number(rows[0].effects);
  },
};

/**
 * How fast a stream that lies there is applied: read, de-aggregated, checked against inbox and heads, and projected by `reader`. The clock runs from the start of the
 * consumer to the last commit.
 */
export const drain = async (
  kinesis: KinesisClient,
  db: Knex,
  facts: number,
  subjects: number,
  reader: Reader = PLAIN,
): Promise<Drained> => {
  const { name, schema, handlers } = reader;
  await kinesis.send(new CreateStreamCommand({ StreamName: name, ShardCount: SHARDS }));
  await migrateSchema(db, schema, reader.migrations);
  const records = await preload(kinesis, name, facts, subjects);
  let applied = 0;
  let finished: () => void = () => undefined;
  const all = new Promise<void>((resolve) => {
    finished = resolve;
  });
  const startedAt = performance.now();
  const consumer = startConsumer({
    kinesis,
    stream: name,
    consumer: 'bench',
    db,
    schema,
    log: pino({ level: 'warn' }, process.stderr),
    handlers,
    onCounts: (counts) => {
      applied += counts.applied;
      if (applied >= facts) finished();
    },
  });
  await all;
  const seconds = (performance.now() - startedAt) / 1000;
  await consumer.stop();
  return { facts, records, seconds, effects: (await reader.effects(db)) ?? applied };
};
