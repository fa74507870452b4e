import { mkdtemp, rm, writeFile } from 'node:fs/promises';
import { Agent, createServer, get, type Server } from 'node:http';
import type { AddressInfo } from 'node:net';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { setTimeout as pause } from 'node:timers/promises';
import type { AuditRow, ContextView } from '@banyan/contracts/admin-api.ts';
import { createGateway, type Gateway } from '@banyan/gateway/compose.ts';
import { type Config, loadConfig } from '@banyan/gateway/config.ts';
import { bucketOf } from '@banyan/gateway/core/bucket.ts';
import { signatureOf } from '@banyan/gateway/ramp/webhooks.ts';
import { afterAll, beforeAll, describe, expect, it } from '@jest/globals';
import { pino } from 'pino';
import { type FreshDatabase, freshDatabase } from '../harness/database.ts';
import { type Running, run } from '../harness/processes.ts';
import { until } from '../harness/wait.ts';

const STEPS = [1, 5, 25, 50, 100];
const CONTEXTS = ['clean', 'fails', 'slow', 'differs'] as const;
type Name = (typeof CONTEXTS)[number];
const INTERVAL_MS = 100;
/** So slow that legacy on a busy machine is not. */
const SLOW_MS = 2_000;

/** Contexts whose service has begun to misbehave. */
const bad = new Set<Name>();
let spoil = true;
/** First-hand requests that a misbehaving context has had: every so many of them go wrong. */
const turns = new Map<Name, number>();

const legacyAnswer = (path: string): { status: number; body: string } =>
  path.endsWith('/0') ? { status: 404, body: '{"error":"none"}' } : { status: 200, body: `{"at":"${path}"}` };

const upstream = async (extracted: boolean): Promise<Server> => {
  const server = createServer((req, res) => {
    const path = req.url ?? '';
    const name = path.split('/')[1] as Name;
    const wrong = extracted && bad.has(name);
    let { status, body } = legacyAnswer(path);
    // copies for comparison stay right, so that each fault is found by the test that it is made for
    const first = req.headers['banyan-shadow'] === undefined;
    const turn = (turns.get(name) ?? 0) + (wrong && first ? 1 : 0);
    turns.set(name, turn);
    if (wrong && name === 'fails' && first && turn % 4 === 0) [status, body] = [500, '{}'];
    if (wrong && name === 'differs') body = '{"at":"elsewhere"}';
    const delay = wrong && name === 'slow' && first && turn % 4 === 0 ? SLOW_MS : 0;
    setTimeout(() => res.writeHead(status, { 'content-type': 'application/json' }).end(body), delay);
  });
  await new Promise<void>((resolve) => void server.listen(0, '127.0.0.1', resolve));
  return server;
};
/**
 * Asked before every step. Lets a service misbehave from the first request of the 25 % on, and no bad one further: holds are so short here that on a
 * quick machine the next step would begin before a proof can be complete, and on a slow one later still.
 */
const hook = async (): Promise<Server> => {
  const server = createServer((req, res) => {
    let body = '';
    req.on('data', (chunk) => {
      body += chunk;
    });
    req.on('end', () => {
      const { contexts, to } = JSON.parse(body) as { contexts: [Name]; to: { percent: number } };
      const t = /t=(\d+)/.exec(String(req.headers['banyan-signature']))?.[1] ?? '';
      if (signatureOf('not-to-be-told', Number(t), body) !== req.headers['banyan-signature']) {
        res.writeHead(401).end();
        return;
      }
      if (spoil && to.percent === 25 && contexts[0] !== 'clean') bad.add(contexts[0]);
      res.writeHead(to.percent > 25 && bad.has(contexts[0]) ? 503 : 204).end();
    });
  });
  await new Promise<void>((resolve) => void server.listen(0, '127.0.0.1', resolve));
  return server;
};

const portOf = (server: Server): number => (server.address() as AddressInfo).port;

const yamlOf = (store: string, legacy: Server, extracted: Server, contexts: readonly Name[]): string => {
  const ramp = `{ hold: 300ms, interval: ${INTERVAL_MS}ms, webhooks: [ { url: "http://127.0.0.1:${portOf(hooks)}/ramp", on: before, secret: not-to-be-told } ], minRequests: 30, gate: { parity: { good: 0.99, bad: 0.5 }, errors: { floor: 0.001 }, latencyP95Ratio: 3, latencyP99Ratio: 3, latencySamples: 30, latencySlack: 300ms } }`;
  return `
version: 1
listen: 127.0.0.1:0
admin: { listen: 127.0.0.1:0, tokens: [ { name: ann, role: operator, token: ann-token }, { name: ben, role: operator, token: ben-token } ] }
legacy: { url: "http://127.0.0.1:${portOf(legacy)}" }
store: ${store}
log: { level: silent }
contexts:
${contexts
  .map(
    (name) => `  ${name}:
    match: [ { path: "/${name}/:id", methods: [ GET ] } ]
    else: legacy
    extracted: { url: "http://127.0.0.1:${portOf(extracted)}" }
    stickyKey: [ "header:x-user-id" ]
    shadow: { maxPerSecond: 100000, concurrency: 50 }
    parity: { probe: 0% }
    ramp: ${ramp}
`,
  )
  .join('')}`;
};

const configOf = async (text: string): Promise<Config> => {
  const loaded = await loadConfig({ env: {}, text });
  if (!loaded.ok) throw new Error(loaded.faults.map((fault) => `${fault.path}: ${fault.message}`).join('\n'));
  return loaded.config;
};

let database: FreshDatabase;
let legacy: Server;
let extracted: Server;
let hooks: Server;
let gateways: Gateway[];
let urls: { gateway: string; admin: string }[];
let agent: Agent;
let loading: Promise<unknown>;
let stopped = false;

/** Half of the load comes from clients of the first percent: the small steps need no hour. */
const usersOf = (name: Name): string[] => {
  const ids = Array.from({ length: 6_000 }, (_, i) => `user-${i}`);
  const first = ids.filter((id) => bucketOf(name, id) < 100).slice(0, 20);
  return first.flatMap((id, i) => [id, ids[i * 7]!]);
};

const ask = (url: string, user: string): Promise<void> =>
  new Promise((resolve) => {
    get(url, { agent, headers: { 'x-user-id': user } }, (res) => res.resume().on('close', resolve)).on('error', () => resolve());
  });

const load = async (): Promise<void> => {
  const users = new Map(CONTEXTS.map((name) => [name, usersOf(name)]));
  let n = 0;
  const client = async (): Promise<void> => {
    while (!stopped) {
      const name = CONTEXTS[n++ % CONTEXTS.length]!;
      const list = users.get(name)!;
      const { gateway } = urls[n % urls.length]!;
      await ask(`${gateway}/${name}/${n % 9}`, list[Math.floor(n / 4) % list.length]!);
    }
  };
  await Promise.all(Array.from({ length: 24 }, client));
};

const api = async (
  path: string,
  init: { method?: string; body?: unknown; token?: string } = {},
): Promise<{ status: number; body: never }> => {
  const response = await fetch(`${urls[0]!.admin}/api/v1${path}`, {
    method: init.method ?? 'GET',
    headers: { authorization: `Bearer ${init.token ?? 'ann-token'}`, 'content-type': 'application/json' },
    ...(init.body === undefined ? {} : { body: JSON.stringify(init.body) }),
  });
  return { status: response.status, body: (await response.json()) as never };
};
const contextNow = async (name: Name): Promise<ContextView> => (await api(`/contexts/${name}`)).body;
const auditOf = async (name: Name): Promise<AuditRow[]> =>
  (await api(`/audit?context=${name}&limit=200`)).body['items' as never] as AuditRow[];

const reached = (name: Name, percent: number): Promise<true> =>
  until(
    async () => {
      const now = await contextNow(name);
      if (now.percent < percent) throw new Error(`at ${now.percent} %: ${JSON.stringify(now.ramp)}`);
      return true;
    },
    { describe: `${percent} %`, timeoutMs: 60_000 },
  );

beforeAll(async () => {
  database = await freshDatabase('store');
  [legacy, extracted, hooks] = await Promise.all([upstream(false), upstream(true), hook()]);
  agent = new Agent({ keepAlive: true, maxSockets: 24 });
  const config = await configOf(yamlOf(database.url, legacy, extracted, CONTEXTS));
  gateways = await Promise.all([0, 1].map(() => createGateway({ config, version: '0', log: pino({ level: 'silent' }) })));
  urls = await Promise.all(gateways.map((gateway) => gateway.start()));
  loading = load();
}, 180_000);
afterAll(async () => {
  stopped = true;
  await loading;
  agent.destroy();
  await Promise.all((gateways ?? []).map((gateway) => gateway.stop()));
  for (const server of [legacy, extracted, hooks]) {
    server.closeAllConnections();
    await new Promise<void>((resolve) => void server.close(() => resolve()));
  }
  await database.drop();
}, 180_000);

/** Two processes of their own, because one of them dies. */
const startProcesses = async (folder: string, store: string): Promise<{ child: Running; gateway: string; admin: string }[]> => {
  const text = yamlOf(store, legacy, extracted, ['clean']);
  return Promise.all(
    ['a', 'b'].map(async (name) => {
      const file = join(folder, `${name}.yaml`);
      await writeFile(file, text);
      const child = run('gateway/cli/main.ts', ['run', '--config', file]);
      const { gateway, admin } = (await child.ready()) as { gateway: string; admin: string };
      return { child, gateway, admin };
    }),
  );
};

describe('a ramp', () => {
  it('walks a clean service from shadow to 100 %, and takes one that fails, slows down or differs at 25 % back to shadow within an interval of the proof', async () => {
    for (const name of CONTEXTS)
      expect((await api(`/contexts/${name}/ramp`, { method: 'POST', body: { action: 'start' } })).body).toMatchObject({
        stage: 'shadow',
        ramp: { state: 'running', step: 0, share: 0, steps: STEPS, outcome: 'hold', startedBy: 'ann' },
      });

    const ended = async (name: Name): Promise<ContextView> =>
      until(
        async () => {
          const now = await contextNow(name);
          // the flag may reach this gateway a moment after the store
          return now.ramp?.state === 'running' || now.percent !== now.ramp?.share ? null : now;
        },
        { describe: `the ramp of ${name} to end`, timeoutMs: 120_000, intervalMs: 30 },
      );
    const [clean, ...others] = await Promise.all(CONTEXTS.map(ended));
    expect(clean).toMatchObject({ stage: 'canary', percent: 100, ramp: { state: 'done', step: 5, outcome: 'advance' } });
    const walked = (await auditOf('clean')).filter(({ actor, action }) => actor === 'ramp' && action === 'stage');
    expect(walked.map(({ after }) => (after as { canaryShareBp: number }).canaryShareBp / 100)).toEqual([...STEPS].reverse());
    for (const { evidence } of walked) expect(evidence).toMatchObject({ outcome: 'advance', contexts: [{ context: 'clean' }] });

    for (const [i, code] of [
      /^extracted fails in .* legacy in 0 %/,
      /^(lately )?p9[59] is \d{3,4} ms/,
      /compared answers differ/,
    ].entries()) {
      const name = CONTEXTS[i + 1]!;
      const now = others[i]!;
      expect(now).toMatchObject({ name, stage: 'shadow', percent: 0, ramp: { state: 'rolled-back', share: 0, outcome: 'rollback' } });
      expect(now.ramp!.reasons.join('\n')).toMatch(code);
      const back = (await auditOf(name)).find(({ action, actor }) => action === 'stage' && actor === 'ramp')!;
      expect(back).toMatchObject({ before: { stage: 'canary' }, after: { stage: 'shadow' } });
      expect(back.before).toMatchObject({ canaryShareBp: 2_500 });
      expect(back.reason).toContain('rolled back from 25 % to shadow: ');
      const [{ samples }] = (back.evidence as { contexts: [{ samples: Record<string, unknown[]> }] }).contexts;
      expect(samples[{ fails: 'failed', slow: 'slowest', differs: 'mismatches' }[name as 'fails']]!.length).toBeGreaterThan(0);
    }
    // what has healed is not promoted again by itself
    bad.clear();
    spoil = false;
    await pause(6 * INTERVAL_MS);
    for (const name of CONTEXTS.slice(1)) expect(await contextNow(name)).toMatchObject({ stage: 'shadow', ramp: { state: 'rolled-back' } });
  }, 540_000);

  it('ends when a person moves the context, pauses when one kills it, and goes on when one says so', async () => {
    bad.clear();
    spoil = false;
    const act = (action: string) => api('/contexts/fails/ramp', { method: 'POST', body: { action, reason: 'test' } });
    const stateOf = async () => (await contextNow('fails')).ramp!;
    expect((await act('resume')).body).toMatchObject({ status: 409, code: 'illegal-move', state: 'rolled-back', legal: ['start'] });
    await act('start');
    await reached('fails', 1);
    await api('/contexts/fails/kill', { method: 'POST', body: { reason: 'test' } });
    await until(async () => (await stateOf()).state === 'paused', { describe: 'the pause' });
    expect(await stateOf()).toMatchObject({ paused: { by: 'ann', reason: 'killed by ann' } });
    expect((await act('resume')).status).toBe(409);
    await api('/contexts/fails/revive', { method: 'POST', body: { reason: 'test' } });
    await until(async () => (await act('resume')).status === 200, { describe: 'the ramp to be resumed' });
    await reached('fails', 5);
    await api('/contexts/fails/stage', { method: 'PUT', body: { stage: 'canary', percent: 3, reason: 'by hand' } });
    await until(async () => (await stateOf()).state === 'aborted', { describe: 'the end' });
    await pause(6 * INTERVAL_MS);
    expect(await contextNow('fails')).toMatchObject({ stage: 'canary', percent: 3, ramp: { state: 'aborted' } });
  }, 540_000);

  it('goes on when its leader is killed, without a double step', async () => {
    // from here on each test brings processes and clients of its own
    stopped = true;
    await loading;
    const folder = await mkdtemp(join(tmpdir(), 'banyan-ramp-'));
    const own = await freshDatabase('store');
    const processes = await startProcesses(folder, own.url);
    let quit = false;
    let serving = processes.map(({ gateway }) => gateway);
    const users = usersOf('clean');
    const client = async (_: unknown, i: number): Promise<void> => {
      for (let n = i; !quit; n++) await ask(`${serving[n % serving.length]!}/clean/${n % 9}`, users[n % users.length]!);
    };
    const clients = Array.from({ length: 12 }, client);
    try {
      const now = async (): Promise<ContextView> =>
        Promise.any(
          processes.map(async ({ admin }) => {
            const response = await fetch(`${admin}/api/v1/contexts/clean`, { headers: { authorization: 'Bearer ann-token' } });
            return (await response.json()) as ContextView;
          }),
        );
      await fetch(`${processes[0]!.admin}/api/v1/contexts/clean/ramp`, {
        method: 'POST',
        headers: { authorization: 'Bearer ann-token', 'content-type': 'application/json' },
        body: '{"action":"start"}',
      });
      await until(
        async () => {
          const { percent, ramp } = await now();
          if (percent < 5) throw new Error(JSON.stringify(ramp));
          return true;
        },
        { describe: 'the second step', timeoutMs: 90_000 },
      );
      const leads = await Promise.all(
        processes.map(async ({ admin }) => {
          const response = await fetch(`${admin}/metrics`, { headers: { authorization: 'Bearer ann-token' } });
          return /^banyan_ramp_leader 1$/m.test(await response.text());
        }),
      );
      expect(leads.filter(Boolean)).toHaveLength(1);
      serving = [processes[leads.indexOf(false)]!.gateway];
      await processes[leads.indexOf(true)]!.child.stop('SIGKILL');
      const done = await until(
        async () => {
          const { ramp } = await now();
          if (ramp?.state !== 'done') throw new Error(JSON.stringify(ramp));
          return ramp;
        },
        { describe: 'the other one to finish', timeoutMs: 60_000 },
      );
      expect(done).toMatchObject({ share: 100, step: 5 });
      const alive = processes[leads.indexOf(false)]!;
      const audit = (await (
        await fetch(`${alive.admin}/api/v1/audit?context=clean&limit=200`, { headers: { authorization: 'Bearer ann-token' } })
      ).json()) as { items: AuditRow[] };
      const walked = audit.items.filter(({ actor, action }) => actor === 'ramp' && action === 'stage');
      expect(walked.map(({ after }) => (after as { canaryShareBp: number }).canaryShareBp / 100)).toEqual([...STEPS].reverse());
    } finally {
      quit = true;
      await Promise.all(clients);
      await Promise.all(processes.map(({ child }) => child.stop('SIGKILL')));
      await own.drop();
      await rm(folder, { recursive: true, force: true });
    }
  }, 540_000);

  it('counts what every worker sees under --workers 2: a clean service walks, one that fails goes back', async () => {
    bad.clear();
    spoil = true;
    const folder = await mkdtemp(join(tmpdir(), 'banyan-ramp-'));
    const own = await freshDatabase('store');
    const file = join(folder, 'banyan.yaml');
    await writeFile(file, yamlOf(own.url, legacy, extracted, ['clean', 'fails']));
    const child = run('gateway/cli/main.ts', ['run', '--config', file, '--workers', '2']);
    let quit = false;
    let clients: Promise<void>[] = [];
    try {
      const { gateway, admin } = (await child.ready()) as { gateway: string; admin: string };
      const names = ['clean', 'fails'] as const;
      const users = { clean: usersOf('clean'), fails: usersOf('fails') };
      const client = async (_: unknown, i: number): Promise<void> => {
        for (let n = i; !quit; n++) {
          const name = names[n % 2]!;
          await ask(`${gateway}/${name}/${n % 9}`, users[name][(n >> 1) % users[name].length]!);
        }
      };
      clients = Array.from({ length: 12 }, client);
      const headers = { authorization: 'Bearer ann-token', 'content-type': 'application/json' };
      for (const name of names)
        await fetch(`${admin}/api/v1/contexts/${name}/ramp`, { method: 'POST', headers, body: '{"action":"start"}' });
      const [clean, fails] = await Promise.all(
        names.map((name) =>
          until(
            async () => {
              const now = (await (await fetch(`${admin}/api/v1/contexts/${name}`, { headers })).json()) as ContextView;
              if (now.ramp?.state === 'running') throw new Error(JSON.stringify(now.ramp));
              return now.percent === now.ramp?.share ? now : null;
            },
            { describe: `the ramp of ${name} to end`, timeoutMs: 120_000, intervalMs: 50 },
          ),
        ),
      );
      expect(clean).toMatchObject({ stage: 'canary', percent: 100, ramp: { state: 'done', step: 5 } });
      expect(fails).toMatchObject({ stage: 'shadow', percent: 0, ramp: { state: 'rolled-back' } });
      const audit = (await (await fetch(`${admin}/api/v1/audit?context=fails&limit=200`, { headers })).json()) as { items: AuditRow[] };
      const back = audit.items.find(
        ({ action, actor, after }) => action === 'stage' && actor === 'ramp' && (after as { stage: string }).stage === 'shadow',
      )!;
      expect(back.before).toMatchObject({ stage: 'canary', canaryShareBp: 2_500 });
      expect(back.reason).toMatch(/rolled back from 25 % to shadow: (lately )?extracted fails in /);
      // one process decides, whatever their number
      expect(await (await fetch(`${admin}/metrics`, { headers })).text()).toContain(
        'banyan_ramp_decisions_total{context="clean",outcome="advance"} 5\n',
      );
    } finally {
      quit = true;
      await Promise.all(clients);
      await child.stop();
      await own.drop();
      await rm(folder, { recursive: true, force: true });
    }
  }, 540_000);
});
