import type { IncomingMessage, ServerResponse } from 'node:http';
import type { Socket } from 'node:net';
import type { UpstreamView } from '@banyan/contracts/admin-api.ts';
import type { BreakerState, Upstream } from '@banyan/contracts/vocabulary.ts';
import type { Config } from './config.ts';
import type { DualWriting } from './dual-writing.ts';
import { createLagWatch, type LagWatch } from './lag-watch.ts';
import { createListeners } from './listeners.ts';
import type { Member } from './member.ts';
import { createAliasStore } from './parity/aliases/store.ts';
import { createPipeline } from './pipeline.ts';
import { createUpgrader } from './proxy/upgrade.ts';
import { samplesOf } from './ramping.ts';
import { createShadowing } from './shadowing.ts';
import { createJournal } from './telemetry/journal.ts';
import { createUpgrades } from './upgrades.ts';

/** What clients of this process have under way. */
export type Load = { readonly requests: number; readonly tunnels: number };

/** Everything a request meets, and the public listeners. */
export type DataPlane = {
  readonly handler: (req: IncomingMessage, res: ServerResponse) => void;
  readonly upgrade: (req: IncomingMessage, socket: Socket, head: Buffer) => void;
  open(): Promise<void>;
  /** Binds `config.listen`; gives the address of the first. @throws the system's error for a busy port */
  listen(): Promise<string>;
  /** Do all listeners accept connections? */
  listening(): boolean;
  load(): Load;
  /** Open tunnels by the side they lead to. */
  tunnels(): Readonly<Record<Upstream, number>>;
  /** State of each context's breaker in this process. */
  breakers(): Readonly<Record<string, BreakerState>>;
  /** Every upstream's hosts as this process sees them. */
  upstreams(): readonly UpstreamView[];
  /** Takes over the certificates of a new configuration. @throws AppError `not-configured` for a pair that cannot be used */
  renew(config: Config): void;
  /** Stops accepting and lets what is in flight finish, at most `ms`. Resolves to how many requests were cut. */
  drain(ms: number): Promise<number>;
  stop(): Promise<void>;
};

const now = (): number => performance.now();

export const createMemberLag = (member: Member, dual: DualWriting | null): LagWatch =>
  createLagWatch({
    live: member.live,
    db: member.store?.db ?? null,
    release: member.pins.release,
    now,
    flags: member.flags,
    unpublishedMs: (context) => dual?.oldestUnpublishedAgeMs(context) ?? Promise.resolve(0),
    log: member.log,
  });

/** @param config whose `listen`, `client` and `legacy` count for as long as the process lives */
export const createDataPlane = (deps: { member: Member; config: Config; dual: DualWriting | null; lag: LagWatch }): DataPlane => {
  const { member, config, dual, lag } = deps;
  const { live, log } = member;
  const shadowing = createShadowing({
    evidence: member.evidence,
    judges: member.judges,
    aliases: member.store && createAliasStore(member.store.db),
    live,
    metrics: member.metrics,
    log,
  });
  const samples = samplesOf(member);
  const journal = createJournal({ metrics: member.metrics, log, also: samples?.note });
  const handle = createPipeline({
    live,
    flags: member.flags,
    writer: dual?.writer ?? null,
    pins: member.pins,
    stale: lag.stale,
    shadow: shadowing,
    journal,
    now,
  });
  const upgrades = createUpgrades({
    live,
    flags: member.flags,
    pins: member.pins,
    stale: lag.stale,
    journal,
    now,
    upgrader: createUpgrader(),
    count: member.metrics.upgrade,
  });
  const listeners = createListeners({
    config,
    handler: (req, res) => void handle(req, res),
    upgrade: upgrades.upgrade,
    takesUpgrade: upgrades.takes,
    log,
  });

  return {
    handler: (req, res) => void handle(req, res),
    upgrade: upgrades.upgrade,
    async open() {
      await member.pins.start().catch((error) => log.warn({ err: error }, 'pins of earlier commands could not be read'));
      lag.start();
      shadowing.start();
      samples?.start();
    },
    listen: listeners.listen,
    listening: () => listeners.listening,
    load: listeners.load,
    tunnels: upgrades.tunnels,
    upstreams: () => live().upstreams(),
    breakers: () => Object.fromEntries([...live().breakers].map(([name, breaker]) => [name, breaker.state])),
    renew: listeners.renew,
    async drain(ms) {
      const [cut] = await Promise.all([listeners.drain(ms), upgrades.drain(ms)]);
      return cut;
    },
    async stop() {
      upgrades.stop();
      lag.stop();
      await shadowing.stop();
      await samples?.stop();
      await dual?.stop();
      await member.pins.stop();
    },
  };
};
