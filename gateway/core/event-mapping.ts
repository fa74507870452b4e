import { AppError } from '@banyan/contracts/errors.ts';
import { jsonPath } from './json-path.ts';

/** What a mapping may look at. Header names are lower-case; bodies are parsed JSON, a form's fields, text, or undefined. */
export type CommandFacts = {
  readonly request: {
    readonly method: string;
    /** Path and query as the client sent them. */
    readonly target: string;
    readonly body: unknown;
    readonly headers: Readonly<Record<string, string>>;
  };
  /** `body` is undefined when the answer was too large to keep, or is not known. Null: there is no answer yet (a tentative event). */
  readonly response: { readonly status: number; readonly headers: Readonly<Record<string, string>>; readonly body: unknown } | null;
};

/** What expressions are evaluated over. */
type View = {
  readonly request: CommandFacts['request'] & { readonly query: Readonly<Record<string, string>> };
  readonly response: CommandFacts['response'];
  readonly params: Readonly<Record<string, string>>;
};

/**
 * Where a value comes from: JSONPath over `{request: {body, headers, query}, response: {status, headers, body}, params}` (no filters),
 * `header:NAME`, `query:NAME`, `cookie:NAME` of the request, `status` of the answer, or a function of the same view (`banyan.config.ts` only).
 */
export type Mapping = string | ((view: View) => unknown);

/** `POST /api/orders 2xx`, read. Exactly one of `statusClass` (2 for 2xx) and `status` is set. */
export type EventCondition = {
  readonly method: string;
  readonly pathPattern: string;
  readonly statusClass: number | null;
  readonly status: number | null;
};

/** One entry of a context's `events`. `when` as text: METHOD PATTERN STATUS, the status being exact or a class such as `2xx`. */
export type EventRule = {
  readonly when: string | EventCondition;
  readonly type: string;
  readonly aggregate: Mapping;
  readonly data: Mapping | Readonly<Record<string, Mapping>>;
  readonly mode?: 'ledger' | 'tentative';
};

type Evaluate = (view: View) => unknown;

/** A rule whose expressions were understood. */
export type CompiledEvent = {
  readonly type: string;
  readonly mode: 'ledger' | 'tentative';
  readonly method: string;
  readonly pattern: readonly string[];
  readonly covers: (status: number) => boolean;
  readonly aggregate: Evaluate;
  readonly data: Evaluate;
};

/** An event that is ready for `banyan.append_fact`. */
export type BuiltEvent = { readonly type: string; readonly subject: string; readonly data: Readonly<Record<string, unknown>> };

export type BuildResult =
  | { readonly kind: 'built'; readonly events: readonly BuiltEvent[] }
  /** No rule speaks of this method and path: nothing is due. */
  | { readonly kind: 'none' }
  /** Rules speak of this method and path, but none of this status. */
  | { readonly kind: 'unmapped'; readonly why: string }
  | { readonly kind: 'unbuildable'; readonly why: string };

const bad = (message: string): never => {
  throw new AppError('bad-request', message);
};

const cookieOf = (header: string | undefined, name: string): string | undefined => {
  for (const part of (header ?? '').split(';')) {
    const equals = part.indexOf('=');
    if (equals > 0 && part.slice(0, equals).trim() === name) return part.slice(equals + 1).trim();
  }
  return undefined;
};

const expression = (mapping: Mapping, where: string): Evaluate => {
  if (typeof mapping === 'function') return mapping;
  if (mapping === 'status') return (view) => view.response?.status;
  const [, kind, name] = /^(header|query|cookie):(.+)$/.exec(mapping) ?? [];
  if (kind === 'header') return (view) => view.request.headers[name!.toLowerCase()];
  if (kind === 'query') return (view) => (Object.hasOwn(view.request.query, name!) ? view.request.query[name!] : undefined);
  if (kind === 'cookie') return (view) => cookieOf(view.request.headers.cookie, name!);
  if (mapping.startsWith('$')) return jsonPath(mapping);
  return bad(`${where}: "${mapping}" is neither JSONPath ($…), header:NAME, query:NAME, cookie:NAME nor status`);
};

const fields = (data: EventRule['data'], where: string): Evaluate => {
  if (typeof data !== 'object') return expression(data, where);
  const entries = Object.entries(data).map(([name, mapping]) => [name, expression(mapping, `${where}.${name}`)] as const);
  return (view) => Object.fromEntries(entries.map(([name, of]) => [name, of(view)] as const).filter(([, value]) => value !== undefined));
};

const decoded = (segment: string): string => {
  try {
    return decodeURIComponent(segment);
  } catch {
    return segment;
  }
};

/** Segments of a path, normalised for matching only: decoded, empty and dot segments collapsed, query cut off. */
const segmentsOf = (target: string): string[] => {
  const segments: string[] = [];
  for (const raw of (target.split(/[?#]/, 1)[0] ?? '').split('/')) {
    if (raw === '' || raw === '.' || raw.toLowerCase() === '%2e') continue;
    if (raw === '..' || raw.toLowerCase() === '%2e%2e') segments.pop();
    else segments.push(decoded(raw));
  }
  return segments;
};

const matchSegments = (pattern: readonly string[], path: readonly string[]): Record<string, string> | null => {
  const params: [string, string][] = [];
  for (const [index, part] of pattern.entries()) {
    if (part === '**') {
      for (let skipped = index; skipped <= path.length; skipped += 1) {
        const rest = matchSegments(pattern.slice(index + 1), path.slice(skipped));
        if (rest) return { ...Object.fromEntries(params), ...rest };
      }
      return null;
    }
    const segment = path[index];
    if (segment === undefined) return null;
    if (part.startsWith(':')) params.push([part.slice(1), segment]);
    else if (part !== segment) return null;
  }
  return path.length === pattern.length ? Object.fromEntries(params) : null;
};

const patternOf = (pattern: string): string[] =>
  pattern
    .split('/')
    .filter((part) => part !== '')
    .map((part) => (part.startsWith(':') ? part : decoded(part)));

/** Parameters of `target` under `pattern` (`/api/orders/:id`, `**` any number of segments), or null when it does not match. */
export const matchPath = (pattern: string, target: string): Record<string, string> | null =>
  matchSegments(patternOf(pattern), segmentsOf(target));

const conditionOf = (when: string | EventCondition): EventCondition => {
  if (typeof when !== 'string') return when;
  const found = /^([A-Z][A-Z-]*) (\/\S*) (?:([1-5])xx|([1-5][0-9]{2}))$/.exec(when);
  if (!found) return bad(`events: when "${when}" must read METHOD /path STATUS, such as "POST /api/orders 2xx"`);
  const number = (text: string | undefined) => (text === undefined ? null : Number(text));
  return { method: found[1]!, pathPattern: found[2]!, statusClass: number(found[3]), status: number(found[4]) };
};

/** @throws AppError `bad-request` that names the rule and what was expected. */
export const compileEvents = (rules: readonly EventRule[]): CompiledEvent[] =>
  rules.map((rule) => {
    const { method, pathPattern, statusClass, status } = conditionOf(rule.when);
    return {
      type: rule.type,
      mode: rule.mode ?? 'ledger',
      method,
      pattern: patternOf(pathPattern),
      covers: (code) => (status === null ? Math.floor(code / 100) === statusClass : code === status),
      aggregate: expression(rule.aggregate, `${rule.type}: aggregate`),
      data: fields(rule.data, `${rule.type}: data`),
    };
  });

/** The rules that speak of this method and path, whatever the status. */
export const eventsFor = (events: readonly CompiledEvent[], method: string, target: string): CompiledEvent[] => {
  const path = segmentsOf(target);
  return events.filter((event) => event.method === method && matchSegments(event.pattern, path) !== null);
};

/** PostgreSQL's text and jsonb take neither NUL nor lone surrogates. */
const storable = (text: string): boolean => !text.includes('\0') && text.isWellFormed();

const storableDeep = (value: unknown): boolean => {
  if (typeof value === 'string') return storable(value);
  if (typeof value !== 'object' || value === null) return true;
  return Object.entries(value).every(([key, inner]) => storable(key) && storableDeep(inner));
};

const queryOf = (target: string): Record<string, string> => {
  const at = target.indexOf('?');
  if (at < 0) return {};
  const plain = (text: string) => decoded(text.replaceAll('+', ' '));
  const pairs = target
    .slice(at + 1)
    .split('#', 1)[0]!
    .split('&')
    .filter((pair) => pair !== '')
    .map((pair) => {
      const equals = pair.indexOf('=');
      return equals < 0 ? ([plain(pair), ''] as const) : ([plain(pair.slice(0, equals)), plain(pair.slice(equals + 1))] as const);
    });
  return Object.fromEntries(pairs);
};

const viewOf = (event: CompiledEvent, facts: CommandFacts): View => ({
  request: { ...facts.request, query: queryOf(facts.request.target) },
  response: facts.response,
  params: matchSegments(event.pattern, segmentsOf(facts.request.target)) ?? {},
});

const buildOne = (event: CompiledEvent, facts: CommandFacts, check: CheckEventData): BuiltEvent | string => {
  try {
    const view = viewOf(event, facts);
    const aggregate = event.aggregate(view);
    if (typeof aggregate !== 'string' && typeof aggregate !== 'number' && typeof aggregate !== 'bigint')
      return `${event.type}: the aggregate is ${aggregate === undefined ? 'missing' : 'no string or number'}`;
    const subject = String(aggregate);
    if (subject.length < 1 || subject.length > 256 || !storable(subject))
      return `${event.type}: the aggregate must have 1 to 256 characters`;
    const data = check(event.type, event.data(view));
    return storableDeep(data) ? { type: event.type, subject, data } : `${event.type}: data holds characters that no JSON store keeps`;
  } catch (error) {
    return `${event.type}: ${error instanceof Error ? error.message : String(error)}`.slice(0, 500);
  }
};

/** Throws when `data` does not fit the published schema of `type`. */
export type CheckEventData = (type: string, data: unknown) => Record<string, unknown>;

const buildAll = (due: readonly CompiledEvent[], facts: CommandFacts, check: CheckEventData): BuildResult => {
  const events: BuiltEvent[] = [];
  for (const event of due) {
    const built = buildOne(event, facts, check);
    if (typeof built === 'string') return { kind: 'unbuildable', why: built };
    events.push(built);
  }
  return { kind: 'built', events };
};

/** The events that an answered command is due. All or none: one that cannot be built holds the others back. */
export const buildEvents = (events: readonly CompiledEvent[], facts: CommandFacts, check: CheckEventData): BuildResult => {
  const about = eventsFor(events, facts.request.method, facts.request.target);
  if (about.length === 0) return { kind: 'none' };
  const status = facts.response?.status ?? 0;
  const due = about.filter((event) => event.covers(status));
  if (due.length === 0)
    return { kind: 'unmapped', why: `no "when" covers status ${status} of ${facts.request.method} ${facts.request.target}`.slice(0, 500) };
  return buildAll(due, facts, check);
};

/** The tentative events of a command that is about to be sent; everything in them must come from the request. */
export const buildTentative = (events: readonly CompiledEvent[], facts: CommandFacts, check: CheckEventData): BuildResult => {
  const due = eventsFor(events, facts.request.method, facts.request.target).filter((event) => event.mode === 'tentative');
  return due.length === 0 ? { kind: 'none' } : buildAll(due, { ...facts, response: null }, check);
};

const firstAggregate = (events: readonly CompiledEvent[], facts: CommandFacts): string | null => {
  for (const event of eventsFor(events, facts.request.method, facts.request.target)) {
    try {
      const aggregate = event.aggregate(viewOf(event, facts));
      const subject = typeof aggregate === 'string' || typeof aggregate === 'number' ? String(aggregate) : '';
      if (subject.length > 0 && subject.length <= 256 && storable(subject)) return subject;
    } catch {
      // a function that wants the answer: the aggregate is known only afterwards
    }
  }
  return null;
};

/** The aggregate that a command is about, where the request alone says so (then it existed before, or the client names it); else null. */
export const knownAggregate = (events: readonly CompiledEvent[], facts: CommandFacts): string | null =>
  firstAggregate(events, { ...facts, response: null });

/** The same, of a command that was answered. */
export const answeredAggregate = firstAggregate;
