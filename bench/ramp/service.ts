import { createServer, type Server } from 'node:http';
import type { AddressInfo } from 'node:net';

/** What a service begins to do wrong: one answer of 50 is a 500, one of 50 is another one, or its slow answers take twice as long. */
export const FAULTS = ['fails', 'slow', 'differs'] as const;
export type Fault = (typeof FAULTS)[number];

/** One of 25 answers takes so long, so that p99 is in it; the others take 2 ms. */
const [SLOW_MS, QUICK_MS] = [60, 2];
const SLOW_EVERY = 25;
const WRONG_EVERY = 50;

export type Service = { readonly url: string; close(): Promise<void> };

/** Answers `/CONTEXT/N`; `/CONTEXT/0` is a 404. The context is named after what it will do once it is in `bad`. */
export const openService = async (bad: ReadonlySet<string>): Promise<Service> => {
  const turns = new Map<string, number>();
  const server: Server = createServer((req, res) => {
    const path = req.url ?? '';
    const context = path.split('/')[1] ?? '';
    const isBad = bad.has(context);
    // a copy is no answer of the service to anybody: only what is found by comparing goes wrong in it
    const copy = req.headers['banyan-shadow'] !== undefined;
    const turn = (turns.get(`${context} ${copy}`) ?? 0) + 1;
    turns.set(`${context} ${copy}`, turn);
    const isWrong = isBad && turn % WRONG_EVERY === 0;
    const fails = isWrong && context === 'fails' && !copy;
    const differs = context === 'differs' && isBad && Number(path.split('/')[2]) % WRONG_EVERY === 1;
    const delay = turn % SLOW_EVERY === 0 ? SLOW_MS * (isBad && context === 'slow' ? 2 : 1) : QUICK_MS;
    setTimeout(() => {
      const status = fails ? 500 : path.endsWith('/0') ? 404 : 200;
      res.writeHead(status, { 'content-type': 'application/json' });
      res.end(JSON.stringify({ at: differs ? 'elsewhere' : path }));
    }, delay);
  }).listen(0, '127.0.0.1');
  await new Promise((resolve) => server.once('listening', resolve));
  return {
    url: `http://127.0.0.1:${(server.address() as AddressInfo).port}`,
    async close() {
      server.closeAllConnections();
      await new Promise((resolve) => server.close(resolve));
    },
  };
};
