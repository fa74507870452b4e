import { once } from 'node:events';
import { setTimeout as pause } from 'node:timers/promises';
import type { KinesisClient } from '@aws-sdk/client-kinesis';
import { migrateSchema } from '@banyan/kit/schema.ts';
import type { Knex } from 'knex';
import type { Started, Workshop } from '../../bench/processes.ts';
import { fact, publish } from '../contract/kit-fixtures.ts';
import { until } from '../harness/wait.ts';

export const SCHEMA = 'svc_readers';

export type Lab = {
  readonly db: Knex;
  readonly databaseUrl: string;
  readonly workshop: Workshop;
  readonly rig: { readonly url: string; readonly stream: string; readonly kinesis: KinesisClient };
};
type Env = Readonly<Record<string, string>>;

const prepare = ({ db }: Lab): Promise<void> =>
  migrateSchema(db, SCHEMA, [
    {
      name: '010-effects',
      up: async (trx) => {
        // nothing here keeps an effect from happening twice
        await trx.raw(
          `create table ${SCHEMA}.effect (n bigint generated always as identity primary key, subject text, fact text, sequence int, pid int)`,
        );
      },
    },
  ]);

const start = ({ workshop, databaseUrl, rig }: Lab, env: Env): Promise<Started> =>
  workshop.startNode('test/readers/reader.ts', [], {
    env: { DATABASE_URL: databaseUrl, KINESIS_ENDPOINT: rig.url, STREAM: rig.stream, ...env },
  });

/** Facts of `keys` subjects, each round the next of every one. */
const publisher = (lab: Lab, keys: number) => {
  let sequence = 0;
  return {
    rounds: () => sequence,
    round: async (): Promise<void> => {
      sequence += 1;
      await publish(
        lab.rig,
        Array.from({ length: keys }, (_, key) => fact('thing.done.v1', `k${key}`, {}, { sequence })),
      );
    },
  };
};

const effectsOf = async ({ db }: Lab): Promise<number> =>
  Number(((await db(`${SCHEMA}.effect`).count('* as n').first()) as { n: string }).n);

/** Waits for everything to be applied, then looks for what was lost, doubled or out of order. */
const faultsOf = async (lab: Lab, keys: number, rounds: number): Promise<string[]> => {
  await until(async () => (await effectsOf(lab)) >= keys * rounds, { describe: 'all effects', timeoutMs: 60_000, intervalMs: 100 });
  const { rows } = await lab.db.raw<{ rows: { subject: string; sequences: number[] }[] }>(
    `select subject, array_agg(sequence order by n) as sequences from ${SCHEMA}.effect group by subject`,
  );
  const expected = Array.from({ length: rounds }, (_, n) => n + 1).join();
  const faults = rows
    .filter(({ sequences }) => sequences.join() !== expected)
    .map(({ subject, sequences }) => `${subject}: ${sequences.join()}`);
  return rows.length === keys ? faults : [...faults, `${rows.length} subjects, not ${keys}`];
};

const owners = async ({ db }: Lab): Promise<Map<string, number>> => {
  const { rows } = await db.raw<{ rows: { owner: string; n: string }[] }>(
    `select owner, count(*) as n from ${SCHEMA}.lease where owner is not null and until >= clock_timestamp() group by owner`,
  );
  return new Map(rows.map(({ owner, n }) => [owner, Number(n)]));
};

export type Stopped = {
  readonly stops: number;
  readonly inPage: number;
  readonly fenced: number;
  readonly facts: number;
  readonly faults: readonly string[];
};

/**
 * Two readers. One is stopped (SIGSTOP), every other time in the middle of a page, for longer than its lease; the other takes its shards and goes on. Then it goes on too (SIGCONT),
 * with what it had in its hands.
 */
export const stopOne = async (lab: Lab, options: { leaseMs: number; stopMs: number; stops: number }): Promise<Stopped> => {
  const KEYS = 16;
  const { leaseMs, stopMs, stops } = options;
  await prepare(lab);
  const facts = publisher(lab, KEYS);
  const env = { LEASE_MS: String(leaseMs), PAGE_MS: '150' };
  const readers = [await start(lab, env), await start(lab, env)];
  let fenced = 0;
  for (const { child } of readers)
    child.stderr!.setEncoding('utf8').on('data', (text: string) => {
      fenced += text.match(/another instance|idle-in-transaction|Connection terminated|terminating connection/g)?.length ? 1 : 0;
    });
  await until(async () => (await owners(lab)).size === 2, { describe: 'both to hold shards', timeoutMs: 60_000 });
  let inPage = 0;
  for (let n = 0; n < stops; n += 1) {
    const [victim, other] = n % 2 === 0 ? readers : [...readers].reverse();
    const middle = n % 4 < 2;
    if (middle) {
      const page = once(victim!.child, 'message');
      await facts.round();
      await page;
      inPage += 1;
    }
    victim!.child.kill('SIGSTOP');
    const stoppedAt = performance.now();
    await facts.round();
    // the other reads what was the victim's, too
    await until(async () => (await owners(lab)).size === 1, { describe: 'the other to hold all shards', timeoutMs: 60_000 });
    await until(async () => (await effectsOf(lab)) >= KEYS * facts.rounds(), { describe: 'the other to apply all', timeoutMs: 60_000 });
    await pause(Math.max(0, stopMs - (performance.now() - stoppedAt)));
    victim!.child.kill('SIGCONT');
    await facts.round();
    await until(async () => (await effectsOf(lab)) >= KEYS * facts.rounds(), { describe: 'all to be applied', timeoutMs: 60_000 });
    await until(async () => (await owners(lab)).size === 2, {
      describe: 'the one that was stopped to get its share again',
      timeoutMs: 60_000,
    });
    if (other!.child.exitCode !== null) throw new Error('the other reader ended');
  }
  const faults = await faultsOf(lab, KEYS, facts.rounds());
  for (const reader of readers) await reader.stop();
  return { stops, inPage, fenced, facts: KEYS * facts.rounds(), faults };
};

export type Killed = {
  readonly kills: number;
  readonly facts: number;
  readonly committed: number;
  readonly seconds: number;
  readonly faults: readonly string[];
};

/** Readers that kill themselves (SIGKILL) at their first page: before, while or after it commits. `committed` = how many pages were committed by one that died at it. */
export const killMany = async (lab: Lab, options: { kills: number; atOnce: number; leaseMs: number }): Promise<Killed> => {
  const KEYS = 8;
  const startedAt = performance.now();
  await prepare(lab);
  const facts = publisher(lab, KEYS);
  let begun = 0;
  let kills = 0;
  const pids = new Set<number>();
  await facts.round();
  const slot = async (): Promise<void> => {
    while (begun < options.kills) {
      begun += 1;
      const reader = await start(lab, { LEASE_MS: String(options.leaseMs), POLL_MS: '20', DIE: 'yes' });
      pids.add(reader.pid);
      const over = once(reader.child, 'exit');
      let ended = reader.child.signalCode !== null;
      void over.then(() => {
        ended = true;
      });
      // until it has found something to die at
      for (let waited = 0; !ended; waited += 1) {
        if (waited % 10 === 0) await facts.round();
        await Promise.race([over, pause(50)]);
      }
      if (reader.child.signalCode !== 'SIGKILL') throw new Error(`a reader ended with ${reader.child.exitCode}`);
      kills += 1;
    }
  };
  await Promise.all(Array.from({ length: options.atOnce }, slot));
  const { rows } = await lab.db.raw<{ rows: [{ n: string }] }>(`select count(distinct pid) as n from ${SCHEMA}.effect`);
  const last = await start(lab, { LEASE_MS: String(options.leaseMs) });
  const faults = await faultsOf(lab, KEYS, facts.rounds());
  await last.stop();
  const seconds = Math.round(performance.now() - startedAt) / 1000;
  return { kills, facts: KEYS * facts.rounds(), committed: Number(rows[0].n), seconds, faults };
};

export type Churned = {
  readonly changes: number;
  readonly shards: number;
  readonly longestUnownedMs: number;
  readonly leaseMs: number;
  readonly handedOver: number;
  readonly facts: number;
  readonly faults: readonly string[];
};

/** Eight readers share the shards; every `everyMs` one goes (SIGTERM and SIGKILL in turn) and another comes. Looks every 50 ms for shards that nobody owns. */
export const churn = async (
  lab: Lab,
  options: { leaseMs: number; instances: number; shards: number; changes: number; everyMs: number },
): Promise<Churned> => {
  const { leaseMs, instances, shards, changes, everyMs } = options;
  const KEYS = shards * 4;
  await prepare(lab);
  const facts = publisher(lab, KEYS);
  const env = { LEASE_MS: String(leaseMs), POLL_MS: '500' };
  const readers = await Promise.all(Array.from({ length: instances }, () => start(lab, env)));
  const owned = async (): Promise<Set<string>> => {
    const { rows } = await lab.db.raw<{ rows: { shard_id: string }[] }>(
      `select shard_id from ${SCHEMA}.lease where owner is not null and until >= clock_timestamp()`,
    );
    return new Set(rows.map((row) => row.shard_id));
  };
  await until(async () => (await owned()).size === shards && (await owners(lab)).size === instances, {
    describe: 'all shards to be owned, and each reader to own some',
    timeoutMs: 60_000,
  });
  const all = [...(await owned())];
  let longestUnownedMs = 0;
  let over = false;
  const since = new Map<string, number>();
  const tokens = async (): Promise<number> => Number(((await lab.db(`${SCHEMA}.lease`).sum('token as n').first()) as { n: string }).n);
  const tokensBefore = await tokens();
  const watch = (async () => {
    while (!over) {
      const held = await owned();
      const now = performance.now();
      for (const shard of all) {
        if (held.has(shard)) since.delete(shard);
        else if (!since.has(shard)) since.set(shard, now);
        longestUnownedMs = Math.max(longestUnownedMs, now - (since.get(shard) ?? now));
      }
      await pause(50);
    }
  })();
  const feed = (async () => {
    while (!over) {
      await facts.round();
      await pause(400);
    }
  })();
  for (let n = 0; n < changes; n += 1) {
    await pause(everyMs);
    const gone = readers.shift()!;
    if (n % 2 === 0) gone.child.kill('SIGTERM');
    else gone.child.kill('SIGKILL');
    readers.push(await start(lab, env));
  }
  await pause(everyMs);
  over = true;
  await Promise.all([watch, feed]);
  const faults = await faultsOf(lab, KEYS, facts.rounds());
  if (longestUnownedMs > 2 * leaseMs) faults.push(`a shard was unowned for ${Math.round(longestUnownedMs)} ms`);
  const handedOver = (await tokens()) - tokensBefore;
  for (const reader of readers) await reader.stop();
  return { changes, shards, longestUnownedMs: Math.round(longestUnownedMs), leaseMs, handedOver, facts: KEYS * facts.rounds(), faults };
};
