import { expect, it } from '@jest/globals';
import { soak } from './soak.ts';

it('lets nothing reach clients but what a dying upstream or worker caused, and leaks nothing', async () => {
  const report = await soak({ seconds: 12, workers: 2, reloadEvery: 1, restartEvery: 4, killEvery: 3, say: () => undefined });
  expect(report).toMatchObject({ unexplained: [], lost: 0, doubled: 0 });
  expect(report.visits).toBeGreaterThan(100);
  expect(Math.min(report.reloads, report.restarts, report.workerKills)).toBeGreaterThan(0);
  expect(report.timersAfter - report.timersBefore).toBeLessThanOrEqual(10);
  for (const { filesBefore, filesAfter } of report.processes) expect(filesAfter - filesBefore).toBeLessThanOrEqual(10);
}, 180_000);
