import type { UpstreamView } from '@banyan/contracts/admin-api.ts';
import { AppError } from '@banyan/contracts/errors.ts';
import type { Logger } from 'pino';
import type { Askers, AskersOf } from './askers.ts';
import {
  type Config,
  type ContextConfig,
  type ExtractedConfig,
  type LegacyConfig,
  operationOf,
  type RouteConfig,
  unownedMethods,
} from './config.ts';
import { compileRoutes, type RoutePattern } from './core/match.ts';
import { planMove } from './core/stage-moves.ts';
import type { Live, LiveContext, RouteSettings } from './exchange.ts';
import { createHealth, type Health } from './proxy/health.ts';
import type { Trusted } from './proxy/peer.ts';
import { createUpstream, type Upstream, type UpstreamOptions } from './proxy/upstream.ts';
import { blocksOf, compileClients, isIn } from './recognise.ts';
import { type Breaker, createBreaker } from './resilience/breaker.ts';

/** Everything that holds sockets or state for one configuration; a reload keeps what did not change. */
export type LiveParts = Live & {
  readonly config: Config;
  readonly breakers: ReadonlyMap<string, Breaker>;
  /** Own sockets for copies, so that a hung shadow cannot take a client's connection. */
  readonly shadowLegacy: Upstream;
  readonly shadowExtracted: ReadonlyMap<string, Upstream>;
  readonly upstreams: () => readonly UpstreamView[];
  /** Begins the active checks, and ends those that only `before` had. */
  check(before: LiveParts | null): void;
  /** Closes what `next` does not use; what answers are still under way over ends with the last of them. null = nothing follows: all is closed. */
  retire(next: LiveParts | null): Promise<void>;
};

/** What outlives a reload that does not touch its settings. */
type Kept = {
  readonly upstreams: Map<string, { readonly key: string; readonly it: Upstream }>;
  readonly health: Map<string, { readonly key: string; readonly it: Health }>;
  readonly askers: Map<string, { readonly key: string; readonly it: unknown }>;
};
type KeptOf<K extends keyof Kept> = Kept[K] extends Map<string, { readonly it: infer T }> ? T : never;
type KeepingParts = LiveParts & {
  readonly kept: Kept;
  /** Upstreams of former configurations whose last answers are still under way; one set for all. */
  readonly ending: Set<Upstream>;
};

const trustOf = (blocks: readonly string[]): Trusted => {
  if (blocks.length === 0) return () => false;
  const list = blocksOf(blocks);
  return (address) => isIn(list, address);
};

/** A command goes through the ledger when events or capture hang on its context. */
export const isLedgered = (config: Config, context: ContextConfig): boolean =>
  config.store !== null && (context.events.length > 0 || context.publisher === 'capture');

/** For logs, metrics and evidence: `POST /api/orders`, or the bare pattern where a route has several methods. */
const labelOf = ({ methods, path }: Pick<RouteConfig, 'methods' | 'path'>): string =>
  `${methods.length === 1 ? `${methods[0]} ` : ''}${path}`;

/** Labels of the routes of a context whose queries may be diverted: the evidence names them so. */
export const queryRoutesOf = (context: ContextConfig): string[] => [
  ...new Set(
    context.match
      .filter((route) => route.maxStage !== 'legacy' && route.methods.some((method) => operationOf(route, method) === 'query'))
      .map(labelOf),
  ),
];

const patternsOf = (config: Config): RoutePattern<RouteSettings>[] =>
  Object.entries(config.contexts).flatMap(([name, context]) =>
    context.match.map((match) => ({
      context: name,
      path: match.path,
      methods: match.methods,
      operation: match.operation ?? undefined,
      maxStage: match.maxStage ?? undefined,
      rest: {
        writes: {
          bodyLimit: match.writes.bodyLimit,
          answerLimit: match.writes.answerLimit,
          resolve: match.writes.resolve,
          attests: match.writes.idempotency === 'database',
        },
        ledgered: isLedgered(config, context),
        pattern: match.path,
        label: labelOf(match),
        memo: { meter: null, quoted: null },
      },
    })),
  );

/** Methods under owned paths that no route names are undecided unless `else:` says who answers them. */
export const cutoverObstacles = (config: Config, name: string): string[] => {
  const context = config.contexts[name];
  if (!context) return [];
  const obstacles: string[] = [];
  if (!context.extracted) obstacles.push(`${name} has no extracted service`);
  if (context.else === null)
    for (const { path, methods } of unownedMethods(config, name))
      obstacles.push(`nobody owns ${methods.join(', ')} ${path} of ${name}: say who answers them (else: legacy | refuse)`);
  for (const match of context.match) {
    const writes =
      match.operation === 'command' || (match.operation === null && match.methods.some((method) => method !== 'GET' && method !== 'HEAD'));
    if (writes && match.maxStage !== null && planMove(match.maxStage, 'cutover', true).kind !== 'instant')
      obstacles.push(`the commands of ${match.path} stop at ${match.maxStage} (maxStage)`);
  }
  return obstacles;
};

const NO_ASKERS: Askers = { strip: null, tokens: null, overrideTokens: null, whoami: null, provider: null };

/**
 * Builds what requests read. Upstreams and breakers whose settings are the same as in `before` are kept, with their sockets and counts,
 * and so are active checks. Nothing is checked before `check`. `askersOf` null = the configuration needs none of it.
 * @throws AppError `not-configured` when there is no monolith.
 */
export const compileLive = (
  config: Config,
  before: LiveParts | null,
  log: Pick<Logger, 'info' | 'warn'>,
  askersOf: AskersOf | null,
): LiveParts => {
  const previous = before as KeepingParts | null;
  const kept: Kept = { upstreams: new Map(), health: new Map(), askers: new Map() };
  const ending = previous?.ending ?? new Set<Upstream>();
  const keep = <T>(of: keyof Kept, name: string, settings: unknown, create: () => T): T => {
    const key = JSON.stringify(settings);
    const known = kept[of] as Map<string, { readonly key: string; readonly it: T }>;
    const old = previous?.kept[of].get(name) as { readonly key: string; readonly it: T } | undefined;
    const entry = old?.key === key ? old : { key, it: create() };
    known.set(name, entry);
    return entry.it;
  };
  const healthOf = (name: string, { urls, tls, health: options }: LegacyConfig | ExtractedConfig): Health | null =>
    options === null
      ? null
      : keep('health', name, [urls, tls, options], () =>
          createHealth({
            urls,
            tls,
            options,
            onChange: (host, healthy, error) =>
              healthy
                ? log.info({ upstream: name, host }, 'a host passes its checks again')
                : log.warn({ upstream: name, host, error }, 'a host fails its checks and is left out'),
          }),
        );
  const upstream = (name: string, options: UpstreamOptions, from: LegacyConfig | ExtractedConfig, health: Health | null): Upstream =>
    keep('upstreams', name, [options, from.health], () =>
      createUpstream(options, {
        health,
        onTrouble: (err) => log.warn({ upstream: name, err }, 'changed TLS material cannot be used; the former stays'),
        onEjection: (host, ejectedMs) =>
          ejectedMs === null
            ? log.info({ upstream: name, host }, 'an ejected host is asked again')
            : log.warn({ upstream: name, host, ejectedMs }, 'a host failed too often and is left out for a while'),
      }),
    );
  const { legacy } = config;
  if (legacy.urls.length === 0) throw new AppError('not-configured', 'legacy.url: the address of the monolith is missing');
  const timesOf = (t: { connect: number; response: number; idle: number }) => ({
    connectMs: t.connect,
    responseMs: t.response,
    idleMs: t.idle,
  });
  const legacyOptions = {
    name: 'legacy',
    urls: legacy.urls,
    tls: legacy.tls,
    outlier: legacy.outlier,
    connections: legacy.connections,
    timeouts: timesOf(legacy.timeouts),
    hostHeader: legacy.hostHeader,
  };
  const legacyHealth = healthOf('legacy', legacy);

  const contexts = new Map<string, LiveContext>();
  const breakers = new Map<string, Breaker>();
  const shadowExtracted = new Map<string, Upstream>();
  for (const [name, context] of Object.entries(config.contexts)) {
    let extracted: LiveContext['extracted'] = null;
    if (context.extracted) {
      const options = {
        name,
        urls: context.extracted.urls,
        tls: context.extracted.tls,
        outlier: context.extracted.outlier,
        connections: context.extracted.connections,
        timeouts: timesOf(context.extracted.timeouts),
        hostHeader: 'preserve' as const,
      };
      const settingsOf = (of: ContextConfig | undefined): string => JSON.stringify([of?.extracted, of?.breaker]);
      const old = previous?.breakers.get(name);
      const same = old && settingsOf(context) === settingsOf(previous?.config.contexts[name]);
      const breaker = same ? old : createBreaker(name, context.breaker);
      breakers.set(name, breaker);
      const health = healthOf(`extracted:${name}`, context.extracted);
      extracted = { upstream: upstream(`extracted:${name}`, options, context.extracted, health), breaker };
      const copies = { ...options, connections: context.shadow.concurrency };
      shadowExtracted.set(name, upstream(`shadow:${name}`, copies, context.extracted, health));
    }
    contexts.set(name, {
      name,
      salt: context.group ?? name,
      ...compileClients(name, context, config.overrideToken !== null, config.openfeature !== null),
      else: context.else,
      extracted,
      pinMs: context.pin,
      compareLimit: context.parity.bodyLimit,
      dual: isLedgered(config, context),
    });
  }

  const legacyUpstream = upstream('legacy', legacyOptions, legacy, legacyHealth);
  const askers =
    askersOf?.(
      config,
      legacyUpstream,
      <T>(name: string, settings: unknown, create: () => T): T => keep('askers', name, settings, create),
    ) ?? NO_ASKERS;

  const parts = {
    ...askers,
    config,
    routes: compileRoutes(patternsOf(config)),
    contexts,
    legacy: legacyUpstream,
    shadowLegacy: upstream('shadow-legacy', { ...legacyOptions, connections: Math.min(64, legacy.connections) }, legacy, legacyHealth),
    shadowExtracted,
    breakers,
    trusted: trustOf(config.trustedProxies),
    debugHeaders: config.debugHeaders,
    maxStaleMs: config.flags.maxStale,
    kept,
    ending,
    upstreams(): readonly UpstreamView[] {
      const own: UpstreamView = { context: null, upstream: 'legacy', hosts: parts.legacy.hosts() };
      const others = [...contexts].flatMap(([context, { extracted }]): UpstreamView[] =>
        extracted === null ? [] : [{ context, upstream: 'extracted', hosts: extracted.upstream.hosts() }],
      );
      return [own, ...others];
    },
    check(former: LiveParts | null) {
      for (const { it } of kept.health.values()) it.start();
      for (const health of left('health', former as KeepingParts | null, parts)) health.stop();
    },
    async retire(next: LiveParts | null) {
      for (const [name, breaker] of breakers) if (next?.breakers.get(name) !== breaker) breaker.stop();
      for (const health of left('health', parts, next as KeepingParts | null)) health.stop();
      if (askers.provider !== null && next?.provider !== askers.provider) await askers.provider.stop();
      const upstreams = left('upstreams', parts, next as KeepingParts | null);
      if (next !== null) for (const one of upstreams) endWhenIdle(one, ending);
      else await Promise.all([...upstreams, ...ending].map((one) => one.stop()));
    },
  };
  return parts;
};

/** What `from` has and `to` has not. */
const left = <K extends keyof Kept>(of: K, from: KeepingParts | null, to: KeepingParts | null): KeptOf<K>[] => {
  const stays = new Set<unknown>([...(to?.kept[of].values() ?? [])].map(({ it }) => it));
  return [...(from?.kept[of].values() ?? [])].map(({ it }) => it as KeptOf<K>).filter((it) => !stays.has(it));
};

const LOOK_MS = 250;

/** A download or a stream of events may well outlive the reload after which it counts as old. */
const endWhenIdle = (upstream: Upstream, ending: Set<Upstream>): void => {
  ending.add(upstream);
  const look = (): void => {
    if (upstream.inFlight > 0) return void setTimeout(look, LOOK_MS).unref();
    ending.delete(upstream);
    void upstream.stop();
  };
  look();
};
