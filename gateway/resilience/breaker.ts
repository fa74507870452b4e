import { AppError } from '@banyan/contracts/errors.ts';
import type { BreakerState } from '@banyan/contracts/vocabulary.ts';
import CircuitBreaker from 'opossum';

export type BreakerOptions = {
  readonly errorThresholdPercentage: number;
  readonly volumeThreshold: number;
  readonly resetTimeoutMs: number;
  /** Requests in flight. */
  readonly capacity: number;
};

/** Guards one extracted service in one process. */
export type Breaker = {
  /**
   * Runs `work`. What it throws counts against the service unless it is a client that left; an answer that `failed` calls a failure counts too,
   * yet is given back.
   * @throws AppError `breaker-open` (sent: no) when open or at capacity.
   */
  run<T>(work: () => Promise<T>, failed: (result: T) => boolean): Promise<T>;
  readonly state: BreakerState;
  onState(listener: (state: BreakerState) => void): void;
  stop(): void;
};

/** Carries a 5xx through opossum, which counts only what is thrown. */
class FailedAnswer {
  readonly result: unknown;
  constructor(result: unknown) {
    this.result = result;
  }
}

const BUCKETS = 10;
const WINDOW_MS = 10_000;

export const createBreaker = (name: string, options: BreakerOptions): Breaker => {
  const breaker = new CircuitBreaker<[() => Promise<unknown>], unknown>((work) => work(), {
    name,
    timeout: false, // the upstream's own time-outs really cancel
    errorThresholdPercentage: options.errorThresholdPercentage,
    volumeThreshold: options.volumeThreshold,
    resetTimeout: options.resetTimeoutMs,
    capacity: options.capacity,
    rollingCountTimeout: WINDOW_MS,
    rollingCountBuckets: BUCKETS,
    rollingPercentilesEnabled: false,
    errorFilter: (error: unknown) => error instanceof AppError && error.code === 'client-left',
  });
  const stateNow = (): BreakerState => (breaker.opened ? 'open' : breaker.halfOpen ? 'half-open' : 'closed');
  return {
    async run<T>(work: () => Promise<T>, failed: (result: T) => boolean): Promise<T> {
      try {
        return (await breaker.fire(async () => {
          const result = await work();
          if (failed(result)) throw new FailedAnswer(result);
          return result;
        })) as T;
      } catch (error) {
        if (error instanceof FailedAnswer) return error.result as T;
        const code = (error as { code?: unknown }).code;
        if (code === 'EOPENBREAKER')
          throw new AppError('breaker-open', `the service of ${name} is cut off: it failed too often`, {
            cause: error,
            retryable: true,
            retryAfterSeconds: Math.max(1, Math.ceil(options.resetTimeoutMs / 1000)),
          });
        if (code === 'ESEMLOCKED')
          throw new AppError('breaker-open', `the service of ${name} has ${options.capacity} requests in flight, its limit`, {
            cause: error,
            retryable: true,
            retryAfterSeconds: 1,
          });
        throw error;
      }
    },
    get state() {
      return stateNow();
    },
    onState(listener) {
      const tell = (): void => listener(stateNow());
      breaker.on('open', tell);
      breaker.on('close', tell);
      breaker.on('halfOpen', tell);
    },
    stop() {
      breaker.shutdown();
    },
  };
};
