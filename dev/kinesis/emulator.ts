import { createFaults, type Faults } from './faults.ts';
import { type Clock, DEFAULT_LIMITS, type Limits } from './limits.ts';
import { startListener } from './listener.ts';
import { memoryLog, openLog } from './log.ts';
import { createOperations } from './operations.ts';
import { createProtocol } from './protocol.ts';
import { createStore } from './store.ts';
import { createSubscriptions } from './subscriptions.ts';
import { createThrottle } from './throttle.ts';

export type KinesisOptions = {
  /** Default 127.0.0.1. */
  readonly host?: string;
  /** Default 0 = any free port. */
  readonly port?: number;
  /** Where data outlive a restart; absent = memory only. Created when missing. One emulator per file. */
  readonly dataFile?: string;
  /** Default true: an acknowledged record survives a power cut. Without it, still a kill -9. */
  readonly fsync?: boolean;
  readonly clock?: Clock;
  /** What differs from `DEFAULT_LIMITS`; `{ throttle: false }` for load benches. */
  readonly limits?: Partial<Limits>;
  /** Shards of a new ON_DEMAND stream. Default 4, as on AWS. */
  readonly onDemandShards?: number;
  /** Lines for a person: a torn tail, a full memory, a disk that fails. Default stderr. */
  readonly warn?: (line: string) => void;
  /** 0..1; decides which calls scripted faults strike. Default Math.random. */
  readonly random?: () => number;
};

export type Kinesis = {
  readonly url: string;
  /** Faults to strike from now on; none at the start. Also `PUT /_emulator/faults` with the same rules in JSON. */
  readonly faults: Pick<Faults, 'set'>;
  readonly stop: () => Promise<void>;
};

/**
 * Starts a Kinesis endpoint that the unmodified AWS SDK talks to. `stop` lets running requests finish, then closes sockets and file.
 * @throws StartError for a busy port or a data file that is in use, not ours or not accessible.
 */
export const startKinesis = async (options: KinesisOptions = {}): Promise<Kinesis> => {
  const limits: Limits = { ...DEFAULT_LIMITS, ...options.limits };
  const clock = options.clock ?? Date.now;
  const warn = options.warn ?? ((line: string) => void process.stderr.write(`kinesis: ${line}\n`));
  const store = createStore({ limits, clock, warn });
  const log =
    options.dataFile === undefined
      ? memoryLog()
      : await openLog({ file: options.dataFile, fsync: options.fsync ?? true, queueBytes: limits.inFlightBytes, warn }, store.restore);
  try {
    await store.attach(log);
    const throttle = createThrottle(limits, clock);
    const faults = createFaults(clock, options.random);
    const subscriptions = createSubscriptions(limits, faults);
    const operations = createOperations({
      store,
      limits,
      clock,
      throttle,
      faults,
      subscriptions,
      onDemandShards: options.onDemandShards ?? 4,
    });
    const handle = createProtocol({ limits, warn, faults, ...operations });
    const listener = await startListener({
      host: options.host ?? '127.0.0.1',
      port: options.port ?? 0,
      maxConnections: limits.maxConnections,
      handle,
    });
    return {
      url: listener.url,
      faults,
      stop: async () => {
        subscriptions.end();
        await listener.stop();
        await log.close();
      },
    };
  } catch (error) {
    await log.close();
    throw error;
  }
};
