import { createRequire, getCompileCacheDir } from 'node:module';
import { extname, join } from 'node:path';
import { createGateway } from './compose.ts';
import type { Config } from './config.ts';
import type { Ending } from './ending.ts';
import type { KillSignal } from './kill-signal.ts';
import { drainAndExit, greetLegacy, loggerOf, type Running, reasonOf, reloadOnChange, startUnlessEnded } from './lifecycle.ts';
import { logLines } from './telemetry/log-lines.ts';

export type RunOptions = {
  readonly config: Config;
  readonly configFile?: string | undefined;
  readonly overrides?: Readonly<Record<string, unknown>>;
  /** 1 = a single process. */
  readonly workers: number;
  readonly ending: Ending;
  readonly killing: KillSignal;
};

type Built = { readonly running: Running; readonly restart: (() => Promise<void>) | null; readonly kill: () => void };

const build = async (options: RunOptions): Promise<Built & { readonly log: Parameters<typeof reloadOnChange>[2] }> => {
  const { config, configFile, overrides, workers } = options;
  const { version } = createRequire(import.meta.url)('./package.json') as { version: string };
  const lines = logLines(1);
  const log = loggerOf(config, { destination: lines });
  const settings = { config, configFile, ...(overrides ? { overrides } : {}), version, log };
  if (workers === 1) return { running: await createGateway(settings), restart: null, kill: () => undefined, log };
  const [{ createPool }, { createPrimary }] = await Promise.all([import('./workers/pool.ts'), import('./compose-workers.ts')]);
  const pool = createPool({
    count: workers,
    script: join(import.meta.dirname, `worker${extname(import.meta.filename)}`),
    compileCache: getCompileCacheDir(),
    log,
    writeLines: (text) => lines.write(text),
  });
  return { running: await createPrimary({ ...settings, workers: pool }), restart: pool.restart, kill: pool.kill, log };
};

/** `banyan run`: listens until SIGTERM or SIGINT, then drains and ends the process. */
export const runGateway = async (options: RunOptions): Promise<never> => {
  const { config, configFile, ending, workers } = options;
  const { running, restart, kill, log } = await build(options).catch((error: unknown) => {
    process.stderr.write(`banyan: ${reasonOf(error)}\n`);
    process.exit(2);
  });
  const urls = await startUnlessEnded(running, ending);
  process.stdout.write(
    `banyan: listening on ${urls.gateway}, admin on ${urls.admin}${workers > 1 ? `, ${workers} workers under process ${process.pid}` : ''}\n`,
  );
  if (process.connected) process.send?.({ type: 'ready', urls });
  void greetLegacy(config);
  options.killing.on(() => {
    log.warn('SIGUSR1: every context is killed');
    void running
      .killAll({ actor: 'signal', reason: 'SIGUSR1' })
      .catch((error: unknown) => log.error({ err: error }, 'not every context could be killed'));
  });
  const leaveFile = reloadOnChange(configFile, running, log);
  if (restart !== null)
    process.on('SIGUSR2', () => void restart().catch((error: unknown) => log.error({ err: error }, 'the workers could not be restarted')));
  await ending.asked;
  leaveFile();
  return drainAndExit(running, ending, config.drain, kill);
};
