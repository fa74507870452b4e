import { AppError } from '@banyan/contracts/errors.ts';
import type { Config } from './config.ts';
import type { ContextFlag } from './core/decide.ts';
import { compileRoutes, type Routes } from './core/match.ts';

/** Stands for whatever a parameter may be; no literal of a pattern is called so. */
const ANY = '~any~';
/** How many segments `**` is tried with. */
const DEPTHS = [0, 1, 3];

/** Paths that a pattern matches, enough of them to tell whether another set of routes owns the same. */
const samplesOf = (pattern: string): string[] => {
  const path = pattern.replaceAll(/:[A-Za-z0-9_]+/g, ANY);
  if (!path.includes('**')) return [path];
  return DEPTHS.map((depth) => path.replace('**', Array.from({ length: depth }, () => ANY).join('/')).replaceAll(/\/{2,}/g, '/'));
};

const routesOf = (config: Config): Routes<null> =>
  compileRoutes(
    Object.entries(config.contexts).flatMap(([context, { match }]) =>
      match.map(({ path, methods }) => ({ context, path, methods, rest: null })),
    ),
  );

type Pattern = { readonly context: string; readonly path: string; readonly methods: readonly string[] };
const patternsOf = (config: Config): Pattern[] =>
  Object.entries(config.contexts).flatMap(([context, { match }]) => match.map(({ path, methods }) => ({ context, path, methods })));

/** Requests that a context has now and would not have any more: their route is gone, or a new one of another context takes them. */
const lostRoutes = (
  before: Config,
  after: Config,
  inUse: (context: string) => boolean,
): { readonly context: string; readonly route: string }[] => {
  const [now, next] = [routesOf(before), routesOf(after)];
  const ownerIn = (routes: Routes<null>, method: string, path: string): string | null => {
    const found = routes.match(method, path);
    return found.kind === 'route' ? found.route.context : null;
  };
  const keyOf = (context: string, method: string, path: string): string => `${context} ${method} ${path}`;
  const known = new Set(patternsOf(before).flatMap(({ context, path, methods }) => methods.map((method) => keyOf(context, method, path))));
  const looked = [
    ...patternsOf(before).filter(({ context }) => inUse(context)),
    ...patternsOf(after).map(({ methods, ...one }) => ({
      ...one,
      methods: methods.filter((method) => !known.has(keyOf(one.context, method, one.path))),
    })),
  ];
  return looked.flatMap(({ path, methods }) => {
    const gone = new Map<string, Set<string>>();
    for (const method of methods)
      for (const sample of samplesOf(path)) {
        const owner = ownerIn(now, method, sample);
        if (owner !== null && inUse(owner) && ownerIn(next, method, sample) !== owner)
          gone.set(owner, (gone.get(owner) ?? new Set()).add(method));
      }
    return [...gone].map(([context, lost]) => ({ context, route: `${[...lost].join(' ')} ${path}` }));
  });
};

const regrouped = (name: string, before: Config, after: Config): boolean =>
  Object.hasOwn(before.contexts, name) &&
  Object.hasOwn(after.contexts, name) &&
  before.contexts[name]!.group !== after.contexts[name]!.group;

/** Contexts of a group move as one, so they must stand at one place when they become one. */
const tornGroups = (before: Config, after: Config, flagOf: (context: string) => ContextFlag | undefined): string[] => {
  const groups = Map.groupBy(
    Object.entries(after.contexts).filter(([, { group }]) => group !== null),
    ([, { group }]) => group!,
  );
  return [...groups].flatMap(([group, members]) => {
    if (!members.some(([name]) => regrouped(name, before, after))) return [];
    const places = members.map(([name, context]) => {
      const flag = flagOf(name);
      return `${name} ${flag?.stage ?? context.stage}${flag?.killed ? ' (killed)' : ''}`;
    });
    return new Set(places.map((place) => place.slice(place.indexOf(' ')))).size > 1 ? [`group ${group}: ${places.join(', ')}`] : [];
  });
};

/**
 * A reload may not take requests, the service or the salt of its clients from a context that has moved past `shadow`: traffic would change sides unseen. Nor
 * may it make one group of contexts that stand at different stages.
 * @throws AppError `conflict` naming all of it
 */
export const refuseNarrowing = (before: Config, after: Config, flagOf: (context: string) => ContextFlag | undefined): void => {
  const torn = tornGroups(before, after, flagOf);
  const stageIn = (name: string): string | null => {
    const stage = flagOf(name)?.stage;
    return stage === undefined || stage === 'legacy' || stage === 'shadow' ? null : stage;
  };
  const used = Object.keys(before.contexts).filter((name) => stageIn(name) !== null);
  const lost = used.length === 0 ? [] : lostRoutes(before, after, (name) => stageIn(name) !== null);
  const all = [
    ...lost.map(({ context, route }) => `${context} (${stageIn(context)}): ${route}`),
    ...used.flatMap((name) => [
      ...(before.contexts[name]!.extracted && !after.contexts[name]?.extracted
        ? [`${name} (${stageIn(name)}): its extracted service`]
        : []),
      ...(regrouped(name, before, after) ? [`${name} (${stageIn(name)}): its group, by which clients are told apart`] : []),
    ]),
  ];
  if (all.length > 0)
    throw new AppError('conflict', `the reload would take away what is in use: ${all.slice(0, 10).join('; ')}`, { details: { lost: all } });
  if (torn.length > 0)
    throw new AppError('conflict', `the reload would join contexts that stand at different stages: ${torn.join('; ')}`, {
      details: { torn },
    });
};
