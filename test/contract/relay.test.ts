import { randomUUID } from 'node:crypto';
import { CreateStreamCommand, GetRecordsCommand, GetShardIteratorCommand, KinesisClient, ListShardsCommand } from '@aws-sdk/client-kinesis';
import { afterAll, afterEach, beforeAll, describe, expect, it } from '@jest/globals';
import { NodeHttpHandler } from '@smithy/node-http-handler';
import { deaggregate } from '../../contracts/kpl.ts';
import { startKinesis } from '../../dev/kinesis/emulator.ts';
import { createLanes } from '../../gateway/dual-write/lanes.ts';
import { createRelay, type Relay, type RelayDeps } from '../../gateway/dual-write/relay.ts';
import { createKinesisStream, type EventStream, type StreamRecord } from '../../gateway/dual-write/stream.ts';
import { until } from '../harness/wait.ts';
import { answer, openStore, place, placing, quiet, type Store } from './ledger-kit.ts';

let store: Store;
const relays: Relay[] = [];
beforeAll(async () => {
  store = await openStore();
});
afterEach(async () => {
  await Promise.all(relays.splice(0).map((relay) => relay.stop()));
  await store.db('banyan.outbox').delete();
});
afterAll(() => store.close());

const silent = { warn: () => {}, error: () => {} };
const relayOver = (stream: EventStream, over: Partial<RelayDeps> = {}): Relay => {
  const relay = createRelay({
    db: store.db,
    memberId: randomUUID(),
    stream,
    log: quiet,
    maxBacklogBytes: 1_000_000,
    leaseMs: 400,
    ...over,
  });
  relays.push(relay);
  relay.start();
  return relay;
};

type Fact = { subject: string; sequence: number };
const factsIn = (data: Uint8Array): Fact[] =>
  (deaggregate(data)?.map((member) => member.data) ?? [data]).map((bytes) => {
    const envelope = JSON.parse(Buffer.from(bytes).toString()) as { subject: string; sequence: string };
    return { subject: envelope.subject, sequence: Number(envelope.sequence) };
  });

/** A stream in memory that does to each record what `fate` says. */
const fakeStream = (fate: (record: StreamRecord, call: number) => 'ok' | 'fail' | 'throttle' | 'lost' = () => 'ok') => {
  const facts: Fact[] = [];
  let calls = 0;
  let open = 0;
  const stream: EventStream = {
    put: async (records) => {
      calls += 1;
      open += 1;
      await new Promise((resolve) => setImmediate(resolve));
      const fates = records.map((record) => fate(record, calls));
      const results = records.map((record, index) => {
        if (fates[index] === 'fail') return { ok: false, code: 'InternalFailure', throttled: false } as const;
        if (fates[index] === 'throttle') return { ok: false, code: 'ProvisionedThroughputExceededException', throttled: true } as const;
        facts.push(...factsIn(record.data));
        return { ok: true, shardId: 'shard-0', sequenceNumber: `${facts.length}` } as const;
      });
      open -= 1;
      if (fates.includes('lost')) throw new Error('the answer was lost');
      return results;
    },
    check: async () => 'ready',
    close: () => {},
  };
  return { stream, facts, calls: () => calls, open: () => open };
};

const append = async (subjects: readonly string[], rounds: number): Promise<void> => {
  for (let i = 0; i < rounds; i += 1)
    await store.db.raw(
      `select banyan.append_fact('order', 'legacy', 'order.changed.v1', s, '{"filler":"${'x'.repeat(200)}"}', 'capture') from unnest(?::text[]) s`,
      [[...subjects]],
    );
};
const published = () =>
  until(async () => !(await store.db('banyan.outbox').whereNull('published_at').first()), {
    describe: 'an empty backlog',
    timeoutMs: 25_000,
  });

/** First appearances must count up from 1; a repeat may only be of something that was there already. */
const expectOrder = (facts: readonly Fact[], subjects: readonly string[], each: number): void => {
  const seen = new Map<string, number>();
  for (const { subject, sequence } of facts) {
    const last = seen.get(subject) ?? 0;
    expect(sequence).toBeLessThanOrEqual(last + 1);
    seen.set(subject, Math.max(last, sequence));
  }
  expect(new Map(subjects.map((subject) => [subject, seen.get(subject)]))).toEqual(new Map(subjects.map((subject) => [subject, each])));
};
let series = 0;
const subjectsOf = (count: number): string[] => {
  series += 1;
  return Array.from({ length: count }, (_, i) => `${series}-${i}`);
};
/** A generator of its own, so that a failing run can be run again. */
const randomOf = (seed: number) => () => {
  seed = (seed * 1_103_515_245 + 12_345) % 2_147_483_648;
  return seed / 2_147_483_648;
};

describe('the relay', () => {
  it.each([true, false])('keeps order per subject while records fail, throttle and answers are lost (aggregate: %s)', async (aggregate) => {
    const subjects = subjectsOf(40);
    await append(subjects, 12);
    const random = randomOf(7);
    const fake = fakeStream(() => {
      const dice = random();
      return dice < 0.1 ? 'fail' : dice < 0.2 ? 'throttle' : dice < 0.21 ? 'lost' : 'ok';
    });
    relayOver(fake.stream, { aggregate, log: silent });
    await published();
    expectOrder(fake.facts, subjects, 12);
  });

  it('reads what commits late, and what comes while it works', async () => {
    const subjects = subjectsOf(5);
    const fake = fakeStream();
    const relay = relayOver(fake.stream);
    const late = await store.db.transaction();
    await late.raw(`select banyan.append_fact('order', 'legacy', 'order.changed.v1', ?, '{}', 'capture')`, ['late-' + series]);
    for (let i = 0; i < 20; i += 1) {
      await append(subjects, 1);
      relay.wake();
    }
    await published();
    await late.commit();
    await until(() => fake.facts.some((fact) => fact.subject === 'late-' + series), { describe: 'the late fact' });
    expectOrder(fake.facts, subjects, 20);
  });

  it('shares lanes, and takes over those of a relay that fell silent, whose token then marks nothing', async () => {
    const dead = createLanes({ db: store.db, memberId: randomUUID(), ttlMs: 400 });
    await dead.tick();
    expect(dead.held().size).toBe(16);
    const tokens = dead.held();
    const subjects = subjectsOf(30);
    await append(subjects, 3);
    const fake = fakeStream();
    const [a, b] = [relayOver(fake.stream), relayOver(fake.stream)];
    await published();
    await until(() => a.stats().lanes === 8 && b.stats().lanes === 8, { describe: 'eight lanes each' });
    expectOrder(fake.facts, subjects, 3);
    await a.stop();
    await until(() => b.stats().lanes === 16, { describe: 'all lanes' });
    await append(subjects, 1);
    const { rows } = (await store.db.raw(
      `select lane, array_agg(position) as positions from banyan.outbox where published_at is null group by lane limit 1`,
    )) as {
      rows: { lane: number; positions: string[] }[];
    };
    if (rows[0]) {
      const marked = (await store.db.raw(
        'select banyan.relay_mark_records(?, ?::smallint[], ?::bigint[], ?::smallint[], ?::text[], ?::text[], ?::text[]) as marked',
        [
          randomUUID(),
          [rows[0].lane],
          [tokens.get(rows[0].lane)!],
          [rows[0].lane],
          ['x'],
          ['1'],
          [rows[0].positions.join(',')],
        ] as unknown as string[],
      )) as { rows: { marked: number }[] };
      expect(marked.rows).toEqual([{ marked: 0 }]);
    }
    await published();
  });

  it('moves ledger rows on: published with the first fact, done with all, compensated', async () => {
    const write = await store.member();
    const begun = await write.begin(place());
    if (begun.kind !== 'send') throw new Error(begun.kind);
    await write.settle(begun.id, begun.fence, answer(201, { id: 'moved' }));
    const note = place({
      writes: { ...placing, route: 'PUT /api/notes/:id' },
      method: 'PUT',
      target: '/api/notes/rn',
      body: Buffer.from('{"text":"x"}'),
    });
    const tentative = await write.begin(note);
    if (tentative.kind !== 'send') throw new Error(tentative.kind);
    const fake = fakeStream();
    const relay = relayOver(fake.stream);
    await until(async () => (await store.row(begun.id)).state === 'done', { describe: 'done' });
    expect(await store.row(begun.id)).toMatchObject({ sealed_request: null });
    // its tentative fact is out, the command itself is not settled
    await published();
    expect((await store.row(tentative.id)).state).toBe('sent');
    await write.settle(tentative.id, tentative.fence, answer(409));
    relay.wake();
    await until(async () => (await store.row(tentative.id)).state === 'compensated', { describe: 'compensated' });
    const [fact] = await store.db('banyan.outbox').where({ subject: 'moved' });
    expect(fact).toMatchObject({ shard: 'shard-0', sequence_number: expect.any(String) });
  });

  it('says what waits, how old it is, and when it is too much', async () => {
    const fake = fakeStream(() => 'fail');
    const relay = relayOver(fake.stream, { log: silent, maxBacklogBytes: 20_000 });
    await append(subjectsOf(100), 1);
    await until(() => relay.backlog().rows === 100, { describe: 'a count' });
    expect(relay.backlog().bytes).toBeGreaterThan(50_000);
    expect(relay.backlogFull()).toBe(true);
    expect(await relay.oldestUnpublishedAgeMs('order')).toBeGreaterThan(0);
    expect(await relay.oldestUnpublishedAgeMs('inventory')).toBe(0);
    await until(async () => (await store.db('banyan.pressure').first()).capture_paused, { describe: 'capture to pause' });
    expect(relay.trouble()).toBe('the stream refused a record: InternalFailure');
    await store.db('banyan.pressure').update({ capture_paused: false });
  });

  it('holds a subject with a missing sequence and lets the others through', async () => {
    const [held, free] = subjectsOf(2) as [string, string];
    await append([held, free], 3);
    await store.db('banyan.outbox').where({ subject: held, sequence: 2 }).delete();
    const fake = fakeStream();
    relayOver(fake.stream, { log: silent });
    await until(() => fake.facts.filter((fact) => fact.subject === free).length === 3, { describe: 'the free subject' });
    await until(() => fake.facts.some((fact) => fact.subject === held), { describe: 'the first of the held subject' });
    // two more rounds at least
    const calls = fake.calls();
    await append([free], 1);
    await until(() => fake.facts.filter((fact) => fact.subject === free).length === 4, { describe: 'another fact of the free subject' });
    await append([free], 1);
    await until(() => fake.facts.filter((fact) => fact.subject === free).length === 5, { describe: 'and another' });
    expect(fake.calls()).toBeGreaterThan(calls);
    expect(fake.facts.filter((fact) => fact.subject === held)).toEqual([{ subject: held, sequence: 1 }]);
  });
});

describe('the relay and Kinesis', () => {
  it('reports a stream that does not exist, then delivers in order through throttling, a lane to a shard', async () => {
    const kinesis = await startKinesis();
    const credentials = { accessKeyId: 'local', secretAccessKey: 'local' };
    const options = { stream: 'facts', region: 'eu-west-1', endpoint: kinesis.url, credentials };
    const client = new KinesisClient({ endpoint: kinesis.url, region: 'eu-west-1', credentials, requestHandler: new NodeHttpHandler() });
    const subjects = subjectsOf(60);
    await append(subjects, 20);
    const relay = relayOver(createKinesisStream(options), { log: silent });
    await until(() => relay.trouble() === 'stream facts does not exist', { describe: 'the report' });
    await client.send(new CreateStreamCommand({ StreamName: 'facts', ShardCount: 3 }));
    await published();
    expect(relay.trouble()).toBeNull();
    const home = new Map<string, string>();
    const { Shards } = await client.send(new ListShardsCommand({ StreamName: 'facts' }));
    const facts: Fact[] = [];
    for (const shard of Shards ?? []) {
      const first = await client.send(
        new GetShardIteratorCommand({ StreamName: 'facts', ShardId: shard.ShardId, ShardIteratorType: 'TRIM_HORIZON' }),
      );
      let iterator = first.ShardIterator;
      for (let empty = 0; iterator && empty < 2; ) {
        const page = await client.send(new GetRecordsCommand({ ShardIterator: iterator }));
        for (const record of page.Records ?? [])
          for (const fact of factsIn(record.Data!)) {
            expect(home.get(fact.subject) ?? shard.ShardId).toBe(shard.ShardId);
            home.set(fact.subject, shard.ShardId!);
            facts.push(fact);
          }
        empty = (page.Records ?? []).length === 0 ? empty + 1 : 0;
        iterator = page.NextShardIterator;
      }
    }
    expectOrder(facts, subjects, 20);
    expect(new Set(home.values()).size).toBe(3);
    await relay.stop();
    client.destroy();
    await kinesis.stop();
  });
});
