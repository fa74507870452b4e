/** Named moments that the two ends of a play wait for; each comes once and stays. */
export type Signals = { give(name: string): void; wait(name: string): Promise<void> };

export const createSignals = (): Signals => {
  const moments = new Map<string, PromiseWithResolvers<void>>();
  const momentOf = (name: string): PromiseWithResolvers<void> => {
    const known = moments.get(name) ?? Promise.withResolvers<void>();
    moments.set(name, known);
    return known;
  };
  return { give: (name) => momentOf(name).resolve(), wait: (name) => momentOf(name).promise };
};
