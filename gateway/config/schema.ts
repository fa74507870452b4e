import { OPERATIONS, ROLES, STAGES } from '@banyan/contracts/vocabulary.ts';
import { z } from 'zod';
import { listeners } from './listeners.ts';
import { ramp } from './ramp.ts';
import { list, object, oneOf } from './shapes.ts';
import { isMethod, parsePathTemplate } from './syntax.ts';
import { UPSTREAM_URL, upstreamHosts, urlsOf } from './upstreams.ts';
import {
  address,
  compensation,
  decimal,
  duration,
  eventCondition,
  origin,
  originOrNone,
  pathPattern,
  postgresUrl,
  ruleSelector,
  selector,
  share,
  size,
  text,
  textual,
  whole,
  yesNo,
} from './values.ts';
import { cidr, identity, jwt, openfeature, overrides, overrideToken, provided, stickyKeys } from './who.ts';

/** A header line `Name: value`, e.g. `authorization: Bearer …`. */
const headerLine = () =>
  textual('a header such as "authorization: Bearer TOKEN"', (raw) => {
    const found = /^([!#$%&'*+.^_`|~0-9A-Za-z-]{1,256}):\s*([\x20-\x7e\t]+)$/.exec(raw);
    return found === null
      ? { ok: false, expected: 'a header such as "authorization: Bearer TOKEN"' }
      : { ok: true, value: { name: (found[1] ?? '').toLowerCase(), value: (found[2] ?? '').trim() } };
  });

const timeouts = (response: string) =>
  object({
    /** ms until the connection must stand, TLS included. */
    connect: duration().prefault('2s'),
    /** ms from the end of the request to the first byte of the answer. */
    response: duration().prefault(response),
    /** ms without a byte inside a body: from the upstream, from the client, or taken by the client. */
    idle: duration().prefault('5m'),
  });

/** `urls` always holds every instance; empty only under `banyan dev`, which brings its own monolith. `url` is the first. */
const legacy = object({
  ...upstreamHosts(),
  /** Which Host the monolith sees: the client's, or its own. */
  hostHeader: oneOf(['preserve', 'upstream']).prefault('preserve'),
  timeouts: timeouts('60s').prefault({}),
  /** Sockets per monolith instance. */
  connections: whole(1, 65_536).prefault(256),
  /** The header with which the reconciler asks; never a client's credentials. */
  auth: headerLine().nullable().prefault(null),
}).transform((value) => {
  const urls = urlsOf(value);
  return { ...value, urls, url: urls[0] ?? null };
});

const extracted = object({
  ...upstreamHosts(),
  timeouts: timeouts('2s').prefault({}),
  connections: whole(1, 65_536).prefault(256),
}).transform((value, context) => {
  const urls = urlsOf(value);
  const [url] = urls;
  if (url !== undefined) return { ...value, urls, url };
  context.addIssue({ code: 'custom', path: ['url'], message: 'missing', params: { expected: UPSTREAM_URL } });
  return z.NEVER;
});

const admin = object({
  listen: address().prefault('127.0.0.1:8081'),
  tokens: z
    .array(object({ name: text(64), role: oneOf(ROLES), token: text() }), { error: 'a list of { name, role, token }' })
    .max(256)
    .prefault([]),
  /** Host header allow-list, without ports. */
  hosts: z.array(text(255), { error: 'a list of host names' }).max(256).prefault(['localhost', '127.0.0.1']),
  peers: z.array(origin(), { error: 'a list of addresses' }).max(64).prefault([]),
  approvals: whole(0, 10).prefault(0),
});

const mappingText = selector(['json', 'header', 'query', 'cookie', 'status']);

/** What a mapping function of `banyan.config.ts` sees: `{ request: { body, headers, query, … }, response: { … }, params }`. */
export type MappingFunction = (source: Readonly<Record<string, unknown>>) => unknown;

/** A selector, or (in `banyan.config.ts` only) a function. */
export const mapping = z.union([mappingText, z.custom<MappingFunction>((value) => typeof value === 'function')], {
  error: 'a JSONPath such as $.response.body.id, header:NAME, query:NAME, cookie:NAME or status',
});

const resolve = object({
  /** Path asked of the upstream; `{key}` is the idempotency key, other places are the route's parameters. */
  get: textual('a path such as /api/orders?ref={key}', parsePathTemplate),
  /** A value found here means that the command was applied. */
  applied: selector(['json', 'status']),
  /** What stands for the answer's body in mapping and replay; null = a repeat gets 409 `answer-lost`. */
  body: selector(['json']).nullable().prefault(null),
  /** Status that stands for the answer's. */
  status: whole(200, 399).prefault(200),
});

/** Exactly one of the two, which `checkPartition` sees to. */
const partition = z.union(
  [
    oneOf(['aggregate']),
    object({
      slots: list(whole(0, 15), 'a list of hash slots from 0 to 15').nullable().prefault(null),
      shards: whole(2, 64).nullable().prefault(null),
    }),
  ],
  { error: 'aggregate, { slots: [0, 1, …] } or { shards: N }' },
);

const writes = object({
  /** `key`: the upstream honours Idempotency-Key; `natural`: a repeat has no second effect; `database`: the adapter writes with the ledger; `none`: opaque. */
  idempotency: oneOf(['key', 'natural', 'database', 'none']).prefault('none'),
  resolve: resolve.nullable().prefault(null),
  /** ms before "not there" counts as not applied; null in the file = response timeout + 30 s, filled in when loaded. */
  settle: duration().nullable().prefault(null),
  /** ms a repeat waits for the one in flight. */
  deadline: duration().prefault('10s'),
  /** Bytes; a longer request is 413. */
  bodyLimit: size().prefault('1MiB'),
  /** Bytes of an answer that are kept for replay. */
  answerLimit: size().prefault('256KiB'),
  /**
   * Takes back what legacy did when its event cannot be built: a request to legacy (places as in `resolve.get`, and `{aggregate}`), or `adapter`. null =
   * such a command waits for a person.
   */
  compensate: compensation().nullable().prefault(null),
});

/** Methods of a match that names none. */
const ANY_METHOD = ['GET', 'HEAD', 'POST', 'PUT', 'PATCH', 'DELETE', 'OPTIONS'] as const;

const method = () =>
  textual('an HTTP method in capitals, such as GET', (raw) =>
    isMethod(raw) ? { ok: true, value: raw } : { ok: false, expected: 'an HTTP method in capitals, such as GET' },
  );

const match = object({
  path: pathPattern(),
  /** Absent = GET HEAD POST PUT PATCH DELETE OPTIONS. */
  methods: z
    .array(method(), { error: 'a list of methods such as [ GET, HEAD ]' })
    .min(1, { error: 'at least one method' })
    .prefault([...ANY_METHOD]),
  /** null = by method: GET and HEAD are queries, the rest commands. */
  operation: oneOf(OPERATIONS).nullable().prefault(null),
  /** The furthest stage at which this route is still diverted; null = no cap. */
  maxStage: oneOf(STAGES).nullable().prefault(null),
  writes: writes.prefault({}),
});

const at = () => ruleSelector(['json', 'header', 'status']);

const DAY = 'a day such as 2027-03-01';

const day = () =>
  textual(DAY, (raw) => {
    const time = /^\d{4}-\d{2}-\d{2}(?:T\d{2}:\d{2}(?::\d{2}(?:\.\d{1,3})?)?Z)?$/.test(raw) ? new Date(raw) : null;
    // Date rolls 2027-02-31 over into March; a day that reads back otherwise does not exist.
    const real = time !== null && !Number.isNaN(time.getTime()) && time.toISOString().startsWith(raw.slice(0, 10));
    return real ? { ok: true, value: raw } : { ok: false, expected: DAY };
  });

/** A context's `parity:` block; also the shape of `banyan parity compare --rules`. */
export const paritySchema = object({
  /** Share of queries mirrored. */
  sample: share().prefault('100%'),
  /** Share of mirrored pairs compared. */
  compare: share().prefault('100%'),
  /** Share of pairs for which legacy is asked twice, to learn noise. */
  probe: share().prefault('5%'),
  /** `until` is the first day (UTC) or the instant at which the rule no longer holds; null = always. */
  ignore: list(
    object({ at: at(), because: text(512).optional(), until: day().nullable().prefault(null) }),
    'a list of { at, because, until }',
  ).prefault([]),
  /** Exactly one of `by` and `as` is set. */
  arrays: list(
    object({
      at: ruleSelector(['json']),
      by: text(256).nullable().prefault(null),
      as: oneOf(['set', 'multiset']).nullable().prefault(null),
    }),
    'a list of { at, by } or { at, as }',
  ).prefault([]),
  /** `abs` in units of the number, `rel` as a share (0..1) of the larger one; at least one of them. */
  tolerance: list(
    object({ at: ruleSelector(['json']), abs: decimal(0, 1e15).optional(), rel: decimal(0, 1).optional() }),
    'a list of { at, abs }',
  ).prefault([]),
  /** Path patterns of queries that are never mirrored. */
  unsafeQueries: list(pathPattern(), 'a list of path patterns').prefault([]),
  /** Bytes; larger answers are compared by streamed digest. */
  bodyLimit: size().prefault('1MiB'),
  /** Share of the commands that legacy does of which a service that declares dry runs gets a copy without effect. */
  dryRun: share().prefault('0%'),
  /** How long the figures of each hour are kept, ms. */
  retention: duration().prefault('720h'),
  /** Do both sides mint ids? Then what each calls the thing that a command made is learned from `writes.resolve`, asked of the other side too. */
  aliases: yesNo().prefault(false),
});

const event = object({
  when: eventCondition(),
  type: z
    .string({ error: 'an event type such as order.placed.v1' })
    .regex(/^[a-z][a-z0-9-]*(\.[a-z][a-z0-9-]*)+\.v[0-9]+$/, { error: 'an event type such as order.placed.v1' }),
  /** Gives the aggregate's id. */
  aggregate: mapping,
  data: z.record(text(128), mapping, { error: 'a mapping of field names to where their values stand' }),
  mode: oneOf(['ledger', 'tentative']).prefault('ledger'),
});

const context = object({
  /** Contexts of one group share salt, stage, share, kill and flip. */
  group: text(63).nullable().prefault(null),
  match: list(match, 'a list of { path, methods }').min(1, { error: 'at least one match' }),
  /** Who answers methods under owned paths that no match names; null = undecided, and cutover is refused while there are any. */
  else: oneOf(['legacy', 'refuse']).nullable().prefault(null),
  /** The extracted service; null while there is none, and then the stage is `legacy`. */
  extracted: extracted.nullable().prefault(null),
  /** First one present wins; empty = a `banyan-id` cookie is issued. */
  stickyKey: stickyKeys(),
  overrides: overrides(),
  /** Asks the OpenFeature provider in canary; null = the flag alone decides. */
  openfeature: provided.nullable().prefault(null),
  /** Only the first start reads it; the store owns it afterwards. */
  stage: oneOf(STAGES).prefault('legacy'),
  /** Canary share in basis points with which `stage: canary` starts; read only then. */
  share: share().prefault('0%'),
  /** Passed to opossum as they are; `capacity` = requests in flight. */
  breaker: object({
    errorThresholdPercentage: decimal(0, 100).prefault(50),
    volumeThreshold: whole(0, 1_000_000).prefault(20),
    resetTimeoutMs: whole(1, 86_400_000).prefault(10_000),
    capacity: whole(1, 1_000_000).prefault(200),
  }).prefault({}),
  commands: oneOf(['hold', 'follow']).prefault('hold'),
  /** ms that a client's queries stay on the side that has its command, at most. */
  pin: duration().prefault('10s'),
  /** Who publishes what legacy executed. */
  publisher: oneOf(['ledger', 'capture']).prefault('ledger'),
  /**
   * How facts are spread over the stream: by aggregate; by aggregate over some of the 16 hash slots only (`slots`); or each aggregate over so many partition
   * keys (`shards`), which waives the order of its facts on the stream.
   */
  partition: partition.prefault('aggregate'),
  shadow: object({
    maxPerSecond: whole(0, 1_000_000).prefault(50),
    concurrency: whole(1, 10_000).prefault(20),
    cookies: oneOf(['pass', 'drop']).prefault('pass'),
  }).prefault({}),
  parity: paritySchema.prefault({}),
  events: list(event, 'a list of { when, type, aggregate, data, mode }').prefault([]),
  ramp: ramp.prefault({}),
});

const streams = object({
  facts: text(128).prefault('domain-events'),
  commands: text(128).prefault('order-commands'),
  region: text(64).prefault('eu-west-1'),
  /** null = AWS. */
  endpoint: originOrNone().nullable().prefault(null),
  /** KPL aggregation. */
  aggregate: yesNo().prefault(true),
});

/** Names of contexts: also flag keys, event prefixes and parts of `source`. */
const contextName = z
  .string()
  .max(63, { error: 'a name of at most 63 characters' })
  .regex(/^(?!constructor$)[a-z][a-z0-9-]*$/, { error: 'a context name of lower-case letters, digits and -, such as order' });

/**
 * The one schema of `banyan.yaml` (DESIGN.md section 4): types, defaults and the JSON Schema come from it.
 * Keys keep their written names; parsed values are plain numbers: durations in ms, sizes in bytes, shares and percentages in basis points (0..10000).
 * Rules that look at two places at once are in `checks.ts`.
 */
export const configSchema = object({
  version: z.union([z.literal(1), z.literal('1')], { error: '1' }).transform((): 1 => 1),
  /** Always a list once parsed. */
  listen: listeners.prefault('127.0.0.1:8080'),
  client: object({
    headerTimeout: duration().prefault('10s'),
    idleTimeout: duration().prefault('65s'),
    maxHeaderBytes: size().prefault('64KiB'),
    maxConnections: whole(1, 10_000_000).prefault(10_000),
    /** HTTP/2 streams that a client may have open at once on one connection. */
    maxStreams: whole(1, 65_536).prefault(128),
  }).prefault({}),
  /** ms that requests in flight get after SIGTERM. */
  drain: duration().prefault('30s'),
  admin: admin.prefault({}),
  legacy: legacy.prefault({}),
  adapter: object({
    url: origin().prefault('http://127.0.0.1:8090'),
    legacyDatabase: postgresUrl().nullable().prefault(null),
    capture: oneOf(['trigger', 'wal', 'outbox']).prefault('trigger'),
  }).prefault({}),
  /** Services that no context names, by name: where `banyan dlq` and `banyan saga` (the service `saga`) ask. */
  services: z.record(contextName, origin(), { error: 'a mapping of names of services to their addresses' }).prefault({}),
  identity: identity.nullable().prefault(null),
  jwt: jwt.nullable().prefault(null),
  overrideToken: overrideToken.nullable().prefault(null),
  openfeature: openfeature.nullable().prefault(null),
  trustedProxies: list(cidr(), 'a list of address blocks').prefault([]),
  debugHeaders: yesNo().prefault(false),
  /** null = none (or the embedded one under `banyan dev`). */
  store: postgresUrl().nullable().prefault(null),
  /** null = none; under `banyan dev` the defaults of its keys. */
  streams: streams.nullable().prefault(null),
  /** Flags older than `maxStale` (ms) send no command of a context with events or back-sync; also the heartbeat of replicas. */
  flags: object({
    maxStale: duration().prefault('5s'),
    /** While it is there, the contexts it names are killed (docs/cutover.md); from the folder of the configuration. null = `.banyan/kill` there. */
    killFile: text().nullable().prefault(null),
  }).prefault({}),
  /** Read by `banyan dev` only; a port of 0 is chosen by the system. */
  dev: object({
    dataDir: text().prefault('.banyan'),
    postgresPort: whole(0, 65_535).prefault(5_433),
    kinesisPort: whole(0, 65_535).prefault(4_567),
    monolithPort: whole(0, 65_535).prefault(3_000),
    notificationPort: whole(0, 65_535).prefault(4_003),
    sagaPort: whole(0, 65_535).prefault(4_006),
  }).prefault({}),
  traffic: object({ record: oneOf(['off', 'summary', 'full']).prefault('summary') }).prefault({}),
  redact: list(ruleSelector(['json', 'header', 'query', 'cookie']), 'a list such as [ header:authorization, $..password ]').prefault([
    'header:authorization',
    'header:cookie',
    'header:set-cookie',
    'query:token',
    '$..password',
    '$..card',
  ]),
  backlog: object({ maxBytes: size().prefault('4GiB') }).prefault({}),
  /** Secret from which the key that seals stored requests and answers is derived: 32 random bytes in hex or base64, or a passphrase of 8 characters or more. The same on all replicas. null = none given. */
  seal: object({
    key: z
      .string({ error: 'text' })
      .refine((key) => key === '' || key.length >= 8, { error: 'a secret of at least 8 characters' })
      .transform((key) => (key === '' ? null : key))
      .nullable()
      .prefault(null),
  }).prefault({}),
  log: object({ level: oneOf(['trace', 'debug', 'info', 'warn', 'error', 'silent']).prefault('info') }).prefault({}),
  contexts: z.record(contextName, context, { error: 'a mapping of context names to contexts' }).prefault({}),
});

type DeepReadonly<T> = T extends (...args: never[]) => unknown
  ? T
  : T extends readonly (infer Item)[]
    ? readonly DeepReadonly<Item>[]
    : T extends object
      ? { readonly [Key in keyof T]: DeepReadonly<T[Key]> }
      : T;

/** What one writes in `banyan.config.ts`: everything optional but `version`. */
export type ConfigInput = z.input<typeof configSchema>;
type Parsed = z.output<typeof configSchema>;
type ParsedContext = Parsed['contexts'][string];
type ParsedRoute = ParsedContext['match'][number];

/** How commands of one route are written; durations in ms, limits in bytes. `settle` is always filled in. */
export type WritesConfig = DeepReadonly<Omit<ParsedRoute['writes'], 'settle'> & { settle: number }>;
/** One entry of `match`. */
export type RouteConfig = DeepReadonly<Omit<ParsedRoute, 'writes'>> & { readonly writes: WritesConfig };
export type ContextConfig = DeepReadonly<Omit<ParsedContext, 'match'>> & { readonly match: readonly RouteConfig[] };
/** The effective configuration: checked, complete, deeply frozen. */
export type Config = DeepReadonly<Omit<Parsed, 'contexts'>> & { readonly contexts: Readonly<Record<string, ContextConfig>> };

export type ListenConfig = Config['listen'][number];
export type ClientConfig = Config['client'];
export type AdminConfig = Config['admin'];
export type LegacyConfig = Config['legacy'];
export type AdapterConfig = Config['adapter'];
export type StreamsConfig = NonNullable<Config['streams']>;
export type ExtractedConfig = NonNullable<ContextConfig['extracted']>;
export type { OverrideCondition, ProviderFactory, StickySelector } from './who.ts';
export type BreakerConfig = ContextConfig['breaker'];
export type ShadowConfig = ContextConfig['shadow'];
export type ParityConfig = ContextConfig['parity'];
export type EventConfig = ContextConfig['events'][number];
/** A selector such as `$.response.body.id`, or a function. */
export type MappingConfig = EventConfig['aggregate'];
export type ResolveConfig = NonNullable<WritesConfig['resolve']>;
export type RampConfig = ContextConfig['ramp'];
