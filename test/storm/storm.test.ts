import { expect, it } from '@jest/globals';
import { freshDatabase } from '../harness/database.ts';
import { storm } from './storm.ts';

it('conserves money, stock and parcels while every step of every saga fails, hangs or answers late, and orchestrators die', async () => {
  const database = await freshDatabase('store');
  const report = await storm({ databaseUrl: database.url, sagas: 24, kills: 4, seed: 7, patienceMs: 90_000 });
  expect(report.faults).toEqual([]);
  expect(report.disturbed).toBeGreaterThan(10);
  // both ways are taken
  expect(report.states.done).toBeGreaterThan(0);
  expect(report.states.compensated).toBeGreaterThan(0);
  await database.drop();
}, 270_000);
