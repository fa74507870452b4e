import { parseDuration } from '@banyan/contracts/config-values.ts';
import { HEADERS, UPSTREAMS, type Upstream } from '@banyan/contracts/vocabulary.ts';
import { Argument, InvalidArgumentError } from 'commander';
import { cannot } from './exit.ts';
import { configFileOrExit, loadOrExit } from './load.ts';
import { groupOf, type Register } from './output.ts';

const seconds = (text: string): number => {
  const parsed = parseDuration(text);
  const value = parsed.ok ? Math.floor(parsed.value / 1_000) : 0;
  if (value < 1 || value > 86_400) throw new InvalidArgumentError('Expected a duration from 1s to 24h, such as 1h.');
  return value;
};

type Flags = { readonly for: number; readonly config?: string; readonly json?: boolean };

/** `banyan override token CONTEXT UPSTREAM --for 1h`: a signed token with which one request chooses its side. Asks nobody. */
export const registerOverride: Register = (program, io) => {
  groupOf(program, 'override', 'let single requests choose their side')
    .command('token')
    .description('print a token that sends queries of a context to one side')
    .argument('<context>', 'e.g. order')
    .addArgument(new Argument('<upstream>').choices([...UPSTREAMS]))
    .option('--for <duration>', 'how long it holds, at most 24h', seconds, 3_600)
    .option('--config <file>', 'default: banyan.yaml in this folder')
    .option('--json', 'one JSON document with the headers to send')
    .action(async (context: string, upstream: Upstream, flags: Flags) => {
      const file = configFileOrExit(flags.config);
      const { config } = await loadOrExit(io, { file, dev: true, warn: false });
      if (!Object.hasOwn(config.contexts, context))
        throw cannot(`${file} knows no context "${context}"; it has ${Object.keys(config.contexts).join(', ') || 'none'}`);
      const key = config.overrideToken?.key ?? null;
      if (key === null) throw cannot(`${file} has no overrideToken.key: the gateway would believe no token`);
      // loaded for this command alone
      const { signOverride } = await import('../identity/override-token.ts');
      const token = await signOverride(key, context, upstream, flags.for, Date.now());
      const headers = { [HEADERS.override]: `${context}=${upstream}`, [HEADERS.overrideToken]: token };
      if (flags.json) io.out(JSON.stringify({ context, upstream, seconds: flags.for, token, headers }));
      else {
        io.out(token);
        io.err(`send it as ${HEADERS.overrideToken}, with ${HEADERS.override}: ${context}=${upstream}`);
      }
    });
};
