import { randomUUID } from 'node:crypto';
import { readdir } from 'node:fs/promises';
import { join } from 'node:path';
import { deaggregate } from '@banyan/contracts/kpl.ts';
import { afterEach, describe, expect, it } from '@jest/globals';
import knex, { type Knex } from 'knex';
import { turnOutboxOver } from '../../gateway/dual-write/outbox.ts';
import { createRelay } from '../../gateway/dual-write/relay.ts';
import { seedFlags } from '../../gateway/flags/flag-store.ts';
import { type FreshDatabase, freshDatabase } from '../harness/database.ts';
import { until } from '../harness/wait.ts';
import { quiet } from './ledger-kit.ts';

let database: FreshDatabase | undefined;
let db: Knex;
const open = async (kind: 'store' | 'empty'): Promise<void> => {
  database = await freshDatabase(kind);
  db = knex({ client: 'pg', connection: database.url, pool: { min: 0, max: 6 } });
};
afterEach(async () => {
  await db.destroy();
  await database?.drop();
});

const append = (subject: string, context = 'order') =>
  db.raw(`select * from banyan.append_fact(?, 'legacy', 'order.placed.v1', ?, '{"a":1}', 'capture')`, [context, subject]);
const parts = async (): Promise<string[]> =>
  (
    (await db.raw(`select relid::regclass::text as name from pg_partition_tree('banyan.outbox') where isleaf`)) as {
      rows: { name: string }[];
    }
  ).rows.map(({ name }) => name.replace('banyan.', ''));

/** Everything that waits goes out; what went out, in its order. */
const relayed = async (): Promise<string[]> => {
  const sent: string[] = [];
  const relay = createRelay({
    db,
    memberId: randomUUID(),
    stream: {
      put: async (records) =>
        records.map(({ data }, i) => {
          for (const one of deaggregate(data)?.map((member) => member.data) ?? [data]) {
            const { subject, sequence } = JSON.parse(Buffer.from(one).toString()) as { subject: string; sequence: string };
            sent.push(`${subject} ${Number(sequence)}`);
          }
          return { ok: true, shardId: 's', sequenceNumber: `${i}` };
        }),
      check: async () => 'ready',
      close: () => {},
    },
    log: quiet,
    maxBacklogBytes: 1e9,
  });
  relay.start();
  await until(async () => !(await db('banyan.outbox').whereNull('published_at').first()), { describe: 'nothing to wait' });
  await relay.stop();
  return sent;
};
/** Moves what is there into the part of an hour that is over. */
const age = async (hours: number): Promise<string> => {
  const { rows } = (await db.raw('select floor(extract(epoch from now()) / 3600)::bigint - ? as hour', [hours])) as {
    rows: [{ hour: string }];
  };
  const [{ hour }] = rows;
  await db.raw(`create table banyan.outbox_${hour} (like banyan.outbox including defaults including constraints)`);
  await db.raw(
    `alter table banyan.outbox attach partition banyan.outbox_${hour} for values from (${BigInt(hour) << 40n}) to (${(BigInt(hour) + 1n) << 40n})`,
  );
  await db.raw(`update banyan.outbox set position = (?::bigint << 40) | (position & 1099511627775)`, [hour]);
  return `outbox_${hour}`;
};

describe('the outbox by the hour', () => {
  it('takes over what was there before, sent or waiting, and goes on counting', async () => {
    await open('empty');
    const folder = join(import.meta.dirname, '../../gateway/migrations');
    const names = (await readdir(folder)).filter((name) => /^[0-9]{3}-.*\.ts$/.test(name)).sort();
    const run = (name: string) =>
      db.transaction(async (trx) => ((await import(join(folder, name))) as { up: (on: Knex) => Promise<void> }).up(trx));
    await db.raw('create schema banyan');
    for (const name of names.filter((one) => one < '062')) await run(name);
    await db('banyan.context').insert({ name: 'order', stage: 'shadow' });
    for (const subject of ['a', 'a', 'b']) await append(subject);
    await db('banyan.outbox').where({ subject: 'a', sequence: 1 }).update({ published_at: 'epoch' });
    for (const name of names.filter((one) => one >= '062')) await run(name);
    await append('a');
    await append('c');
    expect(
      (await db('banyan.outbox').orderBy('position').select('subject', 'sequence')).map((row) => `${row.subject} ${row.sequence}`),
    ).toEqual(['a 1', 'a 2', 'b 1', 'a 3', 'c 1']);
    expect((await relayed()).sort()).toEqual(['a 2', 'a 3', 'b 1', 'c 1']);
    expect(await turnOutboxOver(db, 0)).toMatchObject({ dropped: 1 });
    expect(await parts()).not.toContain('outbox_before');
  });

  it('drops a part once all of it is on the stream for long enough, and the next fact of its series still follows', async () => {
    await open('store');
    await db('banyan.context').insert({ name: 'order', stage: 'shadow' });
    await append('a');
    await append('a');
    await append('b');
    await relayed();
    const old = await age(30);
    expect((await turnOutboxOver(db, 3_600_000)).dropped).toBe(1); // the empty one from before
    await db('banyan.outbox').update({ published_at: 'epoch' });
    await db('banyan.outbox').where({ subject: 'b' }).update({ published_at: null });
    expect((await turnOutboxOver(db, 3_600_000)).dropped).toBe(0);
    await db('banyan.outbox').where({ subject: 'b' }).update({ published_at: 'epoch' });
    expect(await turnOutboxOver(db, 3_600_000)).toMatchObject({ dropped: 1 });
    expect(await parts()).not.toContain(old);
    expect(await db('banyan.outbox').select()).toEqual([]);
    await append('a');
    await append('b');
    expect((await relayed()).sort()).toEqual(['a 3', 'b 2']);
  });

  it('prepares the hours to come, and keeps what nobody prepared for', async () => {
    await open('store');
    await db('banyan.context').insert({ name: 'order', stage: 'shadow' });
    expect((await turnOutboxOver(db, 0)).made).toBeGreaterThan(15);
    expect((await turnOutboxOver(db, 0)).made).toBe(0);
    const here = (await parts()).filter((name) => /^outbox_\d+$/.test(name));
    expect(here.length).toBeGreaterThan(20);
    for (const name of here) await db.raw(`drop table banyan.${name}`);
    await append('a');
    expect(await db('banyan.outbox_rest').select('subject')).toEqual([{ subject: 'a' }]);
    // the hour that stands there is left alone, the others are made
    await turnOutboxOver(db, 0);
    expect(await db('banyan.outbox_rest').select('subject')).toEqual([{ subject: 'a' }]);
    expect(await relayed()).toEqual(['a 1']);
    await turnOutboxOver(db, -1_000);
    expect(await db('banyan.outbox').select()).toEqual([]);
    await append('a');
    expect(await relayed()).toEqual(['a 2']);
  });

  it('finds at once what a long transaction commits into an hour that seemed to be over', async () => {
    await open('store');
    await db('banyan.context').insert({ name: 'order', stage: 'shadow' });
    await append('late');
    await age(5);
    expect(await relayed()).toEqual(['late 1']);
  });
});

describe('how the facts of a context are spread', () => {
  const spread = async (partition: object | null, rounds: number) => {
    await open('store');
    await seedFlags(
      db,
      [{ name: 'order', group: null, stage: 'shadow', canaryShareBp: 0, partition: (partition ?? 'aggregate') as never }],
      new Set(),
    );
    for (let n = 0; n < rounds; n += 1) for (const subject of ['a', 'b', 'c', 'd', 'e', 'f']) await append(subject);
    const rows = (await db('banyan.outbox').select('lane', 'envelope', 'subject')) as { lane: number; envelope: string; subject: string }[];
    return rows.map(({ lane, envelope, subject }) => ({
      lane,
      subject,
      key: (JSON.parse(envelope) as { partitionkey: string }).partitionkey,
    }));
  };

  it('is by aggregate, unless its file says otherwise', async () => {
    const rows = await spread(null, 2);
    expect(rows.every(({ key, subject }) => key === subject)).toBe(true);
    expect(new Set(rows.map(({ lane, subject }) => `${lane} ${subject}`)).size).toBe(6);
  });

  it('keeps to the slots that are named, each aggregate to one of them', async () => {
    const rows = await spread({ slots: [3, 12] }, 2);
    expect([...new Set(rows.map(({ lane }) => lane))].sort((a, b) => a - b)).toEqual([3, 12]);
    expect(new Set(rows.map(({ lane, subject }) => `${lane} ${subject}`)).size).toBe(6);
    expect((await relayed()).length).toBe(12);
  });

  it('spreads an aggregate over several keys where its order is waived, and nothing waits', async () => {
    const rows = await spread({ shards: 4 }, 9);
    expect(new Set(rows.filter(({ subject }) => subject === 'a').map(({ key }) => key))).toEqual(new Set(['a#0', 'a#1', 'a#2', 'a#3']));
    expect(new Set(rows.map(({ lane }) => lane)).size).toBeGreaterThan(6);
    const sent = await relayed();
    expect(sent.filter((one) => one.startsWith('a ')).sort()).toEqual(Array.from({ length: 9 }, (_, i) => `a ${i + 1}`));
  });
});
