import type { Config } from '../config.ts';

/**
 * One worker's share of what the configuration promises for the whole gateway: connections and rates are divided, rounded up, so that no worker is
 * left without. A breaker's judgement stays as it is: each worker judges by what it sees itself (docs/operations.md).
 */
export const shareOf = (config: Config, workers: number): Config => {
  if (workers === 1) return config;
  const part = (all: number): number => Math.max(1, Math.ceil(all / workers));
  return {
    ...config,
    client: { ...config.client, maxConnections: part(config.client.maxConnections) },
    legacy: { ...config.legacy, connections: part(config.legacy.connections) },
    contexts: Object.fromEntries(
      Object.entries(config.contexts).map(([name, context]) => [
        name,
        {
          ...context,
          extracted: context.extracted && { ...context.extracted, connections: part(context.extracted.connections) },
          breaker: { ...context.breaker, capacity: part(context.breaker.capacity) },
          shadow: {
            ...context.shadow,
            maxPerSecond: context.shadow.maxPerSecond / workers,
            concurrency: part(context.shadow.concurrency),
          },
        },
      ]),
    ),
  };
};
