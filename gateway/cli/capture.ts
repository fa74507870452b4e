import type { Command } from 'commander';
import { z } from 'zod';
import { type OnlineFlags, readAnswer } from './answers.ts';
import { adminClient, withAdminOptions } from './client.ts';
import { groupOf, type Io, printJson, type Register } from './output.ts';
import { reasonArgument } from './stage.ts';

type Flags = OnlineFlags & { readonly reason?: string };

/** The adapter's state (docs/interfaces.md); it may say more than this version knows. */
const state = z.looseObject({});

const print = (io: Io, flags: Flags, answer: z.output<typeof state>): void => {
  if (flags.json === true) printJson(io, answer);
  else for (const [name, value] of Object.entries(answer)) io.out(`${name}: ${typeof value === 'string' ? value : JSON.stringify(value)}`);
};

/** `banyan capture install|remove|show|snapshot`, asked of the adapter through the gateway. */
export const registerCapture: Register = (program, io) => {
  const group = groupOf(program, 'capture', 'how legacy changes are seen');
  const common = (command: Command): Command => withAdminOptions(command).option('--json', 'one JSON document');
  common(group.command('show'))
    .description('mode, tables and what waits')
    .action(async (flags: Flags) => {
      const client = await adminClient(flags);
      print(io, flags, readAnswer(client, state, await client.get('/capture')));
    });
  const change = (action: 'install' | 'remove' | 'snapshot', description: string): void => {
    common(group.command(action))
      .description(description)
      .option('--reason <text>', 'why; kept in the audit', reasonArgument)
      .action(async (flags: Flags) => {
        const client = await adminClient(flags);
        const answer = await client.post(`/capture/${action}`, { reason: flags.reason ?? `banyan capture ${action}` });
        print(io, flags, readAnswer(client, state, answer));
      });
  };
  change('install', 'install outbox table and triggers in the legacy database');
  change('remove', 'remove them');
  change('snapshot', 'publish the rows that were there before capture');
};
