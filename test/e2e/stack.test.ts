import { existsSync, readFileSync } from 'node:fs';
import { createServer } from 'node:net';
import { setTimeout as pause } from 'node:timers/promises';
import { afterAll, beforeAll, describe, expect, it } from '@jest/globals';
import { run } from '../harness/processes.ts';
import { shopUser } from '../harness/shop-client.ts';
import { type Stack, startStack } from '../harness/stack.ts';
import { until } from '../harness/wait.ts';

/** `banyan dev`, in a folder with a space in its path: what it starts, what it restarts, and that it leaves nothing behind however it ends. */

let stack: Stack;
beforeAll(async () => {
  stack = await startStack();
}, 270_000);
afterAll(async () => {
  await stack.stop();
}, 180_000);

const isAlive = (pid: number): boolean => {
  try {
    process.kill(pid, 0);
    // one that nobody has waited for yet is dead all the same
    const stat = readFileSync(`/proc/${pid}/stat`, 'utf8');
    return stat[stat.lastIndexOf(')') + 2] !== 'Z';
  } catch {
    return false;
  }
};
/** The parts and whatever they started themselves (PostgreSQL and its workers), by process id. */
const family = (roots: readonly number[]): number[] => {
  const children = (pid: number): number[] => {
    try {
      return readFileSync(`/proc/${pid}/task/${pid}/children`, 'utf8').trim().split(' ').filter(Boolean).map(Number);
    } catch {
      return [];
    }
  };
  return roots.flatMap((pid) => [pid, ...family(children(pid))]);
};
const everybody = (): number[] => family(Object.values(stack.pids()));
const order = (id: number) => shopUser(() => stack.urls.gateway, 'user-1').order(id);
const place = () => shopUser(() => stack.urls.gateway, 'user-1').place();
const config = (): string => `${stack.directory}/banyan.yaml`;

describe('a stack that runs', () => {
  it('names the process of each part', () => {
    expect(Object.keys(stack.pids()).sort()).toEqual([
      'adapter',
      'gateway',
      'inventory',
      'kinesis',
      'monolith',
      'notification',
      'order',
      'payment',
      'postgres',
      'provider',
      'saga',
      'shipping',
    ]);
    expect(everybody().filter((pid) => !isAlive(pid))).toEqual([]);
    expect(everybody().length).toBeGreaterThan(8);
  });

  it('refuses a second one on its data: one line, exit 2, and goes on', async () => {
    const second = run('dev/stack/main.ts', ['--config', config(), '--data-dir', `${stack.directory}/data`]);
    expect(await second.exited).toEqual({ code: 2, signal: null });
    expect(second.stderr).toEqual([
      expect.stringMatching(/^banyan dev: already running on .*data \(process \d+\); stop it or use another --data-dir/),
    ]);
    expect((await place()).status).toBe(201);
  });

  it('starts a part again that was killed', async () => {
    const before = stack.pids().inventory!;
    stack.kill('inventory');
    await until(() => (stack.pids().inventory ?? before) !== before, { describe: 'another inventory', timeoutMs: 20_000 });
    await until(async () => (await fetch(`${stack.urls.inventory}/readyz`)).ok, { describe: 'inventory to be ready', timeoutMs: 20_000 });
  }, 150_000);

  it('leaves a part stopped that was stopped', async () => {
    const pid = stack.pids().notification!;
    process.kill(pid, 'SIGTERM');
    await stack.process.line(/^notification was stopped; the rest goes on$/);
    // longer than the stack waits before it starts a crashed part again
    await pause(1000);
    expect(stack.pids().notification).toBeUndefined();
    expect((await place()).status).toBe(201);
  }, 120_000);
});

describe('an end', () => {
  it('by Ctrl-C leaves no process, and the next start has the data', async () => {
    const { body } = await place();
    const before = everybody();
    await stack.restart();
    expect(before.filter(isAlive)).toEqual([]);
    const again = await order(body.id);
    expect([again.status, again.body]).toEqual([200, body]);
  }, 360_000);

  it('by SIGKILL of the stack itself leaves no process', async () => {
    const before = everybody();
    expect(before.length).toBeGreaterThan(8);
    await stack.process.stop('SIGKILL');
    await until(() => before.filter(isAlive).length === 0, { describe: 'every part to end', timeoutMs: 15_000 });
  }, 180_000);

  it('is clean when a part cannot start: one line, exit 2, nothing goes on', async () => {
    const port = Number(new URL(stack.urls.order).port);
    const squatter = createServer().listen(port, '127.0.0.1');
    await new Promise((listening) => squatter.once('listening', listening));
    const blocked = run('dev/stack/main.ts', ['--config', config(), '--data-dir', `${stack.directory}/data`]);
    const seen = new Set<number>();
    const watch = setInterval(() => {
      try {
        for (const pid of everybody()) seen.add(pid);
      } catch {
        // the file is not there, or half written
      }
    }, 50);
    try {
      expect(await blocked.exited).toEqual({ code: 2, signal: null });
      expect(blocked.stderr).toEqual([
        expect.stringMatching(new RegExp(`^banyan dev: order: cannot listen on 127\\.0\\.0\\.1:${port}: .*EADDRINUSE.* \\(exit 2\\)$`)),
      ]);
      expect(seen.size).toBeGreaterThan(3);
      expect([...seen].filter(isAlive)).toEqual([]);
      expect(existsSync(`${stack.directory}/data/stack.json`)).toBe(false);
    } finally {
      clearInterval(watch);
      await new Promise((closed) => squatter.close(closed));
    }
  }, 270_000);

  it('comes at once for what it cannot understand: one line, exit 2', async () => {
    for (const [args, line] of [
      [
        ['--only', 'postgres,nonsense'],
        /^banyan dev: --only: there is no part called "nonsense"; there are postgres, kinesis, .* \(--help explains\)$/,
      ],
      [['--config', 'nowhere.yaml'], /^banyan dev: --config nowhere\.yaml: there is no such file \(--help explains\)$/],
      [['--wrong'], /^banyan dev: .*--wrong.*\(--help explains\)$/],
    ] as const) {
      const wrong = run('dev/stack/main.ts', args);
      expect(await wrong.exited).toEqual({ code: 2, signal: null });
      expect(wrong.stderr).toEqual([expect.stringMatching(line)]);
    }
  }, 90_000);
});
