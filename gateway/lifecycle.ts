import { watch } from 'node:fs';
import { basename, dirname } from 'node:path';
import { AppError } from '@banyan/contracts/errors.ts';
import type { DestinationStream, Logger } from 'pino';
import type { AdminDeps } from './admin/ports.ts';
import type { Config } from './config.ts';
import type { Load } from './data-plane.ts';
import type { Ending } from './ending.ts';
import { checkHost } from './proxy/check.ts';
import { createConnector } from './proxy/connect.ts';
import { createLogger } from './telemetry/logger.ts';

/** What a process of a gateway does around its work: say why it cannot start, watch its file, end in good order. */

/** What `banyan run` starts, be it one process or a primary with its workers. */
export type Running = {
  /** Opens and listens. @throws AppError `store-unavailable` when the store cannot be reached and nothing is known of an earlier run; the system's error for a busy port. */
  start(): Promise<{ gateway: string; admin: string }>;
  /** Reads the file again; valid = swapped whole, invalid = the old one stays. */
  readonly reload: AdminDeps['reload'];
  /** Kills every context that is not retired, here, in the store and at the peers. */
  killAll(by: { readonly actor: string; readonly reason: string }): Promise<void>;
  /** What clients have under way. */
  load(): Load;
  /** Drains: at most `config.drain` for what is in flight. Resolves to how many requests were cut. */
  stop(): Promise<number>;
};

const RELOAD_DEBOUNCE_MS = 250;
/** A start that is cut short gets so long to be undone. */
const START_GRACE_MS = 2_000;
const PROGRESS_MS = 1_000;

const say = (line: string): void => void process.stderr.write(`banyan: ${line}\n`);

/** What an operator can act on, in one line. */
export const reasonOf = (error: unknown): string => {
  const { code, address, port, syscall } = error as NodeJS.ErrnoException & { address?: string; port?: number };
  const where = port === undefined || port < 0 ? `${address ?? 'the address'}` : `${address}:${port}`;
  if (code === 'EADDRINUSE') return `${where} is in use by another process`;
  if (code === 'EACCES' && syscall?.startsWith('listen')) return `may not listen on ${where}`;
  if (code === 'EADDRNOTAVAIL') return `${where} is no address of this machine`;
  return error instanceof Error ? error.message : String(error);
};

export const loggerOf = (config: Config, more: { worker?: number; destination?: DestinationStream } = {}): Logger =>
  createLogger({
    level: config.log.level,
    redact: config.redact.filter((one) => one.startsWith('header:')).map((one) => one.slice(7)),
    ...more,
  });

/** Runs `work`; what it throws is thrown once `undo` has put everything back. */
export const orUndo = async <T>(work: () => Promise<T>, undo: () => Promise<unknown>): Promise<T> => {
  try {
    return await work();
  } catch (error) {
    await undo();
    throw error;
  }
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

/** Reloads at SIGHUP and when the file is saved. @returns ends that */
export const reloadOnChange = (configFile: string | undefined, running: Running, log: Logger): (() => void) => {
  const reload = (): void =>
    void running
      .reload()
      .catch((error) =>
        log.error(
          { err: error },
          error instanceof AppError ? 'the new configuration is refused; the old one stays' : 'the configuration could not be read again',
        ),
      );
  const unwatch = configFile === undefined ? () => undefined : watchFile(configFile, reload);
  // without a file there is nothing to reload, and no reason to die with the terminal that started us
  const onHangUp = configFile === undefined ? () => log.info('there is no configuration file to read again') : reload;
  process.on('SIGHUP', onHangUp);
  return () => {
    unwatch();
    // no default action either: what closes the terminal must not cut the drain short
    process.on('SIGHUP', () => undefined);
    process.off('SIGHUP', onHangUp);
  };
};

/** Tells early that the monolith is away; the gateway starts all the same, since the monolith may come later. */
export const greetLegacy = async (config: Config): Promise<void> => {
  for (const url of config.legacy.urls) {
    try {
      await checkHost(createConnector({ url, tls: config.legacy.tls }), { path: null, timeoutMs: config.legacy.timeouts.connect });
    } catch (error) {
      const why = error instanceof Error ? ((error as NodeJS.ErrnoException).code ?? error.message) : String(error);
      say(`legacy does not answer at ${url} (${why}); requests get 502 until it does`);
    }
  }
};

const plural = (n: number, word: string): string => `${n} ${word}${n === 1 ? '' : 's'}`;

const endEarly = (ending: Ending): never => {
  say(`stopped while starting (${ending.signal})`);
  process.exit(0);
};

/** Starts, unless somebody wants the process to end first: then it ends with 0. It ends with 2 and one line when it cannot start. */
export const startUnlessEnded = async (running: Running, ending: Ending): Promise<{ gateway: string; admin: string }> => {
  if (ending.signal !== null) endEarly(ending);
  const starting = running.start();
  const urls = await Promise.race([
    starting.catch((error: unknown) => {
      if (ending.signal !== null) return null;
      say(reasonOf(error));
      process.exit(2);
    }),
    ending.asked.then(() => null),
  ]);
  if (urls !== null && ending.signal === null) return urls;
  // nothing was promised to anybody yet: what it waits for may never come
  setTimeout(() => endEarly(ending), START_GRACE_MS);
  await starting.catch(() => undefined);
  await running.stop();
  return endEarly(ending);
};

/** Drains, says how far it is once a second, and ends the process with 0. @param now ends everything at once, at a second signal */
export const drainAndExit = async (running: Running, ending: Ending, drainMs: number, now: () => void): Promise<never> => {
  ending.again(() => {
    now();
    process.exit(1);
  });
  const underWay = (): string => {
    const { requests, tunnels } = running.load();
    return requests + tunnels === 0 ? 'nothing in flight' : `${plural(requests, 'request')} and ${plural(tunnels, 'tunnel')} in flight`;
  };
  say(`draining (${ending.signal}), at most ${drainMs / 1000} s: ${underWay()}`);
  const progress = setInterval(() => say(`draining: ${underWay()}`), PROGRESS_MS);
  const cut = await running.stop();
  clearInterval(progress);
  if (cut > 0) say(`drained: ${plural(cut, 'request')} did not finish in ${drainMs / 1000} s and ${cut === 1 ? 'was' : 'were'} cut`);
  process.exit(0);
};
