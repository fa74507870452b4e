/** What a path segment looks like when it is data and not a name. */
const SHAPES: readonly (readonly [name: string, pattern: RegExp])[] = [
  [':uuid', /^[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}$/i],
  [':ulid', /^[0-7][0-9A-HJKMNP-TV-Z]{25}$/],
  [':id', /^\d+$/],
  [':date', /^\d{4}-\d{2}(?:-\d{2})?$/],
  [':hash', /^(?=.*\d)[0-9a-f]{12,128}$/i],
  [':token', /^eyJ[A-Za-z0-9_-]{5,}\./],
  [':slug', /^.{65}/s],
  [':token', /^(?=.*\d)(?=.*[A-Z])(?=.*[a-z])[A-Za-z0-9_-]{20,}$/],
];
export const LOCALE = /^[a-z]{2}(?:[-_][A-Z]{2})?$/;

/** So many different names below one parent are data: nobody routes so many by hand. */
export const MAX_NAMES = 30;
/** A name that takes this share of its parent's requests is a route of its own even among data. */
export const OWN_SHARE = 0.05;
/** Locales are told from short words (`me`, `go`) by their number. */
export const MIN_LOCALES = 3;
/** Templates told apart; the rest is `(other)`, so that labels never grow with data. */
export const MAX_TEMPLATES = 200;
const MAX_SEGMENTS = 20;

/** Decoded where that can be done; of a path that is deeper than 20 only the first 20. */
export const segmentsOf = (target: string): string[] =>
  (target.split(/[?#]/, 1)[0] ?? '')
    .split('/')
    .filter((segment) => segment !== '')
    .slice(0, MAX_SEGMENTS)
    .map((segment) => {
      try {
        return decodeURIComponent(segment);
      } catch {
        return segment;
      }
    });

/** `:id`, `:uuid`, …, or undefined for what looks like a name. */
export const shapeName = (segment: string): string | undefined => SHAPES.find(([, pattern]) => pattern.test(segment))?.[0];
/** A name as it stands in a template, where a leading colon means data. */
export const literalName = (segment: string): string => segment.replace(/^[:*]/, (first) => (first === ':' ? '%3A' : '%2A'));

type Counted = { readonly segments: readonly string[]; readonly path: string };

/** The names that the segments at one place get: data becomes `:id`, `:slug`, …; what is left stays itself. */
const namesAt = (values: readonly string[]): Map<string, string> => {
  const counts = new Map<string, number>();
  for (const value of values) counts.set(value, (counts.get(value) ?? 0) + 1);
  const names = new Map<string, string>();
  const literals: string[] = [];
  for (const value of counts.keys()) {
    const shape = shapeName(value);
    if (shape === undefined) literals.push(value);
    else names.set(value, shape);
  }
  const locales = literals.filter((value) => LOCALE.test(value));
  const isLocale = locales.length >= MIN_LOCALES;
  const words = isLocale ? literals.filter((value) => !LOCALE.test(value)) : literals;
  if (isLocale) for (const value of locales) names.set(value, ':locale');
  const many = words.length > MAX_NAMES;
  for (const value of words) names.set(value, many && counts.get(value)! < values.length * OWN_SHARE ? ':slug' : literalName(value));
  return names;
};

/**
 * Groups request targets by what they ask, without being told the routes: segments that are numbers, uuids, ulids, dates, hashes or tokens become
 * parameters, so do locales, and names of which there are more than 30 below one parent (`:slug`). Static siblings stay: `/orders/export` never joins
 * `/orders/:id`. At most 200 templates; the rarest beyond are `(other)`. Pure; the order of the targets does not matter.
 */
export const inferTemplates = (targets: readonly string[]): Map<string, string> => {
  let groups: Counted[][] = [targets.map((path) => ({ segments: segmentsOf(path), path }))];
  const built = new Map<string, string[]>(targets.map((path) => [path, []]));
  for (let depth = 0; groups.length > 0; depth++) {
    const next: Counted[][] = [];
    for (const group of groups) {
      const deeper = group.filter(({ segments }) => segments.length > depth);
      if (deeper.length === 0) continue;
      const names = namesAt(deeper.map(({ segments }) => segments[depth]!));
      const below = new Map<string, Counted[]>();
      const named = new Set<string>();
      for (const one of deeper) {
        const name = names.get(one.segments[depth]!)!;
        if (!named.has(one.path)) built.get(one.path)!.push(name);
        named.add(one.path);
        const list = below.get(name);
        if (list) list.push(one);
        else below.set(name, [one]);
      }
      next.push(...below.values());
    }
    groups = next;
  }
  const templates = new Map<string, string>();
  const counts = new Map<string, number>();
  for (const path of targets) {
    const template = `/${built.get(path)!.join('/')}`;
    templates.set(path, template);
    counts.set(template, (counts.get(template) ?? 0) + 1);
  }
  if (counts.size <= MAX_TEMPLATES) return templates;
  const kept = new Set(
    [...counts]
      .sort((a, b) => b[1] - a[1] || (a[0] < b[0] ? -1 : 1))
      .slice(0, MAX_TEMPLATES - 1)
      .map(([template]) => template),
  );
  for (const [path, template] of templates) if (!kept.has(template)) templates.set(path, '(other)');
  return templates;
};
