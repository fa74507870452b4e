import { randomUUID } from 'node:crypto';
import { mkdir } from 'node:fs/promises';
import { hostname } from 'node:os';
import { basename, dirname, join, resolve } from 'node:path';
import { AppError } from '@banyan/contracts/errors.ts';
import type { Logger } from 'pino';
import type { AskersOf } from './askers.ts';
import type { Config } from './config.ts';
import type { DualWriting, RelayElsewhere } from './dual-writing.ts';
import { type FlagSeed, type StoredFlag, seedsOf } from './flags/flag-store.ts';
import { createFlags, type Flags, type FlagsSnapshot } from './flags/flags.ts';
import { createPins } from './flags/pins.ts';
import { compileLive, isLedgered, type LiveParts } from './live.ts';
import { createMemoryEvidenceStore } from './parity/evidence.fake.ts';
import type { Batch, Evidence, EvidenceStore } from './parity/evidence.ts';
import { createEvidenceStore } from './parity/evidence-store.ts';
import type { JudgeThread } from './parity/judge-thread.ts';
import { sealKey } from './seal-key.ts';
import { createJudges, gatherEvidence } from './shadowing.ts';
import { openStore, type Pools, type Store } from './store.ts';
import { createMetrics, type MetricSources, type Metrics } from './telemetry/metrics.ts';
import { refuseUnbuilt } from './unbuilt.ts';

/** What a worker has from its primary instead of making it itself. */
export type FromPrimary = {
  readonly id: string;
  readonly secret: string;
  readonly flags: FlagsSnapshot;
  /** Keeps evidence where there is no store. Rejects when it cannot be handed over. */
  readonly saveEvidence: (batch: Batch) => Promise<void>;
};

export type MemberOptions = {
  readonly config: Config;
  readonly configFile?: string | undefined;
  readonly version: string;
  readonly log: Logger;
  readonly pools: Pools;
  readonly sources: Partial<Omit<MetricSources, 'flags'>>;
  /** null = this process is no worker. */
  readonly primary: FromPrimary | null;
};

/** What every process of a gateway has, whatever it does: settings, store, flags, pins, metrics, evidence. Nothing connects before `open`. */
export type Member = {
  readonly id: string;
  readonly secret: string;
  readonly store: Store | null;
  readonly flags: Flags;
  readonly pins: ReturnType<typeof createPins>;
  readonly metrics: Metrics;
  readonly evidence: Evidence;
  /** The thread for large answers; starts when there is one. */
  readonly judges: JudgeThread;
  readonly hasContexts: boolean;
  /** Where somebody may say at the machine what is to be killed; null = nowhere. */
  readonly killFile: string | null;
  readonly log: Logger;
  live(): LiveParts;
  config(): Config;
  /** Swaps the configuration whole between two requests. @param prepare runs before it counts; what it throws leaves everything as it was */
  adopt(config: Config, prepare: (config: Config) => void): Promise<void>;
  /** Takes over what a worker has gathered. */
  saveEvidence(batch: Batch): Promise<void>;
  /** A worker is dead: nobody waits for its heartbeat. */
  forget(id: string): void;
  /** @throws AppError `store-unavailable` when the store cannot be reached and nothing is known of an earlier run */
  open(): Promise<void>;
  /** Gives up what `open` took, last of all. */
  close(): Promise<void>;
};

const monotonic = (): number => performance.now();

const seedsIn = (from: Config): FlagSeed[] => seedsOf(Object.entries(from.contexts).map(([name, context]) => ({ name, ...context })));

/** Signatures and providers are loaded only where somebody asks: a plain proxy must be ready in a blink. */
const needsAskers = ({ jwt, overrideToken, identity, openfeature, contexts }: Config): boolean =>
  [jwt, overrideToken, identity, openfeature].some((one) => one !== null) ||
  Object.values(contexts).some((context) => context.stickyKey.some(({ from }) => from === 'jwt'));

const evidenceStoreOf = (store: Store | null, primary: FromPrimary | null): EvidenceStore => {
  const here = store ? createEvidenceStore(store.db) : createMemoryEvidenceStore();
  if (primary === null) return here;
  // the primary alone starts windows anew: of many who do, the last would throw away what the others have counted since
  return { ...here, ...(store ? {} : { add: primary.saveEvidence }), reset: async () => undefined };
};

export const createMember = async (options: MemberOptions): Promise<Member> => {
  const { log, primary } = options;
  refuseUnbuilt(options.config);
  const id = primary?.id ?? randomUUID();
  // beside the configuration, so that it survives restarts; a plain proxy keeps nothing
  const home = options.configFile === undefined || primary !== null ? null : join(dirname(options.configFile), '.banyan');
  const secret =
    primary?.secret ??
    sealKey({
      configured: options.config.seal.key,
      home,
      needed:
        Object.values(options.config.contexts).some((context) => isLedgered(options.config, context)) ||
        (options.config.identity !== null && options.config.identity.key === null),
      log,
    });
  const metrics = createMetrics({
    version: options.version,
    nodeVersion: process.version,
    sources: { ...options.sources, ...(primary === null ? { flags: () => flags.all() } : {}) },
  });
  const askersOf = async (config: Config): Promise<AskersOf | null> => {
    if (!needsAskers(config)) return null;
    const { createAskers } = await import('./askers.ts');
    return createAskers({ secret, count: { identity: metrics.identity, provider: metrics.provider }, log });
  };
  let live = compileLive(options.config, null, log, await askersOf(options.config));
  const seeds = seedsIn(options.config);
  const hasContexts = seeds.length > 0;

  const killFile =
    primary !== null || !hasContexts
      ? null
      : options.config.flags.killFile !== null
        ? resolve(dirname(options.configFile ?? '.'), options.config.flags.killFile)
        : home && join(home, 'kill');

  const store = options.config.store === null ? null : await openStore(options.config.store, options.pools, log);
  const db = store?.db ?? null;
  const listener = store?.listener ?? null;
  const flags = createFlags({
    db,
    listener,
    memberId: id,
    memberName: `${hostname()}:${process.pid}`,
    seeds,
    stateFile:
      home !== null && options.configFile !== undefined && hasContexts
        ? join(home, `last-known-flags.${basename(options.configFile)}.json`)
        : null,
    primary: primary?.flags,
    now: monotonic,
    log,
  });
  const pins = createPins({ db, listener, secret, now: monotonic, log });
  const evidenceStore = evidenceStoreOf(store, primary);
  const judges = createJudges(log);
  const evidence = gatherEvidence({ store: evidenceStore, live: () => live, secret, judges, log });
  flags.onChange((flag, before) => {
    if (before && before.since.getTime() !== flag.since.getTime())
      void evidence.reset(flag.name, flag.since).catch((error) => log.warn({ err: error }, 'the parity window could not be started anew'));
  });

  const migrate = async (): Promise<void> => {
    try {
      await store?.migrate();
    } catch (error) {
      if (!(await flags.known()))
        throw new AppError('store-unavailable', `the store does not answer: ${error instanceof Error ? error.message : String(error)}`, {
          cause: error,
        });
      log.error({ err: error }, 'the store does not answer: starting with the last known flags; ledgered commands get 503');
    }
  };

  return {
    id,
    secret,
    store,
    flags,
    pins,
    metrics,
    evidence,
    judges,
    hasContexts,
    killFile,
    log,
    live: () => live,
    config: () => live.config,
    async adopt(config, prepare) {
      const askers = await askersOf(config);
      const before = live;
      const next = compileLive(config, before, log, askers);
      try {
        prepare(config);
      } catch (error) {
        await next.retire(before);
        throw error;
      }
      // before the first request can meet a context that the store does not know
      await flags.reseed(seedsIn(config)).catch((error) => log.warn({ err: error }, 'new contexts could not be announced to the store'));
      live = next;
      next.check(before);
      // answers under way keep their upstream until they are out
      setTimeout(() => void before.retire(next), config.drain).unref();
    },
    saveEvidence: evidenceStore.add,
    forget(memberId) {
      if (db)
        void db('banyan.member')
          .where({ id: memberId })
          .delete()
          .catch((error) => log.debug({ err: error }, 'a dead worker could not be forgotten; its heartbeat expires'));
    },
    async open() {
      if (home !== null && hasContexts)
        await mkdir(home, { recursive: true }).catch((error) => log.warn({ err: error }, 'nothing can be kept beside the configuration'));
      if (primary === null) await migrate();
      live.check(null);
      listener?.start();
      await flags.start();
      if (primary === null) warnOfOrphans(options.config, flags.all(), log);
    },
    async close() {
      await evidence.stop();
      await judges.stop();
      await flags.stop();
      await live.retire(null);
      await store?.close();
    },
  };
};

/** A reload that drops a context in use is refused; a start cannot be, because gateways with other files may share the store. So it is said aloud. */
const warnOfOrphans = (config: Config, flags: readonly StoredFlag[], log: Logger): void => {
  const orphans = flags.filter(({ name, stage }) => !Object.hasOwn(config.contexts, name) && stage !== 'legacy' && stage !== 'shadow');
  if (orphans.length === 0) return;
  const contexts = orphans.map(({ name, stage }) => `${name} (${stage})`);
  log.error({ contexts }, 'the store knows contexts in use that this configuration does not name: here all their requests go to legacy');
};

/** The dual write of this process; null without a store. @param relayElsewhere null = relay and recovery run here */
export const startDual = async (member: Member, relayElsewhere: RelayElsewhere | null): Promise<DualWriting | null> => {
  const { store } = member;
  if (!store) return null;
  const { startDualWriting } = await import('./dual-writing.ts');
  return startDualWriting({
    ...store,
    relayElsewhere,
    live: member.live,
    memberId: member.id,
    secret: member.secret,
    pins: member.pins,
    metrics: member.metrics,
    log: member.log,
  });
};
