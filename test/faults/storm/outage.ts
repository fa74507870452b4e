import { join } from 'node:path';
import { setTimeout as pause } from 'node:timers/promises';
import { openWorkshop } from '../../../bench/processes.ts';
import { percentile } from '../../../bench/report.ts';
import { readFacts } from '../../harness/facts.ts';
import { check } from './check.ts';
import { startClients, type Told } from './clients.ts';
import { startLegacy } from './legacy.ts';
import { query } from './query.ts';
import { setFaults } from './weather.ts';
import { answering, createStream, startBanyan } from './world.ts';

export type OutageOptions = {
  readonly seed: number;
  /** How long the stream is away. The same time before it is what its latencies are held against, at most a minute. */
  readonly seconds: number;
  readonly perSecond: number;
  readonly say: (line: string) => void;
};

export type OutageReport = {
  readonly commands: number;
  /** Commands that were not answered with a success at their first attempt. */
  readonly client_errors: number;
  /** Commands without a success in the end. */
  readonly unanswered: number;
  readonly p99_before_ms: number;
  readonly p99_during_ms: number;
  readonly p99_ratio: number;
  /** Facts that waited when the stream came back. */
  readonly backlog: number;
  readonly drain_seconds: number;
  /** Bytes of facts a second while the backlog drained, of what the shards take. */
  readonly drain_share_of_limit: number;
  readonly lost: number;
  readonly phantom: number;
  readonly doubled: number;
  readonly acked_missing: number;
  readonly out_of_order: number;
};

const SHARDS = 1;
/** What a shard takes, bytes a second. */
const SHARD_BYTES = 1_048_576;
const PATIENCE_MS = 600_000;

/** A clean monolith, clients at a steady rate, and a stream that is gone for a while: nobody notices, and what waited goes out in order, as fast as shards take it. */
export const outage = async ({ seed, seconds, perSecond, say }: OutageOptions): Promise<OutageReport> => {
  const shop = openWorkshop();
  const legacy = await startLegacy(seed, { failBefore: 0, failAfter: 0, hangAfter: 0, refuse: 0 });
  try {
    const kinesis = (await shop.startNode('dev/kinesis/main.ts', ['--port', '0', '--data', join(shop.folder, 'kinesis')])).urls.kinesis!;
    await createStream(kinesis, SHARDS);
    const world = await startBanyan(shop, legacy.url, kinesis, 'ledger', false);
    await answering(world.urls);
    const waiting = async (): Promise<{ rows: number; bytes: number }> =>
      (
        await query<{ rows: number; bytes: number }>(
          world.store!,
          'select count(*)::int as rows, coalesce(sum(octet_length(envelope)), 0)::float as bytes from banyan.outbox where published_at is null',
        )
      )[0]!;
    const clients = startClients({
      seed,
      urls: world.urls,
      perSecond,
      once: false,
      subjects: 2_000,
      shares: { orders: 0.6, entries: 0.4, rushes: 0 },
    });
    // starting costs more than running
    await pause(3_000);
    const before = performance.now();
    await pause(Math.min(60, seconds) * 1_000);
    const away = performance.now();
    say(`outage: the stream is away for ${seconds} s at ${perSecond} commands/s`);
    await setFaults(kinesis, [{ kind: 'outage' }]);
    await pause(seconds * 1_000);
    const back = performance.now();
    const backlog = await waiting();
    await setFaults(kinesis, []);
    say(`outage: over, ${backlog.rows} facts wait`);
    // what came while it drained went out too
    const publishedAtBack = await published(world.store!);
    let left = backlog;
    while (left.rows > perSecond && performance.now() - back < PATIENCE_MS) {
      await pause(200);
      left = await waiting();
    }
    const drained = performance.now();
    const bytesOut = (await published(world.store!)) - publishedAtBack;
    const told = await clients.finish(60_000);
    while ((await waiting()).rows > 0 && performance.now() - back < PATIENCE_MS) await pause(200);
    const { lost, phantom, doubled, acked_missing, out_of_order } = check(await readFacts(kinesis), legacy.effects, told);
    await world.stop();
    const p99 = (from: number, to: number): number =>
      percentile(
        told.filter(({ at }) => at >= from && at < to).map(({ ms }) => ms),
        0.99,
      );
    const [p99Before, p99During] = [p99(before, away), p99(away, back)];
    const drainSeconds = (drained - back) / 1_000;
    return {
      commands: told.length,
      unanswered: told.filter(({ status }) => status < 200 || status > 299).length,
      client_errors: told.filter((one: Told) => one.attempts > 1 || one.status < 200 || one.status > 299).length,
      p99_before_ms: Math.round(p99Before * 10) / 10,
      p99_during_ms: Math.round(p99During * 10) / 10,
      p99_ratio: Math.round((p99During / p99Before) * 100) / 100,
      backlog: backlog.rows,
      drain_seconds: Math.round(drainSeconds * 10) / 10,
      drain_share_of_limit: Math.round((bytesOut / drainSeconds / (SHARDS * SHARD_BYTES)) * 100) / 100,
      lost,
      phantom,
      doubled,
      acked_missing,
      out_of_order,
    };
  } finally {
    await legacy.stop();
    await shop.close();
  }
};

/** Bytes of facts on the stream. */
const published = async (store: string): Promise<number> =>
  (
    await query<{ bytes: number }>(
      store,
      'select coalesce(sum(octet_length(envelope)), 0)::float as bytes from banyan.outbox where published_at is not null',
    )
  )[0]!.bytes;
