import type { Command } from 'commander';

/** What may stand at a place: words, names of contexts (asked for when Tab is pressed), files, or anything. */
export type Values = readonly string[] | 'contexts' | 'files' | 'any';

export type FlagSpec = {
  readonly name: string;
  readonly description: string /** null = the flag stands alone. */;
  readonly value: Values | null;
};
export type CommandSpec = {
  /** `/parity/report`; the program itself is the empty path. */
  readonly path: string;
  readonly commands: readonly { readonly name: string; readonly description: string }[];
  readonly flags: readonly FlagSpec[];
  /** By place; the last one repeats where the command takes any number. */
  readonly args: readonly Values[];
};

const FILES = /^(?:file|a|b|path|folder)$/i;

const valuesOf = (name: string, choices: readonly string[] | undefined): Values => {
  if (choices !== undefined && choices.length > 0) return choices;
  const bare = name.replaceAll(/[<>[\].]/g, '');
  if (bare === 'context') return 'contexts';
  return FILES.test(bare) ? 'files' : 'any';
};

/** Only the first sentence fits into a menu, and no quote may end a string of a shell. */
const brief = (text: string): string => (text.split(/[;:(]/)[0] ?? '').replaceAll(/["'`$\\[\]’]/g, '').trim();

const isHidden = (command: Command): boolean => (command as unknown as { _hidden?: boolean })._hidden === true;

/** Every command that the program has, with all that its parser takes: the scripts cannot know less or more than it does. */
export const specsOf = (command: Command, path = ''): CommandSpec[] => {
  const below = command.commands.filter((one) => !isHidden(one));
  const own: CommandSpec = {
    path,
    commands: below.map((one) => ({ name: one.name(), description: brief(one.description()) })),
    flags: [
      ...command.options.flatMap(({ long, description, required, optional, flags, argChoices }): FlagSpec[] => {
        if (long === undefined || long === null) return [];
        const value = /[<[]([^>\]]+)[>\]]/.exec(flags)?.[1] ?? '';
        const named = long === '--context' ? 'context' : value;
        return [{ name: long, description: brief(description), value: required || optional ? valuesOf(named, argChoices) : null }];
      }),
      { name: '--help', description: 'say what it does', value: null },
    ],
    args: command.registeredArguments.map((argument) => valuesOf(argument.name(), argument.argChoices)),
  };
  return [own, ...below.flatMap((one) => specsOf(one, `${path}/${one.name()}`))];
};

type Offered = Exclude<Values, 'any'>;
const offered = <T extends { readonly values: Values }>(all: readonly T[]): (T & { readonly values: Offered })[] =>
  all.filter((one): one is T & { readonly values: Offered } => one.values !== 'any');

/** `/stage --percent`: flags that take a value, and what may stand there. */
export const valuedFlags = (specs: readonly CommandSpec[]): readonly { readonly at: string; readonly values: Values }[] =>
  specs.flatMap(({ path, flags }) =>
    flags.flatMap(({ name, value }) => (value === null ? [] : [{ at: `${path} ${name}`, values: value }])),
  );

/** Those of them that something can be offered for. */
export const offeredFlags = (specs: readonly CommandSpec[]): readonly { readonly at: string; readonly values: Offered }[] =>
  offered(valuedFlags(specs));

/** `/stage 1`: places of arguments that something can be offered for; commands stand at place 0 of their group. */
export const offeredPlaces = (
  specs: readonly CommandSpec[],
): readonly { readonly at: string; readonly values: Offered; readonly commands: CommandSpec['commands'] }[] =>
  offered(
    specs.flatMap(({ path, commands, args }): { at: string; values: Values; commands: CommandSpec['commands'] }[] =>
      commands.length > 0
        ? [{ at: `${path} 0`, values: commands.map(({ name }) => name), commands }]
        : args.map((values, i) => ({ at: `${path} ${i}`, values, commands: [] })),
    ),
  );
