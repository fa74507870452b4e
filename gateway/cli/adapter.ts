import { runPackage } from './child.ts';
import type { Register } from './output.ts';

/** `banyan adapter`: hands over to the anti-corruption layer, which reads its own part of the configuration. */
export const registerAdapter: Register = (program) => {
  program
    .command('adapter')
    .description('run the legacy adapter: capture, translate, back-sync')
    .option('--config <file>', 'configuration (default: banyan.yaml in this folder)')
    .action(async (flags: { readonly config?: string }) => {
      await runPackage('legacy-adapter/main.ts', flags.config === undefined ? [] : ['--config', flags.config]);
    });
};
