import { readdirSync, readFileSync } from 'node:fs';
import { mkdtemp, rm, writeFile } from 'node:fs/promises';
import { createServer, type Server } from 'node:http';
import type { AddressInfo } from 'node:net';
import { tmpdir } from 'node:os';
import { basename, dirname, join } from 'node:path';
import { CreateStreamCommand } from '@aws-sdk/client-kinesis';
import { startKinesis } from '@banyan/dev-kinesis/emulator.ts';
import { afterAll, beforeAll, describe, expect, it } from '@jest/globals';
import { type FreshDatabase, freshDatabase } from '../harness/database.ts';
import { type Changes, writeDemoConfig } from '../harness/demo-config.ts';
import { clientOf, endAll } from '../harness/kinesis-client.ts';
import { freePort } from '../harness/ports.ts';
import { childrenOf, type Running, run } from '../harness/processes.ts';
import { type TcpSwitch, tcpSwitch, throughPort } from '../harness/tcp-switch.ts';
import { until } from '../harness/wait.ts';

/** `banyan run` from its first moment to its last: what it needs, what it says when that is missing, how it goes on and how it ends. */

/** A monolith that answers at once, late at `/slow`, and counts what it is asked. */
const startLegacy = async (port = 0): Promise<{ url: string; seen: string[]; release: () => void; stop: () => Promise<void> }> => {
  const seen: string[] = [];
  const late: (() => void)[] = [];
  const server: Server = createServer((req, res) => {
    seen.push(`${req.method} ${req.url}`);
    const answer = (): void =>
      void res.writeHead(req.method === 'POST' ? 201 : 200, { 'content-type': 'application/json' }).end('{"id":1}');
    if (req.url === '/slow') late.push(answer);
    else answer();
  });
  await new Promise<void>((done) => void server.listen(port, '127.0.0.1', done));
  return {
    url: `http://127.0.0.1:${(server.address() as AddressInfo).port}`,
    seen,
    release: () => {
      for (const answer of late.splice(0)) answer();
    },
    stop: async () => {
      server.closeAllConnections();
      await new Promise<void>((done) => void server.close(() => done()));
    },
  };
};

let folder: string;
let legacy: Awaited<ReturnType<typeof startLegacy>>;
beforeAll(async () => {
  folder = await mkdtemp(join(tmpdir(), 'banyan run-'));
  legacy = await startLegacy();
});
afterAll(async () => {
  await legacy.stop();
  await endAll();
  await rm(folder, { recursive: true, force: true });
}, 180_000);

const env = { DATABASE_URL: undefined, BANYAN_SEAL_KEY: undefined };
const gateway = (...args: string[]): Running => run('gateway/cli/main.ts', ['run', ...args], { cwd: folder, env });
const ANY = ['--listen', '127.0.0.1:0', '--admin-listen', '127.0.0.1:0'];
const plain = (...more: string[]): Running => gateway('--legacy', legacy.url, ...ANY, ...more);
const get = (url: string, init: RequestInit = {}): Promise<Response> =>
  fetch(url, { ...init, headers: { connection: 'close', ...init.headers } });

/** User and system time that a process has used, seconds (Linux). */
const cpuSeconds = (pid: number): number => {
  const stat = readFileSync(`/proc/${pid}/stat`, 'utf8');
  const fields = stat.slice(stat.lastIndexOf(')') + 2).split(' ');
  return (Number(fields[11]) + Number(fields[12])) / 100;
};

const refuses = async (running: Running, line: RegExp): Promise<void> => {
  expect(await running.exited).toEqual({ code: 2, signal: null });
  expect(running.stderr).toEqual([expect.stringMatching(line)]);
};

describe('a plain proxy', () => {
  it('is ready soon, at little cost and with no child', async () => {
    // 0.7 s on an idle machine; a busy one makes the same work dearer, so the best of three counts, and generously
    const costs: number[] = [];
    while (costs.length < 3 && !costs.some((cost) => cost < 2)) {
      const running = plain();
      await running.ready(10_000);
      costs.push(cpuSeconds(running.pid));
      expect(childrenOf(running.pid)).toEqual([]);
      expect(await running.stop()).toEqual({ code: 0, signal: null });
    }
    expect(Math.min(...costs)).toBeLessThan(2);
  });

  it('says in one line, and exits 2, when it may not listen where it should', async () => {
    const busy = new URL(legacy.url).host;
    await refuses(
      gateway('--legacy', legacy.url, '--listen', busy, '--admin-listen', '127.0.0.1:0'),
      new RegExp(`^banyan: ${busy} is in use by another process$`),
    );
    await refuses(
      gateway('--legacy', legacy.url, '--listen', '127.0.0.1:0', '--admin-listen', busy),
      new RegExp(`^banyan: ${busy} is in use by another process$`),
    );
    await refuses(
      gateway('--legacy', legacy.url, '--listen', '192.0.2.1:8080', '--admin-listen', '127.0.0.1:0'),
      /^banyan: 192\.0\.2\.1:8080 is no address of this machine$/,
    );
  }, 180_000);

  it('starts before its monolith, says so, answers 502 and recovers', async () => {
    const port = await freePort();
    const running = gateway('--legacy', `http://127.0.0.1:${port}`, ...ANY);
    const { gateway: url } = await running.ready();
    await running.line(
      new RegExp(`^banyan: legacy does not answer at http://127.0.0.1:${port} \\(ECONNREFUSED\\); requests get 502 until it does$`),
    );
    const refused = await get(`${url}/x`);
    expect([refused.status, refused.headers.get('content-type'), refused.headers.get('proxy-status')]).toEqual([
      502,
      'application/problem+json',
      'banyan; error=connection_refused',
    ]);
    expect(await refused.json()).toMatchObject({ status: 502, code: 'upstream-unreachable' });
    const late = await startLegacy(port);
    expect((await get(`${url}/x`)).status).toBe(200);
    expect(running.stderr).toHaveLength(1);
    expect(await running.stop()).toEqual({ code: 0, signal: null });
    await late.stop();
  });

  it('lets a slow answer finish after SIGTERM, takes nothing new, and exits 0', async () => {
    const running = plain();
    const { gateway: url } = await running.ready();
    const slow = get(`${url}/slow`);
    await until(() => legacy.seen.includes('GET /slow'), { describe: 'the slow request at the monolith' });
    running.signal('SIGTERM');
    await until(
      async () =>
        get(`${url}/new`).then(
          () => false,
          () => true,
        ),
      { describe: 'the listener to close' },
    );
    legacy.release();
    expect((await slow).status).toBe(200);
    expect(await running.exited).toEqual({ code: 0, signal: null });
    expect(legacy.seen.filter((one) => one === 'GET /slow')).toHaveLength(1);
  });

  it('exits at once at a second SIGTERM', async () => {
    const running = plain();
    const { gateway: url } = await running.ready();
    legacy.seen.length = 0;
    const slow = get(`${url}/slow`).then(
      () => 'answered',
      () => 'broken off',
    );
    await until(() => legacy.seen.includes('GET /slow'), { describe: 'the slow request at the monolith' });
    running.signal('SIGTERM');
    await until(
      async () =>
        get(`${url}/new`).then(
          () => false,
          () => true,
        ),
      { describe: 'the listener to close' },
    );
    running.signal('SIGTERM');
    expect(await running.exited).toEqual({ code: 1, signal: null });
    expect(await slow).toBe('broken off');
    legacy.release();
  });

  it('ends in good order although nobody reads its log', async () => {
    const running = plain('--set', 'log.level=debug');
    const { gateway: url } = await running.ready();
    await get(`${url}/x`);
    await running.line(/"requestId":/);
    running.deafen();
    for (let i = 0; i < 3; i++) expect((await get(`${url}/x`)).status).toBe(200);
    expect(await running.stop()).toEqual({ code: 0, signal: null });
  });
});

describe('with a file', () => {
  /** In a folder of its own, for what is last known is kept beside the file. */
  const demo = async (changes: Changes): Promise<string> => {
    const file = join(await mkdtemp(join(folder, 'demo ')), 'banyan.yaml');
    await writeDemoConfig(file, { listen: '127.0.0.1:0', 'admin.listen': '127.0.0.1:0', 'legacy.url': legacy.url, ...changes });
    return file;
  };

  it('lists every fault of it with its place and exits 2', async () => {
    const file = join(folder, 'bad.yaml');
    await writeFile(file, 'version: 1\nlisten: 127.0.0.1:99999\nlegacy: { url: "ftp://x" }\nlegcy: 1\n');
    const running = gateway('--config', file);
    expect(await running.exited).toEqual({ code: 2, signal: null });
    expect(running.stderr).toEqual([
      expect.stringMatching(/bad\.yaml:2:9: .*listen/),
      expect.stringMatching(/bad\.yaml:3:16: .*legacy\.url/),
      expect.stringMatching(/bad\.yaml:4:1: .*legcy.*did you mean "?legacy/),
      expect.stringMatching(/^banyan: 3 faults in the configuration$/),
    ]);
  });

  it('reads it again when it is saved and at SIGHUP, and keeps the old one when the new one is bad', async () => {
    const write = (debugHeaders: string): Promise<void> =>
      writeFile(
        join(folder, 'reload.yaml'),
        `version: 1\nlisten: 127.0.0.1:0\nadmin: { listen: "127.0.0.1:0" }\nlegacy: { url: "${legacy.url}" }\ndebugHeaders: ${debugHeaders}\n` +
          'contexts: { order: { match: [ { path: /o, methods: [ GET ] } ], else: legacy, extracted: { url: "http://127.0.0.1:1" } } }\n',
      );
    await write('false');
    const running = gateway('--config', join(folder, 'reload.yaml'));
    const { gateway: url } = await running.ready();
    const route = async (): Promise<string | null> => (await get(`${url}/o`)).headers.get('banyan-route');
    const shown = 'order;upstream=legacy;reason=STAGE;stage=legacy';
    expect(await route()).toBeNull();
    await write('true');
    await until(async () => (await route()) === shown, { describe: 'the saved file to count' });
    await write('maybe');
    await running.line(/debugHeaders.*the new configuration is refused; the old one stays/);
    expect(await route()).toBe(shown);
    const refused = running.lines.filter((line) => line.includes('the new configuration is refused')).length;
    running.signal('SIGHUP');
    await until(() => running.lines.filter((line) => line.includes('the new configuration is refused')).length > refused, {
      describe: 'the file to be read at SIGHUP',
    });
    expect(await route()).toBe(shown);
    await write('false');
    running.signal('SIGHUP');
    await until(async () => (await route()) === null, { describe: 'the good file to count' });
    expect(await running.stop()).toEqual({ code: 0, signal: null });
  });

  it('does not start for the first time without its store: one line, exit 2', async () => {
    const file = await demo({ store: 'postgres://nobody@127.0.0.1:1/none', 'streams.endpoint': 'http://127.0.0.1:1' });
    await refuses(gateway('--config', file), /^banyan: the store does not answer: .*ECONNREFUSED/);
  });

  describe('whose store is away at a later start', () => {
    let store: FreshDatabase;
    let hop: TcpSwitch;
    let kinesis: Awaited<ReturnType<typeof startKinesis>>;
    let file: string;
    beforeAll(async () => {
      store = await freshDatabase('store');
      const { hostname, port } = new URL(store.url);
      hop = await tcpSwitch({ host: hostname, port: Number(port) });
      kinesis = await startKinesis({ limits: { throttle: false } });
      await clientOf(kinesis.url).send(new CreateStreamCommand({ StreamName: 'domain-events', ShardCount: 1 }));
      file = await demo({ store: throughPort(store.url, hop.port), 'streams.endpoint': kinesis.url });
    }, 180_000);
    afterAll(async () => {
      await hop.stop();
      await kinesis.stop();
      await store.drop();
    }, 180_000);

    it('starts from what it knew, serves queries, refuses ledgered commands, can be killed, and joins when the store is back', async () => {
      const first = gateway('--config', file);
      await first.ready();
      expect(await first.stop()).toEqual({ code: 0, signal: null });
      expect(readdirSync(join(dirname(file), '.banyan'))).toContain(`last-known-flags.${basename(file)}.json`);

      hop.cut();
      const running = gateway('--config', file);
      const { gateway: url, admin } = await running.ready();
      const place = (): Promise<Response> =>
        get(`${url}/api/orders`, {
          method: 'POST',
          headers: { 'content-type': 'application/json', 'x-user-id': 'user-1' },
          body: '{"userId":"user-1","items":[]}',
        });
      expect((await get(`${url}/anything`)).status).toBe(200);
      const query = await get(`${url}/api/orders/1`);
      expect([query.status, query.headers.get('banyan-route')]).toEqual([200, 'order;upstream=legacy;reason=STAGE;stage=legacy']);
      legacy.seen.length = 0;
      const command = await place();
      expect([command.status, command.headers.get('content-type'), Number(command.headers.get('retry-after'))]).toEqual([
        503,
        'application/problem+json',
        expect.any(Number),
      ]);
      expect(Number(command.headers.get('retry-after'))).toBeGreaterThan(0);
      expect(legacy.seen).toEqual([]);
      const ready = (await (await get(`${admin}/readyz?verbose`)).json()) as { status: string; checks: { name: string; ok: boolean }[] };
      expect(ready.status).toBe('degraded');
      expect(ready.checks.filter((check) => !check.ok).map((check) => check.name)).toEqual(['flags', 'store']);

      const killed = await get(`${admin}/api/v1/contexts/order/kill`, {
        method: 'POST',
        headers: { 'content-type': 'application/json' },
        body: '{"reason":"the test says so"}',
      });
      expect(killed.ok).toBe(true);
      expect((await get(`${url}/api/orders/1`)).headers.get('banyan-route')).toBe('order;upstream=legacy;reason=KILLED;stage=legacy');

      await hop.heal();
      const joined = await until(
        async () => {
          const now = (await (await get(`${admin}/readyz?verbose`)).json()) as { status: string };
          return now.status === 'ready' ? now : null;
        },
        { describe: 'the gateway to join the store', timeoutMs: 20_000 },
      );
      expect(joined.status).toBe('ready');
      // the kill wins, and the store has it: commands of a killed context go to legacy before cutover
      await until(async () => (await place()).status === 201, { describe: 'a command to pass the ledger' });
      const context = (await (await get(`${admin}/api/v1/contexts/order`)).json()) as { killed: boolean; version: number };
      expect(context).toMatchObject({ killed: true, version: expect.any(Number) });
      expect(await running.stop()).toEqual({ code: 0, signal: null });
      const again = gateway('--config', file);
      const urls = await again.ready();
      expect(await (await get(`${urls.admin}/api/v1/contexts/order`)).json()).toMatchObject({ killed: true });
      expect(await again.stop()).toEqual({ code: 0, signal: null });
    }, 270_000);
  });
});
