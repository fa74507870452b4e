import { afterAll, beforeAll, beforeEach, expect, it, jest } from '@jest/globals';
import type { Knex } from 'knex';
import { openWorkshop, type Workshop } from '../../bench/processes.ts';
import { openStore, startStream } from '../contract/kit-fixtures.ts';
import { type FreshDatabase, freshDatabase } from '../harness/database.ts';
import { killMany, type Lab, SCHEMA, stopOne } from './lab.ts';

/** Short versions of `npm run readers`: real processes, time scaled. */
jest.setTimeout(180_000);

let database: FreshDatabase;
let db: Knex;
let workshop: Workshop;
let rig: Awaited<ReturnType<typeof startStream>>;

beforeAll(async () => {
  database = await freshDatabase('empty');
  db = openStore(database.url);
  workshop = openWorkshop();
});
beforeEach(async () => {
  await db.raw(`drop schema if exists ${SCHEMA} cascade`);
});
afterAll(async () => {
  await workshop.close();
  await db.destroy();
  await database.drop();
});
const lab = async (play: (lab: Lab) => Promise<void>): Promise<void> => {
  rig = await startStream(4);
  await play({ db, databaseUrl: database.url, workshop, rig }).finally(() => rig.stop());
};

it('a reader that stood still beyond its lease writes nothing any more, and every fact has one effect', () =>
  lab(async (all) => {
    const report = await stopOne(all, { leaseMs: 1500, stopMs: 3500, stops: 2 });
    expect(report).toMatchObject({ stops: 2, inPage: 2, faults: [] });
    expect(report.fenced).toBeGreaterThan(0);
  }));

it('readers killed before, while and after their page commits: every fact has one effect', () =>
  lab(async (all) => {
    const report = await killMany(all, { kills: 9, atOnce: 3, leaseMs: 500 });
    expect(report).toMatchObject({ kills: 9, faults: [] });
  }));
