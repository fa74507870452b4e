import { readFileSync } from 'node:fs';
import { mkdir, mkdtemp, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { type Changes, writeDemoConfig } from './demo-config.ts';
import { freePort } from './ports.ts';
import { type Running, run } from './processes.ts';
import { until } from './wait.ts';

export type Urls = {
  readonly gateway: string;
  readonly admin: string;
  readonly monolith: string;
  readonly adapter: string;
  readonly order: string;
  readonly inventory: string;
  readonly notification: string;
  readonly kinesis: string;
  readonly store: string;
  readonly shop: string;
};

export type Stack = {
  readonly urls: Urls;
  readonly directory: string;
  readonly process: Running;
  /** Process ids of the parts that run now. */
  pids(): Record<string, number>;
  /** SIGKILLs a part; the stack starts it again. */
  kill(part: string): void;
  stop(): Promise<void>;
  /** Starts again on the same data. */
  restart(): Promise<void>;
};

/**
 * The whole system as `npm start` runs it, on ports and data of its own.
 * `changes` are dotted paths into the demo's configuration.
 */
export const startStack = async (changes: Changes = {}, options: { inDirectory?: string } = {}): Promise<Stack> => {
  const directory = options.inDirectory ?? (await mkdtemp(join(tmpdir(), 'banyan stack-')));
  await mkdir(directory, { recursive: true, mode: 0o755 });
  const address = async (): Promise<string> => `127.0.0.1:${await freePort()}`;
  const ports: Record<string, unknown> = {
    listen: await address(),
    'admin.listen': await address(),
    'adapter.url': `http://${await address()}`,
    'dev.postgresPort': await freePort(),
    'dev.kinesisPort': await freePort(),
    'dev.monolithPort': await freePort(),
    'dev.notificationPort': await freePort(),
    'dev.sagaPort': await freePort(),
    'contexts.order.extracted.url': `http://${await address()}`,
    'contexts.inventory.extracted.url': `http://${await address()}`,
  };
  const file = join(directory, 'banyan.yaml');
  await writeDemoConfig(file, { ...ports, ...changes });
  const data = join(directory, 'data');

  const begin = async (): Promise<{ process: Running; urls: Urls }> => {
    const process = run('dev/stack/main.ts', ['--config', file, '--data-dir', data]);
    return { process, urls: (await process.ready(60_000)) as unknown as Urls };
  };
  let current = await begin();
  const pids = (): Record<string, number> =>
    (JSON.parse(readFileSync(join(data, 'stack.json'), 'utf8')) as { parts: Record<string, number> }).parts;

  return {
    get urls() {
      return current.urls;
    },
    get process() {
      return current.process;
    },
    directory,
    pids,
    kill(part) {
      const pid = pids()[part];
      if (pid === undefined) throw new Error(`${part} does not run`);
      process.kill(pid, 'SIGKILL');
    },
    async stop() {
      await current.process.stop('SIGTERM', 40_000);
      await rm(directory, { recursive: true, force: true });
    },
    async restart() {
      await current.process.stop('SIGINT', 40_000);
      current = await begin();
    },
  };
};

/** JSON from the admin API. @throws Error with the problem's text when it is no success. */
export const admin = async <T>(stack: Stack, path: string, change?: { method: 'PUT' | 'POST'; body: object }): Promise<T> => {
  const response = await fetch(`${stack.urls.admin}/api/v1/${path}`, {
    ...(change ? { method: change.method, headers: { 'content-type': 'application/json' }, body: JSON.stringify(change.body) } : {}),
  });
  const text = await response.text();
  if (!response.ok) throw new Error(`${change?.method ?? 'GET'} ${path}: ${response.status} ${text}`);
  return JSON.parse(text) as T;
};

type ContextView = { stage: string; percent: number; epoch: number; version: number; breaker: { state: string } };
export const contextNow = (stack: Stack, context: string): Promise<ContextView> => admin<ContextView>(stack, `contexts/${context}`);

/** Moves a context and waits for the flip, if it is one. */
export const moveTo = async (stack: Stack, context: string, stage: string, more: object = {}): Promise<void> => {
  const answer = await admin<{ flip?: { id: string } }>(stack, `contexts/${context}/stage`, {
    method: 'PUT',
    body: { stage, reason: 'the test says so', ...more },
  });
  if (!answer.flip) return;
  const { id } = answer.flip;
  const flip = await until(
    async () => {
      const now = await admin<{ state: string; detail: string | null }>(stack, `flips/${id}`);
      return now.state === 'done' || now.state === 'undone' ? now : null;
    },
    { describe: `flip of ${context} to ${stage}`, timeoutMs: 60_000 },
  );
  if (flip.state !== 'done') throw new Error(`the flip was undone: ${flip.detail}`);
};
