import { once } from 'node:events';
import { readFileSync } from 'node:fs';
import { setTimeout as pause } from 'node:timers/promises';
import { openWorkshop, type Started } from '../processes.ts';
import { startBanyan } from '../proxy/banyan.ts';
import { rssMiB } from '../proxy/usage.ts';
import { type BenchOptions, machine, type Report, type Row, round } from '../report.ts';
import type { ClientAnswer, ClientCommand } from './client.ts';

const COUNT = 5_000;
const QUICK_COUNT = 200;
/** Opened and closed first, so that what a process needs once is there already. */
const WARM_UP = 200;
/** Descriptors of a process beside its sockets. */
const OTHER_DESCRIPTORS = 100;
const SETTLE_MS = 3_000;

/** Soft limit of open files of a process; Infinity where the system does not say. */
const descriptorsOf = (pid: number): number => {
  try {
    const limit = /^Max open files\s+(\S+)/m.exec(readFileSync(`/proc/${pid}/limits`, 'latin1'))?.[1];
    return limit === undefined || limit === 'unlimited' ? Number.POSITIVE_INFINITY : Number(limit);
  } catch {
    return Number.POSITIVE_INFINITY;
  }
};

const ask = async (client: Started, command: ClientCommand): Promise<ClientAnswer> => {
  const answer = once(client.child, 'message');
  client.child.send(command);
  const [message] = (await Promise.race([
    answer,
    once(client.child, 'exit').then(() => Promise.reject(new Error('the client process ended'))),
  ])) as [ClientAnswer];
  return message;
};

/** Resident memory of the gateway for each idle WebSocket through it; clients and the upstream are other processes. */
export const benchTunnels = async (options: BenchOptions): Promise<Report> => {
  const count = options.count ?? (options.quick ? QUICK_COUNT : COUNT);
  const { say } = options;
  const where = machine();
  const shop = openWorkshop();
  try {
    const upstream = await shop.startNode('bench/tunnels/upstream.ts', []);
    const gateway = await startBanyan(shop, { name: 'tunnels', legacy: upstream.urls.http!, maxConnections: count + WARM_UP + 10 });
    const client = await shop.startNode('bench/tunnels/client.ts', [`${gateway.url.replace('http', 'ws')}/socket`]);
    const limit = descriptorsOf(gateway.pid);
    if (limit < 2 * count + OTHER_DESCRIPTORS)
      throw new Error(
        `${count} tunnels need ${2 * count + OTHER_DESCRIPTORS} open files in the gateway, the limit is ${limit}: raise it (ulimit -n) or lower --count`,
      );

    await ask(client, { do: 'open', count: WARM_UP });
    await ask(client, { do: 'echo', count: 0 });
    await ask(client, { do: 'close', count: 0 });
    await pause(SETTLE_MS);
    const rows: Row[] = [];
    const note = (when: string, open: number): number => {
      const rss = rssMiB(gateway.pid);
      rows.push({ when, tunnels: open, 'RSS MiB': round(rss, 1) });
      return rss;
    };
    const before = note('before', 0);
    const opened = await ask(client, { do: 'open', count });
    if (opened.count < count) say(`only ${opened.count} of ${count} WebSockets opened: ${opened.failed}`);
    await pause(SETTLE_MS);
    const idle = note('all open and idle', opened.count);
    const echoed = await ask(client, { do: 'echo', count: 0 });
    await pause(SETTLE_MS);
    const after = note('after an echo on each', echoed.count);
    await ask(client, { do: 'close', count: 0 });
    await pause(SETTLE_MS);
    note('all closed', 0);
    const kb = (growth: number): number => round((growth * 1024) / Math.max(1, opened.count), 1);
    return {
      name: 'tunnels',
      machine: where,
      figures: {
        kb_per_tunnel: kb(Math.max(idle, after) - before),
        kb_per_tunnel_idle: kb(idle - before),
        open: opened.count,
        echoed: echoed.count,
        ...(Number.isFinite(limit) ? { descriptor_limit: limit } : {}),
      },
      table: rows,
      missing: [],
      versions: { node: process.version },
    };
  } finally {
    await shop.close();
  }
};
