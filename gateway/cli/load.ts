import { type Config, findConfigFile, formatFault, loadConfig } from '../config.ts';
import { cannot } from './exit.ts';
import type { Io } from './output.ts';

export type Loaded = { readonly config: Config; readonly file: string | undefined };

/** Loads the configuration for a command that cannot work without it: prints every fault and warning, and ends with 2 when there are faults. */
export const loadOrExit = async (
  io: Io,
  options: {
    readonly file?: string | undefined;
    readonly overrides?: Readonly<Record<string, unknown>>;
    readonly dev?: boolean;
    readonly warn?: boolean;
  },
): Promise<Loaded> => {
  const result = await loadConfig(options);
  if (options.warn !== false) for (const warning of result.warnings) io.err(`warning: ${formatFault(warning)}`);
  if (result.ok) return { config: result.config, file: options.file };
  for (const fault of result.faults) io.err(formatFault(fault));
  throw cannot(result.faults.length === 1 ? '' : `${result.faults.length} faults in the configuration`);
};

/** The file named by `--config`, else the one in this folder. @throws Exit 2 when there is none. */
export const configFileOrExit = (named: string | undefined): string => {
  const file = named ?? findConfigFile();
  if (file === undefined) throw cannot('there is no banyan.yaml in this folder; name a file with --config');
  return file;
};
