import type { Path } from './document.ts';
import type { PathFault } from './faults.ts';
import { checkListenerTls } from './listeners.ts';
import type { Config, ContextConfig, RouteConfig } from './schema.ts';
import { paramsOf, placesOf } from './syntax.ts';
import { checkUpstream } from './upstream-checks.ts';
import { checkClients, checkWho } from './who-checks.ts';

/** Rules that look at more than one place. They run on whatever could be parsed, so that every fault is reported at once. */
export type CheckInput = {
  readonly config: Config;
  /** Does the document itself say something at this path (even something wrong)? Then its absence is not a second fault. */
  readonly says: (path: Path) => boolean;
  /** Under `banyan dev` the monolith, the store and the streams are embedded. */
  readonly dev: boolean;
  /** A file's text; undefined = it cannot be read. */
  readonly file: (path: string) => string | undefined;
  /** Today, UTC, `YYYY-MM-DD`; compared as text, which orders days and instants alike. */
  readonly today: string;
};

export type Checked = { readonly faults: readonly PathFault[]; readonly warnings: readonly PathFault[] };

/** Methods that an owned path is expected to say something about; others are rare enough to pass to legacy unasked. */
const USUAL_METHODS = ['GET', 'HEAD', 'POST', 'PUT', 'PATCH', 'DELETE'] as const;

/** A trailing slash makes no difference to matching. */
const trimmed = (pattern: string): string => pattern.replace(/\/$/, '');

const segmentsOf = (pattern: string): readonly string[] => trimmed(pattern).split('/').slice(1);

/** The pattern without its parameters' names: two patterns of one shape match the same paths. */
const shapeOf = (pattern: string): string => trimmed(pattern).replaceAll(/:[A-Za-z0-9_]+/g, ':');

/** Does every path of `inner` match `outer` too? Exact for patterns with at most one `**`, which is all that the syntax allows. */
const covers = (outer: string, inner: string): boolean => {
  const walk = (a: readonly string[], b: readonly string[]): boolean => {
    const [first, ...rest] = a;
    if (first === undefined) return b.length === 0;
    if (first === '**') return Array.from({ length: b.length + 1 }, (_, skip) => skip).some((skip) => walk(rest, b.slice(skip)));
    const [other, ...others] = b;
    if (other === undefined || other === '**') return false;
    return (first.startsWith(':') || first === other) && walk(rest, others);
  };
  return walk(segmentsOf(outer), segmentsOf(inner));
};

/** Query or command: what the route says, else GET and HEAD are queries. */
export const operationOf = (route: RouteConfig, method: string): 'query' | 'command' =>
  route.operation ?? (method === 'GET' || method === 'HEAD' ? 'query' : 'command');

/** The literal segments that every path of the pattern begins with. */
const literalPrefix = (pattern: string): string => {
  const segments = segmentsOf(pattern);
  const wild = segments.findIndex((segment) => segment === '**' || segment.startsWith(':'));
  return (wild === -1 ? segments : segments.slice(0, wild)).join('/');
};

type RouteIndex = ReadonlyMap<string, readonly RouteConfig[]>;
const indexes = new WeakMap<Config, RouteIndex>();

/** Routes by literal prefix, so that ten thousand of them need not be compared with each other. */
const indexOf = (config: Config): RouteIndex => {
  const known = indexes.get(config);
  if (known) return known;
  const made = Map.groupBy(
    Object.values(config.contexts).flatMap((context) => context.match),
    (route) => literalPrefix(route.path),
  );
  indexes.set(config, made);
  return made;
};

/** Those that may cover `path`: their literal prefix is one of its own. */
const candidates = (index: RouteIndex, path: string): RouteConfig[] => {
  const own = literalPrefix(path);
  const segments = own === '' ? [] : own.split('/');
  const found: RouteConfig[] = [];
  for (let length = 0; length <= segments.length; length++) found.push(...(index.get(segments.slice(0, length).join('/')) ?? []));
  return found;
};

/** Usual methods under a context's owned paths that no context's match names as a whole. While there are any and `else` is absent, cutover is refused. */
export const unownedMethods = (config: Config, name: string): readonly { readonly path: string; readonly methods: readonly string[] }[] => {
  const index = indexOf(config);
  const paths = [...new Set((Object.hasOwn(config.contexts, name) ? (config.contexts[name]?.match ?? []) : []).map((route) => route.path))];
  return paths
    .map((path) => {
      const near = candidates(index, path);
      return {
        path,
        methods: USUAL_METHODS.filter((method) => !near.some((route) => route.methods.includes(method) && covers(route.path, path))),
      };
    })
    .filter(({ methods }) => methods.length > 0);
};

/** `localhost`, 127.0.0.0/8 and ::1. */
export const isLoopback = (host: string): boolean => host === 'localhost' || host === '::1' || /^127(?:\.\d{1,3}){3}$/.test(host);

export type Report = (path: Path, message: string, expected?: string, at?: 'key' | 'value') => void;

const into =
  (list: PathFault[]): Report =>
  (path, message, expected, at = 'key') =>
    void list.push(expected === undefined ? { path, at, message } : { path, at, message, expected });

const checkListeners = ({ config }: CheckInput, fault: Report): void => {
  const seen = new Map<string, string>([[`${config.admin.listen.host}:${config.admin.listen.port}`, 'admin.listen']]);
  for (const [index, { host, port }] of config.listen.entries()) {
    const key = `${host}:${port}`;
    const other = port === 0 ? undefined : seen.get(key);
    if (other !== undefined) fault(['listen'], `${key} is taken by ${other}`, 'every listener on an address of its own', 'value');
    seen.set(key, `listen[${index}]`);
  }
  if (config.admin.tokens.length === 0 && !isLoopback(config.admin.listen.host))
    fault(
      ['admin', 'listen'],
      `${config.admin.listen.host} can be reached by others, and there are no admin.tokens`,
      '127.0.0.1, or at least one entry in admin.tokens',
      'value',
    );
  const names = new Set<string>();
  for (const [index, { name }] of config.admin.tokens.entries()) {
    if (names.has(name))
      fault(
        ['admin', 'tokens', index, 'name'],
        `"${name}" names two tokens`,
        'a name of its own for each token: the audit shows it',
        'value',
      );
    names.add(name);
  }
};

const checkPartition = ({ partition }: ContextConfig, path: Path, fault: Report): void => {
  if (partition === 'aggregate') return;
  const { slots, shards } = partition;
  if ((slots === null) === (shards === null) || slots?.length === 0)
    fault(path, 'says nothing, or two things', 'aggregate, { slots: [0, 1, …] } or { shards: N }', 'value');
};

const checkRoutes = ({ config }: CheckInput, fault: Report): void => {
  const owners = new Map<string, string>();
  for (const [name, context] of Object.entries(config.contexts)) {
    checkPartition(context, ['contexts', name, 'partition'], fault);
    for (const [index, route] of context.match.entries()) {
      const path: Path = ['contexts', name, 'match', index];
      for (const method of new Set(route.methods)) {
        const key = `${method} ${shapeOf(route.path)}`;
        const owner = owners.get(key);
        if (owner === undefined) owners.set(key, name);
        else
          fault([...path, 'path'], `${method} ${route.path} is owned by ${owner} already`, 'one owner for each method and path', 'value');
      }
      checkTemplates(route, path, fault);
      if (route.writes.compensate !== null && context.publisher === 'capture')
        fault(
          [...path, 'writes', 'compensate'],
          'a captured change is the event itself: none that cannot be built is ever taken back',
          'publisher: ledger, or no compensate',
          'key',
        );
    }
  }
};

const checkTemplates = (route: RouteConfig, path: Path, fault: Report): void => {
  const known = [...paramsOf(route.path), 'key'];
  const check = (template: string, allowed: readonly string[], where: Path): void => {
    for (const place of placesOf(template))
      if (!allowed.includes(place))
        fault(where, `{${place}} is no parameter of ${route.path}`, `one of ${allowed.map((name) => `{${name}}`).join(', ')}`, 'value');
  };
  if (route.writes.resolve !== null) check(route.writes.resolve.get, known, [...path, 'writes', 'resolve', 'get']);
  if (route.writes.compensate?.path != null)
    check(route.writes.compensate.path, [...known, 'aggregate'], [...path, 'writes', 'compensate']);
};

const MAPPING_ROOT = /^\$\.(request|response|params)(?=$|[.[])/;

const checkEvents = (input: CheckInput, name: string, context: ContextConfig, fault: Report): void => {
  if (context.events.length === 0) return;
  const at: Path = ['contexts', name, 'events'];
  if (!input.dev && input.config.store === null && !input.says(['store']))
    fault(at, 'events need a store', 'store: postgres://… (or DATABASE_URL in the environment)', 'key');
  if (!input.dev && input.config.streams === null && !input.says(['streams']))
    fault(at, 'events need a stream', 'streams: { facts: domain-events, … }', 'key');
  for (const [index, event] of context.events.entries()) {
    const path: Path = [...at, index];
    const { method, pathPattern } = event.when;
    const route = context.match.find((candidate) => candidate.methods.includes(method) && covers(candidate.path, pathPattern));
    if (route === undefined)
      fault([...path, 'when'], `no match of ${name} owns ${method} ${pathPattern}`, 'a method and path that this context owns', 'value');
    else if (operationOf(route, method) === 'query')
      fault([...path, 'when'], `${method} ${pathPattern} is a query, and queries change nothing`, 'a command', 'value');
    const mappings: readonly (readonly [Path, unknown])[] = [
      [[...path, 'aggregate'], event.aggregate],
      ...Object.entries(event.data).map(([field, value]) => [[...path, 'data', field], value] as const),
    ];
    for (const [where, value] of mappings) {
      if (typeof value !== 'string') continue;
      if (value.startsWith('$') && !MAPPING_ROOT.test(value))
        fault(where, `"${value}" starts nowhere`, 'a JSONPath that starts with $.request, $.response or $.params', 'value');
      else if (event.mode === 'tentative' && (value === 'status' || value.startsWith('$.response')))
        fault(where, 'a tentative event is published before there is an answer', 'a value of $.request or $.params', 'value');
    }
  }
};

const checkParity = (today: string, at: Path, parity: ContextConfig['parity'], fault: Report, warn: Report): void => {
  for (const [index, rule] of parity.arrays.entries())
    if ((rule.by === null) === (rule.as === null))
      fault([...at, 'arrays', index], 'says both or neither of by and as', 'exactly one of by: FIELD and as: set | multiset', 'key');
  for (const [index, rule] of parity.tolerance.entries())
    if (rule.abs === undefined && rule.rel === undefined)
      fault([...at, 'tolerance', index], 'says neither abs nor rel', 'abs: NUMBER', 'key');
  for (const [index, rule] of parity.ignore.entries())
    if (rule.until !== null && rule.until <= today)
      warn(
        [...at, 'ignore', index, 'until'],
        `the rule for ${rule.at} ended on ${rule.until} and hides nothing any more`,
        undefined,
        'value',
      );
};

const checkGroups = ({ config }: CheckInput, fault: Report): void => {
  const first = new Map<string, { name: string; context: ContextConfig }>();
  for (const [name, context] of Object.entries(config.contexts)) {
    if (context.group === null) continue;
    const other = first.get(context.group);
    if (other === undefined) {
      first.set(context.group, { name, context });
      continue;
    }
    for (const key of ['stage', 'share', 'stickyKey', 'ramp'] as const)
      if (JSON.stringify(context[key]) !== JSON.stringify(other.context[key]))
        fault(
          ['contexts', name, key],
          `differs from ${other.name}, which is in group ${context.group} too`,
          'the same in all contexts of a group: they move as one',
          'value',
        );
  }
};

/** An approval needs a name, and is never one's own. */
const checkApprovals = (config: Config, at: Path, approvals: number, fault: Report): void => {
  const people = config.admin.tokens.filter(({ role }) => role !== 'viewer').length;
  if (approvals > 0 && people <= approvals)
    fault(
      at,
      `${approvals} other people cannot approve: ${people} may change anything`,
      `${approvals + 1} admin.tokens of role operator or admin`,
      'value',
    );
};

/** All rules over a parsed configuration. */
export const check = (input: CheckInput): Checked => {
  const { config, says, dev } = input;
  const faults: PathFault[] = [];
  const warnings: PathFault[] = [];
  const fault = into(faults);
  const warn = into(warnings);

  if (!dev && config.legacy.urls.length === 0 && !says(['legacy', 'url']) && !says(['legacy', 'urls']))
    fault(['legacy'], 'there is no monolith to stand in front of', 'legacy.url, or --legacy URL');
  checkUpstream(input, ['legacy'], config.legacy, fault, warn);
  checkListeners(input, fault);
  checkListenerTls(input, fault, warn);
  checkApprovals(config, ['admin', 'approvals'], config.admin.approvals, fault);
  checkRoutes(input, fault);
  checkGroups(input, fault);
  checkWho(input, fault, warn);
  for (const [name, context] of Object.entries(config.contexts)) {
    const at: Path = ['contexts', name];
    if (context.extracted === null && context.stage !== 'legacy' && !says([...at, 'extracted']))
      fault([...at, 'stage'], `stage ${context.stage} needs a service to ask`, 'extracted: { url: … }, or stage: legacy', 'value');
    if (context.extracted !== null) checkUpstream(input, [...at, 'extracted'], context.extracted, fault, warn);
    if (context.commands === 'follow') fault([...at, 'commands'], 'commands cannot follow the canary yet', 'hold', 'value');
    if (context.share > 0 && context.stage !== 'canary')
      warn([...at, 'share'], `is read only at stage canary, and this context starts at ${context.stage}`);
    checkEvents(input, name, context, fault);
    checkClients(config, name, context, fault, warn);
    checkParity(input.today, [...at, 'parity'], context.parity, fault, warn);
    if (context.parity.aliases && !context.match.some(({ writes }) => writes.resolve !== null))
      warn([...at, 'parity', 'aliases'], 'learns nothing: no match of this context has writes.resolve');
    checkApprovals(config, [...at, 'ramp', 'approvals'], context.ramp.approvals, fault);
    const { steps, gate } = context.ramp;
    if (steps.some((step, index) => index > 0 && step <= (steps[index - 1] ?? 0)))
      fault([...at, 'ramp', 'steps'], 'does not rise from step to step', 'rising percentages', 'value');
    if (gate.parity.good <= gate.parity.bad)
      fault([...at, 'ramp', 'gate', 'parity'], 'good is not above bad', 'a good rate above the bad one');
    if (context.else === null)
      for (const { path, methods } of unownedMethods(config, name)) {
        const index = context.match.findIndex((route) => route.path === path);
        warn(
          [...at, 'match', index, 'path'],
          `${methods.join(', ')} ${path}: no context owns all of it; legacy answers, and cutover is refused until else: says so`,
          undefined,
          'value',
        );
      }
  }
  return { faults, warnings };
};

/** The `parity:` rules alone, for `banyan parity compare --rules`. */
export const checkRules = (parity: ContextConfig['parity'], today: string): Checked => {
  const faults: PathFault[] = [];
  const warnings: PathFault[] = [];
  checkParity(today, [], parity, into(faults), into(warnings));
  return { faults, warnings };
};
