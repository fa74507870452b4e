import { setTimeout as pause } from 'node:timers/promises';
import { inspect } from 'node:util';

/** How much slower than an idle machine the one may be that runs the tests: nothing that a test waits for may be missed by wall speed alone. */
export const PATIENCE = 4;

export type WaitOptions = {
  /** What is waited for, as it should read after "waited 10000 ms for". */
  describe: string;
  /** What is ample on an idle machine, default 10,000; a busy one is given `PATIENCE` times that. It only decides how long a failing test takes. */
  timeoutMs?: number;
  /** Between two looks; default 20. */
  intervalMs?: number;
};

const isSet = (value: unknown): boolean => value !== false && value !== null && value !== undefined;

/**
 * Looks again and again until `condition` gives anything but `false`, `null` or `undefined`, and returns that. A throw counts as "not yet".
 * @throws Error that names what was waited for, and the last value or error seen
 */
export const until = async <T>(condition: () => T | Promise<T>, options: WaitOptions): Promise<NonNullable<Exclude<T, false>>> => {
  const { describe, intervalMs = 20 } = options;
  const timeoutMs = (options.timeoutMs ?? 10_000) * PATIENCE;
  const deadline = performance.now() + timeoutMs;
  let seen = '';
  let looks = 0;
  const look = async (): Promise<T | undefined> => {
    try {
      const value = await condition();
      seen = `last value: ${inspect(value, { depth: 4, breakLength: 200 })}`;
      return value;
    } catch (error) {
      seen = `last error: ${error instanceof Error ? error.message : String(error)}`;
      return undefined;
    }
  };
  for (;;) {
    const value = await look();
    looks += 1;
    if (isSet(value)) return value as NonNullable<Exclude<T, false>>;
    if (performance.now() >= deadline) throw new Error(`waited ${timeoutMs} ms for ${describe}: not so in ${looks} looks; ${seen}`);
    await pause(intervalMs);
  }
};
