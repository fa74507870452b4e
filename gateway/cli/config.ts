import { stringify } from 'yaml';
import { configJsonSchema, maskSecrets } from '../config.ts';
import { adminClient, withAdminOptions } from './client.ts';
import { answerNo, cannot } from './exit.ts';
import { configFileOrExit, loadOrExit } from './load.ts';
import { groupOf, printJson, type Register } from './output.ts';

type Change = { readonly path: string; readonly running?: unknown; readonly file?: unknown };

const isTree = (value: unknown): value is Readonly<Record<string, unknown>> => typeof value === 'object' && value !== null;

/** Leaves that differ; an absent side's key is left out. */
const differences = (running: unknown, file: unknown, path = ''): readonly Change[] => {
  if (isTree(running) && isTree(file) && Array.isArray(running) === Array.isArray(file)) {
    const keys = [...new Set([...Object.keys(running), ...Object.keys(file)])];
    const below = (key: string): string => (Array.isArray(file) ? `${path}[${key}]` : path === '' ? key : `${path}.${key}`);
    return keys.flatMap((key) => differences(running[key], file[key], below(key)));
  }
  if (Object.is(running, file)) return [];
  return [{ path, ...(running === undefined ? {} : { running }), ...(file === undefined ? {} : { file }) }];
};

type Flags = {
  readonly config?: string;
  readonly admin?: string;
  readonly tokenFile?: string;
  readonly json?: boolean;
  readonly dev?: boolean;
};

/** `banyan config schema|dump|diff|reload`. */
export const registerConfig: Register = (program, io) => {
  const group = groupOf(program, 'config', 'the configuration: its schema, what it means, what runs');
  group
    .command('schema')
    .description('print the JSON Schema (draft-07) that editors read')
    .option('--json', 'as it is anyway')
    .action(() => printJson(io, configJsonSchema()));
  group
    .command('dump')
    .description('print the effective configuration: variables expanded, defaults filled in, in ms, bytes and basis points, secrets masked')
    .option('--config <file>', 'default: banyan.yaml in this folder')
    .option('--dev', 'as `banyan dev` reads it')
    .option('--json', 'one JSON document instead of YAML')
    .action(async (flags: Flags) => {
      const { config } = await loadOrExit(io, { file: configFileOrExit(flags.config), dev: flags.dev ?? false });
      const shown = maskSecrets(config);
      if (flags.json === true) printJson(io, shown);
      else io.out(stringify(shown, { aliasDuplicateObjects: false }));
    });
  withAdminOptions(group.command('diff'))
    .description('compare the file with what the gateway runs; 1 when they differ')
    .option('--dev', 'as `banyan dev` reads it')
    .option('--json', 'one JSON document')
    .action(async (flags: Flags) => {
      const { config } = await loadOrExit(io, { file: configFileOrExit(flags.config), dev: flags.dev ?? false, warn: false });
      const answer = await (await adminClient(flags)).get('/config');
      const running = isTree(answer) && isTree(answer.config) ? answer.config : answer;
      if (!isTree(running)) throw cannot('the gateway does not say what it runs');
      // Through JSON, as the gateway's own answer came.
      const changes = differences(running, JSON.parse(JSON.stringify(maskSecrets(config))));
      if (flags.json === true) printJson(io, { same: changes.length === 0, changes });
      else
        for (const { path, running: now, file } of changes)
          io.out(`${path}: ${JSON.stringify(now) ?? 'absent'} -> ${JSON.stringify(file) ?? 'absent'}`);
      if (changes.length > 0) throw answerNo(flags.json === true ? '' : 'the file differs from what runs (secrets are not compared)');
      if (flags.json !== true) io.err('the gateway runs what the file says');
    });
  withAdminOptions(group.command('reload'))
    .description('make the gateway read its file again; an invalid one changes nothing')
    .option('--json', 'one JSON document')
    .action(async (flags: Flags) => {
      const answer = await (await adminClient(flags)).post('/config/reload');
      const said = (key: 'faults' | 'warnings'): readonly string[] =>
        isTree(answer) && Array.isArray(answer[key]) ? answer[key].map(String) : [];
      const refused = isTree(answer) && answer.ok === false;
      if (flags.json === true) printJson(io, answer);
      else {
        for (const warning of said('warnings')) io.err(`warning: ${warning}`);
        for (const fault of said('faults')) io.err(fault);
        if (!refused) io.err('the configuration was reloaded');
      }
      if (refused) throw answerNo(flags.json === true ? '' : 'nothing was changed; the configuration before stays');
    });
};
