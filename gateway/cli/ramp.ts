import { setTimeout as pause } from 'node:timers/promises';
import { type ContextView, contextSchema, RAMP_ACTIONS, type RampAction, type RampView } from '@banyan/contracts/admin-api.ts';
import { Argument } from 'commander';
import { moment, type OnlineFlags, part, readAnswer } from './answers.ts';
import { adminClient, withAdminOptions } from './client.ts';
import { answerNo } from './exit.ts';
import { formatTable, printJson, type Register } from './output.ts';
import { reasonArgument } from './stage.ts';

type Flags = OnlineFlags & { readonly reason?: string; readonly watch?: boolean };

/** ms between two looks of `--watch`. */
const LOOK_MS = 500;

const ENDED = new Set(['done', 'rolled-back', 'aborted']);

const shareOf = (ramp: RampView): string => (ramp.share === 0 ? 'shadow' : `${ramp.share} %`);

const nextOf = (ramp: RampView): string => {
  const next = ramp.steps.find((step) => step > ramp.share);
  return next === undefined ? 'the end' : `${next} %`;
};

/** What the state means, and what happens next, in words. */
const explain = ({ name }: ContextView, ramp: RampView): string[] => {
  const since = `since ${moment(ramp.since)} UTC`;
  const { needed, given } = ramp.approvals;
  switch (ramp.state) {
    case 'idle':
      return [`${name} has no ramp`];
    case 'running':
      return [`${name} is at ${shareOf(ramp)} ${since}; it waits for the step to ${nextOf(ramp)}:`];
    case 'waiting-approval':
      return [
        `${name} is at ${shareOf(ramp)} ${since}; the step to ${nextOf(ramp)} waits for people, ${given.length} of ${needed} have approved:`,
      ];
    case 'paused':
      return [
        `${name} is at ${shareOf(ramp)} and paused by ${ramp.paused?.by ?? 'nobody'} (${ramp.paused?.reason ?? ''}); it would still roll back. Seen so far:`,
      ];
    case 'done':
      return [
        `${name} has come to ${shareOf(ramp)}, the last step; the cutover is a person's to ask for (banyan stage ${name} cutover). It passed with:`,
      ];
    case 'rolled-back':
      return [
        `${name} was rolled back to shadow ${since}; nothing is promoted before somebody starts it again (banyan ramp ${name} start). Why:`,
      ];
    case 'aborted':
      return [`${name}: the ramp was ended at ${shareOf(ramp)}; the traffic stays where it is. Seen last:`];
  }
};

const rowOf = (context: ContextView, ramp: RampView): string[] => [
  context.name,
  ramp.state,
  `${ramp.step}/${ramp.steps.length}`,
  shareOf(ramp),
  moment(ramp.since),
  ramp.nextAt === null ? '-' : moment(ramp.nextAt),
  ramp.outcome,
  ramp.startedBy,
];

const tell = (context: ContextView, ramp: RampView, color: boolean): string =>
  [
    formatTable(['CONTEXT', 'RAMP', 'STEP', 'SHARE', 'SINCE', 'NEXT NOT BEFORE', 'OUTCOME', 'BY'], [rowOf(context, ramp)], color),
    '',
    ...explain(context, ramp),
    ...ramp.reasons.map((reason) => `  - ${reason}`),
    ...(ramp.reasons.length === 0 ? ['  - nothing was looked at yet'] : []),
    ...(ramp.contexts.length > 1 ? [`moves as one: ${ramp.contexts.join(', ')}`] : []),
  ].join('\n');

/** `banyan ramp CONTEXT [ACTION]`: without an action it explains the present state. Exit 1: refused, or (with --watch) rolled back. */
export const registerRamp: Register = (program, io) => {
  withAdminOptions(program.command('ramp'))
    .description('let evidence move the traffic of a context step by step; without an action: where it stands and what it waits for')
    .argument('<context>', 'e.g. order')
    .addArgument(new Argument('[action]', 'what to do').choices([...RAMP_ACTIONS]))
    .option('--reason <text>', 'why; kept in the audit', reasonArgument)
    .option('--watch', 'tell every change until the ramp has ended')
    .option('--json', 'one JSON document; with --watch one line for each change')
    .action(async (context: string, action: RampAction | undefined, flags: Flags) => {
      const client = await adminClient(flags);
      const path = `/contexts/${part(context)}`;
      const body = { action, ...(flags.reason === undefined ? {} : { reason: flags.reason }) };
      let now = readAnswer(client, contextSchema, await (action === undefined ? client.get(path) : client.post(`${path}/ramp`, body)));
      if (flags.watch !== true) {
        if (flags.json === true) printJson(io, now.ramp);
        else io.out(now.ramp === null ? `${context} has no ramp; banyan ramp ${context} start begins one` : tell(now, now.ramp, io.color));
        return;
      }
      let told = '';
      while (now.ramp !== null) {
        const { ramp } = now;
        const text =
          flags.json === true
            ? JSON.stringify(ramp)
            : [`${moment(ramp.updatedAt)}  ${shareOf(ramp)}  ${ramp.state}`, ...ramp.reasons].join('\n  ');
        // the moment of the look is no change
        const key = JSON.stringify({ ...ramp, updatedAt: '' });
        if (key !== told) io.out(text);
        told = key;
        if (ramp.state === 'rolled-back') throw answerNo(`${context} was rolled back`);
        if (ENDED.has(ramp.state)) return;
        await pause(LOOK_MS);
        now = readAnswer(client, contextSchema, await client.get(path));
      }
      io.err(`${context} has no ramp`);
    });
};
