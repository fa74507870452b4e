import { setTimeout as pause } from 'node:timers/promises';
import type { Started } from '../../../bench/processes.ts';

/** A process that is started again whenever it ends. */
export type Kept = {
  readonly pid: () => number | null /** Since it was ready; 0 = it is not. */;
  readonly upMs: () => number;
  readonly stop: () => Promise<void>;
};
export const keep = (start: () => Promise<Started>): Kept => {
  let current: Started | null = null;
  let readyAt = 0;
  let stopped = false;
  const run = async (): Promise<void> => {
    while (!stopped) {
      try {
        const started = await start();
        current = started;
        readyAt = performance.now();
        if (stopped) await started.stop();
        else if (started.child.exitCode === null && started.child.signalCode === null)
          await new Promise((resolve) => started.child.once('exit', resolve));
      } catch {
        await pause(100);
      }
      current = null;
    }
  };
  const running = run();
  return {
    pid: () => current?.pid ?? null,
    upMs: () => (current === null ? 0 : performance.now() - readyAt),
    stop: async () => {
      stopped = true;
      await current?.stop();
      await running;
    },
  };
};
