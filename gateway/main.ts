import { watch } from 'node:fs';
import { createRequire } from 'node:module';
import { basename, dirname } from 'node:path';
import { AppError } from '@banyan/contracts/errors.ts';
import { createGateway, type Gateway } from './compose.ts';
import type { Config } from './config.ts';
import { checkHost } from './proxy/check.ts';
import { createConnector } from './proxy/connect.ts';
import { createLogger } from './telemetry/logger.ts';

export type RunOptions = {
  readonly config: Config;
  readonly configFile?: string | undefined;
  readonly overrides?: Readonly<Record<string, unknown>>;
};

const RELOAD_DEBOUNCE_MS = 250;

/** What an operator can act on, in one line. */
const reasonOf = (error: unknown, config: Config): string => {
  const { code, address, port, syscall } = error as NodeJS.ErrnoException & { address?: string; port?: number };
  const where = address === undefined ? config.listen.map((one) => `${one.host}:${one.port}`).join(', ') : `${address}:${port}`;
  if (code === 'EADDRINUSE') return `${where} is in use by another process`;
  if (code === 'EACCES' && syscall === 'listen') return `may not listen on ${where}`;
  if (code === 'EADDRNOTAVAIL') return `${where} is no address of this machine`;
  return error instanceof Error ? error.message : String(error);
};

/** The file, or the folder's link to it, was replaced: editors and Kubernetes both write a new one. */
const watchFile = (file: string, changed: () => void): (() => void) => {
  let timer: NodeJS.Timeout | null = null;
  const name = basename(file);
  const watcher = watch(dirname(file), (_event, what) => {
    // a projected volume swaps the link `..data`
    if (what !== null && what !== name && what !== '..data') return;
    if (timer) clearTimeout(timer);
    timer = setTimeout(changed, RELOAD_DEBOUNCE_MS);
  });
  watcher.on('error', () => undefined);
  watcher.unref();
  return () => {
    if (timer) clearTimeout(timer);
    watcher.close();
  };
};

/** Tells early that the monolith is away; the gateway starts all the same, since the monolith may come later. */
const greetLegacy = async (config: Config): Promise<void> => {
  for (const url of config.legacy.urls) {
    try {
      await checkHost(createConnector({ url, tls: config.legacy.tls }), { path: null, timeoutMs: config.legacy.timeouts.connect });
    } catch (error) {
      const why = error instanceof Error ? ((error as NodeJS.ErrnoException).code ?? error.message) : String(error);
      process.stderr.write(`banyan: legacy does not answer at ${url} (${why}); requests get 502 until it does\n`);
    }
  }
};

/** `banyan run`: listens until SIGTERM or SIGINT, then drains. Resolves when everything is closed; sets the exit code. */
export const runGateway = async (options: RunOptions): Promise<void> => {
  const { config, configFile } = options;
  const { version } = createRequire(import.meta.url)('./package.json') as { version: string };
  const log = createLogger({
    level: config.log.level,
    redact: config.redact.filter((one) => one.startsWith('header:')).map((one) => one.slice(7)),
  });
  let gateway: Gateway;
  let urls: { gateway: string; admin: string };
  try {
    gateway = await createGateway({ config, configFile, ...(options.overrides ? { overrides: options.overrides } : {}), version, log });
    urls = await gateway.start();
  } catch (error) {
    process.stderr.write(`banyan: ${reasonOf(error, config)}\n`);
    process.exit(2);
  }
  // before anybody is told that we serve: whoever is told may stop us at once
  const leaving = new Promise<void>((resolve) => {
    process.once('SIGTERM', () => resolve());
    process.once('SIGINT', () => resolve());
  });
  process.stdout.write(`banyan: listening on ${urls.gateway}, admin on ${urls.admin}\n`);
  if (process.connected) process.send?.({ type: 'ready', urls });
  void greetLegacy(config);

  const reload = (): void => {
    gateway
      .reload()
      .catch((error) =>
        log.error(
          { err: error },
          error instanceof AppError ? 'the new configuration is refused; the old one stays' : 'the configuration could not be read again',
        ),
      );
  };
  const unwatch = configFile === undefined ? () => undefined : watchFile(configFile, reload);
  // without a file there is nothing to reload, and no reason to die with the terminal that started us
  const onHangUp = configFile === undefined ? () => log.info('there is no configuration file to read again') : reload;
  process.on('SIGHUP', onHangUp);

  await leaving;
  unwatch();
  process.off('SIGHUP', onHangUp);
  // a second signal means now
  for (const signal of ['SIGTERM', 'SIGINT'] as const) process.once(signal, () => process.exit(1));
  await gateway.stop();
  process.exit(0);
};
