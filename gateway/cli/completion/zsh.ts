import { type CommandSpec, offeredFlags, offeredPlaces, type Values, valuedFlags } from './spec.ts';

const addOf = (values: Exclude<Values, 'any'>): string => {
  if (values === 'contexts') return 'compadd -- ${(f)"$("${words[1]}" __contexts 2>/dev/null)"}';
  if (values === 'files') return '_files';
  return `compadd -- ${values.join(' ')}`;
};

const described = (tag: string, of: readonly { readonly name: string; readonly description: string }[]): string =>
  `local -a found=(${of.map(({ name, description }) => `'${name}:${description}'`).join(' ')}); _describe '${tag}' found`;

/** A script for zsh, with a description beside each word. */
export const zshScript = (specs: readonly CommandSpec[]): string => {
  const known = specs.filter(({ path }) => path !== '').map(({ path }) => path);
  const places = offeredPlaces(specs).map(
    ({ at, values, commands }) => `      '${at}') ${commands.length > 0 ? described('command', commands) : addOf(values)} ;;`,
  );
  return `#compdef banyan
# zsh completion for banyan. Now: source <(banyan completion zsh). For good: banyan completion zsh > "\${fpath[1]}/_banyan".
_banyan() {
  local at='' want='' word n=0 i
  for ((i = 2; i < CURRENT; i++)); do
    word="\${words[i]}"
    if [[ -n $want ]]; then
      want=''
      continue
    fi
    if [[ $word == -* ]]; then
      case "$at $word" in
        ${valuedFlags(specs)
          .map(({ at }) => `'${at}'`)
          .join(' | ')}) want="$at $word" ;;
      esac
      continue
    fi
    case "$at/$word" in
      ${known.map((path) => `'${path}'`).join(' | ')}) at="$at/$word" ;;
      *) n=$((n + 1)) ;;
    esac
  done
  if [[ -n $want ]]; then
    case "$want" in
${offeredFlags(specs)
  .map(({ at, values }) => `      '${at}') ${addOf(values)} ;;`)
  .join('\n')}
    esac
  elif [[ "\${words[CURRENT]}" == -* ]]; then
    case "$at" in
${specs.map(({ path, flags }) => `      '${path}') ${described('option', flags)} ;;`).join('\n')}
    esac
  else
    case "$at $n" in
${places.join('\n')}
    esac
  fi
}
# sourced: tell zsh; found in fpath: zsh calls the file itself
if [[ "\${funcstack[1]}" == _banyan ]]; then
  _banyan "$@"
else
  (( $+functions[compdef] )) || { autoload -Uz compinit && compinit -u; }
  compdef _banyan banyan
fi
`;
};
