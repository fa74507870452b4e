import { type ContextView, type PartView, statusSchema } from '@banyan/contracts/admin-api.ts';
import { moment, type OnlineFlags, readAnswer } from './answers.ts';
import { adminClient, withAdminOptions } from './client.ts';
import { formatTable, printJson, type Register } from './output.ts';

const partOf = (part: PartView, more = ''): string =>
  !part.configured ? 'not configured' : part.ok ? `ok${more}` : (part.detail ?? 'away');

const age = (ms: number): string => (ms < 1_000 ? `${Math.round(ms)} ms` : `${Math.round(ms / 1_000)} s`);

/** Contexts as a table; also printed after a move. */
export const contextTable = (contexts: readonly ContextView[], color: boolean): string =>
  formatTable(
    ['CONTEXT', 'STAGE', 'SHARE', 'KILLED', 'FLIP', 'RAMP', 'BREAKER', 'EPOCH', 'VERSION', 'CHANGED', 'BY'],
    contexts.map((context) => [
      context.name,
      context.stage,
      context.stage === 'canary' ? `${context.percent}%` : '-',
      context.killed ? 'killed' : '-',
      context.flip?.state ?? '-',
      context.ramp?.state ?? '-',
      context.breaker.state,
      String(context.epoch),
      String(context.version),
      moment(context.updatedAt),
      context.updatedBy,
    ]),
    color,
  );

/** `banyan status`: 0 whenever a gateway answers; what is wrong stands in the answer. */
export const registerStatus: Register = (program, io) => {
  withAdminOptions(program.command('status'))
    .description('show contexts, store, stream, adapter and replicas of a running gateway')
    .option('--json', 'one JSON document')
    .action(async (flags: OnlineFlags) => {
      const client = await adminClient(flags);
      const answer = await client.get('/status');
      const status = readAnswer(client, statusSchema, answer);
      if (flags.json === true) return printJson(io, status);
      const { backlog } = status.stream;
      const alive = status.replicas.filter((replica) => replica.alive).length;
      io.out(`gateway   ${status.version}, up ${status.uptimeSeconds} s${status.draining ? ', draining' : ''}`);
      io.out(`store     ${partOf(status.store)}`);
      io.out(
        `stream    ${partOf(status.stream, backlog === null || backlog.depth === 0 ? '' : `, ${backlog.depth} facts wait, the oldest for ${age(backlog.oldestAgeMs)}`)}`,
      );
      io.out(`adapter   ${partOf(status.adapter)}`);
      for (const { context, hosts } of status.upstreams)
        for (const { url, state, detail } of hosts)
          if (state !== 'healthy') io.out(`upstream  ${context ?? 'legacy'} ${url} is ${state}${detail === null ? '' : `: ${detail}`}`);
      if (status.store.configured) io.out(`replicas  ${alive} alive`);
      io.out('');
      io.out(
        status.contexts.length === 0 ? 'no contexts: everything passes through to the monolith' : contextTable(status.contexts, io.color),
      );
    });
};
