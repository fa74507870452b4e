import { type CommandSpec, type Values, valuedFlags } from './spec.ts';

const CONTEXTS = "'(__banyan_contexts)'";

const from = (values: Values): string => {
  if (values === 'contexts') return ` -a ${CONTEXTS}`;
  return values === 'files' || values === 'any' ? '' : ` -a '${values.join(' ')}'`;
};

const at = (path: string, n: number | null): string => ` -n '__banyan_at "${path}"${n === null ? '' : ` ${n}`}'`;

/** A script for fish 3 and newer, with a description beside each word. */
export const fishScript = (specs: readonly CommandSpec[]): string => {
  const known = specs.filter(({ path }) => path !== '').map(({ path }) => `'${path}'`);
  const valued = valuedFlags(specs).map(({ at: place }) => `'${place}'`);
  const lines = specs.flatMap(({ path, commands, flags, args }) => [
    ...commands.map(({ name, description }) => `complete -c banyan${at(path, 0)} -a ${name} -d '${description}'`),
    ...(commands.length > 0
      ? []
      : args.flatMap((values, n) =>
          values === 'any' ? [] : [`complete -c banyan${at(path, n)}${values === 'files' ? ' -F' : from(values)}`],
        )),
    ...flags.map(
      ({ name, description, value }) =>
        `complete -c banyan${at(path, null)} -l ${name.slice(2)} -d '${description}'${value === null ? '' : value === 'files' ? ' -rF' : ` -x${from(value)}`}`,
    ),
  ]);
  return `# fish completion for banyan. Now: banyan completion fish | source. For good: banyan completion fish > ~/.config/fish/completions/banyan.fish
function __banyan_at
    set -l at ''
    set -l n 0
    set -l want ''
    for word in (commandline -opc)[2..-1]
        if test -n "$want"
            set want ''
            continue
        end
        if string match -q -- '-*' $word
            contains -- "$at $word" ${valued.join(' ')}; and set want $word
            continue
        end
        if contains -- "$at/$word" ${known.join(' ')}
            set at "$at/$word"
        else
            set n (math $n + 1)
        end
    end
    test "$at" = "$argv[1]"; or return 1
    test (count $argv) -lt 2; or test $n = $argv[2]
end
function __banyan_contexts
    set -l words (commandline -opc)
    $words[1] __contexts 2>/dev/null
end
complete -c banyan -f
${lines.join('\n')}
`;
};
