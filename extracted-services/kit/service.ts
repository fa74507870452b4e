import { once } from 'node:events';
import { createServer, type Server } from 'node:http';
import type { AddressInfo } from 'node:net';
import { setTimeout as pause } from 'node:timers/promises';
import { DescribeStreamSummaryCommand, type KinesisClient } from '@aws-sdk/client-kinesis';
import { AppError } from '@banyan/contracts/errors.ts';
import { answerTo, type ChecksumAnswer, type ChecksumQuestion, readChecksumQuestion } from '@banyan/contracts/side-checksum.ts';
import express, { type RequestHandler } from 'express';
import knex, { type Knex } from 'knex';
import { type Logger, pino } from 'pino';
import { Counter, collectDefaultMetrics, Gauge, Registry } from 'prom-client';
import { serviceGuard } from './access.ts';
import { type ServiceConfig, StartError } from './config.ts';
import { type Consumer, requestReplay, startConsumer } from './consumer.ts';
import { dlqRoutes } from './dlq.ts';
import { type DryRunSpec, dryRunDb, dryRunRoutes, guardHttp } from './dry-run.ts';
import { parseCommand, parseFact } from './entries.ts';
import { reasonOf } from './failures.ts';
import type { Handler } from './handlers.ts';
import { answerProblem, sendProblem } from './http.ts';
import { createFanOutKinesis, createKinesis } from './kinesis.ts';
import { type Migration, migrateSchema } from './schema.ts';

export type ComposeDeps = { readonly config: ServiceConfig; readonly db: Knex; readonly log: Logger };

type State = Readonly<Record<string, unknown>>;

/** What a service is made of, once its database is there. */
export type Parts = {
  /** Its own HTTP routes, `/api/…`. */
  readonly routes: RequestHandler;
  readonly handlers: readonly Handler[];
  /** Takes commands from the stream for them too, and tells what became of one. */
  readonly commands?: { readonly handlers: readonly Handler[]; readonly outcome: (id: string) => Promise<object | null> };
  /** Every aggregate in its contract shape, in chunks, read in the transaction that is given; absent = nothing to compare. */
  readonly states?: (trx: Knex.Transaction) => AsyncIterable<readonly State[]>;
  /** Those of these ids (at most 500) that are there; absent = they are looked for among all. */
  readonly statesOf?: (trx: Knex.Transaction, ids: readonly string[]) => Promise<readonly State[]>;
  readonly stop?: () => Promise<void>;
};

export type ServiceSpec = {
  /** `order`; also the consumer's name and the key of its URL in the ready message. */
  readonly name: string;
  readonly defaultPort: number;
  /** Schema of its own in the store's database, e.g. `svc_order`. */
  readonly schema: string;
  readonly migrations: readonly Migration[];
  /** The source of the facts that it publishes; then it waits for the store to take them. */
  readonly publishes?: string;
  /** Commands with `banyan-dry-run: 1` are carried out without effect and answered; absent = refused. */
  readonly dryRun?: DryRunSpec;
  readonly compose: (deps: ComposeDeps) => Parts;
};

export type StartOptions = {
  /** Read the stream again without reactions: from its beginning, or from what arrived at that time. */
  readonly replay?: boolean | Date;
  readonly log?: Logger;
  /** How long to wait for the store's functions and the stream. Default 60,000. */
  readonly patienceMs?: number;
  readonly signal?: AbortSignal;
};

export type Service = { readonly url: string; readonly consumer: Consumer; stop(): Promise<void> };

const STOP_GRACE_MS = 5000;
const WAIT_STEP_MS = 200;

/**
 * Two pools: what HTTP asks must not wait for pages of facts, nor the renewal of leases for HTTP.
 * Together 16 connections at most.
 */
const POOLS = { http: 10, consumer: 6 } as const;

const poolOf = (config: ServiceConfig, name: string, log: Logger, use: keyof typeof POOLS): Knex =>
  knex({
    client: 'pg',
    connection: {
      connectionString: config.databaseUrl,
      connectionTimeoutMillis: 5000,
      application_name: `banyan-${name}`,
      keepAlive: true,
    },
    pool: { min: 0, max: POOLS[use] },
    acquireConnectionTimeout: 10_000,
    log: { warn: (message: unknown) => log.warn({ error: String(message).split('\n')[0] }, 'database') },
  });

const openDatabase = async (config: ServiceConfig, name: string, log: Logger): Promise<Knex> => {
  const db = poolOf(config, name, log, 'http');
  try {
    await db.raw('select 1');
    return db;
  } catch (error) {
    await db.destroy();
    throw new StartError(`cannot reach the database: ${reasonOf(error)}`);
  }
};

/** Waits until `found` says yes; says what it waits for when that takes more than a moment. @throws StartError after `patienceMs` */
const waitFor = async (
  what: string,
  found: () => Promise<boolean>,
  log: Logger,
  patienceMs: number,
  signal?: AbortSignal,
): Promise<void> => {
  const startedAt = performance.now();
  let said = false;
  let last = '';
  for (;;) {
    try {
      if (await found()) return;
    } catch (error) {
      last = reasonOf(error);
    }
    signal?.throwIfAborted();
    if (performance.now() - startedAt > patienceMs)
      throw new StartError(`waited ${Math.round(patienceMs / 1000)} s for ${what}${last && `: ${last}`}`);
    if (!said && performance.now() - startedAt > 1000) {
      log.info(`waiting for ${what}`);
      said = true;
    }
    await pause(WAIT_STEP_MS, undefined, signal ? { signal } : {});
  }
};

const storeTakesFacts = (db: Knex) => async (): Promise<boolean> => {
  const { rows } = await db.raw<{ rows: { found: boolean }[] }>(
    `select exists (select from pg_proc p join pg_namespace n on n.oid = p.pronamespace where n.nspname = 'banyan' and p.proname = 'append_fact') as found`,
  );
  return rows[0]!.found;
};

const streamExists = (kinesis: KinesisClient, stream: string) => async (): Promise<boolean> => {
  const { StreamDescriptionSummary } = await kinesis.send(new DescribeStreamSummaryCommand({ StreamName: stream }));
  return StreamDescriptionSummary?.StreamStatus === 'ACTIVE' || StreamDescriptionSummary?.StreamStatus === 'UPDATING';
};

const listen = async (server: Server, config: ServiceConfig): Promise<string> => {
  server.listen(config.port, config.host);
  try {
    await once(server, 'listening');
  } catch (error) {
    throw new StartError(`cannot listen on ${config.host}:${config.port}: ${reasonOf(error)}`);
  }
  const { address, port, family } = server.address() as AddressInfo;
  return `http://${family === 'IPv6' ? `[${address}]` : address}:${port}`;
};

const checksumOf = (db: Knex, { states, statesOf }: Parts, question: ChecksumQuestion): Promise<ChecksumAnswer> =>
  // one snapshot for all chunks
  db.transaction(
    async (trx) => {
      const side = answerTo(question);
      const wanted = question.kind === 'subjects' ? new Set(question.subjects) : null;
      if (wanted && statesOf) side.add(await statesOf(trx, [...wanted]));
      else for await (const chunk of states!(trx)) side.add(wanted ? chunk.filter((state) => wanted.has(String(state.id))) : chunk);
      return side.answer();
    },
    { isolationLevel: 'repeatable read', readOnly: true },
  );

const createMetrics = (name: string, consumer: () => Consumer | undefined) => {
  const registry = new Registry();
  registry.setDefaultLabels({ service: name });
  collectDefaultMetrics({ register: registry });
  const facts = new Counter({
    name: 'banyan_consumer_facts_total',
    help: 'Facts read from the stream, by what became of them',
    labelNames: ['outcome'],
    registers: [registry],
  });
  const deliveries = new Counter({
    name: 'banyan_consumer_deliveries_total',
    help: 'Pages of records, pushed by enhanced fan-out or polled',
    labelNames: ['way'],
    registers: [registry],
  });
  const gauge = (metric: string, help: string, key: 'lagMs' | 'quarantined' | 'held', scale = 1) =>
    new Gauge({
      name: metric,
      help,
      registers: [registry],
      async collect() {
        const position = await consumer()
          ?.position()
          .catch(() => undefined);
        if (position) this.set(position[key] * scale);
      },
    });
  gauge('banyan_consumer_lag_seconds', 'Age of the oldest fact that is not applied', 'lagMs', 0.001);
  gauge('banyan_consumer_quarantined', 'Facts in the dead letter queue', 'quarantined');
  gauge('banyan_consumer_held', 'Facts that wait for their predecessor', 'held');
  return { registry, facts, deliveries };
};

/** Of a service that takes no facts. */
const noConsumer = (consumer: string): Consumer => ({
  position: async () => ({ consumer, lagMs: 0, shards: [], quarantined: 0, held: 0 }),
  lagMs: async () => 0,
  trouble: () => null,
  stop: async () => undefined,
});

/**
 * Starts a service: HTTP at once (503 until it is ready), then its schema, its consumer. Resolves when it serves.
 * @throws StartError for a busy port, an unreachable database, a store or a stream that does not appear in time; nothing is left open then
 */
export const startService = async (spec: ServiceSpec, config: ServiceConfig, options: StartOptions = {}): Promise<Service> => {
  // pino's own destination never lets the process exit when whoever read stdout is gone and a line is still buffered (sonic-boom's flushSync
  // repeats on EPIPE); a stream does
  const log = options.log ?? pino({ level: config.logLevel, name: spec.name }, process.stdout);
  const { patienceMs = 60_000, signal } = options;
  let parts: Parts | undefined;
  let stopParts: Parts['stop'];
  let consumer: Consumer | undefined;
  let commands: Consumer | undefined;
  let database: Knex | undefined;
  let reading: Knex | undefined;
  const metrics = createMetrics(spec.name, () => consumer);

  const app = express().disable('x-powered-by');
  app.get('/livez', (_req, res) => void res.set('cache-control', 'no-store').json({ status: 'ok' }));
  app.get('/readyz', async (_req, res) => {
    const missing = consumer ? consumer.trouble() : 'starting';
    const alive = await database?.raw('select 1').then(
      () => true,
      () => false,
    );
    const why = alive === false ? 'the database does not answer' : missing;
    res
      .status(why === null ? 200 : 503)
      .set('cache-control', 'no-store')
      .json(why === null ? { status: 'ok' } : { status: 'not ready', missing: [why] });
  });
  app.get('/metrics', async (_req, res) => void res.type(metrics.registry.contentType).send(await metrics.registry.metrics()));
  app.use(serviceGuard(config.serviceToken));
  app.use((_req, res, next) => {
    if (parts) next();
    else sendProblem(res, new AppError('context-unavailable', `${spec.name} is starting`, { retryAfterSeconds: 1, retryable: true }));
  });
  app.get('/_banyan/consumer', async (_req, res) => void res.set('cache-control', 'no-store').json(await consumer!.position()));
  app.get('/_banyan/checksum', async (req, res) => {
    if (!parts?.states) throw new AppError('not-found', `${spec.name} keeps no aggregates to compare`);
    res.set('cache-control', 'no-store').json(await checksumOf(database!, parts, readChecksumQuestion(req.query)));
  });
  app.use((req, res, next) => parts!.routes(req, res, next));
  app.use((req, res) => sendProblem(res, new AppError('not-found', `${req.method} ${req.path}: ${spec.name} has no such route`)));
  app.use(answerProblem((error) => log.error({ error: error instanceof Error ? error.stack : String(error) }, 'request failed')));

  const server = createServer({ keepAliveTimeout: 65_000 }, app);
  const kinesis = createKinesis(config);
  const fanOut = config.fanOut ? createFanOutKinesis(config) : undefined;
  const close = async (): Promise<void> => {
    const closed = server.listening ? once(server, 'close') : Promise.resolve();
    server.close();
    const impatient = setTimeout(() => server.closeAllConnections(), STOP_GRACE_MS);
    // `close` ends only what is idle at that moment; a connection whose last answer ends later would be kept alive
    const sweep = setInterval(() => server.closeIdleConnections(), 20);
    await Promise.all([consumer?.stop(), commands?.stop()]);
    await closed;
    clearInterval(sweep);
    clearTimeout(impatient);
    await stopParts?.();
    kinesis.destroy();
    fanOut?.destroy();
    await reading?.destroy();
    await database?.destroy();
    log.info('stopped');
  };

  try {
    const url = await listen(server, config);
    database = await openDatabase(config, spec.name, log);
    const db = database;
    await migrateSchema(db, spec.schema, spec.migrations);
    if (spec.publishes !== undefined)
      await waitFor('the store (banyan.append_fact; banyan run migrates it)', storeTakesFacts(db), log, patienceMs, signal);
    const unguard = spec.dryRun ? guardHttp() : undefined;
    stopParts = async () => unguard?.();
    const made = spec.compose({ config, db: spec.dryRun ? dryRunDb(db) : db, log });
    stopParts = async () => {
      unguard?.();
      await made.stop?.();
    };
    const reads = made.handlers.length > 0;
    if (reads) await waitFor(`the stream ${config.stream}`, streamExists(kinesis, config.stream), log, patienceMs, signal);
    if (options.replay) {
      const from = options.replay instanceof Date ? options.replay : null;
      await requestReplay(db, spec.schema, spec.name, from);
      log.info(`reading the stream again from ${from?.toISOString() ?? 'its beginning'}; nobody reacts up to where it was read before`);
    }
    if (reads) reading = poolOf(config, spec.name, log, 'consumer');
    consumer = !reading
      ? noConsumer(spec.name)
      : startConsumer({
          kinesis,
          stream: config.stream,
          consumer: spec.name,
          db: reading,
          schema: spec.schema,
          handlers: made.handlers,
          own: spec.publishes,
          log,
          ...(fanOut === undefined ? {} : { fanOut }),
          onDelivery: (way) => metrics.deliveries.inc({ way }),
          onCounts: (counts) => {
            for (const [outcome, count] of Object.entries(counts)) if (count > 0) metrics.facts.inc({ outcome }, count);
          },
          pollMs: config.pollMs,
          leaseMs: config.leaseMs,
        });
    const commandsName = `${spec.name}-commands`;
    const router = express.Router().use(
      dryRunRoutes(db, spec.dryRun),
      dlqRoutes({
        db,
        schema: spec.schema,
        readers: [
          { consumer: spec.name, handlers: made.handlers, own: spec.publishes, parse: parseFact },
          ...(made.commands ? [{ consumer: commandsName, handlers: made.commands.handlers, parse: parseCommand(commandsName) }] : []),
        ],
      }),
    );
    if (made.commands) {
      const { handlers, outcome } = made.commands;
      router.get('/_banyan/commands/:id', async (req, res) => {
        const found = await outcome(req.params.id);
        if (!found) throw new AppError('not-found', 'no command of this id has come to an end');
        res.set('cache-control', 'no-store').json(found);
      });
      reading ??= poolOf(config, spec.name, log, 'consumer');
      // not asked by /readyz: commands wait as long as this service does not own the context
      commands = startConsumer({
        kinesis,
        stream: config.commands,
        consumer: commandsName,
        db: reading,
        schema: spec.schema,
        handlers,
        commands: true,
        log: log.child({ stream: config.commands }),
        pagesAtOnce: 1,
        pollMs: config.pollMs,
        leaseMs: config.leaseMs,
      });
    }
    parts = { ...made, routes: router.use(made.routes) };
    let stopped: Promise<void> | undefined;
    return {
      url,
      consumer,
      stop: () => {
        stopped ??= close();
        return stopped;
      },
    };
  } catch (error) {
    await close();
    throw error;
  }
};
