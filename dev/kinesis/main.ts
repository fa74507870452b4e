import { parseArgs } from 'node:util';
import { startKinesis } from './emulator.ts';
import { StartError } from './errors.ts';

const USAGE = `Kinesis emulator: an endpoint for the AWS SDK on this machine.

  npx node dev/kinesis/main.ts [options]

  --host ADDRESS          default 127.0.0.1
  --port N                default 4567; 0 = any free port
  --data FILE             keep streams and records in FILE; absent = in memory
  --no-fsync              acknowledge before the disk has it (a kill -9 still loses nothing, a power cut may)
  --no-throttle           no per-shard rates (1 MiB/s and 1,000 records/s in, 2 MiB/s and 5 reads/s out)
  --shards-on-demand N    shards of a new ON_DEMAND stream, default 4
  --memory-mib N          records kept in memory, default 512; beyond it the oldest are dropped
  --help
`;

const numberOf = (flag: string, text: string, min: number, max: number): number => {
  const value = Number(text);
  if (!Number.isInteger(value) || value < min || value > max)
    throw new StartError(`--${flag} ${text}: expected a whole number from ${min} to ${max}`);
  return value;
};

const parseFlags = () => {
  try {
    return parseArgs({
      options: {
        host: { type: 'string', default: '127.0.0.1' },
        port: { type: 'string', default: '4567' },
        data: { type: 'string' },
        'no-fsync': { type: 'boolean', default: false },
        'no-throttle': { type: 'boolean', default: false },
        'shards-on-demand': { type: 'string', default: '4' },
        'memory-mib': { type: 'string', default: '512' },
        help: { type: 'boolean', default: false },
      },
    }).values;
  } catch (error) {
    throw new StartError(`${(error as Error).message} (see --help)`);
  }
};

const main = async (): Promise<void> => {
  const flags = parseFlags();
  if (flags.help) {
    process.stdout.write(USAGE);
    return;
  }
  const kinesis = await startKinesis({
    host: flags.host,
    port: numberOf('port', flags.port, 0, 65_535),
    ...(flags.data !== undefined && { dataFile: flags.data }),
    fsync: !flags['no-fsync'],
    onDemandShards: numberOf('shards-on-demand', flags['shards-on-demand'], 1, 1000),
    limits: { throttle: !flags['no-throttle'], memoryBytes: numberOf('memory-mib', flags['memory-mib'], 1, 1_000_000) * 1024 * 1024 },
  });
  if (!/^(127\.|localhost$|::1$)/.test(flags.host))
    process.stderr.write(`kinesis: ${flags.host} is not loopback: signatures are not verified, whoever reaches it can read and write\n`);
  let stopping = false;
  const stop = (): void => {
    if (stopping) return;
    stopping = true;
    void kinesis.stop().then(
      () => process.exit(0),
      (error: unknown) => {
        process.stderr.write(`kinesis: ${(error as Error).message}\n`);
        process.exit(1);
      },
    );
  };
  process.on('SIGTERM', stop).on('SIGINT', stop).on('disconnect', stop);
  process.stdout.write(`kinesis: ${kinesis.url}, data ${flags.data ?? 'in memory'}\n`);
  process.send?.({ type: 'ready', urls: { kinesis: kinesis.url } });
};

main().catch((error: unknown) => {
  process.stderr.write(`kinesis: ${error instanceof StartError ? error.message : (error as Error).stack}\n`);
  // An open IPC channel would keep the process alive.
  process.exit(error instanceof StartError ? 2 : 1);
});
