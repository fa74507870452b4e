/** Somebody at the machine wants every context killed. */
export type KillSignal = {
  /** Runs at each SIGUSR1 from now on, and at once when one has come already. */
  on(then: () => void): void;
};

let expected: KillSignal | null = null;

/** From now on SIGUSR1 does not open Node's debugger. To be called as early as can be; later calls give the same. */
export const expectKillSignal = (): KillSignal => {
  expected ??= listen();
  return expected;
};

const listen = (): KillSignal => {
  let asked = false;
  let act: (() => void) | null = null;
  process.on('SIGUSR1', () => {
    asked = true;
    act?.();
  });
  return {
    on(then) {
      act = then;
      if (asked) then();
    },
  };
};
