import { createHash } from 'node:crypto';
import { ListShardsCommand, MergeShardsCommand, PutRecordsCommand, SplitShardCommand } from '@aws-sdk/client-kinesis';
import type { Envelope } from '@banyan/contracts/envelope.ts';
import { aggregate } from '@banyan/contracts/kpl.ts';
import { type Consumer, startConsumer } from '@banyan/kit/consumer.ts';
import { project } from '@banyan/kit/handlers.ts';
import { createFanOutKinesis } from '@banyan/kit/kinesis.ts';
import { migrateSchema } from '@banyan/kit/schema.ts';
import { afterAll, beforeAll, expect, it, jest } from '@jest/globals';
import type { Knex } from 'knex';
import { hashKeyOf } from '../../gateway/dual-write/pack.ts';
import { type FreshDatabase, freshDatabase } from '../harness/database.ts';
import { until } from '../harness/wait.ts';
import { fact, openStore, silent, startStream } from './kit-fixtures.ts';

jest.setTimeout(120_000);

const KEYS = 24;
const ROUNDS = 8;

let database: FreshDatabase;
let db: Knex;
/** Facts that lay in blobs of former shards, all graphs together. */
let resent = 0;
beforeAll(async () => {
  database = await freshDatabase('empty');
  db = openStore(database.url);
});
afterAll(async () => {
  await db.destroy();
  await database.drop();
});

type Range = { readonly id: string; readonly start: bigint; readonly end: bigint };
const md5 = (key: string): bigint => BigInt(`0x${createHash('md5').update(key).digest('hex')}`);
const bytes = (envelope: Envelope): Buffer => Buffer.from(JSON.stringify(envelope));

/** Graphs that are drawn: each round splits a shard anywhere or merges two neighbours, before, between and after the facts of the round are put. */
it.each([1, 2, 3, 4, 5])(
  'graph %i: every fact once, every key in order, parents before their children, blobs of former shards included',
  async (seed) => {
    let state = seed * 7919;
    const random = (below: number): number => {
      state = (Math.imul(state, 1_103_515_245) + 12_345) & 0x7fffffff;
      return Math.floor((state / 0x80000000) * below);
    };
    const randomHash = (): bigint => (BigInt(random(2 ** 30)) << 98n) | (BigInt(random(2 ** 30)) << 68n) | BigInt(random(2 ** 30));
    const schema = `svc_graph_${seed}`;
    const rig = await startStream(1 + random(3));
    const fanOut = createFanOutKinesis({ region: 'eu-west-1', endpoint: rig.url });
    const consumers: Consumer[] = [];
    const counted = { held: 0, foreign: 0, malformed: 0, quarantined: 0 };
    try {
      await migrateSchema(db, schema, [
        {
          name: '010-effects',
          up: async (trx) => {
            await trx.raw(
              `create table ${schema}.effect (n bigint generated always as identity primary key, subject text, fact text, sequence int)`,
            );
          },
        },
      ]);
      const handlers = [
        project({
          types: ['thing.done.v1'],
          applyAll: async (trx, facts) => {
            await trx(`${schema}.effect`).insert(
              facts.map(({ id, subject, sequence }) => ({ subject, fact: id, sequence: Number(sequence) })),
            );
          },
        }),
      ];
      for (const pushed of [true, false])
        consumers.push(
          startConsumer({
            kinesis: rig.kinesis,
            ...(pushed ? { fanOut } : {}),
            stream: rig.stream,
            consumer: 'test',
            db,
            schema,
            handlers,
            log: silent,
            pollMs: 20,
            leaseMs: 5000,
            discoverMs: 100,
            onCounts: (counts) => {
              for (const key of Object.keys(counted) as (keyof typeof counted)[]) counted[key] += counts[key];
            },
          }),
        );

      const ranges = async (): Promise<Range[]> =>
        ((await rig.kinesis.send(new ListShardsCommand({ StreamName: rig.stream }))).Shards ?? []).map((shard) => ({
          id: shard.ShardId!,
          start: BigInt(shard.HashKeyRange!.StartingHashKey!),
          end: BigInt(shard.HashKeyRange!.EndingHashKey!),
          open: shard.SequenceNumberRange!.EndingSequenceNumber === undefined,
        }));
      const open = async (): Promise<Range[]> =>
        ((await ranges()) as (Range & { open: boolean })[]).filter((shard) => shard.open).sort((a, b) => (a.start < b.start ? -1 : 1));
      const reshard = async (): Promise<void> => {
        const now = await open();
        const at = random(now.length);
        const shard = now[at]!;
        const neighbour = now[at + 1];
        if (neighbour && (now.length > 6 || random(2) === 0))
          await rig.kinesis.send(
            new MergeShardsCommand({ StreamName: rig.stream, ShardToMerge: shard.id, AdjacentShardToMerge: neighbour.id }),
          );
        else {
          const width = shard.end - shard.start - 4n;
          const NewStartingHashKey = String(shard.start + 3n + (randomHash() % width));
          await rig.kinesis.send(new SplitShardCommand({ StreamName: rig.stream, ShardToSplit: shard.id, NewStartingHashKey }));
        }
      };
      type Blob = { readonly hash: bigint; readonly members: readonly Envelope[]; readonly relay: boolean };
      const put = async (blob: Blob): Promise<string> => {
        const Data = aggregate(
          blob.members.map((each) => ({
            partitionKey: each.partitionkey,
            ...(blob.relay ? { explicitHashKey: String(blob.hash) } : {}),
            data: bytes(each),
          })),
        );
        const answer = await rig.kinesis.send(
          new PutRecordsCommand({
            StreamName: rig.stream,
            Records: [{ PartitionKey: blob.members[0]!.partitionkey, ExplicitHashKey: String(blob.hash), Data }],
          }),
        );
        return answer.Records![0]!.ShardId!;
      };
      let again = 0;
      for (let round = 0; round < ROUNDS; round += 1) {
        const facts = Array.from({ length: KEYS }, (_, key) =>
          [1, 2].map((n) => fact('thing.done.v1', `k${key}`, {}, { sequence: round * 2 + n })),
        );
        // half of the keys as the relay packs them, the others as the KPL does: by the shards that it knew
        const blobs: Blob[] = [];
        for (const lane of [3, 9, 14])
          blobs.push({
            hash: BigInt(hashKeyOf(lane)),
            relay: true,
            members: facts.filter((_, key) => key % 6 === [3, 9, 14].indexOf(lane)).flat(),
          });
        const map = await open();
        for (const { start, end } of map) {
          const members = facts
            .filter((each, key) => key % 6 >= 3 && md5(each[0]!.partitionkey) >= start && md5(each[0]!.partitionkey) <= end)
            .flat();
          if (members.length > 0) blobs.push({ hash: md5(members[0]!.partitionkey), relay: false, members });
        }
        for (const blob of blobs) {
          if (random(4) === 0) await reshard();
          const shardId = await put(blob);
          if (blob.relay) continue;
          const { start, end } = (await ranges()).find(({ id }) => id === shardId)!;
          // whoever packs for shards sends again what another shard should have had
          for (const each of blob.members) {
            const hash = md5(each.partitionkey);
            if (hash >= start && hash <= end) continue;
            again += 1;
            await rig.kinesis.send(
              new PutRecordsCommand({ StreamName: rig.stream, Records: [{ PartitionKey: each.partitionkey, Data: bytes(each) }] }),
            );
          }
        }
      }
      resent += again;
      const total = KEYS * ROUNDS * 2;
      const effects = (): Promise<{ subject: string; fact: string; sequence: number }[]> => db(`${schema}.effect`).orderBy('n');
      await until(async () => (await effects()).length >= total, { describe: 'all effects', timeoutMs: 60_000 });
      const seen = new Map<string, number>();
      for (const { subject, sequence } of await effects()) {
        expect([subject, sequence]).toEqual([subject, (seen.get(subject) ?? 0) + 1]);
        seen.set(subject, sequence);
      }
      expect([...seen.values()]).toEqual(Array.from({ length: KEYS }, () => ROUNDS * 2));
      // nobody ever had to wait for a fact of a parent, and what was dropped is what was sent again
      expect(counted).toEqual({ held: 0, foreign: again, malformed: 0, quarantined: 0 });
    } finally {
      for (const consumer of consumers) await consumer.stop();
      fanOut.destroy();
      await rig.stop();
    }
  },
);

it('the graphs made blobs go astray', () => expect(resent).toBeGreaterThan(0));
