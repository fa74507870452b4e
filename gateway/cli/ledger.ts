import { type LedgerEntryView, ledgerEntrySchema, pageOf, RESOLUTIONS, type Resolution } from '@banyan/contracts/admin-api.ts';
import { LEDGER_STATES } from '@banyan/contracts/vocabulary.ts';
import { Option } from 'commander';
import { moment, type OnlineFlags, part, queryOf, readAnswer } from './answers.ts';
import { adminClient, withAdminOptions } from './client.ts';
import { formatTable, groupOf, printJson, type Register } from './output.ts';
import { reasonArgument } from './stage.ts';

type ListFlags = OnlineFlags & { readonly context?: string; readonly state?: string; readonly limit?: string; readonly cursor?: string };
type ResolveFlags = OnlineFlags & { readonly as: Resolution; readonly reason: string };

const HEAD = ['ID', 'CONTEXT', 'STATE', 'ROUTE', 'AGGREGATE', 'UPSTREAM', 'STATUS', 'EVENT', 'BEGUN', 'ERROR'];
const rowOf = (entry: LedgerEntryView): string[] => [
  entry.id,
  entry.context,
  entry.state,
  entry.route,
  entry.aggregate ?? '-',
  entry.upstream,
  entry.response === undefined ? '-' : String(entry.response.status),
  entry.event?.type ?? '-',
  moment(entry.createdAt),
  (entry.error ?? '-').slice(0, 80),
];

/** `banyan ledger list|show|resolve`. */
export const registerLedger: Register = (program, io) => {
  const group = groupOf(program, 'ledger', 'dual writes and what became of them');
  withAdminOptions(group.command('list'))
    .description('dual writes, newest first')
    .option('--context <name>', 'of this context only')
    .addOption(new Option('--state <state>', 'in this state only').choices([...LEDGER_STATES]))
    .option('--limit <n>', 'at most so many (1 to 500)', '50')
    .option('--cursor <next>', 'go on after an earlier list')
    .option('--json', 'one JSON document')
    .action(async (flags: ListFlags) => {
      const client = await adminClient(flags);
      const { context, state, limit, cursor } = flags;
      const page = readAnswer(client, pageOf(ledgerEntrySchema), await client.get(`/ledger${queryOf({ context, state, limit, cursor })}`));
      if (flags.json === true) return printJson(io, page);
      io.out(formatTable(HEAD, page.items.map(rowOf), io.color));
      if (page.next !== null) io.err(`there are more: --cursor ${page.next}`);
    });
  withAdminOptions(group.command('show'))
    .description('one dual write')
    .argument('<id>', 'its id')
    .option('--json', 'as it is anyway')
    .action(async (id: string, flags: OnlineFlags) => {
      const client = await adminClient(flags);
      printJson(io, readAnswer(client, ledgerEntrySchema, await client.get(`/ledger/${part(id)}`)));
    });
  withAdminOptions(group.command('resolve'))
    .description('say what became of a parked write')
    .argument('<id>', 'its id')
    .addOption(new Option('--as <what>', 'what a person found out').choices([...RESOLUTIONS]).makeOptionMandatory())
    .requiredOption('--reason <text>', 'how it is known; kept in the audit', reasonArgument)
    .option('--json', 'one JSON document')
    .action(async (id: string, flags: ResolveFlags) => {
      const client = await adminClient(flags);
      const answer = await client.post(`/ledger/${part(id)}/resolve`, { as: flags.as, reason: flags.reason });
      const entry = readAnswer(client, ledgerEntrySchema, answer);
      if (flags.json === true) printJson(io, entry);
      else io.out(formatTable(HEAD, [rowOf(entry)], io.color));
    });
};
