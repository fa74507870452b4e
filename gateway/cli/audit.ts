import { auditRowSchema, auditVerdictSchema, pageOf } from '@banyan/contracts/admin-api.ts';
import { moment, type OnlineFlags, queryOf, readAnswer } from './answers.ts';
import { adminClient, withAdminOptions } from './client.ts';
import { answerNo } from './exit.ts';
import { formatTable, groupOf, printJson, type Register } from './output.ts';

type ListFlags = OnlineFlags & { readonly context?: string; readonly limit?: string; readonly cursor?: string };

/** `banyan audit list|verify`; verify is 1 when a row was changed behind Banyan's back, and names it. */
export const registerAudit: Register = (program, io) => {
  const group = groupOf(program, 'audit', 'who changed what and why');
  withAdminOptions(group.command('list'))
    .description('changes, newest first')
    .option('--context <name>', 'of this context only')
    .option('--limit <n>', 'at most so many (1 to 500)', '50')
    .option('--cursor <next>', 'go on after an earlier list')
    .option('--json', 'one JSON document')
    .action(async (flags: ListFlags) => {
      const client = await adminClient(flags);
      const { context, limit, cursor } = flags;
      const page = readAnswer(client, pageOf(auditRowSchema), await client.get(`/audit${queryOf({ context, limit, cursor })}`));
      if (flags.json === true) return printJson(io, page);
      const rows = page.items.map((row) => [
        String(row.id),
        moment(row.at),
        row.actor,
        row.action,
        row.context ?? '-',
        row.reason,
        row.after === null ? '-' : JSON.stringify(row.after),
      ]);
      io.out(formatTable(['ID', 'AT', 'WHO', 'ACTION', 'CONTEXT', 'WHY', 'AFTER'], rows, io.color));
      if (page.next !== null) io.err(`there are more: --cursor ${page.next}`);
    });
  withAdminOptions(group.command('verify'))
    .description('check that no row was changed or removed; 1 when one was')
    .option('--json', 'one JSON document')
    .action(async (flags: OnlineFlags) => {
      const client = await adminClient(flags);
      const verdict = readAnswer(client, auditVerdictSchema, await client.get('/audit/verify'));
      if (flags.json === true) printJson(io, verdict);
      else if (verdict.ok) io.out(`all ${verdict.rows} rows are as they were written`);
      else for (const { id, fault } of verdict.faults) io.out(`row ${id}: ${fault}`);
      if (!verdict.ok) throw answerNo(flags.json === true ? '' : 'the audit was tampered with');
    });
};
