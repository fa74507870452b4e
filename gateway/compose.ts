import { randomUUID } from 'node:crypto';
import { mkdir } from 'node:fs/promises';
import type { IncomingMessage, ServerResponse } from 'node:http';
import type { Socket } from 'node:net';
import { hostname } from 'node:os';
import { basename, dirname, join } from 'node:path';
import { AppError } from '@banyan/contracts/errors.ts';
import type { Express } from 'express';
import type { Knex } from 'knex';
import type { Logger } from 'pino';
import { createAdmin } from './admin/admin.ts';
import { createAuditStore } from './admin/audit-store.ts';
import type { AdminDeps } from './admin/ports.ts';
import { createStoreView } from './admin/store-view.ts';
import { type Config, environment, formatFault, loadConfig } from './config.ts';
import type { DualWriting } from './dual-writing.ts';
import { seedsOf } from './flags/flag-store.ts';
import { createFlags } from './flags/flags.ts';
import { createFlips } from './flags/flips.ts';
import type { Listener } from './flags/listener.ts';
import { createMoves } from './flags/moves.ts';
import { createPins } from './flags/pins.ts';
import { createLagWatch } from './lag-watch.ts';
import { createListeners } from './listeners.ts';
import { compileLive, cutoverObstacles, isLedgered, refuseNarrowing } from './live.ts';
import { createPipeline } from './pipeline.ts';
import { createUpgrader } from './proxy/upgrade.ts';
import { sealKey } from './seal-key.ts';
import { createShadowing } from './shadowing.ts';
import { createJournal } from './telemetry/journal.ts';
import { createMetrics } from './telemetry/metrics.ts';
import { refuseUnbuilt } from './unbuilt.ts';
import { createUpgrades } from './upgrades.ts';

export type GatewayOptions = {
  readonly config: Config;
  /** Watched and reloaded; absent = the configuration cannot change. */
  readonly configFile?: string | undefined;
  readonly overrides?: Readonly<Record<string, unknown>>;
  readonly version: string;
  readonly log: Logger;
};

export type Gateway = {
  /** For a server of somebody else's; `open` must have been called. */
  readonly handler: (req: IncomingMessage, res: ServerResponse) => void;
  readonly upgrade: (req: IncomingMessage, socket: Socket, head: Buffer) => void;
  /** The admin API as an express application, to be mounted or listened on. */
  readonly admin: Express;
  /** Everything but the listeners: store, flags, relay. @throws AppError `store-unavailable` */
  open(): Promise<void>;
  /** Opens and listens. @throws AppError `store-unavailable` when the store cannot be reached and nothing is known of an earlier run; the system's error for a busy port. */
  start(): Promise<{ gateway: string; admin: string }>;
  /** Reads the file again; valid = swapped whole, invalid = the old one stays. */
  reload(): Promise<Awaited<ReturnType<AdminDeps['reload']>>>;
  /** Drains: at most `config.drain` for what is in flight. */
  stop(): Promise<void>;
};

const monotonic = (): number => performance.now();

type Store = {
  readonly db: Knex;
  readonly writeDb: Knex;
  readonly relayDb: Knex;
  readonly listener: Listener;
  readonly migrate: () => Promise<void>;
};

/** Loaded only where there is a store: a plain proxy must be ready in a blink, and neither SQL nor the AWS SDK is light. */
const openStore = async (url: string, log: Logger): Promise<Store> => {
  const [{ default: knex }, { createListener }, { migrate }] = await Promise.all([
    import('knex'),
    import('./flags/listener.ts'),
    import('./migrations/migrate.ts'),
  ]);
  const pool = (name: string, max: number, timeoutMs: number): Knex =>
    knex({
      client: 'pg',
      connection: {
        connectionString: url,
        application_name: name,
        connectionTimeoutMillis: 3000,
        statement_timeout: timeoutMs,
        query_timeout: timeoutMs + 1000,
        keepAlive: true,
      },
      pool: { min: 0, max },
      acquireConnectionTimeout: 3000,
      // knex would write to stdout
      log: {
        warn: (message: unknown) => log.warn(String(message)),
        error: (message: unknown) => log.warn(String(message)),
        debug: () => undefined,
        deprecate: () => undefined,
      },
    });
  return {
    db: pool('banyan-gateway', 8, 30_000),
    // commands share transactions, so a few connections carry them; a store that hangs must not hold a client for long
    writeDb: pool('banyan-ledger', 6, 5_000),
    relayDb: pool('banyan-relay', 3, 15_000),
    listener: createListener({ databaseUrl: url, log }),
    migrate: () => migrate(url),
  };
};

/** Builds the object graph of one gateway process. Nothing listens or connects before `start`. */
export const createGateway = async (options: GatewayOptions): Promise<Gateway> => {
  const { log } = options;
  refuseUnbuilt(options.config);
  let live = compileLive(options.config, null, log);
  const config = (): Config => live.config;
  const { store } = options.config;
  const memberId = randomUUID();
  // beside the configuration, so that it survives restarts; a plain proxy keeps nothing
  const home = options.configFile === undefined ? null : join(dirname(options.configFile), '.banyan');
  const seedsIn = (from: Config) => seedsOf(Object.entries(from.contexts).map(([name, context]) => ({ name, ...context })));
  const seeds = seedsIn(options.config);
  const hasContexts = seeds.length > 0;

  const opened = store === null ? null : await openStore(store, log);
  const db = opened?.db ?? null;
  const listener = opened?.listener ?? null;
  const secret = sealKey({
    configured: options.config.seal.key,
    home,
    needed: Object.values(options.config.contexts).some((context) => isLedgered(options.config, context)),
    log,
  });
  const flags = createFlags({
    db,
    listener,
    memberId,
    memberName: `${hostname()}:${process.pid}`,
    seeds,
    stateFile:
      home !== null && options.configFile !== undefined && hasContexts
        ? join(home, `last-known-flags.${basename(options.configFile)}.json`)
        : null,
    now: monotonic,
    log,
  });
  const pins = createPins({ db, listener, secret, now: monotonic, log });

  let dual: DualWriting | null = null;
  const dualBacklog = async () => dual?.backlog() ?? null;
  const breakerOf = (context: string) => {
    const state = live.breakers.get(context)?.state ?? 'closed';
    return { state, open: state === 'closed' ? 0 : 1, of: 1 };
  };
  const metrics = createMetrics({
    version: options.version,
    nodeVersion: process.version,
    sources: {
      flags: () => flags.all(),
      breaker: breakerOf,
      backlog: dualBacklog,
      tunnels: () => upgrades.tunnels(),
      upstreams: () => live.upstreams(),
    },
  });
  const journal = createJournal({ metrics, log });
  const shadowing = createShadowing({ db, live: () => live, secret, metrics, log });
  flags.onChange((flag, before) => {
    if (before && before.since.getTime() !== flag.since.getTime())
      void shadowing.evidence
        .reset(flag.name, flag.since)
        .catch((error) => log.warn({ err: error }, 'the parity window could not be started anew'));
  });

  if (opened) {
    const { startDualWriting } = await import('./dual-writing.ts');
    dual = startDualWriting({ ...opened, live: () => live, memberId, secret, pins, metrics, log });
  }
  const lag = createLagWatch({
    live: () => live,
    db,
    release: pins.release,
    now: monotonic,
    flags,
    unpublishedMs: (context) => dual?.oldestUnpublishedAgeMs(context) ?? Promise.resolve(0),
    log,
  });
  const flips =
    db && dual
      ? createFlips({
          db,
          flags,
          memberId,
          maxStaleMs: options.config.flags.maxStale,
          unresolved: dual.unresolved,
          inFlight: dual.inFlight,
          watermark: (context, into, timeoutMs) =>
            lag.watermark({
              context,
              into,
              timeoutMs,
              db,
              adapterUrl: config().adapter.url,
              adapterToken: environment('BANYAN_ADAPTER_TOKEN') ?? null,
            }),
          log,
          now: monotonic,
        })
      : null;
  const moves = createMoves({
    db,
    flags,
    flips,
    contextOf: (name) => {
      const context = config().contexts[name];
      return context && { firstShareBp: context.ramp.steps[0] ?? 100, cutoverObstacles: cutoverObstacles(config(), name) };
    },
  });

  const handle = createPipeline({
    live: () => live,
    flags,
    writer: dual?.writer ?? null,
    pins,
    stale: lag.stale,
    shadow: shadowing,
    journal,
    now: monotonic,
  });
  const upgrades = createUpgrades({
    live: () => live,
    flags,
    pins,
    stale: lag.stale,
    journal,
    now: monotonic,
    upgrader: createUpgrader(),
    count: metrics.upgrade,
  });
  const listeners = createListeners({
    config: options.config,
    handler: (req, res) => void handle(req, res),
    upgrade: upgrades.upgrade,
    takesUpgrade: upgrades.takes,
    log,
  });

  let generation = 0;
  let stopping: Promise<void> | null = null;
  let reloading: Promise<unknown> = Promise.resolve();
  const reloadNow = async (): Promise<Awaited<ReturnType<AdminDeps['reload']>>> => {
    if (options.configFile === undefined) throw new AppError('not-configured', 'there is no configuration file to read again');
    const result = await loadConfig({ file: options.configFile, overrides: options.overrides ?? {} });
    if (!result.ok) {
      metrics.configRefused();
      for (const fault of result.faults) log.error({ fault: formatFault(fault) }, 'the new configuration is refused; the old one stays');
      return { ok: false, faults: result.faults.map(formatFault), warnings: result.warnings.map(formatFault) };
    }
    const before = live;
    try {
      refuseUnbuilt(result.config);
      refuseNarrowing(before.config, result.config, (name) => flags.current(name)?.stage);
      listeners.renew(result.config);
    } catch (error) {
      metrics.configRefused();
      throw error;
    }
    const next = compileLive(result.config, before, log);
    // before the first request can meet a context that the store does not know
    await flags
      .reseed(seedsIn(result.config))
      .catch((error) => log.warn({ err: error }, 'new contexts could not be announced to the store'));
    live = next;
    next.check(before);
    dual?.reload();
    metrics.configLoaded(++generation);
    log.info({ generation }, 'configuration reloaded');
    // answers under way keep their upstream until they are out
    setTimeout(() => void before.retire(next), result.config.drain).unref();
    return { ok: true, faults: [], warnings: result.warnings.map(formatFault) };
  };
  const reload = (): ReturnType<typeof reloadNow> => {
    const turn = reloading.then(reloadNow, reloadNow);
    reloading = turn.catch(() => undefined);
    return turn;
  };

  const adminDeps: AdminDeps = {
    version: options.version,
    config,
    reload,
    draining: () => stopping !== null,
    listening: () => listeners.listening,
    flags,
    moves,
    flips,
    parity: hasContexts ? shadowing.port : null,
    ledger: dual?.port ?? null,
    audit: db ? createAuditStore(db) : null,
    store: db ? createStoreView(db, () => config().flags.maxStale) : null,
    upstreams: () => live.upstreams(),
    breakers: breakerOf,
    backlog: dualBacklog,
    registry: metrics.registry,
    adapterToken: environment('BANYAN_ADAPTER_TOKEN') ?? null,
    now: () => Date.now(),
    log,
  };
  const admin = createAdmin(adminDeps);
  let recovering: NodeJS.Timeout | null = null;

  const close = async (): Promise<void> => {
    const limit = config().drain;
    await Promise.all([listeners.drain(limit), upgrades.drain(limit)]);
    upgrades.stop();
    if (recovering) clearInterval(recovering);
    await flips?.stop();
    await admin.stop();
    lag.stop();
    await shadowing.stop();
    await dual?.stop();
    await pins.stop();
    await flags.stop();
    await listener?.stop();
    await live.retire(null);
    if (opened) await Promise.all([opened.db, opened.writeDb, opened.relayDb].map((pool) => pool.destroy()));
  };

  const open = async (): Promise<void> => {
    if (home !== null && hasContexts)
      await mkdir(home, { recursive: true }).catch((error) => log.warn({ err: error }, 'nothing can be kept beside the configuration'));
    if (opened) {
      try {
        await opened.migrate();
      } catch (error) {
        if (!(await flags.known())) {
          await close();
          throw new AppError('store-unavailable', `the store does not answer: ${error instanceof Error ? error.message : String(error)}`, {
            cause: error,
          });
        }
        log.error({ err: error }, 'the store does not answer: starting with the last known flags; ledgered commands get 503');
      }
    }
    live.check(null);
    listener?.start();
    await flags.start();
    await pins.start().catch((error) => log.warn({ err: error }, 'pins of earlier commands could not be read'));
    dual?.start();
    lag.start();
    if (flips)
      recovering = setInterval(() => void flips.recover().catch((error) => log.warn({ err: error }, 'flips could not be looked at')), 1000);
    metrics.configLoaded(++generation);
  };

  return {
    handler: (req, res) => void handle(req, res),
    upgrade: upgrades.upgrade,
    admin: admin.handler,
    open,
    async start() {
      await open();
      try {
        const gateway = await listeners.listen();
        const { url } = await admin.start();
        return { gateway, admin: url };
      } catch (error) {
        await close();
        throw error;
      }
    },
    reload,
    stop() {
      stopping ??= close();
      return stopping;
    },
  };
};
