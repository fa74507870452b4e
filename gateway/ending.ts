/** When somebody wants the process to end. */
export type Ending = {
  /** Resolves at the first SIGTERM or SIGINT. */
  readonly asked: Promise<void>;
  /** Which it was; null = nobody asked yet. */
  readonly signal: NodeJS.Signals | null;
  /** Runs at each further one. */
  again(then: () => void): void;
};

let expected: Ending | null = null;

/** From now on SIGTERM and SIGINT end nothing by themselves, in the whole process. To be called as early as can be; later calls give the same. */
export const expectEnding = (): Ending => {
  expected ??= listen();
  return expected;
};

const listen = (): Ending => {
  let signal: NodeJS.Signals | null = null;
  let ask = (): void => undefined;
  let again = (): void => undefined;
  const asked = new Promise<void>((resolve) => {
    ask = resolve;
  });
  for (const name of ['SIGTERM', 'SIGINT'] as const)
    process.on(name, () => {
      if (signal !== null) again();
      signal ??= name;
      ask();
    });
  return {
    asked,
    get signal() {
      return signal;
    },
    again(then) {
      again = then;
    },
  };
};
