import { type ChildProcess, spawn } from 'node:child_process';
import { once } from 'node:events';
import { mkdtempSync, rmSync } from 'node:fs';
import { createServer } from 'node:net';
import { tmpdir } from 'node:os';
import { dirname, join, resolve } from 'node:path';

/** The repository's root. */
export const ROOT = resolve(import.meta.dirname, '..');
const LEASH = join(ROOT, 'dev', 'stack', 'leash.ts');

export type Started = { readonly pid: number; readonly child: ChildProcess; stop(): Promise<void> };

export type StartOptions = {
  /** Where stdout goes: a file descriptor, or nowhere (the default). */
  readonly stdout?: number;
  readonly cwd?: string;
  /** Modules loaded before the script; for `startNode`. */
  readonly imports?: readonly string[];
  /** Added to the environment; for `startNode`. */
  readonly env?: Readonly<Record<string, string>>;
  /** For `startNode`; default 120 s. */
  readonly readyMs?: number;
};

/** Everything one run starts and writes; `close` stops and removes all of it, and so does Ctrl-C. */
export type Workshop = {
  /** A folder that is removed at the end. */
  readonly folder: string;
  /** A foreign program; lives until it is stopped. */
  start(command: string, args: readonly string[], options?: StartOptions): Promise<Started>;
  /** A script under this Node, or a bin (`.js`) as a shell starts it, of this checkout or at an absolute path, that says `{type: 'ready', urls}` over its channel. @throws Error when it ends or says nothing for 120 s. */
  startNode(script: string, args: readonly string[], options?: StartOptions): Promise<Started & { urls: Readonly<Record<string, string>> }>;
  /** Runs to the end. @throws Error with the end of its output when the exit code is not 0, or after `timeoutMs`. */
  run(command: string, args: readonly string[], options: { timeoutMs: number; env?: Readonly<Record<string, string>> }): Promise<string>;
  close(): Promise<void>;
};

const STOP_MS = 5_000;
/** A machine that does much else at once may need more than a minute; it only decides how long a failing start takes. */
const READY_MS = 120_000;
const TAIL = 2_000;

/** A port that was free a moment ago. */
export const freePort = async (): Promise<number> => {
  const server = createServer().listen(0, '127.0.0.1');
  await once(server, 'listening');
  const { port } = server.address() as { port: number };
  server.close();
  await once(server, 'close');
  return port;
};

export const openWorkshop = (): Workshop => {
  const folder = mkdtempSync(join(tmpdir(), 'banyan-bench-'));
  const running = new Set<ChildProcess>();
  let closing: Promise<void> | null = null;

  const keep = (child: ChildProcess): void => {
    running.add(child);
    child.once('exit', () => running.delete(child));
  };
  const stop = async (child: ChildProcess): Promise<void> => {
    if (!running.has(child)) return;
    const gone = once(child, 'exit');
    child.kill('SIGTERM');
    const timer = setTimeout(() => child.kill('SIGKILL'), STOP_MS);
    await gone;
    clearTimeout(timer);
  };
  const tailOf = (child: ChildProcess): (() => string) => {
    let tail = '';
    child.stderr?.setEncoding('utf8').on('data', (text: string) => {
      tail = (tail + text).slice(-TAIL);
    });
    return () => tail.trim();
  };
  const begun = async (child: ChildProcess, command: string): Promise<Started> => {
    keep(child);
    const failed = once(child, 'error').then(([error]) => Promise.reject(new Error(`${command}: ${(error as Error).message}`)));
    await Promise.race([once(child, 'spawn'), failed]);
    failed.catch(() => undefined);
    return { pid: child.pid!, child, stop: () => stop(child) };
  };

  const closeNow = async (): Promise<void> => {
    await Promise.all([...running].map(stop));
    rmSync(folder, { recursive: true, force: true });
    for (const signal of ['SIGINT', 'SIGTERM'] as const) process.off(signal, interrupted);
  };
  const close = (): Promise<void> => {
    closing ??= closeNow();
    return closing;
  };
  // First to wait for the end, so that the exit code says why and not what broke because of it.
  const interrupted = (signal: NodeJS.Signals): void => {
    void close().finally(() => process.exit(signal === 'SIGINT' ? 130 : 143));
  };
  for (const signal of ['SIGINT', 'SIGTERM'] as const) process.on(signal, interrupted);

  return {
    folder,
    async start(command, args, options = {}) {
      const child = spawn(command, args, { stdio: ['ignore', options.stdout ?? 'ignore', 'pipe'], cwd: options.cwd ?? folder });
      const tail = tailOf(child);
      const started = await begun(child, command);
      // a bad configuration ends it at once
      await Promise.race([once(child, 'exit'), new Promise((resolve) => setTimeout(resolve, 300))]);
      if (!running.has(child)) throw new Error(`${command} ended at once: ${tail()}`);
      return started;
    },
    async startNode(script, args, options = {}) {
      const path = resolve(ROOT, script);
      const [command, before] = script.endsWith('.js') ? [path, []] : [process.execPath, [path]];
      const imports = [LEASH, ...(options.imports ?? [])].map((module) => `--import ${module}`).join(' ');
      const child = spawn(command, [...before, ...args], {
        stdio: ['ignore', options.stdout ?? 'ignore', 'pipe', 'ipc'],
        cwd: options.cwd ?? folder,
        env: {
          ...process.env,
          NODE_ENV: 'production',
          NODE_OPTIONS: `${process.env.NODE_OPTIONS ?? ''} ${imports}`,
          PATH: `${dirname(process.execPath)}:${process.env.PATH ?? ''}`,
          ...options.env,
        },
      });
      const tail = tailOf(child);
      const started = await begun(child, script);
      const urls = await new Promise<Record<string, string>>((resolve, reject) => {
        const readyMs = options.readyMs ?? READY_MS;
        const timer = setTimeout(() => reject(new Error(`${script} is not ready after ${readyMs} ms: ${tail()}`)), readyMs);
        child.once('exit', () => reject(new Error(`${script} ended: ${tail()}`)));
        child.on('message', (message: { type?: string; urls?: Record<string, string> }) => {
          if (message.type === 'ready') resolve(message.urls ?? {});
        });
        child.once('message', () => clearTimeout(timer));
        child.once('exit', () => clearTimeout(timer));
      });
      return { ...started, urls };
    },
    async run(command, args, { timeoutMs, env }) {
      const child = spawn(command, args, { stdio: ['ignore', 'pipe', 'pipe'], cwd: folder, env: { ...process.env, ...env } });
      const tail = tailOf(child);
      let output = '';
      child.stdout?.setEncoding('utf8').on('data', (text: string) => {
        output += text;
      });
      await begun(child, command);
      const timer = setTimeout(() => child.kill('SIGKILL'), timeoutMs);
      const [code] = (await once(child, 'close')) as [number | null];
      clearTimeout(timer);
      if (code !== 0) throw new Error(`${command} ${args[0] ?? ''} failed (${code ?? 'killed'}): ${tail()}`);
      return output;
    },
    close,
  };
};
