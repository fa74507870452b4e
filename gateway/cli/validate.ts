import { existsSync } from 'node:fs';
import { formatFault, loadConfig } from '../config.ts';
import { answerNo, cannot } from './exit.ts';
import { configFileOrExit } from './load.ts';
import type { Answered } from './online.ts';
import { printJson, type Register } from './output.ts';

type Flags = { readonly online?: boolean; readonly dev?: boolean; readonly json?: boolean };

/** `banyan validate [FILE]`: every fault at once; 1 when there is one. */
export const registerValidate: Register = (program, io) => {
  program
    .command('validate')
    .description('check a configuration; lists every fault with its line and column')
    .argument('[file]', 'default: banyan.yaml in this folder')
    .option('--online', 'also ask whether monolith, services, store and stream answer')
    .option('--dev', 'as `banyan dev` reads it, which brings monolith, store and streams itself')
    .option('--json', 'one JSON document')
    .action(async (named: string | undefined, flags: Flags) => {
      const file = configFileOrExit(named);
      if (!existsSync(file)) throw cannot(`there is no file ${file}`);
      const result = await loadConfig({ file, dev: flags.dev ?? false });
      const online: readonly Answered[] =
        result.ok && flags.online === true ? await (await import('./online.ts')).askAround(result.config) : [];
      const silent = online.filter(({ ok }) => !ok);
      const valid = result.ok && silent.length === 0;
      if (flags.json === true) {
        const faults = result.ok ? [] : result.faults;
        printJson(io, { file, valid, faults, warnings: result.warnings, ...(flags.online === true ? { online } : {}) });
      } else {
        for (const warning of result.warnings) io.err(`warning: ${formatFault(warning)}`);
        if (!result.ok) for (const fault of result.faults) io.err(formatFault(fault));
        for (const { what, url, ok, why } of online) io.err(ok ? `${what} ${url} answers` : `${what} ${url} does not answer: ${why}`);
        if (valid) io.out(`${file} is valid`);
      }
      if (!valid) throw answerNo();
    });
};
