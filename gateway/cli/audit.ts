import { auditRowSchema, auditVerdictSchema, pageOf } from '@banyan/contracts/admin-api.ts';
import { InvalidArgumentError } from 'commander';
import { moment, type OnlineFlags, queryOf, readAnswer } from './answers.ts';
import { type AdminClient, adminClient, withAdminOptions } from './client.ts';
import { answerNo } from './exit.ts';
import { formatTable, groupOf, printJson, type Register } from './output.ts';

type ListFlags = OnlineFlags & { readonly context?: string; readonly limit?: string; readonly cursor?: string };

/** A row as somebody has noted it elsewhere. */
type Noted = { readonly id: number; readonly hash: string };
type VerifyFlags = OnlineFlags & { readonly expect?: Noted };

const notedArgument = (text: string): Noted => {
  const found = /^(\d{1,15}):([0-9a-f]{64})$/.exec(text);
  if (found === null || Number(found[1]) < 1) throw new InvalidArgumentError('Expected ID:HASH as an earlier verify printed it.');
  return { id: Number(found[1]), hash: found[2]! };
};

/** The newest row before `cursor`, or of all. */
const newest = async (client: AdminClient, cursor?: number): Promise<Noted | undefined> => {
  const query = queryOf({ limit: '1', cursor: cursor === undefined ? undefined : String(cursor) });
  const [row] = readAnswer(client, pageOf(auditRowSchema), await client.get(`/audit${query}`)).items;
  return row && { id: row.id, hash: row.hash };
};

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
    .option(
      '--expect <id:hash>',
      'a row that an earlier verify printed: without it nobody could tell that the end was cut off',
      notedArgument,
    )
    .option('--json', 'one JSON document')
    .action(async ({ expect, ...flags }: VerifyFlags) => {
      const client = await adminClient(flags);
      const verdict = readAnswer(client, auditVerdictSchema, await client.get('/audit/verify'));
      const [last, kept] = [await newest(client), expect && (await newest(client, expect.id + 1))];
      const cut = expect !== undefined && (kept?.id !== expect.id || kept.hash !== expect.hash);
      const faults = [
        ...verdict.faults,
        ...(cut ? [{ id: expect.id, fault: kept?.id === expect.id ? 'is another one than was noted' : 'is gone' }] : []),
      ];
      const ok = verdict.ok && !cut;
      const head = last === undefined ? null : `${last.id}:${last.hash}`;
      if (flags.json === true) printJson(io, { ...verdict, ok, faults, head });
      else {
        if (ok) io.out(`all ${verdict.rows} rows are as they were written`);
        else for (const { id, fault } of faults) io.out(`row ${id}: ${fault}`);
        if (ok && head !== null) io.err(`the last one, to be noted elsewhere for --expect: ${head}`);
      }
      if (!ok) throw answerNo(flags.json === true ? '' : 'the audit was tampered with');
    });
};
