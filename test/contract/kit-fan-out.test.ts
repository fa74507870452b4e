import { CreateStreamCommand, SplitShardCommand } from '@aws-sdk/client-kinesis';
import { aggregate } from '@banyan/contracts/kpl.ts';
import { startKinesis } from '@banyan/dev-kinesis/emulator.ts';
import { type Consumer, type ConsumerOptions, startConsumer } from '@banyan/kit/consumer.ts';
import { createDlq } from '@banyan/kit/dlq.ts';
import { parseFact } from '@banyan/kit/entries.ts';
import { type Handler, project } from '@banyan/kit/handlers.ts';
import { createFanOutKinesis, createKinesis } from '@banyan/kit/kinesis.ts';
import { createLambdaHandler } from '@banyan/kit/lambda.ts';
import { migrateSchema } from '@banyan/kit/schema.ts';
import { afterAll, afterEach, beforeAll, beforeEach, describe, expect, it } from '@jest/globals';
import type { Knex } from 'knex';
import { type FreshDatabase, freshDatabase } from '../harness/database.ts';
import { until } from '../harness/wait.ts';
import { fact, openStore, publish, silent } from './kit-fixtures.ts';

let database: FreshDatabase;
let db: Knex;
let schema: string;
let number = 0;
const stops: (() => unknown)[] = [];

beforeAll(async () => {
  database = await freshDatabase('empty');
  db = openStore(database.url);
});
beforeEach(async () => {
  number += 1;
  schema = `svc_fan_${number}`;
  await migrateSchema(db, schema, [
    {
      name: '010-effects',
      up: async (trx, name) => {
        await trx.raw(
          `create table ${name}.effect (n bigint generated always as identity primary key, subject text, fact text unique, sequence int)`,
        );
      },
    },
  ]);
});
afterEach(async () => {
  for (const stop of stops.splice(0).reverse()) await stop();
});
afterAll(async () => {
  await db.destroy();
  await database.drop();
});

const emulated = async (shards = 2) => {
  const emulator = await startKinesis({
    limits: { throttle: false, heartbeatMs: 100, takeoverMs: 200, subscriptionMs: 1500 },
  });
  const options = { region: 'eu-west-1', endpoint: emulator.url };
  const kinesis = createKinesis(options);
  const fanOut = createFanOutKinesis(options);
  await kinesis.send(new CreateStreamCommand({ StreamName: 's', ShardCount: shards }));
  stops.push(async () => {
    kinesis.destroy();
    fanOut.destroy();
    await emulator.stop();
  });
  return { emulator, kinesis, fanOut, stream: 's' };
};

const handlers = (): Handler[] => [
  project({
    types: ['thing.done.v1'],
    applyAll: async (trx, envelopes) => {
      if (envelopes.some((each) => each.data.poison === true)) throw new Error('poison');
      await trx(`${schema}.effect`).insert(
        envelopes.map((each) => ({ subject: each.subject, fact: each.id, sequence: Number(each.sequence) })),
      );
    },
  }),
];
type Rig = Awaited<ReturnType<typeof emulated>>;
const consume = ({ kinesis, fanOut }: Rig, options: Partial<ConsumerOptions> = {}): Consumer => {
  const consumer = startConsumer({
    kinesis,
    fanOut,
    stream: 's',
    consumer: 'test',
    db,
    schema,
    handlers: handlers(),
    log: silent,
    pollMs: 20,
    leaseMs: 1500,
    quietMs: 600,
    pollInsteadMs: 400,
    discoverMs: 200,
    ...options,
  });
  stops.push(() => consumer.stop());
  return consumer;
};
const facts = (subjects: number, each: number, from = 1) =>
  Array.from({ length: each }, (_, i) =>
    Array.from({ length: subjects }, (_, s) => fact('thing.done.v1', `t${s}`, {}, { sequence: from + i })),
  ).flat();
const effects = (): Promise<{ subject: string; sequence: number; fact: string }[]> => db(`${schema}.effect`).orderBy('n');
const complete = async (subjects: number, each: number): Promise<void> => {
  await until(async () => (await effects()).length >= subjects * each, { describe: 'all effects', timeoutMs: 30_000 });
  const seen = new Map<string, number>();
  for (const { subject, sequence } of await effects()) {
    expect(sequence).toBe((seen.get(subject) ?? 0) + 1);
    seen.set(subject, sequence);
  }
  expect([...seen.values()].every((count) => count === each)).toBe(true);
};

describe('enhanced fan-out', () => {
  it('delivers each fact once and in order, over expiries, a split and a half-open connection', async () => {
    const rig = await emulated(1);
    const ways = { push: 0, poll: 0 };
    const consumer = consume(rig, {
      onDelivery: (way) => {
        ways[way] += 1;
      },
    });
    await publish(rig, facts(20, 3));
    await complete(20, 3);
    expect(ways.push).toBeGreaterThan(0);
    await rig.kinesis.send(
      new SplitShardCommand({ StreamName: 's', ShardToSplit: 'shardId-000000000000', NewStartingHashKey: String(2n ** 127n) }),
    );
    await publish(rig, facts(20, 3, 4));
    await complete(20, 6);
    // every subscription falls silent: the shards are polled after the longest silence
    const polled = ways.poll;
    rig.emulator.faults.set([{ kind: 'hang', operations: ['SubscribeToShard'] }]);
    await publish(rig, facts(20, 3, 7));
    await complete(20, 9);
    expect(ways.poll).toBeGreaterThan(polled);
    rig.emulator.faults.set([]);
    const pushed = ways.push;
    await until(() => ways.push > pushed, { describe: 'a push after the recovery', timeoutMs: 20_000 });
    await publish(rig, facts(20, 1, 10));
    await complete(20, 10);
    expect(consumer.trouble()).toBeNull();
  });

  it('keeps what it has while several instances come, share and go', async () => {
    const rig = await emulated(8);
    const first = consume(rig);
    await publish(rig, facts(40, 2));
    await complete(40, 2);
    const second = consume(rig);
    const owners = async () =>
      (
        await db(`${schema}.lease`)
          .whereNotNull('owner')
          .andWhere('until', '>', db.raw('clock_timestamp()'))
          .groupBy('owner')
          .count('* as n')
      ).map((row) => Number(row.n));
    await until(async () => (await owners()).join() === '4,4', { describe: 'a fair share', timeoutMs: 20_000 });
    await publish(rig, facts(40, 2, 3));
    await complete(40, 4);
    await first.stop();
    await publish(rig, facts(40, 2, 5));
    await complete(40, 6);
    await until(async () => (await owners()).join() === '8', { describe: 'the second to hold all', timeoutMs: 20_000 });
    expect(second.trouble()).toBeNull();
  });
});

describe('the dead letter queue', () => {
  it('gives a key back in its order once its poison is mended, or when one letter is given up; other keys flow meanwhile', async () => {
    let sick = true;
    const healing: Handler[] = [
      project({
        types: ['thing.done.v1'],
        apply: async (trx, envelope) => {
          if (sick && envelope.data.poison === true) throw new Error('a bug');
          await handlers()[0]!.apply(trx, { ...envelope, data: {} });
        },
      }),
    ];
    const rig = await emulated(1);
    const consumer = consume(rig, { handlers: healing });
    const bad = ['a', 'b'].flatMap((key) =>
      [1, 2, 3].map((sequence) => fact('thing.done.v1', key, { poison: sequence === 1 }, { sequence })),
    );
    await publish(rig, [...bad, ...facts(5, 2)]);
    await until(async () => (await effects()).length === 10 && (await consumer.position()).quarantined === 6, {
      describe: 'the healthy keys',
      timeoutMs: 20_000,
    });
    const dlq = createDlq({ db, schema, readers: [{ consumer: 'test', handlers: healing, parse: parseFact }] });
    expect(await dlq.replay('thing/a')).toEqual({ applied: 0, left: 3, error: 'a bug' });
    sick = false;
    expect(await dlq.replay('thing/a')).toEqual({ applied: 3, left: 0, error: null });
    await expect(dlq.replay('thing/a')).rejects.toMatchObject({ code: 'not-found' });
    const letters = (await dlq.list(10)) as { position: number; key: string }[];
    expect(letters.map((letter) => letter.key)).toEqual(['thing/b', 'thing/b', 'thing/b']);
    const who = { reason: 'typed by mistake', actor: 'ann' };
    await expect(dlq.skip(letters[1]!.position, who)).rejects.toMatchObject({ code: 'conflict' });
    expect(await dlq.skip(letters[0]!.position, who)).toEqual({ applied: 2, left: 0, error: null });
    expect(await db(`${schema}.dlq_skipped`).select('key', 'reason', 'actor')).toEqual([{ key: 'thing/b', ...who }]);
    await publish(
      rig,
      ['a', 'b'].map((key) => fact('thing.done.v1', key, {}, { sequence: 4 })),
    );
    await until(async () => (await effects()).length === 17, { describe: 'what came after', timeoutMs: 20_000 });
    const of = async (subject: string) => (await effects()).filter((each) => each.subject === subject).map((each) => each.sequence);
    expect([await of('a'), await of('b')]).toEqual([
      [1, 2, 3, 4],
      [2, 3, 4],
    ]);
  });
});

describe('the same handlers as an AWS Lambda function', () => {
  const eventOf = (records: readonly Uint8Array[], first = 1) => ({
    Records: records.map((data, i) => ({
      eventID: `shardId-000000000000:${first + i}`,
      kinesis: { sequenceNumber: String(first + i), data: Buffer.from(data).toString('base64'), partitionKey: 'k' },
    })),
  });
  const bytesOf = (value: unknown) => Buffer.from(JSON.stringify(value));

  it('apply a batch once, however often it comes and however it is packed', async () => {
    const handler = createLambdaHandler({ db, schema, consumer: 'lambda', handlers: handlers() });
    const [a, b, c] = facts(1, 3);
    const packed = aggregate([a, b].map((each) => ({ partitionKey: each!.partitionkey, data: bytesOf(each) })));
    const event = eventOf([packed, bytesOf(c)]);
    expect(await Promise.all([handler(event), handler(event)])).toEqual([{ batchItemFailures: [] }, { batchItemFailures: [] }]);
    await handler(event);
    await complete(1, 3);
  });

  it('quarantine poison with its key, and hand back from the first record what may heal', async () => {
    let away = false;
    const sick: Handler[] = [
      project({
        types: ['thing.done.v1'],
        apply: async (trx, envelope) => {
          if (away) throw Object.assign(new Error('the database is away'), { code: 'ECONNREFUSED' });
          return handlers()[0]!.apply(trx, envelope);
        },
      }),
    ];
    const handler = createLambdaHandler({ db, schema, consumer: 'lambda', handlers: sick });
    const poison = fact('thing.done.v1', 'bad', { poison: true });
    expect(await handler(eventOf([bytesOf(poison), ...facts(2, 1).map(bytesOf)]))).toEqual({ batchItemFailures: [] });
    await complete(2, 1);
    expect(await db(`${schema}.dlq`).pluck('key')).toEqual(['thing/bad']);
    away = true;
    expect(await handler(eventOf(facts(2, 1, 2).map(bytesOf), 10))).toEqual({ batchItemFailures: [{ itemIdentifier: '10' }] });
    away = false;
  });

  it('refuse what is no event of Kinesis', async () => {
    const handler = createLambdaHandler({ db, schema, consumer: 'lambda', handlers: handlers() });
    await expect(handler({ Records: [{ s3: {} }] })).rejects.toThrow(/kinesis/);
  });
});
