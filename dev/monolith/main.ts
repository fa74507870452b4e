import { parseArgs } from 'node:util';
import { startMonolith } from './monolith.ts';

const fail = (message: string): never => {
  console.error(`shop: ${message}`);
  process.exit(2);
};

const readOptions = (): { databaseUrl: string; host: string; port: number } => {
  const { values } = parseArgs({ options: { host: { type: 'string', default: '127.0.0.1' }, port: { type: 'string', default: '3000' } } });
  const port = /^\d{1,5}$/.test(values.port) ? Number(values.port) : Number.NaN;
  if (!(port <= 65_535)) throw new Error(`--port must be a number from 0 to 65535, not "${values.port}"`);
  const databaseUrl = process.env.SHOP_DATABASE_URL ?? '';
  if (!/^postgres(ql)?:\/\//.test(databaseUrl)) throw new Error('SHOP_DATABASE_URL must be a postgres:// URL');
  return { databaseUrl, host: values.host, port };
};

/** One line that says what is wrong; several addresses may have been tried, the first failure speaks for all. */
const reason = (error: unknown): string => {
  const first = error instanceof AggregateError && error.errors.length > 0 ? error.errors[0] : error;
  return (first instanceof Error ? first.message : String(first)).split('\n')[0]!;
};

try {
  const shop = await startMonolith(readOptions());
  console.log(`shop: listening on ${shop.url}`);
  process.send?.({ type: 'ready', urls: { monolith: shop.url } });
  let leaving = false;
  const leave = (): void => {
    if (leaving) return;
    leaving = true;
    shop.stop().then(
      () => process.exit(0),
      (error: unknown) => fail(`stop failed: ${reason(error)}`),
    );
  };
  process.on('SIGTERM', leave);
  process.on('SIGINT', leave);
} catch (error) {
  fail(`cannot start: ${reason(error)}`);
}
