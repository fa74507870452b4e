import { InvalidArgumentError } from 'commander';
import { parse as parseYaml } from 'yaml';
import { findConfigFile } from '../config.ts';
import { cannot } from './exit.ts';
import { loadOrExit } from './load.ts';
import type { Register } from './output.ts';

type Flags = {
  readonly config?: string;
  readonly legacy?: string;
  readonly listen?: string;
  readonly adminListen?: string;
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

/** `banyan run`: the gateway itself. Without `--config`, `--legacy` stands alone: a plain transparent proxy that reads no file. */
export const registerRun: Register = (program, io) => {
  program
    .command('run')
    .description('run the gateway; with --legacy alone a plain transparent proxy')
    .option('--config <file>', 'configuration (default: banyan.yaml in this folder)')
    .option('--legacy <url>', 'the monolith, e.g. http://127.0.0.1:3000')
    .option('--listen <host:port>', 'where clients connect')
    .option('--admin-listen <host:port>', 'where operators connect')
    .option('--set <key=value>', 'override one key of the configuration; may be repeated', assignment)
    .action(async (flags: Flags) => {
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
      await runGateway({ config, configFile: file, overrides });
    });
};
