import { expect, it } from '@jest/globals';
import { freshDatabase } from '../harness/database.ts';
import { moveUnderLoad } from './moves.ts';

it('moves a stage to and fro under load without losing, doubling, resetting or tearing a request', async () => {
  const { url, drop } = await freshDatabase('store');
  const report = await moveUnderLoad({
    database: url,
    seconds: 5,
    moves: 15,
    perSecond: 100,
    replicas: 2,
    workers: 2,
    say: () => undefined,
  });
  expect(report).toMatchObject({ moves: 15, lost: 0, resets: 0, doubled: 0, copiedTwice: 0, torn: 0, faults: [] });
  expect(report.requests).toBeGreaterThan(300);
  await drop();
}, 180_000);
