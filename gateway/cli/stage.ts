import { setTimeout as pause } from 'node:timers/promises';
import { askedSchema, contextSchema, type FlipView, flipSchema, flipStartedSchema, percentOf } from '@banyan/contracts/admin-api.ts';
import { parsePercent } from '@banyan/contracts/config-values.ts';
import { STAGES, type Stage } from '@banyan/contracts/vocabulary.ts';
import { Argument, InvalidArgumentError } from 'commander';
import { type OnlineFlags, part, readAnswer } from './answers.ts';
import { askLine } from './ask.ts';
import { type AdminClient, adminClient, withAdminOptions } from './client.ts';
import { answerNo, cannot } from './exit.ts';
import { type Io, printJson, type Register } from './output.ts';
import { contextTable } from './status.ts';

/** Reads `--percent` into basis points. */
const percentArgument = (text: string): number => {
  const parsed = parsePercent(text);
  if (!parsed.ok) throw new InvalidArgumentError(`Expected ${parsed.expected}.`);
  return parsed.value;
};

/** A reason is kept in the audit; an empty one says nothing. */
export const reasonArgument = (text: string): string => {
  if (text.trim() === '' || text.length > 1_000) throw new InvalidArgumentError('Expected why, in words (1 to 1000 characters).');
  return text;
};

/** ms between two looks at a flip. */
const LOOK_MS = 200;

type Flags = OnlineFlags & {
  readonly percent?: number;
  readonly force?: boolean;
  readonly yes?: boolean;
  readonly ifVersion?: number;
  readonly reason: string;
};

const versionArgument = (text: string): number => {
  if (!/^\d{1,15}$/.test(text)) throw new InvalidArgumentError('Expected the version as a whole number.');
  return Number(text);
};

/** Waits until a flip has ended, and tells its steps on stderr. There is no time limit: the gateway itself undoes a flip that takes too long. */
const watch = async (io: Io, client: AdminClient, id: string): Promise<FlipView> => {
  let told = '';
  for (;;) {
    const flip = readAnswer(client, flipSchema, await client.get(`/flips/${part(id)}`));
    const now = `${flip.state}${flip.detail === null ? '' : `: ${flip.detail}`}`;
    if (now !== told) io.err(`flip ${id}: ${now}`);
    told = now;
    if (flip.state === 'done' || flip.state === 'undone') return flip;
    await pause(LOOK_MS);
  }
};

const confirmRetired = async (io: Io, context: string, flags: Flags): Promise<void> => {
  if (flags.yes === true) return;
  if (!io.interactive) throw cannot(`retired is final: there is no way back and no kill for ${context}; say --yes if that is meant`);
  const said = await askLine(`Retiring ${context} is final: no way back, no kill. Type its name to go on: `);
  if (said !== context) throw answerNo('nothing was changed');
};

/** `banyan stage CONTEXT STAGE`: 0 done, 1 refused, undone, or others must ask for the same first. A move that hands over write ownership is waited for. */
export const registerStage: Register = (program, io) => {
  withAdminOptions(program.command('stage'))
    .description('move a context to a stage; waits for a hand-over of write ownership')
    .argument('<context>', 'e.g. order')
    .addArgument(new Argument('<stage>', 'where to').choices([...STAGES]))
    .requiredOption('--reason <text>', 'why; kept in the audit', reasonArgument)
    .option('--percent <p>', 'canary share, e.g. 12.5', percentArgument)
    .option('--force', 'skip stages on the way forward')
    .option('--if-version <n>', 'only when the context is still at this version', versionArgument)
    .option('--yes', 'do not ask before retired')
    .option('--json', 'one JSON document')
    .action(async (context: string, stage: Stage, flags: Flags) => {
      if (flags.percent !== undefined && stage !== 'canary') throw cannot(`--percent goes with canary only, not with ${stage}`);
      if (stage === 'retired') await confirmRetired(io, context, flags);
      const client = await adminClient(flags);
      const answer = await client.put(`/contexts/${part(context)}/stage`, {
        stage,
        reason: flags.reason,
        ...(flags.percent === undefined ? {} : { percent: percentOf(flags.percent) }),
        ...(flags.force === true ? { force: true } : {}),
        ...(flags.ifVersion === undefined ? {} : { ifVersion: flags.ifVersion }),
      });
      const asked = askedSchema.safeParse(answer);
      if (asked.success) {
        const { askedBy, needed } = asked.data.asked;
        if (flags.json === true) printJson(io, asked.data);
        throw answerNo(`not moved yet: ${askedBy.join(', ')} asked for it, ${needed} people must ask for the same`);
      }
      const started = flipStartedSchema.safeParse(answer);
      const flip = started.success ? await watch(io, client, started.data.flip.id) : null;
      const now = readAnswer(client, contextSchema, flip ? await client.get(`/contexts/${part(context)}`) : answer);
      if (flags.json === true) printJson(io, flip ? { ...now, flip: { id: flip.id, state: flip.state } } : now);
      else io.out(contextTable([now], io.color));
      if (flip?.state === 'undone') throw answerNo(`the move was undone: ${flip.detail ?? 'no reason is known'}`);
    });
};
