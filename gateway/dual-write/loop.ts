/** Something done again and again, never twice at a time, until stopped. */
export type Loop = {
  readonly start: () => void /** Skips the pause; no-op before start. */;
  readonly wake: () => void /** Resolves when the round under way is over. */;
  readonly stop: () => Promise<void>;
};

/** @param round does one round and says how many ms to pause; it must not throw. */
export const createLoop = (round: () => Promise<number>): Loop => {
  let running: Promise<void> | undefined;
  let stopped = false;
  let woken = false;
  let cutShort: (() => void) | undefined;
  const rest = (ms: number): Promise<void> =>
    new Promise((resolve) => {
      const timer = setTimeout(resolve, ms);
      cutShort = () => {
        clearTimeout(timer);
        resolve();
      };
    });
  const run = async (): Promise<void> => {
    while (!stopped) {
      woken = false;
      const pauseMs = await round();
      if (stopped || woken) continue;
      await rest(pauseMs);
      cutShort = undefined;
    }
  };
  return {
    start: () => {
      running ??= run();
    },
    wake: () => {
      woken = true;
      cutShort?.();
    },
    stop: async () => {
      stopped = true;
      cutShort?.();
      await running;
    },
  };
};
