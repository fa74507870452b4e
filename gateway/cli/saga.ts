import { pageOf, SAGA_RESOLUTIONS, type SagaResolution, type SagaView, sagaDetailSchema, sagaSchema } from '@banyan/contracts/admin-api.ts';
import { SAGA_STATES } from '@banyan/contracts/vocabulary.ts';
import { Option } from 'commander';
import { moment, type OnlineFlags, part, queryOf, readAnswer } from './answers.ts';
import { adminClient, withAdminOptions } from './client.ts';
import { formatTable, groupOf, printJson, type Register } from './output.ts';
import { reasonArgument } from './stage.ts';

type ListFlags = OnlineFlags & { readonly state?: string; readonly limit?: string; readonly cursor?: string };
type ResolveFlags = OnlineFlags & { readonly as: SagaResolution; readonly reason: string };

const HEAD = ['ID', 'DEFINITION', 'SUBJECT', 'STATE', 'BEGUN', 'UPDATED', 'WHY'];
const rowOf = (saga: SagaView): string[] => [
  saga.id,
  `${saga.definition} ${saga.version}`,
  saga.subject,
  saga.state,
  moment(saga.createdAt),
  moment(saga.updatedAt),
  (saga.why ?? '-').slice(0, 80),
];

/** `banyan saga list|show|resolve`. */
export const registerSaga: Register = (program, io) => {
  const group = groupOf(program, 'saga', 'what follows a command over several services, and what was taken back');
  withAdminOptions(group.command('list'))
    .description('sagas, newest first')
    .addOption(new Option('--state <state>', 'in this state only').choices([...SAGA_STATES]))
    .option('--limit <n>', 'at most so many (1 to 500)', '50')
    .option('--cursor <next>', 'go on after an earlier list')
    .option('--json', 'one JSON document')
    .action(async (flags: ListFlags) => {
      const client = await adminClient(flags);
      const { state, limit, cursor } = flags;
      const page = readAnswer(client, pageOf(sagaSchema), await client.get(`/sagas${queryOf({ state, limit, cursor })}`));
      if (flags.json === true) return printJson(io, page);
      io.out(formatTable(HEAD, page.items.map(rowOf), io.color));
      if (page.next !== null) io.err(`there are more: --cursor '${page.next}'`);
    });
  withAdminOptions(group.command('show'))
    .description('one saga: its steps, and everything that happened, in order')
    .argument('<id>', 'its id')
    .option('--json', 'one JSON document')
    .action(async (id: string, flags: OnlineFlags) => {
      const client = await adminClient(flags);
      const saga = readAnswer(client, sagaDetailSchema, await client.get(`/sagas/${part(id)}`));
      if (flags.json === true) return printJson(io, saga);
      io.out(formatTable(HEAD, [rowOf(saga)], io.color));
      io.out('');
      const steps = Object.entries(saga.steps).map(([name, step]) => [name, step.state, String(step.attempts)]);
      io.out(formatTable(['STEP', 'STATE', 'ATTEMPTS'], steps, io.color));
      io.out('');
      const begun = Date.parse(saga.createdAt);
      const events = saga.timeline.map((event) => [
        `+${((Date.parse(event.at) - begun) / 1000).toFixed(3)} s`,
        event.step ?? '-',
        event.what,
        event.detail ?? '-',
      ]);
      io.out(formatTable(['AFTER', 'STEP', 'WHAT', 'DETAIL'], events, io.color));
    });
  withAdminOptions(group.command('resolve'))
    .description('decide about a parked saga')
    .argument('<id>', 'its id')
    .addOption(
      new Option('--as <what>', 'retry: go on as before; compensate: take everything back; done: a person has done what was missing')
        .choices([...SAGA_RESOLUTIONS])
        .makeOptionMandatory(),
    )
    .requiredOption('--reason <text>', 'how it is known; kept in the audit', reasonArgument)
    .option('--json', 'one JSON document')
    .action(async (id: string, flags: ResolveFlags) => {
      const client = await adminClient(flags);
      const saga = readAnswer(
        client,
        sagaDetailSchema,
        await client.post(`/sagas/${part(id)}/resolve`, { as: flags.as, reason: flags.reason }),
      );
      if (flags.json === true) printJson(io, saga);
      else io.out(formatTable(HEAD, [rowOf(saga)], io.color));
    });
};
