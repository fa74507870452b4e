import { pino } from 'pino';
import { startAdapter } from './compose.ts';
import { loadConfig, logLevel } from './config.ts';
import { shop } from './translate/shop.ts';

const fail = (message: string): never => {
  process.stderr.write(`banyan adapter: ${message}\n`);
  process.exit(2);
};

const reason = (error: unknown): string => {
  const first: unknown = error instanceof AggregateError && error.errors.length > 0 ? error.errors[0] : error;
  return (first instanceof Error ? first.message : String(first)).split('\n')[0]!;
};

try {
  const config = loadConfig(process.argv.slice(2));
  if ('help' in config) {
    process.stdout.write(config.help);
    process.exit(0);
  }
  const log = pino({ level: logLevel(), base: { process: 'adapter' } }, pino.destination({ dest: 1, sync: true }));
  // Until it has started there is nothing to drain: the databases' sessions end with the process.
  const leaveEarly = (): void => process.exit(0);
  process.on('SIGTERM', leaveEarly);
  process.on('SIGINT', leaveEarly);
  const adapter = await startAdapter(config, shop, log);
  process.off('SIGTERM', leaveEarly);
  process.off('SIGINT', leaveEarly);
  const leave = (): void => {
    adapter.stop().then(
      () => process.exit(0),
      (error: unknown) => fail(`stop failed: ${reason(error)}`),
    );
  };
  process.on('SIGTERM', leave);
  process.on('SIGINT', leave);
  log.info(`listening on ${adapter.url}`);
  process.send?.({ type: 'ready', urls: { adapter: adapter.url } });
} catch (error) {
  fail(`cannot start: ${reason(error)}`);
}
