import type { LedgerEntryView } from '@banyan/contracts/admin-api.ts';
import { AppError } from '@banyan/contracts/errors.ts';
import { HEADERS, type Upstream as Side } from '@banyan/contracts/vocabulary.ts';
import type { Knex } from 'knex';
import type { Logger } from 'pino';
import { createAdapterClient } from './admin/adapter-client.ts';
import type { LedgerPort } from './admin/ports.ts';
import { type Config, type ContextConfig, environment, type RouteConfig } from './config.ts';
import { type CompiledEvent, compileEvents } from './core/event-mapping.ts';
import { createCompensation, type SendUndo } from './dual-write/compensation.ts';
import { createFailpoints } from './dual-write/failpoints.ts';
import { createOperator } from './dual-write/operator.ts';
import { createReconciler } from './dual-write/reconciler.ts';
import { createRecovery } from './dual-write/recovery.ts';
import { createRelay, oldestUnpublishedAgeMs, type Relay } from './dual-write/relay.ts';
import { checkRouteWrites, type RouteWrites } from './dual-write/route-writes.ts';
import { createSeal } from './dual-write/seal.ts';
import { createKinesisStream } from './dual-write/stream.ts';
import { createDualWrite } from './dual-write/write.ts';
import { appendAudit } from './flags/flag-store.ts';
import { isLedgered, type LiveParts } from './live.ts';
import type { Command, CommandWriter } from './ports.ts';
import { askUpstream } from './proxy/ask.ts';
import { pairsOf } from './proxy/headers.ts';
import type { Metrics } from './telemetry/metrics.ts';

/** How a worker reaches the relay, which runs in its primary. */
export type RelayElsewhere = {
  /** New facts are in the outbox. */
  wake(): void;
  /** Is the backlog at its limit? */
  full(): boolean;
};

export type DualWritingDeps = {
  readonly db: Knex;
  /** The relay's own: a busy data plane must not keep facts back. */
  readonly relayDb: Knex;
  /** null = relay and recovery run here. */
  readonly relayElsewhere: RelayElsewhere | null;
  /** The two commits of commands. */
  readonly writeDb: Knex;
  readonly live: () => LiveParts;
  readonly memberId: string;
  readonly secret: string;
  readonly pins: { clientOf(context: string, stickyKey: string): string };
  readonly metrics: Metrics;
  readonly log: Logger;
};

export type DualWriting = {
  readonly writer: CommandWriter;
  readonly port: LedgerPort;
  readonly unresolved: (contexts: readonly string[]) => Promise<{ id: string; state: string }[]>;
  readonly inFlight: (contexts: readonly string[]) => Promise<number>;
  oldestUnpublishedAgeMs(context: string): Promise<number>;
  backlog(): { depth: number; oldestAgeMs: number; etaMs: number | null; bytes: number; maxBytes: number } | null;
  /** What keeps facts from the stream, in one line; null = nothing. */
  trouble(): string | null;
  /** From a worker of this gateway: it has put facts into the outbox. */
  wakeRelay(): void;
  backlogFull(): boolean;
  start(): void;
  /** Takes the routes of the next configuration. @throws AppError `bad-request`, and those before stay */
  reload(next: Config): void;
  stop(): Promise<void>;
};

const ASK_BYTES = 1024 * 1024;
/** Shorter than the lease of a compensation. */
const UNDO_ADAPTER_MS = 20_000;

const whenOf = (event: ContextConfig['events'][number]): string => {
  const { method, pathPattern, statusClass, status } = event.when;
  return `${method} ${pathPattern} ${statusClass === null ? status : `${statusClass}xx`}`;
};

const routeWrites = (
  name: string,
  context: ContextConfig,
  match: RouteConfig,
  method: string,
  events: readonly CompiledEvent[],
  config: Config,
): RouteWrites => {
  const { writes } = match;
  return {
    context: name,
    route: `${method} ${match.path}`,
    events,
    publisher: context.publisher,
    idempotency: writes.idempotency,
    resolve: writes.resolve,
    compensate: writes.compensate,
    responseTimeoutMs: Math.max(config.legacy.timeouts.response, context.extracted?.timeouts.response ?? 0),
    settleMs: writes.settle,
    deadlineMs: writes.deadline,
    answerLimitBytes: writes.answerLimit,
  };
};

/** Every ledgered route, by `CONTEXT METHOD PATTERN`. @throws AppError `bad-request` for rules that cannot work together */
const routesOf = (config: Config): Map<string, RouteWrites> => {
  const routes = new Map<string, RouteWrites>();
  for (const [name, context] of Object.entries(config.contexts)) {
    if (!isLedgered(config, context)) continue;
    const events = compileEvents(
      context.events.map((event) => ({
        when: whenOf(event),
        type: event.type,
        aggregate: event.aggregate,
        data: event.data,
        mode: event.mode,
      })),
    );
    for (const match of context.match) {
      for (const method of match.methods) {
        const writes = routeWrites(name, context, match, method, events, config);
        checkRouteWrites(writes);
        routes.set(`${name} ${writes.route}`, writes);
      }
    }
  }
  return routes;
};

const headersOf = (flat: readonly string[], key: string | null): Record<string, string> => {
  const headers: Record<string, string> = {};
  for (let i = 0; i + 1 < flat.length; i += 2) {
    const name = flat[i]!.toLowerCase();
    headers[name] = name in headers ? `${headers[name]}, ${flat[i + 1]}` : flat[i + 1]!;
  }
  if (key !== null) headers[HEADERS.idempotencyKey] = key;
  return headers;
};

/** Joins the ledger, its recovery and the relay to the configuration and the upstreams. */
export const startDualWriting = (deps: DualWritingDeps): DualWriting => {
  const { db, live, log } = deps;
  const { config } = live();
  const seal = createSeal(deps.secret);
  const fail = createFailpoints(environment('BANYAN_FAILPOINT'));
  let routes = routesOf(config);
  const routeOf = (context: string, route: string): RouteWrites | undefined => routes.get(`${context} ${route}`);

  const { streams } = config;
  const { relayElsewhere } = deps;
  let relay: Relay | null = null;
  if (streams && relayElsewhere === null) {
    const dummy =
      streams.endpoint !== null && environment('AWS_ACCESS_KEY_ID') === undefined
        ? { accessKeyId: 'banyan', secretAccessKey: 'banyan' }
        : undefined;
    relay = createRelay({
      db: deps.relayDb,
      memberId: deps.memberId,
      stream: createKinesisStream({ stream: streams.facts, region: streams.region, endpoint: streams.endpoint, credentials: dummy }),
      log,
      aggregate: streams.aggregate,
      maxBacklogBytes: config.backlog.maxBytes,
      onFacts: deps.metrics.events,
      fail,
    });
  }
  const wakeRelay = (): void => (relayElsewhere ?? relay)?.wake();
  const backlogFull = (): boolean => relayElsewhere?.full() ?? relay?.backlogFull() ?? false;
  const operator = createOperator({ db, seal, routeOf, wakeRelay });

  /** Asks with the configured credentials; never with a client's. */
  const ask = async (context: string, side: Side, path: string): Promise<{ status: number; body: Buffer }> => {
    const now = live();
    const upstream = side === 'legacy' ? now.legacy : now.contexts.get(context)?.extracted?.upstream;
    if (!upstream) throw new AppError('not-configured', `${context} has no ${side} side any more`);
    const { auth } = now.config.legacy;
    return askUpstream(upstream, { path, limitBytes: ASK_BYTES, headers: side === 'legacy' && auth ? [auth.name, auth.value] : [] });
  };
  const adapter = createAdapterClient({
    url: () => live().config.adapter.url,
    token: environment('BANYAN_ADAPTER_TOKEN') ?? null,
    waitMs: UNDO_ADAPTER_MS,
  });
  const sendUndo: SendUndo = async (row, key, timeoutMs) => {
    if (row.undo.to === 'adapter') {
      const path = `/v1/contexts/${encodeURIComponent(row.context)}/compensate`;
      const { status, body } = await adapter.ask('POST', path, { key, aggregate: row.undo.path });
      const { detail } = (body ?? {}) as { detail?: unknown };
      return { status, detail: typeof detail === 'string' ? detail : null };
    }
    const { legacy, config } = live();
    const { auth } = config.legacy;
    const headers = [HEADERS.idempotencyKey, key, ...(auth ? [auth.name, auth.value] : [])];
    // what legacy says may hold what nobody but its client should read
    const { status } = await askUpstream(legacy, {
      method: row.undo.method,
      path: row.undo.path,
      limitBytes: ASK_BYTES,
      headers,
      timeoutMs,
    });
    return { status, detail: null };
  };
  const dualWrite = createDualWrite({
    db: deps.writeDb,
    memberId: deps.memberId,
    seal,
    backlogFull,
    ask,
    wakeRelay,
    log,
    staleMs: config.flags.maxStale,
    fail,
  });
  const recovery =
    relayElsewhere === null
      ? createRecovery({
          db,
          memberId: deps.memberId,
          reconcile: createReconciler({ db, seal, ask, routeOf, log }),
          compensate: createCompensation({ db, memberId: deps.memberId, send: sendUndo, wakeRelay, log, fail }),
          wakeRelay,
          log,
          deadMs: config.flags.maxStale,
        })
      : null;

  const scopeOf = (command: Pick<Command, 'scope'>): string =>
    seal.scopeOf({ authorization: command.scope.authorization ?? undefined, stickyKey: command.scope.stickyKey ?? undefined });

  const writer: CommandWriter = {
    async begin(command) {
      const writes = routeOf(command.context, command.route);
      if (!writes) throw new AppError('not-configured', `${command.route} of ${command.context} is not ledgered`);
      try {
        const begun = await dualWrite.begin({
          writes,
          method: command.method,
          target: command.target,
          headers: headersOf(command.headers, command.key),
          body: command.body,
          key: command.key,
          scope: scopeOf(command),
          upstream: command.upstream,
          epoch: command.epoch,
          ...(command.traceparent === null ? {} : { traceparent: command.traceparent }),
          ...(command.pin === null
            ? {}
            : { pin: { client: deps.pins.clientOf(command.context, command.pin.stickyKey), ms: command.pin.ms } }),
        });
        return begun.kind === 'replay' ? { ...begun, headers: begun.headers.flat() } : begun;
      } catch (error) {
        // ownership has just moved: the pipeline decides again under the new flag
        if (error instanceof AppError && error.details?.moved === true)
          throw new AppError('context-frozen', error.message, { cause: error, retryable: true, retryAfterSeconds: 1 });
        throw error;
      }
    },
    async settle(write, outcome) {
      await dualWrite.settle(
        write.id,
        write.fence,
        outcome.kind === 'answered'
          ? { kind: 'answered', response: { status: outcome.status, headers: pairsOf(outcome.headers), body: outcome.body } }
          : outcome,
      );
    },
    status: (id, key, scope) => dualWrite.status(id, scopeOf({ scope }), key),
  };

  const port: LedgerPort = {
    list: async (query) => (await operator.list(query)) as { items: LedgerEntryView[]; next: string | null },
    get: async (id) => ((await operator.get(id)) as LedgerEntryView | null) ?? undefined,
    async resolve(id, as, reason, actor) {
      const before = await operator.get(id);
      const after = await operator.resolve(id, as, reason, actor);
      await db.transaction((trx) =>
        appendAudit(trx, {
          actor,
          action: 'ledger-resolve',
          context: after.context,
          before: { state: before?.state },
          after: { state: after.state, as },
          reason,
          evidence: { ledger: id },
        }),
      );
      return after as LedgerEntryView;
    },
  };

  return {
    writer,
    port,
    unresolved: operator.unresolved,
    inFlight: operator.inFlight,
    oldestUnpublishedAgeMs: (context) => (streams ? oldestUnpublishedAgeMs(relay ? deps.relayDb : db, context) : Promise.resolve(0)),
    backlog() {
      if (!relay) return null;
      const { rows, bytes, oldestAgeMs, etaMs } = relay.backlog();
      return { depth: rows, bytes, oldestAgeMs, etaMs, maxBytes: config.backlog.maxBytes };
    },
    trouble: () => relay?.trouble() ?? null,
    wakeRelay,
    backlogFull,
    start() {
      relay?.start();
      recovery?.start();
    },
    reload(next) {
      routes = routesOf(next);
    },
    async stop() {
      await dualWrite.stop();
      await recovery?.stop();
      await relay?.stop();
    },
  };
};
