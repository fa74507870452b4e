import { readFileSync } from 'node:fs';
import { Agent, get } from 'node:http';
import { parseArgs } from 'node:util';
import { percentile, round } from '../report.ts';
import type { LoadResult } from './load.ts';

/** `client.ts URL PATHS-FILE --seconds N (--connections N | --rate N)`: a closed loop, or an open one of `rate` requests per second. */
const { values, positionals } = parseArgs({
  allowPositionals: true,
  options: { seconds: { type: 'string', default: '1' }, connections: { type: 'string', default: '32' }, rate: { type: 'string' } },
});
const base = new URL(positionals[0]!);
const paths = readFileSync(positionals[1]!, 'utf8').split('\n').filter(Boolean);
const seconds = Number(values.seconds);
const GIVE_UP_MS = 10_000;

const agent = new Agent({ keepAlive: true, maxSockets: 512 });
const latencies: number[] = [];
let errors = 0;
let sent = 0;

const ask = (dueAt: number): Promise<void> =>
  new Promise((resolve) => {
    const failed = (): void => {
      errors++;
      resolve();
    };
    const path = paths[sent++ % paths.length]!;
    const request = get({ host: base.hostname, port: base.port, path, agent, timeout: GIVE_UP_MS }, (response) => {
      response.resume();
      response.on('end', () => {
        if (response.statusCode === 200) {
          latencies.push(performance.now() - dueAt);
          resolve();
        } else failed();
      });
      response.on('error', failed);
    });
    request.on('timeout', () => request.destroy(new Error('no answer')));
    request.on('error', failed);
  });

const closedLoop = async (connections: number): Promise<void> => {
  const end = performance.now() + seconds * 1000;
  const one = async (): Promise<void> => {
    while (performance.now() < end) await ask(performance.now());
  };
  await Promise.all(Array.from({ length: connections }, one));
};

const openLoop = async (perSecond: number): Promise<void> => {
  const start = performance.now();
  const total = Math.floor(perSecond * seconds);
  const asked: Promise<void>[] = [];
  await new Promise<void>((resolve) => {
    const turn = (): void => {
      const due = Math.min(total, Math.floor(((performance.now() - start) / 1000) * perSecond) + 1);
      while (asked.length < due) asked.push(ask(start + (asked.length / perSecond) * 1000));
      if (asked.length < total) setTimeout(turn, 1);
      else resolve();
    };
    turn();
  });
  await Promise.all(asked);
};

const began = performance.now();
if (values.rate === undefined) await closedLoop(Number(values.connections));
else await openLoop(Number(values.rate));
const result: LoadResult = {
  requests: latencies.length,
  errors,
  seconds: round((performance.now() - began) / 1000, 3),
  p50Ms: round(percentile(latencies, 0.5), 3),
  p99Ms: round(percentile(latencies, 0.99), 3),
};
agent.destroy();
process.stdout.write(JSON.stringify(result));
