import { mkdtemp, rm, writeFile } from 'node:fs/promises';
import { createServer, type Server } from 'node:http';
import { type AddressInfo, connect, createServer as createTcpServer } from 'node:net';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll, afterEach, beforeAll, describe, expect, it } from '@jest/globals';
import { childrenOf, exists, type Running, type RunOptions, run } from '../harness/processes.ts';
import { until } from '../harness/wait.ts';

/** `banyan run --workers 2`: shared sockets, one admin, one view; deaths, reloads and ends that lose nothing but what was in flight on the dead. */

/** A monolith, or a service, that answers at once; late at `/slow…`, when the test says so. */
const startUpstream = async (): Promise<{ url: string; waiting: () => number; release: () => void; stop: () => Promise<void> }> => {
  let late: (() => void)[] = [];
  const server: Server = createServer((req, res) => {
    const answer = (): void => void res.writeHead(200, { 'content-type': 'application/json' }).end('{"id":1}');
    if (req.url?.startsWith('/slow')) {
      late.push(answer);
      res.on('close', () => {
        late = late.filter((one) => one !== answer);
      });
    } else answer();
  });
  await new Promise<void>((done) => void server.listen(0, '127.0.0.1', done));
  return {
    url: `http://127.0.0.1:${(server.address() as AddressInfo).port}`,
    waiting: () => late.length,
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
let legacy: Awaited<ReturnType<typeof startUpstream>>;
let running: Running | null = null;
beforeAll(async () => {
  folder = await mkdtemp(join(tmpdir(), 'banyan workers-'));
  legacy = await startUpstream();
});
afterEach(async () => {
  legacy.release();
  await running?.stop();
  running = null;
});
afterAll(async () => {
  await legacy.stop();
  await rm(folder, { recursive: true, force: true });
});

const gateway = (args: readonly string[], options: RunOptions = {}): Running => {
  running = run('gateway/cli/main.ts', ['run', ...args], {
    cwd: folder,
    ...options,
    env: { DATABASE_URL: undefined, BANYAN_SEAL_KEY: undefined, ...options.env },
  });
  return running;
};
const ANY = ['--listen', '127.0.0.1:0', '--admin-listen', '127.0.0.1:0'];
const plain = (options: RunOptions = {}, ...more: string[]): Running =>
  gateway(['--legacy', legacy.url, ...ANY, '--workers', '2', ...more], options);

/** Each on a connection of its own: node:cluster deals out connections. */
const get = (url: string, init: RequestInit = {}): Promise<Response> =>
  fetch(url, { ...init, headers: { connection: 'close', ...init.headers } });
const post = (url: string, body: object): Promise<Response> =>
  get(url, { method: 'POST', headers: { 'content-type': 'application/json' }, body: JSON.stringify(body) });
const times = <T>(n: number, work: (i: number) => Promise<T>): Promise<T[]> => Promise.all(Array.from({ length: n }, (_, i) => work(i)));

const countedBy = async (admin: string): Promise<number> => {
  const text = await (await get(`${admin}/metrics`)).text();
  const lines = text.split('\n').filter((line) => line.startsWith('banyan_requests_total{'));
  return lines.reduce((sum, line) => sum + Number(line.slice(line.lastIndexOf(' '))), 0);
};
/** A note is written behind its answer. */
const counted = (admin: string, n: number): Promise<number> =>
  until(async () => ((await countedBy(admin)) >= n ? countedBy(admin) : null), { describe: `${n} requests in the metrics` });
const readiness = async (admin: string): Promise<{ status: number; body: { status: string; reason?: string } }> => {
  const answer = await get(`${admin}/readyz`);
  return { status: answer.status, body: (await answer.json()) as { status: string; reason?: string } };
};
const replaced = (admin: string): Promise<unknown> =>
  until(async () => (await readiness(admin)).body.status === 'ready', { describe: 'the worker to be replaced' });

const write = async (name: string, more: string): Promise<string> => {
  const file = join(folder, name);
  await writeFile(
    file,
    `version: 1\nlisten: 127.0.0.1:0\nadmin: { listen: "127.0.0.1:0" }\nlegacy: { url: "${legacy.url}" }\n${more}\n` +
      `contexts: { order: { match: [ { path: /o, methods: [ GET ] } ], else: legacy, extracted: { url: "${legacy.url}" }, ` +
      'stickyKey: [ "header:x-user-id" ], stage: canary, share: 100% } }\n',
  );
  return file;
};
const routes = async (url: string, n = 10): Promise<Set<string | null>> =>
  new Set((await times(n, () => get(`${url}/o`, { headers: { 'x-user-id': 'u1' } }))).map((one) => one.headers.get('banyan-route')));
const ROUTED = 'order;upstream=extracted;reason=SPLIT;stage=canary';
const KILLED = 'order;upstream=legacy;reason=KILLED;stage=canary';

describe('two workers', () => {
  it('both serve, behind one admin listener whose metrics are the sum', async () => {
    const banyan = plain({}, '--set', 'log.level=debug');
    const { gateway: url, admin } = await banyan.ready();
    expect(childrenOf(banyan.pid)).toHaveLength(2);
    expect(new Set((await times(10, () => get(`${url}/x`))).map((one) => one.status))).toEqual(new Set([200]));
    expect(await counted(admin!, 10)).toBe(10);
    const served = (): Set<number> =>
      new Set(
        banyan.stdout.filter((line) => line.includes('"msg":"request"')).map((line) => (JSON.parse(line) as { worker: number }).worker),
      );
    await until(() => served().size === 2, { describe: 'lines of both workers' });
    expect([...served()].sort()).toEqual(childrenOf(banyan.pid).sort());
    expect(await banyan.stop()).toEqual({ code: 0, signal: null });
  });

  it('lose only what was in flight on one that is killed, count on, and are two again', async () => {
    const banyan = plain();
    const { gateway: url, admin } = await banyan.ready();
    await times(6, () => get(`${url}/x`));
    expect(await counted(admin!, 6)).toBe(6);
    // two connections, dealt out to two workers
    const slow = times(2, () =>
      get(`${url}/slow`).then(
        (answer) => answer.status,
        () => 'broken',
      ),
    );
    await until(() => legacy.waiting() === 2, { describe: 'both at the monolith' });
    const [victim] = childrenOf(banyan.pid);
    process.kill(victim!, 'SIGKILL');
    // at once: what is dealt out to the dead one before its death is known goes to the other
    const after = await times(6, () => get(`${url}/x`).then((answer) => answer.status));
    expect(after).toEqual(Array(6).fill(200));
    legacy.release();
    expect(new Set(await slow)).toEqual(new Set([200, 'broken']));
    await replaced(admin!);
    expect(childrenOf(banyan.pid)).toHaveLength(2);
    expect(childrenOf(banyan.pid)).not.toContain(victim);
    expect(await counted(admin!, 13)).toBe(13);
  });

  it('drain one that gets SIGTERM, and all in turn at SIGUSR2, without a lost request', async () => {
    const banyan = plain();
    const { gateway: url, admin } = await banyan.ready();
    const before = childrenOf(banyan.pid);
    let going = true;
    let asked = 0;
    const load = times(3, async () => {
      for (; going; asked++) expect((await get(`${url}/x`)).status).toBe(200);
    });
    const slow = times(2, () => get(`${url}/slow`).then((answer) => answer.status));
    await until(() => legacy.waiting() === 2, { describe: 'both at the monolith' });
    process.kill(before[0]!, 'SIGTERM');
    // the old one may have nothing in flight, and be gone before anybody looks
    await until(() => childrenOf(banyan.pid).some((pid) => !before.includes(pid)), {
      describe: 'a successor of the one that drains',
      timeoutMs: 30_000,
    });
    legacy.release();
    expect(await slow).toEqual([200, 200]);
    await until(() => !exists(before[0]!), { describe: 'the drained worker to end' });
    await replaced(admin!);
    banyan.signal('SIGUSR2');
    await until(() => !exists(before[1]!) && childrenOf(banyan.pid).length === 2, {
      describe: 'both workers to be new',
      timeoutMs: 40_000,
    });
    going = false;
    await load;
    expect(await counted(admin!, asked + 2)).toBe(asked + 2);
  }, 180_000);

  it('cannot hold up a scrape by hanging, and what a hung one never took goes to another when it is killed', async () => {
    const banyan = plain();
    const { gateway: url, admin } = await banyan.ready();
    await times(4, () => get(`${url}/x`));
    expect(await counted(admin!, 4)).toBe(4);
    const [hung] = childrenOf(banyan.pid);
    process.kill(hung!, 'SIGSTOP');
    const { port } = new URL(url!);
    const answers = times(2, (i) => {
      const socket = connect(Number(port), '127.0.0.1');
      socket.write(`GET /x HTTP/1.1\r\nHost: x\r\nConnection: close\r\nX-I: ${i}\r\n\r\n`);
      return new Promise<boolean>((done) => {
        let answered = false;
        socket.on('data', () => {
          answered = true;
        });
        socket.on('error', () => undefined).on('close', () => done(answered));
      });
    });
    const began = performance.now();
    expect(await counted(admin!, 5)).toBe(5);
    // two scrapes of at most 2 s each, and whatever a busy machine takes; a scrape that waited for the hung one would not end at all
    expect(performance.now() - began).toBeLessThan(20_000);
    process.kill(hung!, 'SIGKILL');
    expect(await answers).toEqual([true, true]);
  });

  it('do not start when each dies at once: one line, exit 2', async () => {
    const preload = join(folder, 'die.mjs');
    await writeFile(preload, 'import cluster from "node:cluster";\nif (cluster.isWorker) process.exit(7);\n');
    const banyan = plain({ nodeArguments: ['--import', preload] }, '--set', 'log.level=silent');
    expect(await banyan.exited).toEqual({ code: 2, signal: null });
    expect(banyan.stderr).toEqual(['banyan: 5 workers died while starting, the last by exit 7']);
  });

  it('say in one line, and exit 2, when they may not listen where they should', async () => {
    const busy = new URL(legacy.url).host;
    const banyan = gateway([
      ...['--legacy', legacy.url, '--listen', busy, '--admin-listen', '127.0.0.1:0'],
      ...['--workers', '2', '--set', 'log.level=silent'],
    ]);
    expect(await banyan.exited).toEqual({ code: 2, signal: null });
    expect(banyan.stderr).toEqual([`banyan: ${busy} is in use by another process`]);
  });
});

describe('with a file and no store', () => {
  it('a kill reaches every worker, the ones to come too, and breakers and parity are those of all', async () => {
    const file = await write('kill.yaml', 'debugHeaders: true');
    const banyan = gateway(['--config', file, '--workers', '2']);
    const { gateway: url, admin } = await banyan.ready();
    expect(await routes(url!)).toEqual(new Set([ROUTED]));
    const context = async (): Promise<{ breaker: unknown; killed: boolean }> =>
      (await (await get(`${admin}/api/v1/contexts/order`)).json()) as { breaker: unknown; killed: boolean };
    expect((await context()).breaker).toEqual({ state: 'closed', open: 0, of: 2 });
    const parity = async (): Promise<{ requests: number; match: number }> =>
      (await (await get(`${admin}/api/v1/contexts/order/parity`)).json()) as { requests: number; match: number };
    await until(async () => (await parity()).match === 10, { describe: 'the pairs of both workers' });
    expect(await parity()).toMatchObject({ requests: 10, match: 10 });

    expect((await post(`${admin}/api/v1/contexts/order/kill`, { reason: 'the test says so' })).status).toBe(200);
    expect(await routes(url!)).toEqual(new Set([KILLED]));
    const [victim] = childrenOf(banyan.pid);
    process.kill(victim!, 'SIGKILL');
    await until(() => !exists(victim!) && childrenOf(banyan.pid).length === 2, { describe: 'another worker' });
    await replaced(admin!);
    expect(await routes(url!)).toEqual(new Set([KILLED]));
    expect(await banyan.stop()).toEqual({ code: 0, signal: null });

    const again = gateway(['--config', file, '--workers', '2']);
    const urls = await again.ready();
    expect(await routes(urls.gateway!)).toEqual(new Set([KILLED]));
  });

  it('a reload under load reaches every worker and loses nothing; a bad file changes nothing', async () => {
    const file = await write('reload.yaml', 'debugHeaders: false');
    const banyan = gateway(['--config', file, '--workers', '2', '--set', 'log.level=silent']);
    const { gateway: url, admin } = await banyan.ready();
    const reload = (): Promise<Response> => post(`${admin}/api/v1/config/reload`, {});
    let going = true;
    const load = times(3, async () => {
      while (going) expect((await get(`${url}/o`, { headers: { 'x-user-id': 'u1' } })).status).toBe(200);
    });
    for (const shown of ['true', 'false', 'true']) {
      await write('reload.yaml', `debugHeaders: ${shown}`);
      const answer = await reload();
      expect([answer.status, await answer.json()]).toEqual([200, { ok: true, faults: [], warnings: expect.any(Array) }]);
      expect(await routes(url!)).toEqual(new Set([shown === 'true' ? ROUTED : null]));
    }
    await write('reload.yaml', 'debugHeaders: perhaps');
    expect((await reload()).status).toBe(422);
    expect(await routes(url!)).toEqual(new Set([ROUTED]));
    going = false;
    await load;
  });
});

describe('the end', () => {
  it('lets slow answers finish, says so meanwhile, and exits 0', async () => {
    const banyan = plain();
    const { gateway: url, admin } = await banyan.ready();
    const slow = times(2, () => get(`${url}/slow`).then((answer) => answer.status));
    await until(() => legacy.waiting() === 2, { describe: 'both at the monolith' });
    // Ctrl-C: the whole process group
    process.kill(-banyan.pid, 'SIGINT');
    await banyan.line(/^banyan: draining \(SIGINT\), at most 30 s: /);
    await banyan.line(/^banyan: draining: 2 requests and 0 tunnels in flight$/);
    expect(await readiness(admin!)).toEqual({
      status: 503,
      body: { status: 'draining', reason: expect.stringMatching(/^draining: /) as unknown as string },
    });
    expect((await get(`${admin}/livez`)).status).toBe(200);
    await expect(get(`${url}/new`)).rejects.toThrow();
    legacy.release();
    expect(await slow).toEqual([200, 200]);
    expect(await banyan.exited).toEqual({ code: 0, signal: null });
  });

  it.each([['1'], ['2']])('cuts what outlasts the drain, says how many, and exits 0 (workers: %s)', async (workers) => {
    const banyan = gateway(['--legacy', legacy.url, ...ANY, '--workers', workers, '--set', 'drain=300ms']);
    const { gateway: url } = await banyan.ready();
    const slow = times(2, () =>
      get(`${url}/slow`).then(
        () => 'answered',
        () => 'cut',
      ),
    );
    await until(() => legacy.waiting() === 2, { describe: 'both at the monolith' });
    banyan.signal('SIGTERM');
    expect(await slow).toEqual(['cut', 'cut']);
    expect(await banyan.exited).toEqual({ code: 0, signal: null });
    expect(banyan.stderr.at(-1)).toBe('banyan: drained: 2 requests did not finish in 0.3 s and were cut');
  });

  it('of a primary that is killed leaves no orphan, and cuts no answer', async () => {
    const banyan = plain();
    const { gateway: url } = await banyan.ready();
    const workers = childrenOf(banyan.pid);
    const slow = times(2, () => get(`${url}/slow`).then((answer) => answer.status));
    await until(() => legacy.waiting() === 2, { describe: 'both at the monolith' });
    banyan.signal('SIGKILL');
    await until(() => !exists(banyan.pid), { describe: 'the primary to be gone' });
    expect(workers.filter(exists)).toEqual(workers);
    legacy.release();
    expect(await slow).toEqual([200, 200]);
    await until(() => !workers.some(exists), { describe: 'the workers to end' });
  });

  it('comes at once at a second signal', async () => {
    const banyan = plain();
    const { gateway: url } = await banyan.ready();
    const workers = childrenOf(banyan.pid);
    const slow = get(`${url}/slow`).then(
      () => 'answered',
      () => 'cut',
    );
    await until(() => legacy.waiting() === 1, { describe: 'the request at the monolith' });
    banyan.signal('SIGTERM');
    await banyan.line(/^banyan: draining/);
    banyan.signal('SIGTERM');
    expect(await banyan.exited).toEqual({ code: 1, signal: null });
    expect(await slow).toBe('cut');
    await until(() => !workers.some(exists), { describe: 'the workers to end' });
  });

  it.each([['1'], ['2']])('may come while it still starts (workers: %s)', async (workers) => {
    // a store that never says a word
    const mute = createTcpServer((socket) => void socket.resume().on('error', () => undefined));
    const connected = new Promise<void>((done) => void mute.once('connection', () => done()));
    await new Promise<void>((done) => void mute.listen(0, '127.0.0.1', done));
    const store = `postgres://x@127.0.0.1:${(mute.address() as AddressInfo).port}/x`;
    const banyan = gateway(['--legacy', legacy.url, ...ANY, '--workers', workers, '--set', `store="${store}"`]);
    await connected;
    banyan.signal('SIGTERM');
    expect(await banyan.exited).toEqual({ code: 0, signal: null });
    expect(banyan.stderr).toEqual(['banyan: stopped while starting (SIGTERM)']);
    await new Promise<void>((done) => void mute.close(() => done()));
  });
});
