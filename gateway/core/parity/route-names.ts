import { LOCALE, literalName, MAX_NAMES, MAX_TEMPLATES, MIN_LOCALES, OWN_SHARE, segmentsOf, shapeName } from './template.ts';

/**
 * What was found of the names below one place of a context's routes. Rules are only ever added to: names that have become data never become names
 * again, so that all gateways over one store, and all their rows, come to the same templates.
 */
export type TemplateRule = {
  /** The template so far, e.g. `GET /api/products` for what stands behind it. */
  readonly at: string;
  /** There are too many names here to be routes: all but these are `:slug`; null = not so. */
  readonly kept: readonly string[] | null;
  /** Here stand locales. */
  readonly locale: boolean;
};

/** Names the routes of one context as requests come. */
export type RouteNamer = {
  /**
   * The template of a request to the route `label` (`GET /api/orders/**`, or without a method). What the configuration spells out stays; what `**` stands
   * for is inferred: numbers, uuids, … by their shape, names until there are more than 30 in one place. A context has at most 200; the rest is `label`.
   */
  readonly name: (label: string, target: string) => string;
  /** Takes over a rule, also one that somebody else has found. */
  readonly learn: (rule: TemplateRule) => void;
  /** Counts the names of a template that somebody else uses. */
  readonly seen: (label: string, template: string) => void;
  /** Rules found since the last call. */
  readonly found: () => TemplateRule[];
};

/** Places whose names are counted. */
const MAX_PLACES = 1_000;
/** Fewer requests than this make no route of their own among data. */
const MIN_OWN = 5;

const isData = (name: string): boolean => name.startsWith(':') || name.startsWith('*');

/** The name of a segment behind `at` by rules alone; undefined = they say nothing. */
const byRule = (rule: TemplateRule | undefined, name: string): string | undefined => {
  if (rule === undefined || isData(name)) return undefined;
  if (rule.locale && LOCALE.test(name)) return ':locale';
  return rule.kept !== null && !rule.kept.includes(name) ? ':slug' : undefined;
};

/** The rest of the path behind the method: `['GET ', ['api', 'orders']]`. */
const splitTemplate = (template: string): readonly [method: string, segments: readonly string[]] => {
  const at = template.indexOf('/');
  return [template.slice(0, Math.max(0, at)), template.slice(at + 1).split('/')];
};

/** A template as the rules of its context have it now. Pure. */
export const canonicalTemplate = (template: string, rules: ReadonlyMap<string, TemplateRule>): string => {
  if (rules.size === 0 || !template.includes('/')) return template;
  const [method, segments] = splitTemplate(template);
  let path = method;
  for (const segment of segments) path = `${path}/${byRule(rules.get(path), segment) ?? segment}`;
  return path;
};

/** Which configured route a template belongs to: itself, or the most specific one whose `**` covers it. Pure. */
export const labelOfTemplate = (template: string, labels: readonly string[]): string | undefined => {
  if (labels.includes(template)) return template;
  const [method, segments] = splitTemplate(template);
  let best: string | undefined;
  for (const label of labels) {
    const [verb, pattern] = splitTemplate(label);
    const stars = pattern.indexOf('**');
    if (stars < 0 || verb !== method) continue;
    const tail = pattern.slice(stars + 1);
    const covered =
      segments.length >= stars + tail.length &&
      pattern.slice(0, stars).every((part, i) => part === segments[i]) &&
      tail.every((part, i) => part === segments[segments.length - tail.length + i]);
    if (covered && (best === undefined || pattern.length > splitTemplate(best)[1].length)) best = label;
  }
  return best;
};

/** Starts without rules; bounded whatever is asked. */
export const createRouteNamer = (): RouteNamer => {
  const rules = new Map<string, TemplateRule>();
  const places = new Map<string, Map<string, number>>();
  const templates = new Set<string>();
  const fresh: TemplateRule[] = [];

  const learn = (rule: TemplateRule): void => {
    const before = rules.get(rule.at);
    // of two who found too many names at once, the first one's choice of names to keep stays
    rules.set(rule.at, { at: rule.at, kept: rule.kept ?? before?.kept ?? null, locale: rule.locale || before?.locale === true });
    if (rule.kept !== null) places.delete(rule.at);
    for (const template of templates) if (canonicalTemplate(template, rules) !== template) templates.delete(template);
  };
  const find = (rule: TemplateRule): void => {
    learn(rule);
    fresh.push(rules.get(rule.at)!);
  };

  /** Counts a name behind `at`; what is found by it counts for this one already. `again` = also when it is known. */
  const count = (at: string, name: string, again: boolean): void => {
    let names = places.get(at);
    if (names === undefined) {
      if (places.size >= MAX_PLACES) return;
      names = new Map();
      places.set(at, names);
    }
    names.set(name, again ? (names.get(name) ?? 0) + 1 : (names.get(name) ?? 1));
    const isLocale = rules.get(at)?.locale === true;
    if (!isLocale && LOCALE.test(name) && [...names.keys()].filter((one) => LOCALE.test(one)).length >= MIN_LOCALES) {
      for (const one of [...names.keys()]) if (LOCALE.test(one)) names.delete(one);
      find({ at, kept: null, locale: true });
    }
    if (names.size <= MAX_NAMES) return;
    const sum = [...names.values()].reduce((all, n) => all + n, 0);
    find({ at, kept: [...names].flatMap(([one, n]) => (n >= MIN_OWN && n >= sum * OWN_SHARE ? [one] : [])).sort(), locale: isLocale });
  };

  /** `keep` = the names are those of a template already. */
  const walk = (from: string, segments: readonly string[], keep: boolean): string => {
    let path = from;
    for (const segment of segments) {
      const name = (keep ? undefined : shapeName(segment)) ?? (keep ? segment : literalName(segment));
      const rule = rules.get(path);
      if (byRule(rule, name) === undefined && !isData(name) && !(rule?.kept ?? []).includes(name)) count(path, name, !keep);
      path = `${path}/${byRule(rules.get(path), name) ?? name}`;
    }
    return path;
  };

  const behind = (label: string, segments: readonly string[], keep: boolean): string => {
    const [method, pattern] = splitTemplate(label);
    const stars = pattern.indexOf('**');
    const tail = pattern.slice(stars + 1);
    if (stars < 0 || segments.length < stars + tail.length) return label;
    const head = [method, ...pattern.slice(0, stars)].join('/');
    const path = [walk(head, segments.slice(stars, segments.length - tail.length), keep), ...tail].join('/');
    const template = path === '' || path === method ? `${method}/` : path;
    if (!templates.has(template)) {
      if (templates.size >= MAX_TEMPLATES) return label;
      templates.add(template);
    }
    return template;
  };

  return {
    name: (label, target) => (label.includes('**') ? behind(label, segmentsOf(target), false) : label),
    learn,
    seen: (label, template) => {
      if (label !== template) behind(label, splitTemplate(template)[1], true);
    },
    found: () => fresh.splice(0),
  };
};
