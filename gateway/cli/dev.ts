import { findConfigFile } from '../config.ts';
import { runPackage } from './child.ts';
import { loadOrExit } from './load.ts';
import type { Register } from './output.ts';

type Flags = { readonly config?: string; readonly only?: string; readonly traffic?: boolean; readonly dataDir?: string };

/** `banyan dev`: checks the configuration, then hands over to `dev/stack`. */
export const registerDev: Register = (program, io) => {
  program
    .command('dev')
    .description('run every part on this machine: embedded PostgreSQL and Kinesis, and the demo shop unless legacy.url is set')
    .option('--config <file>', 'configuration (default: banyan.yaml in this folder, else the demo’s)')
    .option('--only <parts>', 'start only these parts, e.g. postgres,kinesis,monolith')
    .option('--traffic', 'add live traffic')
    .option('--data-dir <folder>', 'where data is kept (default: dev.dataDir)')
    .action(async (flags: Flags) => {
      const file = flags.config ?? findConfigFile();
      if (file !== undefined) await loadOrExit(io, { file, dev: true });
      await runPackage('dev/stack/main.ts', [
        ...(file === undefined ? [] : ['--config', file]),
        ...(flags.only === undefined ? [] : ['--only', flags.only]),
        ...(flags.traffic === true ? ['--traffic'] : []),
        ...(flags.dataDir === undefined ? [] : ['--data-dir', flags.dataDir]),
      ]);
    });
};
