import { AppError } from '@banyan/contracts/errors.ts';

const bad = (message: string): never => {
  throw new AppError('bad-request', message);
};

const STEP =
  /(\.\.)?(?:\.?([^\s.[\]()'"?@*$:,{}]+)|\.?(\*)|\[(?:(\*)|'((?:[^'\\]|\\.)+)'|"((?:[^"\\]|\\.)+)"|(-?\d{1,9}(?:,-?\d{1,9})*)|(-?\d{0,9}):(-?\d{0,9})(?::(\d{0,9}))?)\])/y;

/** One step: the values it leads to from one value. */
type Step = (value: unknown) => unknown[];

const childrenOf = (value: unknown): unknown[] => (typeof value === 'object' && value !== null ? Object.values(value) : []);

const descendantsOf = (value: unknown): unknown[] => [value, ...childrenOf(value).flatMap(descendantsOf)];

const member =
  (name: string): Step =>
  (value) =>
    typeof value === 'object' && value !== null && Object.hasOwn(value, name) ? [(value as Record<string, unknown>)[name]] : [];

const indexes =
  (wanted: readonly number[]): Step =>
  (value) =>
    Array.isArray(value) ? wanted.filter((i) => i < value.length && i >= -value.length).map((i) => value.at(i)) : [];

const slice =
  (from: string, to: string, step: string): Step =>
  (value) =>
    Array.isArray(value)
      ? value
          .slice(from === '' ? 0 : Number(from), to === '' ? undefined : Number(to))
          .filter((_, i) => i % Math.max(1, Number(step || 1)) === 0)
      : [];

/**
 * JSONPath without filters and scripts: `.name`, `['name']`, `[0]`, `[-1]`, `[0,2]`, `[0:2]`, `*` and `..`. Own properties only.
 * A path that can name one value only gives it, or undefined; any other gives the array of all it finds.
 * @throws AppError `bad-request` for anything else.
 */
export const jsonPath = (path: string): ((root: unknown) => unknown) => {
  const steps: Step[] = [];
  let single = true;
  if (!path.startsWith('$')) bad(`"${path}" is no JSONPath: it must start with $`);
  STEP.lastIndex = 1;
  while (STEP.lastIndex < path.length) {
    const at = STEP.lastIndex;
    const found = path[at] === '.' || path[at] === '[' ? STEP.exec(path) : null;
    if (!found) return bad(`"${path}": expected .name, ['name'], [index] or a wildcard at "${path.slice(at)}"`);
    const [, deep, name, star, bracketStar, quoted, doubled, numbers, from, to, step] = found;
    const key = name ?? (quoted ?? doubled)?.replace(/\\(.)/g, '$1');
    let one: Step = childrenOf;
    if (key !== undefined) one = member(key);
    else if (numbers !== undefined) one = indexes(numbers.split(',').map(Number));
    else if (star === undefined && bracketStar === undefined) one = slice(from ?? '', to ?? '', step ?? '');
    single &&= deep === undefined && (key !== undefined || (numbers !== undefined && !numbers.includes(',')));
    steps.push(deep === undefined ? one : (value) => descendantsOf(value).flatMap(one));
  }
  return (root) => {
    let values: unknown[] = [root];
    for (const step of steps) values = values.flatMap(step);
    return single ? values[0] : values;
  };
};
