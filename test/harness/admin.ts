import { randomUUID } from 'node:crypto';
import { createServer, type Server } from 'node:http';
import type { AddressInfo } from 'node:net';
import type { LedgerEntryView, PairDetailView, ParityView, Reloaded } from '@banyan/contracts/admin-api.ts';
import { AppError } from '@banyan/contracts/errors.ts';
import { type Admin, createAdmin } from '@banyan/gateway/admin/admin.ts';
import { createAuditStore } from '@banyan/gateway/admin/audit-store.ts';
import type { AdminDeps, LedgerPort, ParityPort } from '@banyan/gateway/admin/ports.ts';
import { createStoreView } from '@banyan/gateway/admin/store-view.ts';
import { type Config, loadConfig } from '@banyan/gateway/config.ts';
import { createFlags, type Flags } from '@banyan/gateway/flags/flags.ts';
import { createFlips, type Flips } from '@banyan/gateway/flags/flips.ts';
import { createMoves } from '@banyan/gateway/flags/moves.ts';
import { createMetrics } from '@banyan/gateway/telemetry/metrics.ts';
import knex, { type Knex } from 'knex';
import { pino } from 'pino';

export const SECRETS = ['tell-nobody', 'hunter2', 'viewer-token', 'operator-token', 'admin-token'];

export const TOKENS = `
  tokens:
    - { name: vera, role: viewer, token: viewer-token }
    - { name: otto, role: operator, token: operator-token }
    - { name: ada, role: admin, token: admin-token }`;

const yaml = (admin: string, adapterUrl: string): string => `
version: 1
listen: 127.0.0.1:0
admin:
  listen: 127.0.0.1:0${admin}
legacy: { url: http://127.0.0.1:3000, auth: "authorization: Bearer tell-nobody" }
store: postgres://banyan:hunter2@127.0.0.1:5432/none
streams: { endpoint: http://127.0.0.1:4567 }
adapter: { url: "${adapterUrl}", legacyDatabase: postgres://shop:hunter2@127.0.0.1:5432/shop }
contexts:
  order:
    match: [ { path: /api/orders/**, methods: [ GET ] } ]
    else: legacy
    extracted: { url: http://127.0.0.1:4001 }
    stickyKey: [ "header:x-user-id" ]
  inventory:
    match: [ { path: /api/products/**, methods: [ GET ] } ]
    else: legacy
    extracted: { url: http://127.0.0.1:4002 }
    stickyKey: [ "header:x-user-id" ]
`;

export const configOf = async (admin = '', adapterUrl = 'http://127.0.0.1:1'): Promise<Config> => {
  const loaded = await loadConfig({ text: yaml(admin, adapterUrl), env: {} });
  if (!loaded.ok) throw new Error(loaded.faults.map((fault) => `${fault.path}: ${fault.message}, expected ${fault.expected}`).join('\n'));
  return loaded.config;
};

const when = '2026-01-02T03:04:05.000Z';

export const report = (more: Partial<ParityView> = {}): ParityView => ({
  since: when,
  requests: 120,
  compared: 100,
  match: 95,
  noise: 4,
  mismatch: 1,
  incomparable: 2,
  dropped: 3,
  skipped: 4,
  rate: 0.99,
  wilson: [0.945, 0.998],
  sprt: { state: 'continue', llr: -1.2 },
  byRoute: [],
  byField: [{ route: '/api/orders/**', field: '$.total', kind: 'value', rule: null, count: 1 }],
  noisy: [],
  dryRuns: [],
  ...more,
});

const pair: PairDetailView = {
  id: '7',
  context: 'order',
  route: '/api/orders/**',
  requestId: 'req-1',
  at: when,
  verdict: 'mismatch',
  why: null,
  confirmed: true,
  primary: 'legacy',
  field: 'value $.total',
  method: 'GET',
  target: '/api/orders/1',
  headers: [],
  legacy: { status: 200, headers: [], body: '{}', bytes: 2, complete: true, truncated: false },
  extracted: { status: 200, headers: [], body: '{}', bytes: 2, complete: true, truncated: false },
  differences: [{ path: '$.total', kind: 'value', legacy: 1, extracted: 2 }],
  noise: [],
};

/** One pair and a report, in memory. */
export const fakeParity = (reports: Readonly<Record<string, ParityView>>): ParityPort => {
  const { headers: _headers, legacy: _legacy, extracted: _extracted, differences: _differences, noise: _noise, ...summary } = pair;
  return {
    parityReport: async (context) => reports[context],
    parityLatency: async (context) =>
      reports[context] && {
        items: [
          {
            route: '/api/orders/:id',
            sides: [
              { upstream: 'legacy', asked: 'primary', n: 100, p50: 4, p90: 8, p99: 20, max: 31 },
              { upstream: 'extracted', asked: 'copy', n: 100, p50: 6, p90: 9, p99: 25, max: 40 },
            ],
            test: { basis: 'mixed', larger: 0.71, p: 0.00002, medians: 1.5 },
          },
        ],
        next: null,
      },
    parityHours: async ({ context, hours, route }) => {
      const found = reports[context];
      if (!found) return undefined;
      const { requests, compared, match, noise, mismatch, incomparable, dropped, skipped, rate, byField } = found;
      const figures = { requests, compared, match, noise, mismatch, incomparable, dropped, skipped, rate };
      const byRoute = [{ route: route ?? '/api/orders/**', ...figures }];
      return { items: hours < 1 ? [] : [{ hour: when, ...figures, byRoute, byField: [...byField] }], next: null };
    },
    pairs: async (query) => ({
      items: [summary].filter(
        (one) =>
          (query.context ?? one.context) === one.context &&
          (query.verdict ?? one.verdict) === one.verdict &&
          (query.requestId ?? one.requestId) === one.requestId,
      ),
      next: null,
    }),
    pair: async (id) => (id === pair.id ? pair : undefined),
  };
};

export const entry = (id: string, state: LedgerEntryView['state']): LedgerEntryView => ({
  id,
  context: 'order',
  route: 'POST /api/orders',
  aggregate: '1001',
  idempotencyKey: 'key-1',
  state,
  attempts: 1,
  upstream: 'legacy',
  epoch: 1,
  createdAt: when,
  updatedAt: when,
});

/** Entries in memory, newest last; only parked ones can be resolved. */
export const fakeLedger = (entries: LedgerEntryView[]): LedgerPort => ({
  async list({ context, state, limit, cursor }) {
    const all = entries
      .filter((one) => (context ?? one.context) === one.context && (state ?? one.state) === one.state)
      .filter((one) => cursor === undefined || one.id < cursor)
      .sort((a, b) => (a.id < b.id ? 1 : -1));
    return { items: all.slice(0, limit), next: all.length > limit ? all[limit - 1]!.id : null };
  },
  get: async (id) => entries.find((one) => one.id === id),
  async resolve(id, as) {
    const at = entries.findIndex((one) => one.id === id);
    const before = entries[at]!;
    if (before.state !== 'parked') throw new AppError('illegal-move', `ledger entry ${id} is ${before.state}`);
    const after = {
      ...before,
      state: ({ applied: 'applied', 'not-applied': 'rejected', 'no-event': 'done', compensate: 'compensating' } as const)[as],
    };
    entries[at] = after;
    return after;
  },
});

export type AdapterFake = {
  url: string;
  requests: { method: string; url: string; authorization: string | undefined }[];
  answer: { status: number; body: unknown };
  stop: () => Promise<void>;
};

/** Answers every request with `answer` and remembers it. */
export const startAdapterFake = async (): Promise<AdapterFake> => {
  const fake: AdapterFake = {
    url: '',
    requests: [],
    answer: { status: 200, body: { mode: 'trigger', installed: true } },
    stop: async () => undefined,
  };
  const server: Server = createServer((req, res) => {
    fake.requests.push({ method: req.method ?? '', url: req.url ?? '', authorization: req.headers.authorization });
    res.writeHead(fake.answer.status, { 'content-type': 'application/json' }).end(JSON.stringify(fake.answer.body));
  });
  await new Promise<void>((resolve) => void server.listen(0, '127.0.0.1', resolve));
  fake.url = `http://127.0.0.1:${(server.address() as AddressInfo).port}`;
  fake.stop = async () => {
    server.closeAllConnections();
    await new Promise<void>((resolve) => void server.close(() => resolve()));
  };
  return fake;
};

export type AdminSystem = {
  admin: Admin;
  db: Knex;
  flags: Flags;
  flips: Flips;
  deps: AdminDeps;
  /** Knobs that a test turns. */
  set: { draining: boolean; listening: boolean; reloaded: Reloaded; config: Config; level: () => Promise<void> };
  stop: () => Promise<void>;
};

/** An admin over real flags, moves, flips and audit of the store at `url`; parity, ledger and adapter are fakes. Contexts `order` and `inventory` start at legacy. */
export const adminSystem = async (url: string, more: Partial<AdminDeps> = {}, config?: Config): Promise<AdminSystem> => {
  const log = pino({ level: 'silent' });
  const db = knex({ client: 'pg', connection: { connectionString: url, application_name: 'admin-test' }, pool: { min: 0, max: 6 } });
  const set: AdminSystem['set'] = {
    draining: false,
    listening: true,
    reloaded: { ok: true, faults: [], warnings: [] },
    config: config ?? (await configOf()),
    level: async () => undefined,
  };
  const memberId = randomUUID();
  const seed = { group: null, stage: 'legacy' as const, canaryShareBp: 0 };
  const flags = createFlags({
    db,
    listener: null,
    memberId,
    memberName: 'test',
    seeds: [
      { name: 'order', ...seed },
      { name: 'inventory', ...seed },
    ],
    stateFile: null,
    pollMs: 100,
    heartbeatMs: 500,
    now: Date.now,
    log,
  });
  await flags.start();
  const flips = createFlips({
    db,
    flags,
    memberId,
    maxStaleMs: 5000,
    unresolved: async () => [],
    inFlight: async () => 0,
    watermark: () => set.level(),
    approachMs: 500,
    log,
    now: Date.now,
  });
  const moves = createMoves({ db, flags, flips, contextOf: () => ({ firstShareBp: 100, cutoverObstacles: [] }) });
  const deps: AdminDeps = {
    version: '1.2.3',
    config: () => set.config,
    reload: async () => set.reloaded,
    draining: () => set.draining,
    serving: () => ({ listening: set.listening ? 1 : 0, of: 1 }),
    flags,
    moves,
    flips,
    ramp: null,
    parity: fakeParity({ order: report() }),
    ledger: fakeLedger([entry('a1', 'done'), entry('a2', 'parked'), entry('a3', 'unknown')]),
    audit: createAuditStore(db),
    store: createStoreView(db, () => 5000),
    upstreams: () => [
      { context: null, upstream: 'legacy', hosts: [{ url: 'http://127.0.0.1:3000', state: 'healthy', detail: null }] },
      {
        context: 'order',
        upstream: 'extracted',
        hosts: [
          { url: 'http://127.0.0.1:4001', state: 'healthy', detail: null },
          { url: 'http://127.0.0.1:4002', state: 'unhealthy', detail: 'ECONNREFUSED' },
        ],
      },
    ],
    breakers: () => ({ state: 'closed', open: 0, of: 1 }),
    backlog: async () => ({ depth: 3, oldestAgeMs: 1500 }),
    registry: createMetrics({ version: '1.2.3', nodeVersion: process.version, sources: { flags: () => flags.all() } }).registry,
    adapterToken: null,
    serviceToken: null,
    now: Date.now,
    log,
    ...more,
  };
  const admin = createAdmin(deps);
  return {
    admin,
    db,
    flags,
    flips,
    deps,
    set,
    async stop() {
      await admin.stop();
      await flips.stop();
      await flags.stop();
      await db.destroy();
    },
  };
};
