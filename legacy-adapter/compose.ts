import { once } from 'node:events';
import { createServer } from 'node:http';
import type { AddressInfo } from 'node:net';
import { setTimeout as pause } from 'node:timers/promises';
import { AppError } from '@banyan/contracts/errors.ts';
import type { Knex } from 'knex';
import knex from 'knex';
import type { Logger } from 'pino';
import { adapterApi, type CaptureState, type Readiness } from './api.ts';
import { compensate } from './back-sync/compensate.ts';
import { createBackSync } from './back-sync/worker.ts';
import { install, installation, remove, tableNames } from './capture/install.ts';
import { createReader } from './capture/reader.ts';
import { createSnapshots, requestSnapshots, snapshotStates } from './capture/snapshot.ts';
import { legacyChecksum } from './checksum.ts';
import type { Config } from './config.ts';
import { describeTables, type Shapes } from './legacy-rows.ts';
import { startLoop } from './loop.ts';
import type { Aggregate, Translation } from './ports.ts';
import { backSyncWatermark, captureWatermark } from './watermark.ts';

export type Adapter = {
  readonly url: string;
  /** Lets running turns and requests end (at most 5 s), then closes everything. May be called more than once. */
  readonly stop: () => Promise<void>;
};

export type AdapterOptions = {
  /** How long to wait for the store's functions and the legacy tables to appear; default 60,000 ms. */
  readonly patienceMs?: number;
  /** For tests of crashes; see the readers' deps. */
  readonly beforeCaptureSettles?: () => Promise<void>;
  readonly beforeBackSyncSettles?: () => Promise<void>;
};

const PATIENCE_MS = 60_000;
const LOOK_MS = 250;
const REMIND_MS = 10_000;
/** A reader that has not completed a turn for so long is not alive. */
const ALIVE_MS = 5000;
const STOP_GRACE_MS = 5000;
const LISTED = 50;

const STORE_FUNCTIONS = ['banyan.observe_change', 'banyan.append_fact'];

const open = (url: string, name: string): Knex =>
  knex({
    client: 'pg',
    connection: { connectionString: url, connectionTimeoutMillis: 5000, application_name: name },
    pool: { min: 0, max: 8 },
    acquireConnectionTimeout: 10_000,
  });

const firstLine = (error: unknown): string => {
  const first: unknown = error instanceof AggregateError && error.errors.length > 0 ? error.errors[0] : error;
  return (first instanceof Error ? first.message : String(first)).split('\n')[0]!;
};

/** What of the store is not there yet, or null. */
const storeLacks = async (store: Knex): Promise<string | null> => {
  const { rows } = await store.raw<{ rows: { missing: string | null }[] }>(
    `select string_agg(f, ', ') as missing from unnest(?::text[]) as f
     where not exists (select from pg_proc p join pg_namespace n on n.oid = p.pronamespace where n.nspname || '.' || p.proname = f)`,
    [STORE_FUNCTIONS],
  );
  return rows[0]!.missing === null ? null : `the store has no function ${rows[0]!.missing} (the gateway makes it)`;
};

const legacyLacks = async (legacy: Knex, aggregates: readonly Aggregate[]): Promise<string | null> => {
  const { rows } = await legacy.raw<{ rows: { missing: string | null }[] }>(
    `select string_agg(t, ', ') as missing from unnest(?::text[]) as t where to_regclass(t) is null`,
    [tableNames(aggregates)],
  );
  return rows[0]!.missing === null ? null : `the legacy database has no table ${rows[0]!.missing}`;
};

/** Asks until nothing is lacking. @throws AppError `not-configured` with what is still lacking after `patienceMs` */
const waitFor = async (lacks: () => Promise<string | null>, patienceMs: number, log: Logger, signal: AbortSignal): Promise<void> => {
  const deadline = performance.now() + patienceMs;
  let remindAt = 0;
  for (;;) {
    const lack = await lacks().catch(firstLine);
    if (lack === null || signal.aborted) return;
    if (performance.now() >= deadline) throw new AppError('not-configured', `${lack}; waited ${patienceMs} ms`);
    if (performance.now() >= remindAt) {
      log.info(`waiting: ${lack}`);
      remindAt = performance.now() + REMIND_MS;
    }
    await pause(LOOK_MS);
  }
};

/** Those of the translation's aggregates that are configured. Contexts that the legacy system does not know are not the adapter's. */
const configured = (translation: Translation, config: Config): readonly Aggregate[] =>
  config.contexts === null ? translation.aggregates : translation.aggregates.filter(({ context }) => config.contexts!.has(context));

/**
 * Starts the adapter: listens, waits for both databases, installs capture and takes the snapshot (unless told not to), then reads and writes.
 * @throws when the port is taken, or something is still lacking after `patienceMs`; nothing is left open then
 */
export const startAdapter = async (
  config: Config,
  translation: Translation,
  log: Logger,
  options: AdapterOptions = {},
): Promise<Adapter> => {
  const aggregates = configured(translation, config);
  const store = open(config.storeUrl, 'banyan-adapter');
  const legacy = open(config.legacyUrl, 'banyan-adapter');
  const stopping = new AbortController();

  const aggregateOf = (context: string): Aggregate => {
    const aggregate = aggregates.find((candidate) => candidate.context === context);
    if (!aggregate)
      throw new AppError('not-found', `context ${context} is not one of ${aggregates.map((a) => a.context).join(', ') || '(none)'}`);
    return aggregate;
  };
  const reader = createReader({
    legacy,
    store,
    translation,
    aggregates,
    log,
    publisherOf: (context) => config.contexts?.get(context) ?? 'ledger',
    ...(options.beforeCaptureSettles ? { beforeSettle: options.beforeCaptureSettles } : {}),
  });
  const shapes = async (): Promise<Shapes | null> => (await installation(legacy, aggregates))?.shapes ?? null;
  const backSync = createBackSync({
    legacy,
    store,
    translation,
    aggregates,
    shapes,
    log,
    ...(options.beforeBackSyncSettles ? { beforeSettle: options.beforeBackSyncSettles } : {}),
  });
  const loops = { reader: undefined, snapshots: undefined, backSync: undefined } as Record<
    string,
    ReturnType<typeof startLoop> | undefined
  >;

  const backlog = async (): Promise<{
    pending: number;
    oldestAgeMs: number | null;
    lost: number;
    snapshots: CaptureState['snapshots'];
  }> => {
    const { rows } = await legacy.raw<{ rows: { pending: string; age: string | null; lost: string }[] }>(
      `select count(*)::text as pending, extract(epoch from clock_timestamp() - min(at)) * 1000 as age,
         (select case when is_called then last_value + 1 else last_value end from banyan_capture.lost)::text as lost from banyan_capture.change`,
    );
    const { pending, age, lost } = rows[0]!;
    return {
      pending: Number(pending),
      oldestAgeMs: age === null ? null : Math.max(0, Math.round(Number(age))),
      lost: Number(lost),
      snapshots: await snapshotStates(legacy),
    };
  };
  const backSyncState = async (): Promise<CaptureState['backSync']> => {
    const { rows } = await store.raw<{ rows: { pending: string; age: string | null }[] }>(
      'select count(*)::text as pending, extract(epoch from clock_timestamp() - min(created_at)) * 1000 as age from banyan.back_sync where context = any(?::text[])',
      [aggregates.map(({ context }) => context)],
    );
    const { pending, age } = rows[0]!;
    return {
      pending: Number(pending),
      oldestAgeMs: age === null ? null : Math.max(0, Math.round(Number(age))),
      failing: backSync.failing().slice(0, LISTED),
    };
  };
  const state = async (): Promise<CaptureState> => {
    const installed = (await installation(legacy, aggregates)) !== null;
    const held = reader.held();
    const now = performance.now();
    return {
      mode: 'trigger',
      installed,
      tables: tableNames(aggregates),
      held: held.length,
      heldSubjects: held
        .slice(0, LISTED)
        .map(({ context, subject, sinceMs, error }) => ({ context, subject, heldMs: Math.round(now - sinceMs), error })),
      ...(installed ? await backlog() : { pending: 0, oldestAgeMs: null, lost: 0, snapshots: [] }),
      backSync: await backSyncState(),
    };
  };
  const readiness = async (): Promise<Readiness> => {
    const missing: string[] = [];
    if (!loops.reader) missing.push('still starting: waiting for the store and the legacy tables');
    await store.raw('select 1').catch((error: unknown) => void missing.push(`store: ${firstLine(error)}`));
    const found = await installation(legacy, aggregates).catch(
      (error: unknown) => void missing.push(`legacy database: ${firstLine(error)}`),
    );
    if (found === null) missing.push('capture is not installed');
    for (const [name, loop] of Object.entries(loops)) {
      const last = loop?.lastOk() ?? null;
      if (loop && loop.failure() !== null && (last === null || performance.now() - last > ALIVE_MS))
        missing.push(`${name}: ${loop.failure()}`);
    }
    if (!found) return { missing, lagMs: 0, pending: 0 };
    const { pending, oldestAgeMs, lost } = await backlog();
    if (lost > 0) missing.push(`${lost} changes could not be captured: banyan_capture was damaged; remove and install capture again`);
    return { missing, lagMs: oldestAgeMs ?? 0, pending };
  };
  const takeIds = async (context: string, count: number): Promise<number[]> => {
    const { sequence } = aggregateOf(context);
    if (sequence === undefined) throw new AppError('not-configured', `the legacy system numbers nothing in context ${context}`);
    const { rows } = await legacy.raw<{ rows: { id: string }[] }>('select nextval(?::regclass)::text as id from generate_series(1, ?)', [
      sequence,
      count,
    ]);
    return rows.map(({ id }) => Number(id));
  };
  const needInstalled = async (): Promise<void> => {
    if ((await installation(legacy, aggregates)) === null) throw new AppError('not-configured', 'capture is not installed');
  };
  const installAndRead = async (again: boolean): Promise<void> => {
    await install(legacy, aggregates);
    await requestSnapshots(legacy, aggregates, again);
  };

  const server = createServer(
    { keepAliveTimeout: 65_000 },
    adapterApi({
      log,
      token: config.token,
      stopping: stopping.signal,
      readiness,
      capture: {
        state,
        install: () => installAndRead(false),
        remove: () => remove(legacy),
        snapshot: async () => {
          await needInstalled();
          await requestSnapshots(legacy, aggregates, true);
        },
      },
      takeIds,
      captureWatermark: async (context, timeoutMs, signal) => {
        const aggregate = aggregateOf(context);
        await needInstalled();
        return captureWatermark(legacy, aggregate, timeoutMs, signal);
      },
      backSyncWatermark: (context, timeoutMs, signal) => backSyncWatermark(store, aggregateOf(context).context, timeoutMs, signal),
      compensate: async (context, aggregate, key) => {
        aggregateOf(context);
        const known = await shapes();
        if (known === null) throw new AppError('not-configured', 'capture is not installed');
        return compensate({ legacy, translation, aggregates, shapes: known }, context, aggregate, key);
      },
      checksum: async (context, question) => {
        const aggregate = aggregateOf(context);
        return legacyChecksum(legacy, await describeTables(legacy, [aggregate]), translation, aggregate, question);
      },
    }),
  );

  const close = async (): Promise<void> => {
    stopping.abort();
    const closed = server.listening ? once(server, 'close') : Promise.resolve();
    server.close();
    server.closeIdleConnections();
    const impatient = setTimeout(() => server.closeAllConnections(), STOP_GRACE_MS);
    await Promise.all([closed, ...Object.values(loops).map((loop) => loop?.stop())]);
    clearTimeout(impatient);
    await Promise.all([store.destroy(), legacy.destroy()]);
  };
  let stopped: Promise<void> | undefined;
  const stop = (): Promise<void> => {
    stopped ??= close();
    return stopped;
  };

  try {
    server.listen(config.port, config.host);
    await once(server, 'listening');
    const patienceMs = options.patienceMs ?? PATIENCE_MS;
    await waitFor(() => legacyLacks(legacy, aggregates), patienceMs, log, stopping.signal);
    await waitFor(() => storeLacks(store), patienceMs, log, stopping.signal);
    if (config.install) await installAndRead(false);
    const snapshots = createSnapshots({ legacy, aggregates, log });
    loops.reader = startLoop({ name: 'capture', log, turn: reader.turn });
    loops.snapshots = startLoop({ name: 'snapshot', log, turn: snapshots.turn });
    loops.backSync = startLoop({ name: 'back-sync', log, turn: backSync.turn });
  } catch (error) {
    await stop();
    throw error;
  }
  const { address, port, family } = server.address() as AddressInfo;
  return { url: `http://${family === 'IPv6' ? `[${address}]` : address}:${port}`, stop };
};
