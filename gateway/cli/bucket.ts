import { parsePercent } from '@banyan/contracts/config-values.ts';
import { STAGES, type Stage } from '@banyan/contracts/vocabulary.ts';
import { InvalidArgumentError, Option } from 'commander';
import { z } from 'zod';
import { decideKey } from '../core/decide-key.ts';
import { adminClient, withAdminOptions } from './client.ts';
import { cannot } from './exit.ts';
import { loadOrExit } from './load.ts';
import type { Register } from './output.ts';

const percent = (text: string): number => {
  const parsed = parsePercent(text);
  if (!parsed.ok) throw new InvalidArgumentError(`Expected ${parsed.expected}.`);
  return parsed.value;
};

type Flags = {
  readonly config?: string;
  readonly admin?: string;
  readonly tokenFile?: string;
  readonly stage?: Stage;
  /** Basis points. */
  readonly percent?: number;
};

type Standing = { readonly group: string | null; readonly stage: Stage; readonly canaryShareBp: number; readonly killed: boolean };

/** The part of the admin API's context that decides. */
const running = z.object({
  group: z.string().nullish(),
  stage: z.enum(STAGES),
  /** 0..100. */
  percent: z.number().min(0).max(100).nullish(),
  killed: z.boolean(),
});

/** `banyan bucket CONTEXT KEY`: where a sticky key falls and who answers its queries. With `--config` from the file alone, else from the running gateway. */
export const registerBucket: Register = (program, io) => {
  withAdminOptions(program.command('bucket'))
    .description('print the bucket of a sticky key and who answers its queries')
    .argument('<context>', 'e.g. order')
    .argument('<key>', 'the sticky key, e.g. a user id')
    .addOption(new Option('--stage <stage>', 'suppose this stage').choices([...STAGES]))
    .option('--percent <p>', 'suppose this canary share', percent)
    .option('--json', 'as it is anyway')
    .action(async (context: string, key: string, flags: Flags) => {
      if (key === '') throw cannot('the key is empty, and an empty key has no bucket');
      const standing = flags.config === undefined ? await askGateway(context, flags) : await readFile(context, flags.config);
      const stage = flags.stage ?? standing.stage;
      const owner = stage === 'cutover' || stage === 'retired' ? ('extracted' as const) : ('legacy' as const);
      const canaryShareBp = flags.percent ?? standing.canaryShareBp;
      const { bucket, upstream, reason } = decideKey(
        { name: context, epoch: 0, version: 0, frozen: false, owner, ...standing, stage, canaryShareBp },
        key,
      );
      io.out(JSON.stringify({ context, key, bucket, upstream, reason }));
    });

  const readFile = async (name: string, file: string): Promise<Standing> => {
    const { config } = await loadOrExit(io, { file, dev: true, warn: false });
    const context = Object.hasOwn(config.contexts, name) ? config.contexts[name] : undefined;
    if (context === undefined)
      throw cannot(`${file} knows no context "${name}"; it has ${Object.keys(config.contexts).join(', ') || 'none'}`);
    return { group: context.group, stage: context.stage, canaryShareBp: context.share, killed: false };
  };

  const askGateway = async (name: string, flags: Flags): Promise<Standing> => {
    const client = await adminClient(flags);
    const answer = running.safeParse(await client.get(`/contexts/${encodeURIComponent(name)}`));
    if (!answer.success) throw cannot(`${client.url} answers, but not with a context as Banyan shows it`);
    const { group, stage, killed } = answer.data;
    return { group: group ?? null, stage, killed, canaryShareBp: Math.round((answer.data.percent ?? 0) * 100) };
  };
};
