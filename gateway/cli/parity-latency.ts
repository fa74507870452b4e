import { type ParityLatencyView, pageOf, parityLatencySchema } from '@banyan/contracts/admin-api.ts';
import { type OnlineFlags, part, readAnswer } from './answers.ts';
import { adminClient, withAdminOptions } from './client.ts';
import { formatTable, groupOf, printJson, type Register } from './output.ts';

const two = (ms: number): string => ms.toFixed(2);

const rowsOf = ({ route, sides, test }: ParityLatencyView): string[][] =>
  sides.map((side, i) => [
    i === 0 ? route : '',
    `${side.upstream} ${side.asked}`,
    String(side.n),
    two(side.p50),
    two(side.p90),
    two(side.p99),
    two(side.max),
    ...(i > 0 || test === null ? [] : [test.medians.toFixed(2), test.larger.toFixed(3), test.p.toExponential(1), test.basis]),
  ]);

/** `banyan parity latency CONTEXT`: both sides for the same queries, and whether chance explains the difference. */
export const registerParityLatency: Register = (program, io) => {
  withAdminOptions(groupOf(program, 'parity', 'what comparing both sides has shown').command('latency'))
    .description('how long both sides take to the head of an answer, ms, by route, and a Mann-Whitney test of the difference')
    .argument('<context>')
    .option('--json', 'one JSON document')
    .action(async (context: string, flags: OnlineFlags) => {
      const client = await adminClient(flags);
      const page = readAnswer(client, pageOf(parityLatencySchema), await client.get(`/contexts/${part(context)}/parity/latency`));
      if (flags.json === true) return printJson(io, page);
      const head = ['ROUTE', 'SIDE', 'ANSWERS', 'P50', 'P90', 'P99', 'MAX', 'MEDIANS', 'SLOWER', 'P', 'OF'];
      io.out(formatTable(head, page.items.flatMap(rowsOf), io.color));
    });
};
