import { parseArgs } from 'node:util';
import { startTraffic, summaryLine } from './traffic.ts';

const fail = (error: unknown): never => {
  console.error(`traffic: ${error instanceof Error ? error.message : String(error)}`);
  process.exit(2);
};

const start = () => {
  const { values } = parseArgs({
    options: {
      gateway: { type: 'string', default: 'http://127.0.0.1:8080' },
      orders: { type: 'string', default: '2' },
      queries: { type: 'string', default: '10' },
      users: { type: 'string', default: '20' },
    },
  });
  if (!/^https?:\/\/[^/?#]+\/?/.test(values.gateway) || !URL.canParse(values.gateway))
    throw new Error(`--gateway must be an http:// or https:// URL, not "${values.gateway}"`);
  console.log(`traffic: ${values.orders} orders/s and ${values.queries} queries/s to ${values.gateway}`);
  return startTraffic({
    gateway: values.gateway,
    ordersPerSecond: Number(values.orders),
    queriesPerSecond: Number(values.queries),
    users: Number(values.users),
    log: console.log,
  });
};

try {
  const traffic = start();
  process.send?.({ type: 'ready', urls: {} });
  let leaving = false;
  const leave = (): void => {
    if (leaving) return;
    leaving = true;
    traffic.stop().then((summary) => {
      console.log(summaryLine(summary));
      process.exit(0);
    }, fail);
  };
  process.on('SIGTERM', leave);
  process.on('SIGINT', leave);
} catch (error) {
  fail(error);
}
