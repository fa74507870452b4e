import { ListShardsCommand, MergeShardsCommand, SplitShardCommand } from '@aws-sdk/client-kinesis';
import type { Envelope } from '@banyan/contracts/envelope.ts';
import { type Consumer, type ConsumerOptions, requestReplay, startConsumer } from '@banyan/kit/consumer.ts';
import { type Handler, project, react } from '@banyan/kit/handlers.ts';
import { migrateSchema } from '@banyan/kit/schema.ts';
import { afterAll, afterEach, beforeAll, beforeEach, describe, expect, it } from '@jest/globals';
import type { Knex } from 'knex';
import { type FreshDatabase, freshDatabase } from '../harness/database.ts';
import { until } from '../harness/wait.ts';
import { type FactOptions, fact, openStore, publish, publishAggregated, silent, startStream } from './kit-fixtures.ts';

let database: FreshDatabase;
let db: Knex;
let stream: Awaited<ReturnType<typeof startStream>>;
let schema: string;
let number = 0;
const consumers: Consumer[] = [];

beforeAll(async () => {
  database = await freshDatabase('empty');
  db = openStore(database.url);
});
beforeEach(async () => {
  number += 1;
  schema = `svc_test_${number}`;
  stream = await startStream();
  await migrateSchema(db, schema, [
    {
      name: '010-effects',
      up: async (trx, name) => {
        await trx.raw(
          `create table ${name}.effect (n bigint generated always as identity primary key, kind text, subject text, fact text)`,
        );
      },
    },
  ]);
});
afterEach(async () => {
  await Promise.all(consumers.splice(0).map((consumer) => consumer.stop()));
  await stream.stop();
});
afterAll(async () => {
  await db.destroy();
  await database.drop();
});

const insert = (kind: string) => async (trx: Knex.Transaction, envelope: Envelope) => {
  if (envelope.data.poison === true) throw new Error('this one is poison');
  await trx(`${schema}.effect`).insert({ kind, subject: envelope.subject, fact: envelope.id });
};
const handlers = (): Handler[] => [
  project({ types: ['thing.done.v1'], apply: insert('project') }),
  react({ types: ['thing.done.v1'], apply: insert('react') }),
];
const consume = (options: Partial<ConsumerOptions> = {}): Consumer => {
  const consumer = startConsumer({
    kinesis: stream.kinesis,
    stream: stream.stream,
    consumer: 'test',
    db,
    schema,
    handlers: handlers(),
    log: silent,
    pollMs: 20,
    leaseMs: 2000,
    ...options,
  });
  consumers.push(consumer);
  return consumer;
};
const done = (subject: string, options: FactOptions = {}, data: Record<string, unknown> = {}) =>
  fact('thing.done.v1', subject, data, options);
const effects = async (kind = 'project'): Promise<{ subject: string; fact: string }[]> =>
  db(`${schema}.effect`).where({ kind }).orderBy('n').select('subject', 'fact');
const rows = (table: string) => db(`${schema}.${table}`).select('*');
/** Waits until everything that is on the stream has been looked at. */
const caughtUp = (consumer: Consumer, seen: () => Promise<boolean>) =>
  until(async () => (await seen()) && (await consumer.position()).lagMs === 0, { describe: 'the consumer to catch up' });

describe('the consumer', () => {
  it('applies every fact once and in the order of its key, plain or aggregated, sent once or more', async () => {
    const subjects = Array.from({ length: 20 }, (_, index) => `subject-${index}`);
    const all = subjects.flatMap((subject) => [1, 2, 3].map((sequence) => done(subject, { sequence })));
    for (const subject of subjects.slice(0, 10))
      await publishAggregated(
        stream,
        all.filter((each) => each.subject === subject),
      );
    const plain = all.filter((each) => subjects.indexOf(each.subject) >= 10);
    await publish(stream, [...plain, ...plain]);
    const consumer = consume();
    await caughtUp(consumer, async () => (await effects()).length >= all.length);
    const found = await effects();
    expect(found).toHaveLength(all.length);
    for (const subject of subjects)
      expect(found.filter((each) => each.subject === subject).map((each) => each.fact)).toEqual(
        all.filter((each) => each.subject === subject).map((each) => each.id),
      );
    const position = await consumer.position();
    expect(position.shards).toHaveLength(2);
    expect(position.shards.every((shard) => /^\d+$/.test(shard.sequenceNumber!) && !shard.ended)).toBe(true);
    expect(position).toMatchObject({ consumer: 'test', quarantined: 0, held: 0 });
  });

  it('goes on where it stopped', async () => {
    await publish(stream, [done('a', { sequence: 1 })]);
    const first = consume();
    await caughtUp(first, async () => (await effects()).length === 1);
    await first.stop();
    await publish(stream, [done('a', { sequence: 2 })]);
    await caughtUp(consume(), async () => (await effects()).length === 2);
    expect(await effects()).toHaveLength(2);
  });

  it('takes both sources of a subject and the first fact of a later epoch, and drops what is of an earlier one', async () => {
    const facts = [
      done('a', { sequence: 1, epoch: 1 }),
      done('a', { sequence: 1, epoch: 2, origin: 'extracted' }),
      done('a', { sequence: 1, epoch: 3 }),
      done('a', { sequence: 2, epoch: 1 }),
      done('a', { sequence: 2, epoch: 3 }),
    ];
    await publish(stream, facts);
    await caughtUp(consume(), async () => (await effects()).length === 4);
    expect((await effects()).map((each) => each.fact)).toEqual([0, 1, 2, 4].map((index) => facts[index]!.id));
  });

  it('holds what comes before its predecessor, then applies it in its place', async () => {
    const [one, two, three] = [1, 2, 3].map((sequence) => done('a', { sequence }));
    await publish(stream, [three!, two!, done('b')]);
    const consumer = consume();
    await until(async () => (await consumer.position()).held === 2, { describe: 'two held facts' });
    await until(async () => (await effects()).length === 1, { describe: 'the other key' });
    await publish(stream, [one!]);
    await until(async () => (await effects()).length === 4, { describe: 'all facts' });
    expect((await effects()).filter((each) => each.subject === 'a').map((each) => each.fact)).toEqual([one!.id, two!.id, three!.id]);
    expect((await consumer.position()).held).toBe(0);
  });

  it('reacts to news of the extracted side only', async () => {
    const news = done('b', { origin: 'extracted' });
    await publish(stream, [
      done('a'),
      news,
      done('c', { origin: 'extracted', phase: 'tentative' }),
      done('d', { origin: 'extracted', phase: 'compensated' }),
    ]);
    const consumer = consume();
    await caughtUp(consumer, async () => (await rows('inbox')).length === 4);
    expect((await effects('react')).map((each) => each.fact)).toEqual([news.id]);
    expect((await effects()).map((each) => each.subject).sort()).toEqual(['a', 'b']);
  });

  it('leaves its own facts out, but keeps count of them', async () => {
    await publish(stream, [
      fact('thing.done.v1', 'a', {}, { origin: 'extracted' }),
      fact('thing.done.v1', 'a', {}, { origin: 'extracted', sequence: 2 }),
      done('a'),
    ]);
    await caughtUp(consume({ own: '/banyan/thing/extracted' }), async () => (await rows('inbox')).length === 3);
    expect(await effects()).toHaveLength(1);
    expect(await effects('react')).toEqual([]);
    expect(await db(`${schema}.inbox_head`).where({ source: '/banyan/thing/extracted' }).first('last_seq')).toEqual({ last_seq: '2' });
  });

  it('shows projections everything again in a replay, and lets nobody react twice', async () => {
    await publish(stream, [done('a', { origin: 'extracted' }), done('b', { origin: 'extracted' })]);
    const first = consume();
    await caughtUp(first, async () => (await effects('react')).length === 2);
    await first.stop();
    await requestReplay(db, schema, 'test');
    await publish(stream, [done('c', { origin: 'extracted' })]);
    // the shards of the old and of the new facts are read in any order
    await caughtUp(consume(), async () => (await effects('react')).length === 3 && (await effects()).length === 5);
    expect((await effects()).map((each) => each.subject).sort()).toEqual(['a', 'a', 'b', 'b', 'c']);
    expect((await effects('react')).map((each) => each.subject).sort()).toEqual(['a', 'b', 'c']);
  });
});

describe('poison', () => {
  it('stops its own key only, in order, and loses nothing', async () => {
    const key = [1, 2, 3, 4].map((sequence) => done('a', { sequence }, sequence === 2 ? { poison: true } : {}));
    const other = [1, 2, 3].map((sequence) => done('b', { sequence }));
    await publishAggregated(
      stream,
      [...key.slice(0, 3), ...other.slice(0, 2)].map((each) => ({ ...each, partitionkey: 'a' })),
    );
    await publish(stream, [key[3]!]);
    const consumer = consume();
    await caughtUp(consumer, async () => (await consumer.position()).quarantined === 3);
    expect((await effects()).map((each) => each.fact)).toEqual([key[0]!.id, other[0]!.id, other[1]!.id]);
    const dead = await db(`${schema}.dlq`).orderBy('position').select('key', 'event_id', 'error');
    expect(dead).toEqual([
      { key: 'thing/a', event_id: key[1]!.id, error: 'this one is poison' },
      { key: 'thing/a', event_id: key[2]!.id, error: null },
      { key: 'thing/a', event_id: key[3]!.id, error: null },
    ]);
    await publish(stream, [key[1]!, key[2]!, ...other]);
    await caughtUp(consumer, async () => (await effects()).length === 4);
    expect(await rows('dlq')).toHaveLength(3);
  });

  it('is also what breaks the published schema, and what is no envelope', async () => {
    await publish(stream, ['garbage', JSON.stringify({ specversion: '1.0' }), fact('order.placed.v1', '7', { id: 7 }), done('a')]);
    const consumer = consume({ handlers: [project({ types: ['order.placed.v1', 'thing.done.v1'], apply: insert('project') })] });
    await caughtUp(consumer, async () => (await consumer.position()).quarantined === 3);
    expect((await effects()).map((each) => each.subject)).toEqual(['a']);
    const errors = (await db(`${schema}.dlq`).orderBy('error').select('key', 'error')).map((each) => `${each.key}: ${each.error}`);
    expect(errors).toEqual([
      expect.stringMatching(/^null: no envelope: \w+: /),
      'null: not a JSON document in UTF-8',
      expect.stringMatching(/^order\/7: order\.placed\.v1: data\.userId: /),
    ]);
  });

  it('stops the reading when too much of it piles up', async () => {
    await publish(
      stream,
      Array.from({ length: 5 }, (_, index) => done(`s${index}`, {}, { poison: true })),
    );
    const consumer = consume({ heldLimit: 2 });
    await until(() => /more than 2 facts are held or quarantined/.test(consumer.trouble() ?? ''), {
      describe: 'the consumer to stop reading',
    });
    expect((await rows('dlq')).length).toBeLessThanOrEqual(2);
  });

  it('is not what heals itself: the page is tried again as a whole', async () => {
    let failures = 3;
    const flaky = project({
      types: ['thing.done.v1'],
      apply: async (trx, envelope) => {
        await insert('project')(trx, envelope);
        failures -= 1;
        if (failures >= 0) await trx.raw(`do $$ begin raise exception 'again' using errcode = '40001'; end $$`);
      },
    });
    await publish(stream, [done('a'), done('a', { sequence: 2 })]);
    const consumer = consume({ handlers: [flaky] });
    await caughtUp(consumer, async () => (await effects()).length === 2);
    expect(await rows('dlq')).toEqual([]);
  });
});

describe('a stream that is resharded', () => {
  it('is read parents first, so that every key keeps its order', async () => {
    const keys = Array.from({ length: 30 }, (_, index) => `key-${index}`);
    const rounds = [1, 2, 3].map((sequence) => keys.map((key) => done(key, { sequence })));
    const shards = async () => (await stream.kinesis.send(new ListShardsCommand({ StreamName: stream.stream }))).Shards!;
    await publish(stream, rounds[0]!);
    const [first] = await shards();
    const { StartingHashKey, EndingHashKey } = first!.HashKeyRange!;
    await stream.kinesis.send(
      new SplitShardCommand({
        StreamName: stream.stream,
        ShardToSplit: first!.ShardId!,
        NewStartingHashKey: String((BigInt(StartingHashKey!) + BigInt(EndingHashKey!)) / 2n),
      }),
    );
    await until(async () => (await shards()).length === 4, { describe: 'the split' });
    await publish(stream, rounds[1]!);
    // one part of the story is there before the consumer starts, the rest comes while it reads
    const consumer = consume();
    await until(async () => (await effects()).length >= 60, { describe: 'both generations' });
    const children = (await shards()).filter((shard) => shard.ParentShardId === first!.ShardId);
    await stream.kinesis.send(
      new MergeShardsCommand({
        StreamName: stream.stream,
        ShardToMerge: children[0]!.ShardId!,
        AdjacentShardToMerge: children[1]!.ShardId!,
      }),
    );
    await until(async () => (await shards()).length === 5, { describe: 'the merge' });
    await publish(stream, rounds[2]!);
    await until(async () => (await effects()).length >= 90, { describe: 'all generations', timeoutMs: 20_000 });
    const found = await effects();
    expect(found).toHaveLength(90);
    for (const [index, key] of keys.entries())
      expect(found.filter((each) => each.subject === key).map((each) => each.fact)).toEqual(rounds.map((round) => round[index]!.id));
    const position = await consumer.position();
    expect(position.held).toBe(0);
    expect(position.shards.filter((shard) => shard.ended)).toHaveLength(3);
  });
});

describe('several instances', () => {
  it('share the shards without doing anything twice', async () => {
    const [one, two] = [consume(), consume()];
    for (let round = 1; round <= 5; round += 1)
      await publish(
        stream,
        Array.from({ length: 40 }, (_, index) => done(`s${index}`, { sequence: round })),
      );
    await caughtUp(one, async () => (await effects()).length >= 200);
    expect(await effects()).toHaveLength(200);
    expect(await two.position()).toEqual(await one.position());
  });

  it('go on where a dead one stopped, and its late transaction is refused', async () => {
    let release: () => void = () => undefined;
    const stuck = new Promise<void>((resolve) => {
      release = resolve;
    });
    let entered = false;
    // The first instance freezes inside a page, before it has written anything; its lease runs out meanwhile. A page that already holds its
    // lease row cannot lose the shard, so the freeze lies before the transaction: in the reading of the stream.
    const slow = Object.create(stream.kinesis) as typeof stream.kinesis;
    slow.send = (async (command: object, options: object) => {
      const answer = await (stream.kinesis.send as (c: object, o: object) => Promise<{ Records?: unknown[] }>).call(
        stream.kinesis,
        command,
        options,
      );
      if (answer.Records?.length) {
        entered = true;
        await stuck;
      }
      return answer;
    }) as typeof slow.send;
    await publish(stream, [done('a'), done('b')]);
    const pages: number[] = [];
    const first = consume({ kinesis: slow, leaseMs: 2000, onCounts: (counts) => pages.push(counts.applied) });
    await until(() => entered, { describe: 'the first instance to read' });
    // another instance takes over, as it would after the lease of a process that was stopped for long
    await db(`${schema}.lease`).update({ owner: 'another', token: db.raw('token + 1') });
    release();
    await until(async () => (await first.position()) && (await db(`${schema}.lease`).where({ owner: 'another' })).length === 2, {
      describe: 'the leases to stay with the other',
    });
    await first.stop();
    expect(pages).toEqual([]);
    expect(await effects()).toEqual([]);
    await db(`${schema}.lease`).update({ until: new Date(0) });
    await caughtUp(consume(), async () => (await effects()).length === 2);
    expect(await effects()).toHaveLength(2);
  });
});
