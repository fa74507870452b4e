import cluster from 'node:cluster';
import { createWorker, type WorkerGateway } from './compose-workers.ts';
import { type Config, formatFault, loadConfig } from './config.ts';
import { loggerOf, reasonOf } from './lifecycle.ts';
import { type Hello, parseToWorker, type ToPrimary } from './workers/protocol.ts';

/**
 * One worker of `banyan run --workers N`: serves requests until its primary, or SIGTERM, ends it. It asks nobody but its primary for settings, so
 * that all workers have the same. When the primary dies it finishes what it has and ends too.
 */

const STATE_MS = 250;
const METRICS_MS = 250;
/** Reading the metrics of many routes is work: at most one part in so many of the time. */
const METRICS_SHARE = 200;
const WAKE_MS = 5;
/** Beyond `drain`, for the last writes to a store that may hang. */
const GRACE_MS = 5_000;

const send = (message: ToPrimary): Promise<void> =>
  new Promise((resolve, reject) => {
    if (!process.connected) reject(new Error('the primary is gone'));
    else process.send!(message, undefined, {}, (error) => (error ? reject(error) : resolve()));
  });
const tell = (message: ToPrimary): void => void send(message).catch(() => undefined);

let running: WorkerGateway | null = null;
let leaving = false;
let backlogFull = false;
let waking = false;

const wake = (): void => {
  if (waking) return;
  waking = true;
  setTimeout(() => {
    waking = false;
    tell({ type: 'wake' });
  }, WAKE_MS);
};

const lastWords = async (cut: number): Promise<void> => {
  const metrics = (await running?.member.metrics.registry.getMetricsAsJSON()) ?? [];
  await send({ type: 'left', cut, metrics });
};

const leave = async (ms: number): Promise<void> => {
  if (leaving) return;
  leaving = true;
  tell({ type: 'leaving' });
  // nothing was accepted yet
  if (!running?.data.listening()) process.exit(0);
  setTimeout(() => process.exit(0), ms + GRACE_MS).unref();
  const cut = await running.stop(ms);
  await lastWords(cut).catch(() => undefined);
  process.exit(0);
};

/** Tells the primary what it shows and what would be lost with this process. */
const report = (gateway: WorkerGateway): void => {
  let last = '';
  setInterval(() => {
    const state = { load: gateway.data.load(), breakers: gateway.data.breakers(), upstreams: [...gateway.data.upstreams()] };
    const text = JSON.stringify(state);
    if (text !== last) tell({ type: 'state', ...state });
    last = text;
  }, STATE_MS).unref();
  const count = async (): Promise<void> => {
    const began = performance.now();
    await tellMetrics(gateway, null);
    setTimeout(count, Math.max(METRICS_MS, METRICS_SHARE * (performance.now() - began))).unref();
  };
  setTimeout(count, METRICS_MS).unref();
};

const tellMetrics = async (gateway: WorkerGateway, seq: number | null): Promise<void> =>
  tell({ type: 'metrics', seq, metrics: await gateway.member.metrics.registry.getMetricsAsJSON() });

/** The configuration as it was sent; from the file where it could not be. @throws Error naming every fault */
const settingsOf = async (sent: Config | null, hello: Hello): Promise<Config> => {
  if (sent !== null) return sent;
  const result = await loadConfig({ file: hello.configFile ?? undefined, overrides: hello.overrides });
  if (!result.ok) throw new Error(result.faults.map(formatFault).join('; '));
  return result.config;
};

const begin = async (hello: Hello): Promise<void> => {
  ({ backlogFull } = hello);
  try {
    const config = await settingsOf(hello.config, hello);
    const gateway = await createWorker({
      config,
      version: hello.version,
      log: loggerOf(config, { worker: process.pid }),
      of: hello.of,
      primary: {
        id: hello.member,
        secret: hello.secret,
        flags: hello.flags,
        saveEvidence: (batch) => send({ type: 'evidence', batch }),
      },
      relay: { wake, full: () => backlogFull },
    });
    running = gateway;
    const url = await gateway.start();
    report(gateway);
    tell({ type: 'listening', url });
  } catch (error) {
    await send({ type: 'failed', why: reasonOf(error).slice(0, 4_000) }).catch(() => undefined);
    process.exit(2);
  }
};

let hello: Hello | null = null;
/** One after the other: what is told while it starts counts as soon as it has started. */
let turn: Promise<void> = Promise.resolve();
const inTurn = (seq: number, work: (gateway: WorkerGateway) => Promise<void>): void => {
  turn = turn.then(async () => {
    let error: string | null = null;
    try {
      // before its hello there is nothing to change: what it says will be newer
      if (running) await work(running);
    } catch (thrown) {
      error = thrown instanceof Error ? thrown.message : String(thrown);
    }
    tell({ type: 'taken', seq, error: error?.slice(0, 4_000) ?? null });
  });
};

// whoever started the primary may preload something that lets go of the channel
process.channel?.ref();
process.on('message', (raw: unknown) => {
  const message = parseToWorker(raw);
  switch (message?.type) {
    case 'hello':
      hello = message;
      turn = turn.then(() => begin(message));
      return;
    case 'config':
      inTurn(message.seq, async (gateway) => gateway.adopt(await settingsOf(message.config, hello!)));
      return;
    case 'flags':
      inTurn(message.seq, (gateway) => gateway.member.flags.follow(message.flags));
      return;
    case 'scrape':
      if (running) void tellMetrics(running, message.seq);
      return;
    case 'backlog':
      backlogFull = message.full;
      return;
    case 'stop':
      void leave(message.ms);
      return;
  }
});

process.on('SIGTERM', () => void leave(running?.member.config().drain ?? 0));
// Ctrl-C, a closed terminal, a rolling restart and a kill reach the whole process group: they are the primary's to answer
for (const signal of ['SIGINT', 'SIGHUP', 'SIGUSR1', 'SIGUSR2'] as const) process.on(signal, () => undefined);
cluster.worker?.on('disconnect', () => {
  // otherwise node:cluster ends the process here and now
  if (cluster.worker) cluster.worker.exitedAfterDisconnect = true;
  void leave(running?.member.config().drain ?? 0);
});
