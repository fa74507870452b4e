import { writeFileSync } from 'node:fs';
import { Agent, get } from 'node:http';
import { join } from 'node:path';
import { setTimeout as pause } from 'node:timers/promises';
import type { AuditRow, ContextView } from '@banyan/contracts/admin-api.ts';
import { bucketOf } from '@banyan/gateway/core/bucket.ts';
import { openWorkshop } from '../processes.ts';
import { type BenchOptions, machine, type Report, type Row, round } from '../report.ts';
import { FAULTS, type Fault, openService } from './service.ts';

const CONTEXTS = ['clean', ...FAULTS] as const;
type Context = (typeof CONTEXTS)[number];
const REPLICAS = 2;
const [INTERVAL_S, HOLD_S] = [5, 30];
const PER_SECOND = 400;
const BAD_FROM_PERCENT = 25;
const PATIENCE_MS = 900_000;

type Seen = { badAt: number | null; ended: { readonly at: number; readonly view: ContextView } | null };

const ramp = { hold: `${HOLD_S}s`, interval: `${INTERVAL_S}s` };
const configOf = (database: string, legacy: string, extracted: string): string =>
  JSON.stringify({
    version: 1,
    listen: '127.0.0.1:0',
    admin: { listen: '127.0.0.1:0' },
    store: database,
    seal: { key: 'the same on every replica' },
    log: { level: 'warn' },
    legacy: { url: legacy },
    contexts: Object.fromEntries(
      CONTEXTS.map((context) => [
        context,
        {
          match: [{ path: `/${context}/:id`, methods: ['GET'] }],
          else: 'legacy',
          extracted: { url: extracted },
          stickyKey: ['header:x-user-id'],
          shadow: { maxPerSecond: 1_000, concurrency: 50 },
          parity: { probe: '0%' },
          ramp,
        },
      ]),
    ),
  });

/** Half of the clients are of the first percent, so that small shares see traffic. */
const usersOf = (context: Context): string[] => {
  const ids = Array.from({ length: 20_000 }, (_, n) => `user-${n}`);
  const first = ids.filter((id) => bucketOf(context, id) < 100).slice(0, 100);
  return first.flatMap((id, n) => [id, ids[n * 7]!]);
};

const apiOf =
  (admin: string) =>
  async <T>(path: string, body?: unknown): Promise<T> => {
    const response = await fetch(`${admin}/api/v1${path}`, {
      ...(body === undefined ? {} : { method: 'POST', body: JSON.stringify(body), headers: { 'content-type': 'application/json' } }),
    });
    if (!response.ok) throw new Error(`${path}: ${response.status} ${await response.text()}`);
    return (await response.json()) as T;
  };

/** A steady rate over kept connections until `isOver`. */
const load = async (urls: readonly string[], isOver: () => boolean): Promise<void> => {
  const agent = new Agent({ keepAlive: true, maxSockets: 64 });
  const users = new Map(CONTEXTS.map((context) => [context, usersOf(context)]));
  const asked = new Set<Promise<void>>();
  const began = performance.now();
  for (let n = 0; !isOver(); n++) {
    const due = began + (n * 1_000) / PER_SECOND - performance.now();
    if (due > 1) await pause(due);
    const context = CONTEXTS[n % CONTEXTS.length]!;
    const turn = Math.floor(n / CONTEXTS.length);
    const list = users.get(context)!;
    const url = `${urls[turn % urls.length]}/${context}/${turn % 101}`;
    const one = new Promise<void>((resolve) => {
      get(url, { agent, headers: { 'x-user-id': list[turn % list.length]! } }, (res) => res.resume().on('close', resolve)).on('error', () =>
        resolve(),
      );
    });
    asked.add(one);
    void one.then(() => asked.delete(one));
  }
  await Promise.all(asked);
  agent.destroy();
};

const rowOf = async (context: Context, seen: Seen, api: ReturnType<typeof apiOf>): Promise<Row> => {
  const { items } = await api<{ items: AuditRow[] }>(`/audit?context=${context}&limit=200`);
  const moves = items.filter(({ actor, action }) => actor === 'ramp' && action === 'stage');
  const last = moves[0];
  const { view, at } = seen.ended!;
  const evidence = last?.evidence as { contexts?: { samples?: Record<string, unknown[]> }[] } | null;
  return {
    context,
    ends: view.ramp?.state ?? 'none',
    'at %': view.percent,
    'from %': ((last?.before as { canaryShareBp?: number } | undefined)?.canaryShareBp ?? 0) / 100,
    'fault to roll-back, s': seen.badAt === null ? null : round((at - seen.badAt) / 1_000, 1),
    samples: Object.values(evidence?.contexts?.[0]?.samples ?? {}).reduce((sum, list) => sum + list.length, 0),
    because: view.ramp?.reasons[0] ?? '',
  };
};

/**
 * Ramps of one clean service and of three that turn bad when they get 25 %: 2 % 5xx, p99 twice legacy's, 2 % of the answers different. Gates as they come, over
 * two replicas and real time; only hold and interval are shorter than the defaults.
 */
export const benchRamp = async ({ quick, say }: BenchOptions): Promise<Report> => {
  const shop = openWorkshop();
  const bad = new Set<string>();
  const services = await Promise.all([openService(new Set()), openService(bad)]);
  const seen = new Map<Context, Seen>(CONTEXTS.map((context) => [context, { badAt: null, ended: null }]));
  const before = machine();
  let over = false;
  try {
    const { urls: store } = await shop.startNode('dev/postgres/main.ts', ['--temporary', '--port', '0']);
    const file = join(shop.folder, 'banyan.yaml');
    writeFileSync(file, configOf(store.postgres!, services[0].url, services[1].url));
    const gateways = [];
    for (let n = 0; n < REPLICAS; n++) gateways.push((await shop.startNode('gateway/bin/banyan.js', ['run', '--config', file])).urls);
    const api = apiOf(gateways[0]!.admin!);
    const loading = load(
      gateways.map((urls) => urls.gateway!),
      () => over,
    );
    try {
      for (const context of CONTEXTS) await api(`/contexts/${context}/ramp`, { action: 'start', reason: 'benchmark' });
      const deadline = performance.now() + (quick ? HOLD_S * 1_000 : PATIENCE_MS);
      const open = () => CONTEXTS.filter((context) => seen.get(context)!.ended === null);
      while (open().length > 0 && performance.now() < deadline) {
        for (const context of open()) {
          const view = await api<ContextView>(`/contexts/${context}`);
          const one = seen.get(context)!;
          if (context !== 'clean' && view.percent >= BAD_FROM_PERCENT && one.badAt === null) {
            bad.add(context);
            one.badAt = performance.now();
            say(`${context}: ${view.percent} %, goes wrong now`);
          }
          if (view.ramp !== null && view.ramp.state !== 'running') {
            one.ended = { at: performance.now(), view };
            say(`${context}: ${view.ramp.state} at ${view.percent} %: ${view.ramp.reasons[0] ?? ''}`);
          }
        }
        await pause(100);
      }
      const missing = open().map((context) => `${context}: its ramp has not ended`);
      // what has healed is not promoted again by itself
      const [clean, back] = [
        seen.get('clean')!.ended,
        FAULTS.filter((fault) => seen.get(fault)!.ended?.view.ramp?.state === 'rolled-back'),
      ];
      bad.clear();
      if (back.length > 0) await pause(3 * INTERVAL_S * 1_000);
      const later = await Promise.all(back.map((fault: Fault) => api<ContextView>(`/contexts/${fault}`)));
      const ended = CONTEXTS.filter((context) => seen.get(context)!.ended !== null);
      const table = await Promise.all(ended.map((context) => rowOf(context, seen.get(context)!, api)));
      const seconds = (fault: Fault): number => {
        const { badAt, ended: end } = seen.get(fault)!;
        return badAt === null || end === null ? Number.NaN : round((end.at - badAt) / 1_000, 1);
      };
      return {
        name: 'ramp',
        machine: before,
        figures: {
          interval_s: INTERVAL_S,
          hold_s: HOLD_S,
          requests_per_s: PER_SECOND,
          clean_percent: clean?.view.percent ?? 0,
          rolled_back: back.length,
          promoted_again: later.filter(({ stage }) => stage !== 'shadow').length,
          ...Object.fromEntries(FAULTS.map((fault) => [`${fault}_s`, seconds(fault)])),
        },
        table,
        missing,
        versions: {},
      };
    } finally {
      over = true;
      await loading;
    }
  } finally {
    await shop.close();
    await Promise.all(services.map((service) => service.close()));
  }
};
