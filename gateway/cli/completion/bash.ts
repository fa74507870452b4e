import { type CommandSpec, offeredFlags, offeredPlaces, type Values, valuedFlags } from './spec.ts';

const replyOf = (values: Exclude<Values, 'any'>): string => {
  if (values === 'contexts') return 'COMPREPLY=($(compgen -W "$("${COMP_WORDS[0]}" __contexts 2>/dev/null)" -- "$cur"))';
  // readline's own completion of files knows about blanks in names; bash 3 has no compopt
  if (values === 'files') return 'compopt -o default 2>/dev/null || COMPREPLY=($(compgen -f -- "$cur"))';
  return `COMPREPLY=($(compgen -W "${values.join(' ')}" -- "$cur"))`;
};

/** A script for bash 3.2 and newer, without the bash-completion package. */
export const bashScript = (specs: readonly CommandSpec[]): string => {
  const known = specs.filter(({ path }) => path !== '').map(({ path }) => `"${path}"`);
  const flags = specs.map(
    ({ path, flags }) => `      "${path}") COMPREPLY=($(compgen -W "${flags.map(({ name }) => name).join(' ')}" -- "$cur")) ;;`,
  );
  const cases = (of: readonly { readonly at: string; readonly values: Exclude<Values, 'any'> }[]): string =>
    of.map(({ at, values }) => `      "${at}") ${replyOf(values)} ;;`).join('\n');
  return `# bash completion for banyan. Now: source <(banyan completion bash). For good: put that line into ~/.bashrc.
_banyan() {
  local cur="\${COMP_WORDS[COMP_CWORD]}" path="" want="" word i n=0
  COMPREPLY=()
  [[ $cur == "=" ]] && cur=""
  for ((i = 1; i < COMP_CWORD; i++)); do
    word="\${COMP_WORDS[i]}"
    [[ $word == "=" ]] && continue
    if [[ -n $want ]]; then
      want=""
      continue
    fi
    if [[ $word == -* ]]; then
      case "$path $word" in
        ${valuedFlags(specs)
          .map(({ at }) => `"${at}"`)
          .join(' | ')}) want="$path $word" ;;
      esac
      continue
    fi
    case "$path/$word" in
      ${known.join(' | ')}) path="$path/$word" ;;
      *) n=$((n + 1)) ;;
    esac
  done
  if [[ -n $want ]]; then
    case "$want" in
${cases(offeredFlags(specs))}
    esac
  elif [[ $cur == -* ]]; then
    case "$path" in
${flags.join('\n')}
    esac
  else
    case "$path $n" in
${cases(offeredPlaces(specs))}
    esac
  fi
}
complete -F _banyan banyan
`;
};
