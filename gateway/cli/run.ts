import { availableParallelism } from 'node:os';
import { InvalidArgumentError } from 'commander';
import { parse as parseYaml } from 'yaml';
import { findConfigFile } from '../config.ts';
import { expectEnding } from '../ending.ts';
import { expectKillSignal } from '../kill-signal.ts';
import { cannot } from './exit.ts';
import { loadOrExit } from './load.ts';
import type { Register } from './output.ts';

type Flags = {
  readonly config?: string;
  readonly legacy?: string;
  readonly listen?: string;
  readonly adminListen?: string;
  readonly workers: number;
  readonly set?: Readonly<Record<string, unknown>>;
};

const assignment = (text: string, before: Readonly<Record<string, unknown>> = {}): Readonly<Record<string, unknown>> => {
  const found = /^([A-Za-z][A-Za-z0-9-]*(?:\.[A-Za-z][A-Za-z0-9-]*)*)=([\s\S]*)$/.exec(text);
  if (found === null) throw new InvalidArgumentError('Expected KEY=VALUE such as log.level=debug.');
  try {
    return { ...before, [found[1] ?? '']: parseYaml(found[2] ?? '', { logLevel: 'silent', maxAliasCount: 0 }) as unknown };
  } catch {
    throw new InvalidArgumentError('The value is not YAML.');
  }
};

/** More than this is a slip of the finger. */
const MAX_WORKERS = 256;
const workersOf = (text: string): number => {
  if (text === 'auto') return Math.min(MAX_WORKERS, availableParallelism());
  const count = /^[0-9]{1,3}$/.test(text) ? Number(text) : 0;
  if (count < 1 || count > MAX_WORKERS) throw new InvalidArgumentError(`Expected a number from 1 to ${MAX_WORKERS}, or auto.`);
  return count;
};

/** `banyan run`: the gateway itself. Without `--config`, `--legacy` stands alone: a plain transparent proxy that reads no file. */
export const registerRun: Register = (program, io) => {
  program
    .command('run')
    .description('run the gateway; with --legacy alone a plain transparent proxy')
    .option('--config <file>', 'configuration (default: banyan.yaml in this folder)')
    .option('--legacy <url>', 'the monolith, e.g. http://127.0.0.1:3000')
    .option('--listen <host:port>', 'where clients connect')
    .option('--admin-listen <host:port>', 'where operators connect')
    .option('--workers <n>', 'processes that serve requests; auto = one for each processor', workersOf, 1)
    .option('--set <key=value>', 'override one key of the configuration; may be repeated', assignment)
    .action(async (flags: Flags) => {
      const ending = expectEnding();
      const killing = expectKillSignal();
      const found = flags.config ?? findConfigFile();
      const file = flags.config === undefined && flags.legacy !== undefined ? undefined : found;
      if (file === undefined && flags.legacy === undefined)
        throw cannot('there is no banyan.yaml in this folder; use --config FILE, or --legacy URL for a plain proxy');
      if (file === undefined && found !== undefined)
        io.err(`note: ${found} is not read, because --legacy stands alone; add --config to use both`);
      const overrides: Record<string, unknown> = { ...flags.set };
      if (flags.legacy !== undefined) overrides['legacy.url'] = flags.legacy;
      if (flags.listen !== undefined) overrides.listen = flags.listen;
      if (flags.adminListen !== undefined) overrides['admin.listen'] = flags.adminListen;
      const { config } = await loadOrExit(io, { file, overrides });
      // Loaded late, so that no other command pays for the data plane.
      const { runGateway } = await import('../main.ts');
      await runGateway({ config, configFile: file, overrides, workers: flags.workers, ending, killing });
    });
};
