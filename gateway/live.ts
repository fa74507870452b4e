import { BlockList, isIP } from 'node:net';
import { AppError } from '@banyan/contracts/errors.ts';
import type { Config, ContextConfig } from './config.ts';
import { compileRoutes, type RoutePattern } from './core/match.ts';
import { planMove } from './core/stage-moves.ts';
import type { Live, LiveContext, RouteSettings } from './exchange.ts';
import type { Trusted } from './proxy/peer.ts';
import { createUpstream, type Upstream } from './proxy/upstream.ts';
import { type Breaker, createBreaker } from './resilience/breaker.ts';

/** Everything that holds sockets or state for one configuration; a reload keeps what did not change. */
export type LiveParts = Live & {
  readonly config: Config;
  readonly breakers: ReadonlyMap<string, Breaker>;
  /** Own sockets for copies, so that a hung shadow cannot take a client's connection. */
  readonly shadowLegacy: Upstream;
  readonly shadowExtracted: ReadonlyMap<string, Upstream>;
  /** Closes what `next` does not use. */
  retire(next: LiveParts | null): Promise<void>;
};

type Kept = { readonly key: string; readonly upstream: Upstream };

const trustOf = (blocks: readonly string[]): Trusted => {
  if (blocks.length === 0) return () => false;
  const list = new BlockList();
  for (const block of blocks) {
    const [address = '', bits] = block.split('/');
    const family = isIP(address) === 6 ? 'ipv6' : 'ipv4';
    if (bits === undefined) list.addAddress(address, family);
    else list.addSubnet(address, Number(bits), family);
  }
  return (address) => list.check(address, isIP(address) === 6 ? 'ipv6' : 'ipv4');
};

/** A command goes through the ledger when events or capture hang on its context. */
export const isLedgered = (config: Config, context: ContextConfig): boolean =>
  config.store !== null && (context.events.length > 0 || context.publisher === 'capture');

const patternsOf = (config: Config): RoutePattern<RouteSettings>[] =>
  Object.entries(config.contexts).flatMap(([name, context]) =>
    context.match.map((match) => ({
      context: name,
      path: match.path,
      methods: match.methods,
      operation: match.operation ?? undefined,
      maxStage: match.maxStage ?? undefined,
      rest: {
        writes: { bodyLimit: match.writes.bodyLimit, answerLimit: match.writes.answerLimit },
        ledgered: isLedgered(config, context),
        pattern: match.path,
        label: `${match.methods.length === 1 ? `${match.methods[0]} ` : ''}${match.path}`,
      },
    })),
  );

/** Methods under owned paths that no route names are undecided unless `else:` says who answers them. */
export const cutoverObstacles = (config: Config, name: string): string[] => {
  const context = config.contexts[name];
  if (!context) return [];
  const obstacles: string[] = [];
  if (!context.extracted) obstacles.push(`${name} has no extracted service`);
  if (context.else === null) obstacles.push(`${name} does not say who answers other methods under its paths (else: legacy | refuse)`);
  for (const match of context.match) {
    const writes =
      match.operation === 'command' || (match.operation === null && match.methods.some((method) => method !== 'GET' && method !== 'HEAD'));
    if (writes && match.maxStage !== null && planMove(match.maxStage, 'cutover', true).kind !== 'instant')
      obstacles.push(`the commands of ${match.path} stop at ${match.maxStage} (maxStage)`);
  }
  return obstacles;
};

/**
 * Builds what requests read. Upstreams and breakers whose settings are the same as in `before` are kept, with their sockets and counts.
 * @throws AppError `not-configured` when there is no monolith.
 */
export const compileLive = (config: Config, before: LiveParts | null): LiveParts => {
  const previous = before as (LiveParts & { readonly kept?: ReadonlyMap<string, Kept> }) | null;
  const kept = new Map<string, Kept>();
  const upstream = (name: string, options: Parameters<typeof createUpstream>[0]): Upstream => {
    const key = JSON.stringify(options);
    const old = previous?.kept?.get(name);
    const entry = old?.key === key ? old : { key, upstream: createUpstream(options) };
    kept.set(name, entry);
    return entry.upstream;
  };
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
    connections: legacy.connections,
    timeouts: timesOf(legacy.timeouts),
    hostHeader: legacy.hostHeader,
  };

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
        connections: context.extracted.connections,
        timeouts: timesOf(context.extracted.timeouts),
        hostHeader: 'preserve' as const,
      };
      const settingsOf = (of: ContextConfig | undefined): string => JSON.stringify([of?.extracted, of?.breaker]);
      const old = previous?.breakers.get(name);
      const same = old && settingsOf(context) === settingsOf(previous?.config.contexts[name]);
      const breaker = same ? old : createBreaker(name, context.breaker);
      breakers.set(name, breaker);
      extracted = { upstream: upstream(`extracted:${name}`, options), breaker };
      shadowExtracted.set(name, upstream(`shadow:${name}`, { ...options, connections: context.shadow.concurrency }));
    }
    contexts.set(name, {
      name,
      salt: context.group ?? name,
      stickyKey: context.stickyKey,
      else: context.else,
      extracted,
      pinMs: context.pin,
      compareLimit: context.parity.bodyLimit,
      dual: isLedgered(config, context),
    });
  }

  const parts = {
    config,
    routes: compileRoutes(patternsOf(config)),
    contexts,
    legacy: upstream('legacy', legacyOptions),
    shadowLegacy: upstream('shadow-legacy', { ...legacyOptions, connections: Math.min(64, legacy.connections) }),
    shadowExtracted,
    breakers,
    trusted: trustOf(config.trustedProxies),
    debugHeaders: config.debugHeaders,
    maxStaleMs: config.flags.maxStale,
    kept,
    async retire(next: LiveParts | null) {
      const survivors = new Set(
        [...((next as (LiveParts & { kept: ReadonlyMap<string, Kept> }) | null)?.kept.values() ?? [])].map((entry) => entry.upstream),
      );
      for (const [name, breaker] of breakers) if (next?.breakers.get(name) !== breaker) breaker.stop();
      await Promise.all([...kept.values()].filter((entry) => !survivors.has(entry.upstream)).map((entry) => entry.upstream.stop()));
    },
  };
  return parts;
};

/** A reload may not take routes from a context that has moved past `shadow`: its traffic would change sides unseen. */
export const refuseNarrowing = (before: Config, after: Config, stageOf: (context: string) => string | undefined): void => {
  const lost: string[] = [];
  for (const [name, context] of Object.entries(before.contexts)) {
    const stage = stageOf(name);
    if (stage === undefined || stage === 'legacy' || stage === 'shadow') continue;
    const left = new Map((after.contexts[name]?.match ?? []).map((match) => [match.path, match]));
    for (const match of context.match) {
      const methods = left.get(match.path)?.methods ?? [];
      const gone = match.methods.filter((method) => !methods.includes(method));
      if (gone.length > 0) lost.push(`${name} (${stage}): ${gone.join(' ')} ${match.path}`);
    }
    if (context.extracted && !after.contexts[name]?.extracted) lost.push(`${name} (${stage}): its extracted service`);
  }
  if (lost.length > 0)
    throw new AppError('conflict', `the reload would take away what is in use: ${lost.slice(0, 10).join('; ')}`, { details: { lost } });
};
