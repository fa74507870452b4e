import { contextSchema, pageOf } from '@banyan/contracts/admin-api.ts';
import { Argument } from 'commander';
import { findConfigFile, loadConfig } from '../config.ts';
import { adminClient } from './client.ts';
import { bashScript } from './completion/bash.ts';
import { fishScript } from './completion/fish.ts';
import { type CommandSpec, specsOf } from './completion/spec.ts';
import { zshScript } from './completion/zsh.ts';
import type { Register } from './output.ts';

const SHELLS: Readonly<Record<string, (specs: readonly CommandSpec[]) => string>> = { bash: bashScript, zsh: zshScript, fish: fishScript };

/** ms; nobody waits longer for a menu. */
const PATIENCE = 1_000;

/** Of the configuration in this folder, else of a gateway on this machine. */
const contextNames = async (): Promise<readonly string[]> => {
  const file = findConfigFile();
  if (file !== undefined) {
    const loaded = await loadConfig({ file, dev: true });
    if (loaded.ok) return Object.keys(loaded.config.contexts);
  }
  const client = await adminClient({});
  return pageOf(contextSchema)
    .parse(await client.get('/contexts'))
    .items.map(({ name }) => name);
};

/** `banyan completion bash|zsh|fish`: a script on stdout. Commands, flags, stages and states stand in it; names of contexts are asked for. */
export const registerCompletion: Register = (program, io) => {
  program
    .command('completion')
    .description('print a script that completes commands, flags, stages and contexts; for bash: source <(banyan completion bash)')
    .addArgument(new Argument('<shell>', 'which shell').choices(Object.keys(SHELLS)))
    .action((shell: string) => io.out(SHELLS[shell]!(specsOf(program))));
  program.command('__contexts', { hidden: true }).action(async () => {
    const late = setTimeout(() => process.exit(0), PATIENCE);
    // a menu without names is better than an error in the middle of a line
    const names = await contextNames().catch(() => []);
    clearTimeout(late);
    if (names.length > 0) io.out(names.join('\n'));
  });
};
