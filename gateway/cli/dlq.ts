import { type LetterView, letterSchema, lettersSchema, replayedSchema } from '@banyan/contracts/admin-api.ts';
import type { z } from 'zod';
import { moment, type OnlineFlags, part, queryOf, readAnswer } from './answers.ts';
import { adminClient, withAdminOptions } from './client.ts';
import { answerNo } from './exit.ts';
import { formatTable, groupOf, type Io, printJson, type Register } from './output.ts';
import { reasonArgument } from './stage.ts';

type ListFlags = OnlineFlags & { readonly service?: string; readonly limit?: string; readonly cursor?: string };
type ChangeFlags = OnlineFlags & { readonly reason: string };

const HEAD = ['ID', 'KEY', 'EVENT', 'AT', 'ERROR'];
const rowOf = (letter: LetterView): string[] => [
  letter.id,
  letter.key ?? '-',
  letter.eventId,
  moment(letter.at),
  (letter.error ?? 'waits behind another of its key').slice(0, 120),
];

/** What became of the key. @throws Exit 1 when something of it still cannot be applied */
const tell = (io: Io, flags: OnlineFlags, done: z.output<typeof replayedSchema>): void => {
  if (flags.json === true) printJson(io, done);
  else io.out(`applied ${done.applied}, left ${done.left}`);
  if (done.error !== null) throw answerNo(`the next one of this key cannot be applied: ${done.error}`);
};

/** `banyan dlq list|show|replay|skip`. */
export const registerDlq: Register = (program, io) => {
  const group = groupOf(program, 'dlq', 'facts that a service could not apply');
  withAdminOptions(group.command('list'))
    .description('dead letters, by service and in their order')
    .option('--service <name>', 'of this service only')
    .option('--limit <n>', 'at most so many (1 to 500)', '50')
    .option('--cursor <next>', 'go on after an earlier list')
    .option('--json', 'one JSON document')
    .action(async (flags: ListFlags) => {
      const client = await adminClient(flags);
      const { service, limit, cursor } = flags;
      const page = readAnswer(client, lettersSchema, await client.get(`/dlq${queryOf({ service, limit, cursor })}`));
      if (flags.json === true) return printJson(io, page);
      io.out(formatTable(HEAD, page.items.map(rowOf), io.color));
      for (const { why } of page.missing) io.err(`not asked: ${why}`);
      if (page.next !== null) io.err(`there are more: --cursor ${page.next}`);
    });
  withAdminOptions(group.command('show'))
    .description('one dead letter with the fact as it came')
    .argument('<id>', 'its id, such as order:7')
    .option('--json', 'as it is anyway')
    .action(async (id: string, flags: OnlineFlags) => {
      const client = await adminClient(flags);
      printJson(io, readAnswer(client, letterSchema, await client.get(`/dlq/${part(id)}`)));
    });
  const change = (name: 'replay' | 'skip', description: string): void => {
    withAdminOptions(group.command(name))
      .description(description)
      .argument('<id>', 'the id of the letter, such as order:7')
      .requiredOption('--reason <text>', 'why; kept in the audit', reasonArgument)
      .option('--json', 'one JSON document')
      .action(async (id: string, flags: ChangeFlags) => {
        const client = await adminClient(flags);
        tell(io, flags, readAnswer(client, replayedSchema, await client.post(`/dlq/${part(id)}/${name}`, { reason: flags.reason })));
      });
  };
  change('replay', 'apply what waits under the key of a letter, in its order; 1 when one fails again');
  change('skip', 'give one letter up and go on with its key; 1 when the next one fails');
};
