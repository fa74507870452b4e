import { readFileSync } from 'node:fs';
import { setTimeout as pause } from 'node:timers/promises';
import type { Kept } from './kept.ts';
import { query } from './query.ts';
import { randomOf } from './random.ts';

/** Longer than a lease: who was stopped comes back when another has its lanes. */
const STOPPED_MS = 6_000;

/** Lets gateways that a failpoint stopped go on, later. */
export const startWaking = (gateways: readonly Kept[]): { stop: () => void } => {
  const since = new Map<number, number>();
  const timer = setInterval(() => {
    for (const pid of gateways.map((one) => one.pid())) {
      if (pid === null) continue;
      try {
        const stat = readFileSync(`/proc/${pid}/stat`, 'latin1');
        if (stat.slice(stat.lastIndexOf(')') + 2)[0] !== 'T') since.delete(pid);
        else if (!since.has(pid)) since.set(pid, performance.now());
        else if (performance.now() - since.get(pid)! > STOPPED_MS) process.kill(pid, 'SIGCONT');
      } catch {
        since.delete(pid);
      }
    }
  }, 250);
  return { stop: () => clearInterval(timer) };
};

/** A gateway that is killed as soon as it is up does nothing that could go wrong. */
const LEAST_UP_MS = 500;

/** Kills in turn what runs, every 150 to 300 ms: mostly a gateway, and with it its relay; now and then PostgreSQL, a backend of it or the whole. */
export const startKills = (
  seed: number,
  gateways: readonly Kept[],
  store: string,
  postmaster: () => number | null,
): { count: () => number; stop: () => Promise<void> } => {
  const random = randomOf(seed + 1);
  let stopped = false;
  let kills = 0;
  const kill = (pid: number | null): void => {
    if (pid === null) return;
    try {
      process.kill(pid, 'SIGKILL');
      kills += 1;
    } catch {
      // it had just ended
    }
  };
  const run = async (): Promise<void> => {
    while (!stopped) {
      await pause(150 + random() * 150);
      const dice = random();
      if (dice < 0.02) kill(postmaster());
      else if (dice < 0.06) {
        const rows = await query<{ pid: number }>(
          store,
          "select pid from pg_stat_activity where backend_type = 'client backend' and pid <> pg_backend_pid()",
        ).catch(() => []);
        kill(rows[Math.floor(random() * rows.length)]?.pid ?? null);
      } else {
        const victim = gateways[Math.floor(random() * gateways.length)]!;
        if (victim.upMs() > LEAST_UP_MS) kill(victim.pid());
      }
    }
  };
  const running = run();
  return {
    count: () => kills,
    stop: async () => {
      stopped = true;
      await running;
    },
  };
};
