import { randomUUID } from 'node:crypto';
import { setTimeout as pause } from 'node:timers/promises';
import { CreateStreamCommand, type KinesisClient } from '@aws-sdk/client-kinesis';
import type { Knex } from 'knex';
import { pino } from 'pino';
import { startConsumer } from '../../extracted-services/kit/consumer.ts';
import { project } from '../../extracted-services/kit/handlers.ts';
import { migrateSchema } from '../../extracted-services/kit/schema.ts';
import { createRelay } from '../../gateway/dual-write/relay.ts';
import { createKinesisStream } from '../../gateway/dual-write/stream.ts';

const STREAM = 'live';
const SCHEMA = 'svc_live';
const SHARDS = 4;
const SUBJECTS = 5_000;
/** Facts are appended in steps of so many ms, each step in one transaction. */
const STEP_MS = 10;

export type LatencyOptions = {
  readonly kinesis: KinesisClient;
  readonly fanOut: KinesisClient;
  readonly endpoint: string;
  /** The store, migrated; its context `order` belongs to legacy. */
  readonly db: Knex;
  readonly perSecond: number;
  readonly seconds: number;
};

/** Latencies in ms of every fact: from before the transaction that appends it until its effect is committed in the service, through relay and stream. */
export const measureLatency = async (options: LatencyOptions): Promise<{ latencies: number[]; pushed: number; polled: number }> => {
  const { kinesis, fanOut, endpoint, db, perSecond, seconds } = options;
  await kinesis.send(new CreateStreamCommand({ StreamName: STREAM, ShardCount: SHARDS }));
  await migrateSchema(db, SCHEMA, [
    {
      name: '010-effects',
      up: async (trx) => {
        await trx.raw(`create table ${SCHEMA}.effect (fact text primary key)`);
      },
    },
  ]);
  await db.raw(
    `insert into banyan.context (name, stage, owner, updated_by) values ('order', 'legacy', 'legacy', 'bench') on conflict do nothing`,
  );
  const log = pino({ level: 'warn' }, process.stderr);
  const relay = createRelay({
    db,
    memberId: randomUUID(),
    stream: createKinesisStream({
      stream: STREAM,
      region: 'eu-west-1',
      endpoint,
      credentials: { accessKeyId: 'local', secretAccessKey: 'local' },
    }),
    log: { warn: (fields, message) => log.warn(fields, message), error: (fields, message) => log.error(fields, message) },
    maxBacklogBytes: 2 ** 30,
  });
  const total = perSecond * seconds;
  const warmUp = perSecond;
  const latencies: number[] = [];
  const ways = { push: 0, poll: 0 };
  let open: number[] = [];
  let seen = 0;
  let finished: () => void = () => undefined;
  const all = new Promise<void>((resolve) => {
    finished = resolve;
  });
  const consumer = startConsumer({
    kinesis,
    fanOut,
    stream: STREAM,
    consumer: 'live',
    db,
    schema: SCHEMA,
    log,
    handlers: [
      project({
        types: ['bench.moved.v1'],
        applyAll: async (trx, envelopes) => {
          await trx.raw(`insert into ${SCHEMA}.effect select * from unnest(?::text[]) on conflict do nothing`, [
            envelopes.map((each) => each.id),
          ]);
          open.push(...envelopes.map((each) => Number(each.data.sentAt)));
        },
      }),
    ],
    onDelivery: (way) => {
      ways[way] += 1;
    },
    onCounts: (counts) => {
      const now = performance.now();
      // a page that ran again would count here twice; none does without faults
      for (const sentAt of open) {
        seen += 1;
        if (seen > warmUp) latencies.push(now - sentAt);
      }
      open = [];
      if (counts.applied > 0 && seen >= total + warmUp) finished();
    },
  });
  relay.start();
  while (consumer.trouble() !== null || ways.push === 0) await pause(50);
  let sent = 0;
  const startedAt = performance.now();
  const inFlight = new Set<Promise<unknown>>();
  while (sent < total + warmUp) {
    const due = Math.min(total + warmUp, Math.floor(((performance.now() - startedAt) * perSecond) / 1000));
    if (due > sent) {
      const subjects = Array.from({ length: due - sent }, (_, i) => `s${(sent + i) % SUBJECTS}`).sort();
      sent = due;
      const append = db
        .raw(
          `select banyan.append_fact('order', 'legacy', 'bench.moved.v1', s, jsonb_build_object('sentAt', ?::float8), 'capture') from unnest(?::text[]) s`,
          [performance.now(), subjects],
        )
        .then(() => relay.wake())
        .finally(() => inFlight.delete(append));
      inFlight.add(append);
    }
    await pause(STEP_MS);
  }
  await Promise.all(inFlight);
  await all;
  await consumer.stop();
  await relay.stop();
  return { latencies, pushed: ways.push, polled: ways.poll };
};
