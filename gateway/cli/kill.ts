import { contextSchema, pageOf } from '@banyan/contracts/admin-api.ts';
import type { Command } from 'commander';
import { type OnlineFlags, part, readAnswer } from './answers.ts';
import { adminClient, withAdminOptions } from './client.ts';
import { cannot } from './exit.ts';
import { type Io, printJson, type Register } from './output.ts';
import { reasonArgument } from './stage.ts';
import { contextTable } from './status.ts';

type Flags = OnlineFlags & { readonly all?: boolean; readonly now?: boolean; readonly reason: string };

const act = async (io: Io, verb: 'kill' | 'revive', context: string | undefined, flags: Flags): Promise<void> => {
  if ((context === undefined) !== (flags.all === true)) throw cannot(`${verb}: expected either a context or --all`);
  const client = await adminClient(flags);
  const body = { reason: flags.reason, ...(flags.now === true ? { now: true } : {}) };
  const answer = await client.post(context === undefined ? `/${verb}` : `/contexts/${part(context)}/${verb}`, body);
  const contexts =
    context === undefined ? readAnswer(client, pageOf(contextSchema), answer).items : [readAnswer(client, contextSchema, answer)];
  if (flags.json === true) printJson(io, context === undefined ? { items: contexts, next: null } : contexts[0]);
  else io.out(contextTable(contexts, io.color));
  for (const { name, stage, killed } of contexts)
    if (verb === 'kill' && killed && stage === 'cutover')
      io.err(`${name}: queries go to legacy now; commands get 503 until legacy has the writes (banyan status shows it)`);
};

const common = (command: Command): Command =>
  withAdminOptions(command)
    .argument('[context]', 'e.g. order')
    .option('--all', 'every context')
    .requiredOption('--reason <text>', 'why; kept in the audit', reasonArgument)
    .option('--json', 'one JSON document');

/** `banyan kill|revive CONTEXT|--all`. Kill works while the store is away; revive needs it. */
export const registerKill: Register = (program, io) => {
  common(program.command('kill'))
    .description('send everything of a context to legacy at once')
    .option('--now', 'at cutover: give the writes to legacy without waiting for back-sync')
    .action((context: string | undefined, flags: Flags) => act(io, 'kill', context, flags));
  common(program.command('revive'))
    .description('lift a kill; the stage stays what it is')
    .action((context: string | undefined, flags: Flags) => act(io, 'revive', context, flags));
};
