import { spawn } from 'node:child_process';
import { readdirSync, readFileSync } from 'node:fs';
import { resolve } from 'node:path';
import { createInterface } from 'node:readline';
import { fileURLToPath } from 'node:url';
import { afterAll } from '@jest/globals';
import { PATIENCE } from './wait.ts';

export type Exit = { code: number | null; signal: NodeJS.Signals | null };

export type RunOptions = {
  /** Added to the environment of the test; `undefined` removes a variable. */
  env?: Readonly<Record<string, string | undefined>>;
  /** Default: the repository. */
  cwd?: string;
  /** For Node itself, before the script. */
  nodeArguments?: readonly string[];
};

export type Running = {
  pid: number;
  /** The latest lines of both streams, in the order they came. */
  lines: readonly string[];
  stdout: readonly string[];
  stderr: readonly string[];
  /** Settles when the process has ended and all its output has been read. */
  exited: Promise<Exit>;
  /** The first line, past or to come, that matches. @throws Error with the output so far, on time-out (default 20,000 ms) or when the process ends without it */
  line: (pattern: RegExp, timeoutMs?: number) => Promise<RegExpExecArray>;
  /** The `urls` of its `{type: 'ready'}` message. @throws Error like `line` */
  ready: (timeoutMs?: number) => Promise<Record<string, string>>;
  /** Nobody reads its output from now on: the next write to it fails. */
  deafen: () => void;
  /** Only sends a signal. */
  signal: (name: NodeJS.Signals) => void;
  /** Sends a signal (default SIGTERM) and waits for the end. @throws Error when the process still runs after `timeoutMs` (default 20,000) */
  stop: (name?: NodeJS.Signals, timeoutMs?: number) => Promise<Exit>;
};

/** The repository's root. */
export const repository = fileURLToPath(new URL('../../', import.meta.url));

/** Ids of the processes that a process has started and that have not ended (Linux). */
export const childrenOf = (pid: number): number[] =>
  readdirSync('/proc')
    .filter((name) => /^\d+$/.test(name))
    .filter((name) => {
      const [state, parent] = statOf(name);
      return parent === String(pid) && state !== 'Z';
    })
    .map(Number);

/** Does this process run (Linux)? One that has ended and waits for its parent does not. */
export const exists = (pid: number): boolean => !['', 'Z'].includes(statOf(String(pid))[0]);

/** State and parent, '' and '' when there is no such process (proc(5), /proc/pid/stat). */
const statOf = (pid: string): [string, string] => {
  try {
    const stat = readFileSync(`/proc/${pid}/stat`, 'utf8');
    const [state = '', parent = ''] = stat.slice(stat.lastIndexOf(')') + 2).split(' ');
    return [state, parent];
  } catch {
    return ['', ''];
  }
};

const KEPT_LINES = 5_000;
const IDLE_MS = 20_000;
const GRACE_MS = 20_000;
const running = new Set<Running>();

const keep = (lines: string[], line: string): void => {
  lines.push(line);
  if (lines.length > KEPT_LINES) lines.shift();
};

const killGroup = (pid: number): void => {
  try {
    process.kill(-pid, 'SIGKILL');
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code !== 'ESRCH') throw error;
  }
};

/**
 * Registered by the import, so that no test file can leave a process behind, nor one of its children that stayed in its group. It runs before
 * the file's own `afterAll`, so what is left gets the chance to end in good order first.
 */
afterAll(async () => {
  await Promise.all(
    [...running].map(async (child) => {
      child.signal('SIGTERM');
      const hard = setTimeout(() => killGroup(child.pid), GRACE_MS);
      await child.exited;
      clearTimeout(hard);
    }),
  );
}, GRACE_MS + 10_000);

/** Starts a script of the repository (path from its root) under this very Node, with an IPC channel. What still runs when the test file ends is stopped. */
export const run = (script: string, args: readonly string[] = [], options: RunOptions = {}): Running => {
  const cwd = options.cwd ?? repository;
  const { NODE_OPTIONS: _ofJest, ...inherited } = process.env;
  const child = spawn(process.execPath, [...(options.nodeArguments ?? []), resolve(repository, script), ...args], {
    cwd,
    detached: true, // a group of its own: a signal for the tests is none for it, and the clean-up reaches its children
    stdio: ['ignore', 'pipe', 'pipe', 'ipc'],
    env: { ...inherited, ...options.env },
  });
  const { pid } = child;
  if (pid === undefined || child.stdout === null || child.stderr === null) throw new Error(`${script} could not be started in ${cwd}`);
  const [lines, stdout, stderr]: [string[], string[], string[]] = [[], [], []];
  const listeners = new Set<(line: string) => void>();
  for (const [stream, own] of [
    [child.stdout, stdout],
    [child.stderr, stderr],
  ] as const)
    createInterface({ input: stream }).on('line', (line) => {
      keep(lines, line);
      keep(own, line);
      for (const listener of listeners) listener(line);
    });
  let urls: Record<string, string> | undefined;
  let end: Exit | undefined;
  const changed = new Set<() => void>();
  const notify = (): void => {
    for (const listener of changed) listener();
  };
  child.on('message', (message: { type?: unknown; urls?: Record<string, string> }) => {
    if (message?.type === 'ready') urls = message.urls ?? {};
    notify();
  });
  const exited = new Promise<Exit>((settle) => {
    child.once('close', (code, signal) => {
      end = { code, signal };
      running.delete(self);
      notify();
      settle(end);
    });
  });
  const story = (): string => `its output:\n${lines.slice(-40).join('\n') || '(none)'}`;
  /** Waits for what `look` gives; woken by lines, messages and the end. */
  const waitFor = <T>(look: () => T | undefined, what: string, idleMs: number): Promise<T> =>
    new Promise((settle, reject) => {
      const timeoutMs = idleMs * PATIENCE;
      const finish = (act: () => void): void => {
        clearTimeout(timer);
        listeners.delete(check);
        changed.delete(check);
        act();
      };
      const check = (): void => {
        const found = look();
        if (found !== undefined) finish(() => settle(found));
        else if (end !== undefined) finish(() => reject(new Error(`${script} ended (${JSON.stringify(end)}) before ${what}; ${story()}`)));
      };
      const timer = setTimeout(
        () => finish(() => reject(new Error(`${script}: waited ${timeoutMs} ms for ${what}; ${story()}`))),
        timeoutMs,
      );
      listeners.add(check);
      changed.add(check);
      check();
    });
  const match = (pattern: RegExp): RegExpExecArray | undefined => {
    for (const line of lines) {
      pattern.lastIndex = 0;
      const found = pattern.exec(line);
      if (found) return found;
    }
    return undefined;
  };
  const self: Running = {
    pid,
    lines,
    stdout,
    stderr,
    exited,
    line: (pattern, timeoutMs = IDLE_MS) => waitFor(() => match(pattern), `a line like ${pattern}`, timeoutMs),
    ready: (timeoutMs = IDLE_MS) => waitFor(() => urls, 'its ready message', timeoutMs),
    deafen: () => {
      child.stdout?.destroy();
      child.stderr?.destroy();
    },
    signal: (name) => {
      child.kill(name);
    },
    stop: async (name = 'SIGTERM', timeoutMs = IDLE_MS) => {
      if (end === undefined) child.kill(name);
      return await waitFor(() => end, `its end after ${name}`, timeoutMs);
    },
  };
  running.add(self);
  return self;
};
