import { closeSync, openSync, readFileSync } from 'node:fs';
import { mkdtemp, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { setImmediate as turn } from 'node:timers/promises';
import { logLines } from '@banyan/gateway/telemetry/log-lines.ts';
import { expect, it } from '@jest/globals';
import { until } from '../harness/wait.ts';

it('writes every line once and in order, however they come', async () => {
  const folder = await mkdtemp(join(tmpdir(), 'banyan-log-'));
  const file = join(folder, 'log');
  const fd = openSync(file, 'a');
  const lines = logLines(fd);
  const expected: string[] = [];
  for (let burst = 0; burst < 200; burst++) {
    for (let i = 0; i < burst; i++) {
      const line = `${burst}.${i} ${'ü'.repeat(burst)}\n`;
      expected.push(line);
      lines.write(line);
    }
    await turn();
  }
  const whole = expected.join('');
  await until(() => readFileSync(file, 'utf8').length >= whole.length, { describe: 'the last line' });
  expect(readFileSync(file, 'utf8')).toBe(whole);
  closeSync(fd);
  await rm(folder, { recursive: true });
});
