import {
  contextSchema,
  type ParityHourView,
  type ParityView,
  pageOf,
  parityHourSchema,
  paritySchema,
} from '@banyan/contracts/admin-api.ts';
import { moment, type OnlineFlags, part, queryOf, readAnswer } from './answers.ts';
import { type AdminClient, adminClient, withAdminOptions } from './client.ts';
import { answerNo, cannot } from './exit.ts';
import { formatTable, groupOf, type Io, printJson, type Register } from './output.ts';

type Named = { readonly context: string } & ParityView;

const percent = (rate: number): string => `${(rate * 100).toFixed(2)}%`;

const rowOf = (report: Named): string[] => [
  report.context,
  String(report.requests),
  String(report.compared),
  String(report.match),
  String(report.noise),
  String(report.mismatch),
  String(report.incomparable),
  String(report.dropped),
  report.rate === null ? '-' : percent(report.rate),
  report.rate === null ? '-' : `${percent(report.wilson[0])}..${percent(report.wilson[1])}`,
  report.sprt.state,
];

type ReportFlags = OnlineFlags & { readonly hours?: string; readonly route?: string };

const hourRow = (hour: ParityHourView): string[] => {
  const worst = hour.byField.find(({ rule }) => rule === null);
  return [
    moment(hour.hour).slice(0, 16),
    String(hour.requests),
    String(hour.compared),
    String(hour.match),
    String(hour.noise),
    String(hour.mismatch),
    String(hour.incomparable),
    String(hour.dropped),
    hour.rate === null ? '-' : percent(hour.rate),
    worst === undefined ? '' : `${worst.count} x ${worst.kind} ${worst.field}`,
  ];
};

const showHours = async (io: Io, client: AdminClient, context: string | undefined, flags: ReportFlags): Promise<void> => {
  if (context === undefined) throw cannot('--hours wants a CONTEXT');
  if (!/^[1-9]\d{0,3}$/.test(flags.hours!)) throw cannot(`--hours ${flags.hours}: expected whole hours from 1 to 8784`);
  const path = `/contexts/${part(context)}/parity/hours${queryOf({ hours: flags.hours, route: flags.route })}`;
  const page = readAnswer(client, pageOf(parityHourSchema), await client.get(path));
  if (flags.json === true) return printJson(io, page);
  const head = ['HOUR (UTC)', 'REQUESTS', 'COMPARED', 'MATCH', 'NOISE', 'MISMATCH', 'INCOMPARABLE', 'DROPPED', 'RATE', 'MOST'];
  io.out(formatTable(head, page.items.map(hourRow), io.color));
};

/**
 * `banyan parity report [CONTEXT]`. 1 when the evidence of a context says roll back or a field differs more often than its
 * noise explains, else 0: single mismatches are what the sequential test weighs, and it has not decided while it says continue.
 */
export const registerParityReport: Register = (program, io) => {
  withAdminOptions(groupOf(program, 'parity', 'what comparing both sides has shown').command('report'))
    .description('how alike both sides answered since the last change of stage; 1 when the evidence says roll back')
    .argument('[context]', 'default: all')
    .option('--hours <n>', 'the last so many hours one by one, also across changes of stage; always 0')
    .option('--route <template>', 'with --hours: of this route alone')
    .option('--json', 'one JSON document')
    .action(async (context: string | undefined, flags: ReportFlags) => {
      const client = await adminClient(flags);
      if (flags.hours !== undefined) return showHours(io, client, context, flags);
      if (flags.route !== undefined) throw cannot('--route goes with --hours');
      const names =
        context === undefined
          ? readAnswer(client, pageOf(contextSchema), await client.get('/contexts')).items.map(({ name }) => name)
          : [context];
      const reports: Named[] = [];
      for (const name of names)
        reports.push({ context: name, ...readAnswer(client, paritySchema, await client.get(`/contexts/${part(name)}/parity`)) });
      if (flags.json === true) printJson(io, context === undefined ? { items: reports, next: null } : reports[0]);
      else {
        const head = ['CONTEXT', 'REQUESTS', 'COMPARED', 'MATCH', 'NOISE', 'MISMATCH', 'INCOMPARABLE', 'DROPPED', 'RATE', '95%', 'VERDICT'];
        io.out(formatTable(head, reports.map(rowOf), io.color));
        const dryRunRows = reports.flatMap(({ context: name, dryRuns }) =>
          dryRuns.map((one) => [
            name,
            one.route,
            String(one.compared),
            String(one.match),
            String(one.noise),
            String(one.mismatch),
            String(one.incomparable),
            one.rate === null ? '-' : percent(one.rate),
          ]),
        );
        if (dryRunRows.length > 0) {
          io.out('');
          io.out(
            formatTable(['DRY RUNS', 'ROUTE', 'COMPARED', 'MATCH', 'NOISE', 'MISMATCH', 'INCOMPARABLE', 'RATE'], dryRunRows, io.color),
          );
        }
        const fields = reports.flatMap(({ context: name, byField }) =>
          byField.filter(({ rule }) => rule === null).map(({ route, field, kind, count }) => [name, route, field, kind, String(count)]),
        );
        const alarms = reports.flatMap(({ context: name, noisy }) =>
          noisy
            .filter(({ alarm }) => alarm)
            .map((one) => [
              name,
              one.route,
              one.field,
              one.kind,
              String(one.onlyExtracted),
              String(one.onlyLegacy),
              one.p.toExponential(1),
            ]),
        );
        if (alarms.length > 0) {
          io.out('');
          io.out(formatTable(['ALARM', 'ROUTE', 'FIELD', 'KIND', 'ONLY EXTRACTED', 'ONLY LEGACY', 'P'], alarms.slice(0, 20)));
        }
        if (fields.length > 0) {
          io.out('');
          io.out(formatTable(['CONTEXT', 'ROUTE', 'FIELD', 'KIND', 'PAIRS'], fields.slice(0, 20), io.color));
        }
      }
      const alarmed = reports.filter(({ noisy }) => noisy.some(({ alarm }) => alarm)).map(({ context: name }) => name);
      const worse = reports.filter(({ sprt }) => sprt.state === 'rollback').map(({ context: name }) => name);
      if (worse.length > 0) throw answerNo(flags.json === true ? '' : `the evidence says roll back: ${worse.join(', ')}`);
      if (alarmed.length > 0)
        throw answerNo(flags.json === true ? '' : `fields differ more often than their own noise explains: ${alarmed.join(', ')}`);
    });
};
