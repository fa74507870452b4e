import { spawn, spawnSync } from 'node:child_process';
import { once } from 'node:events';
import { mkdtemp, rm, writeFile } from 'node:fs/promises';
import { createServer } from 'node:net';
import { tmpdir } from 'node:os';
import { join, resolve } from 'node:path';
import type { RampView } from '@banyan/contracts/admin-api.ts';
import { afterAll, beforeAll, describe, expect, it, jest } from '@jest/globals';
import {
  type AdapterFake,
  type AdminSystem,
  adminSystem,
  configOf,
  entry,
  fakeLedger,
  fakeParity,
  report,
  startAdapterFake,
} from '../harness/admin.ts';
import { type FreshDatabase, freshDatabase } from '../harness/database.ts';
import { freePort } from '../harness/ports.ts';
import { run } from '../harness/processes.ts';

// some tests start a dozen processes, and machines are slow at times
jest.setTimeout(120_000);

let database: FreshDatabase;
let system: AdminSystem;
let adapter: AdapterFake;
let url: string;
let folder: string;
const ramped: unknown[] = [];
const ramps: Record<string, RampView> = {};
const at = '2026-01-02T03:04:05.000Z';
const ramp: RampView = {
  state: 'running',
  step: 2,
  steps: [1, 5, 25, 50, 100],
  share: 5,
  since: at,
  evidenceSince: at,
  nextAt: '2026-01-02T03:14:05.000Z',
  outcome: 'hold',
  reasons: ['0 of 1,204 compared answers differ; about 1,829 more equal ones are needed', 'the step is held for another 6 min'],
  approvals: { needed: 0, given: [] },
  paused: null,
  startedBy: 'ann',
  startedAt: at,
  contexts: ['order'],
  serviceVersions: {},
  updatedAt: at,
};

const token = '{ name: otto, role: admin, token: tell-nobody }';

beforeAll(async () => {
  database = await freshDatabase('store');
  adapter = await startAdapterFake();
  folder = await mkdtemp(join(tmpdir(), 'banyan-cli-'));
  const config = await configOf(`\n  tokens: [ ${token} ]`, adapter.url);
  system = await adminSystem(
    database.url,
    {
      parity: fakeParity({ order: report(), inventory: report({ sprt: { state: 'rollback', llr: -4 } }) }),
      ledger: fakeLedger([entry('a1', 'done'), entry('a2', 'parked')]),
      ramp: {
        act: async (context, request) => void ramped.push({ context, ...request }),
        views: async () => new Map(Object.entries(ramps)),
      },
    },
    config,
  );
  ({ url } = await system.admin.start());
});
afterAll(async () => {
  await system.stop();
  await adapter.stop();
  await database.drop();
  await rm(folder, { recursive: true, force: true });
});

type Ended = { code: number | null; out: string; err: string };
const banyan = async (args: readonly string[], env: Record<string, string | undefined> = {}): Promise<Ended> => {
  const child = run('gateway/cli/main.ts', args, { cwd: folder, env: { BANYAN_ADMIN_TOKEN: 'tell-nobody', ...env } });
  const { code } = await child.exited;
  return { code, out: child.stdout.join('\n'), err: child.stderr.join('\n') };
};
const online = (...args: string[]): Promise<Ended> => banyan([...args, '--admin', url]);
const json = async (...args: string[]) => {
  const { code, out, err } = await online(...args, '--json');
  return { code, err, data: JSON.parse(out) };
};

describe('status', () => {
  it('prints a table for people and one document for programs', async () => {
    const [people, program] = await Promise.all([online('status'), json('status')]);
    expect([people.code, people.err]).toEqual([0, '']);
    expect(people.out).toMatch(/^gateway +1\.2\.3, up \d+ s$/m);
    expect(people.out).toMatch(/^order +legacy +- /m);
    expect(program.data).toMatchObject({ version: '1.2.3', contexts: [{ name: 'inventory' }, { name: 'order' }] });
  });

  it('ends with 2 where no gateway answers, or another one, or without the right token', async () => {
    const free = await freePort();
    const [nobody, wrong, file] = await Promise.all([
      banyan(['status', '--admin', `http://127.0.0.1:${free}`]),
      banyan(['status', '--admin', url], { BANYAN_ADMIN_TOKEN: 'guess' }),
      (async () => {
        const tokens = join(folder, 'token');
        await writeFile(tokens, 'tell-nobody\n', { mode: 0o600 });
        return banyan(['status', '--admin', url, '--token-file', tokens], { BANYAN_ADMIN_TOKEN: undefined });
      })(),
    ]);
    expect([nobody.code, nobody.out]).toEqual([2, '']);
    expect(nobody.err).toContain(`banyan: no gateway answers at http://127.0.0.1:${free} (ECONNREFUSED)`);
    expect(wrong.code).toBe(2);
    expect(wrong.err).toMatch(/^banyan: this token is not known here/);
    expect(file.code).toBe(0);
  });
});

/** util-linux gives a command a terminal of its own; not every machine has it. */
const SCRIPT: string = 'script';
(spawnSync(SCRIPT, ['--version']).status === 0 ? it : it.skip)(
  'tables are in colour on a terminal, unless NO_COLOR is set, and nowhere else',
  async () => {
    const main = resolve(import.meta.dirname, '../../gateway/cli/main.ts');
    const command = `'${process.execPath}' '${main}' status --admin ${url}`;
    const onTerminal = async (env: Record<string, string>): Promise<string> => {
      const child = spawn(SCRIPT, ['-qec', command, '/dev/null'], {
        cwd: folder,
        stdio: ['ignore', 'pipe', 'ignore'],
        env: { PATH: process.env.PATH ?? '', TERM: 'xterm', BANYAN_ADMIN_TOKEN: 'tell-nobody', ...env },
      });
      let out = '';
      child.stdout.setEncoding('utf8').on('data', (text: string) => {
        out += text;
      });
      await once(child, 'close');
      return out;
    };
    const [bright, plain, piped] = await Promise.all([onTerminal({}), onTerminal({ NO_COLOR: '1' }), online('status')]);
    expect(bright).toContain('\x1b[1mCONTEXT\x1b[0m');
    expect([plain.includes('CONTEXT'), plain.includes('\x1b['), piped.out.includes('\x1b[')]).toEqual([true, false, false]);
  },
);

describe('ramp', () => {
  it('says where it stands and what it waits for, to people and programs', async () => {
    ramps.order = ramp;
    const [people, program, none] = await Promise.all([online('ramp', 'order'), json('ramp', 'order'), online('ramp', 'inventory')]);
    expect([people.code, people.err]).toEqual([0, '']);
    expect(people.out).toMatch(/^order +running +2\/5 +5 % +2026-01-02 03:04:05 +2026-01-02 03:14:05 +hold +ann$/m);
    expect(people.out).toContain('order is at 5 % since 2026-01-02 03:04:05 UTC; it waits for the step to 25 %:');
    expect(people.out).toContain('  - the step is held for another 6 min');
    expect(program.data).toEqual(ramp);
    expect([none.code, none.out]).toEqual([0, 'inventory has no ramp; banyan ramp inventory start begins one']);
  });

  it('asks for an action, watches to the end, and ends with 1 when it was rolled back', async () => {
    ramps.order = {
      ...ramp,
      state: 'rolled-back',
      step: 0,
      share: 0,
      outcome: 'rollback',
      reasons: ['the breaker has opened'],
      nextAt: null,
    };
    const [started, watched, wrong] = await Promise.all([
      online('ramp', 'order', 'start', '--reason', 'once more'),
      online('ramp', 'order', '--watch'),
      online('ramp', 'order', 'leap'),
    ]);
    expect(started.code).toBe(0);
    expect(started.out).toContain('nothing is promoted before somebody starts it again');
    expect(ramped).toEqual([{ context: 'order', action: 'start', reason: 'once more', actor: 'otto' }]);
    expect([watched.code, watched.err]).toEqual([1, 'banyan: order was rolled back']);
    expect(watched.out).toMatch(/shadow {2}rolled-back\n {2}the breaker has opened$/);
    expect(wrong.code).toBe(2);
    delete ramps.order;
  });
});

describe('stage', () => {
  it('moves, refuses with 1 what is refused, and waits for a flip', async () => {
    const moved = await json('stage', 'order', 'canary', '--percent', '12.5', '--force', '--reason', 'a few');
    expect(moved).toMatchObject({ code: 0, data: { name: 'order', stage: 'canary', percent: 12.5, updatedBy: 'otto' } });

    const flipped = await online('stage', 'order', 'cutover', '--reason', 'ready');
    expect(flipped.code).toBe(0);
    expect(flipped.err).toMatch(/flip [0-9a-f-]{36}: done/);
    expect(flipped.out).toMatch(/^order +cutover /m);

    const [skips, stale, unknown] = await Promise.all([
      online('stage', 'inventory', 'cutover', '--reason', 'hurry'),
      online('stage', 'order', 'canary', '--if-version', '1', '--reason', 'late'),
      online('stage', 'nope', 'shadow', '--reason', 'x'),
    ]);
    expect([skips.code, skips.err]).toEqual([1, expect.stringContaining('skips a stage')]);
    expect([stale.code, stale.err]).toEqual([1, expect.stringContaining('somebody changed it')]);
    expect([unknown.code, unknown.err]).toEqual([2, expect.stringContaining('there are: inventory, order')]);
  });

  it('ends with 1 when the flip is undone', async () => {
    system.set.level = () => Promise.reject(new Error('adapter away'));
    const undone = await online('stage', 'order', 'canary', '--reason', 'back');
    system.set.level = async () => undefined;
    expect([undone.code, undone.err]).toEqual([1, expect.stringContaining('the move was undone')]);
    expect(undone.out).toMatch(/^order +cutover /m);
  });

  it('asks for --yes before retired where nobody can be asked, and usage errors are 2', async () => {
    const results = await Promise.all([
      online('stage', 'order', 'retired', '--reason', 'x', '--force'),
      online('stage', 'order', 'shadow'),
      online('stage', 'order', 'moon', '--reason', 'x'),
      online('stage', 'order', 'canary', '--percent', '101', '--reason', 'x'),
      online('stage', 'order', 'shadow', '--reason', '  '),
      online('stage', 'order', 'shadow', '--percent', '5', '--reason', 'x'),
    ]);
    expect(results.map(({ code }) => code)).toEqual([2, 2, 2, 2, 2, 2]);
    expect(results.map(({ err }) => err.split('\n').length)).toEqual([1, 1, 1, 1, 1, 1]);
    expect(results[0]!.err).toContain('--yes');
    expect(system.flags.current('order')?.stage).toBe('cutover');
  });
});

describe('kill and revive', () => {
  it('act on one or on all, never on nothing', async () => {
    const one = await json('kill', 'inventory', '--reason', 'smoke');
    expect(one).toMatchObject({ code: 0, data: { name: 'inventory', killed: true } });
    const back = await json('revive', '--all', '--reason', 'out');
    expect(back.data.items.map((context: { killed: boolean }) => context.killed)).toEqual([false, false]);
    const [neither, both, retired] = await Promise.all([
      online('kill', '--reason', 'x'),
      online('kill', 'order', '--all', '--reason', 'x'),
      online('kill', 'nope', '--reason', 'x'),
    ]);
    expect([neither.code, both.code, retired.code]).toEqual([2, 2, 2]);
  });
});

describe('evidence', () => {
  it('parity report ends with 1 only where the evidence says roll back', async () => {
    const [good, all, program] = await Promise.all([
      online('parity', 'report', 'order'),
      online('parity', 'report'),
      json('parity', 'report'),
    ]);
    expect([good.code, good.err]).toEqual([0, '']);
    expect(good.out).toMatch(/^order +120 +100 +95 +4 +1 +2 +3 +99\.00% +94\.50%\.\.99\.80% +continue$/m);
    expect(good.out).toContain('$.total');
    expect([all.code, all.err]).toEqual([1, 'banyan: the evidence says roll back: inventory']);
    expect(program.data.items).toMatchObject([{ context: 'inventory' }, { context: 'order', rate: 0.99 }]);
  });

  it('parity report shows hours one by one', async () => {
    const [people, program, wrong, all] = await Promise.all([
      online('parity', 'report', 'order', '--hours', '24'),
      json('parity', 'report', 'order', '--hours', '3', '--route', 'GET /api/orders/:id'),
      online('parity', 'report', 'order', '--hours', 'x'),
      online('parity', 'report', '--hours', '24'),
    ]);
    expect([people.code, people.err]).toEqual([0, '']);
    expect(people.out).toMatch(/^\d{4}-\d\d-\d\d \d\d:\d\d +120 +100 +95 +4 +1 +2 +3 +99\.00% +1 x value \$\.total$/m);
    expect(program.data).toMatchObject({ items: [{ rate: 0.99, byRoute: [{ route: 'GET /api/orders/:id' }] }], next: null });
    expect([wrong.code, all.code]).toEqual([2, 2]);
  });

  it('parity latency shows both sides and whether chance explains the difference', async () => {
    const [people, program, nobody] = await Promise.all([
      online('parity', 'latency', 'order'),
      json('parity', 'latency', 'order'),
      online('parity', 'latency', 'nope'),
    ]);
    expect([people.code, people.err]).toEqual([0, '']);
    expect(people.out).toMatch(/^\/api\/orders\/:id +legacy primary +100 +4\.00 +8\.00 +20\.00 +31\.00 +1\.50 +0\.710 +2\.0e-5 +mixed$/m);
    expect(program.data).toMatchObject({ items: [{ test: { basis: 'mixed' } }], next: null });
    expect(nobody.code).toBe(2);
  });

  it('the ledger is listed, shown and resolved once', async () => {
    const [list, filtered, shown, missing] = await Promise.all([
      online('ledger', 'list'),
      json('ledger', 'list', '--state', 'parked', '--context', 'order', '--limit', '1'),
      json('ledger', 'show', 'a2'),
      online('ledger', 'show', 'zz'),
    ]);
    expect(list.out).toMatch(/^a1 +order +done /m);
    expect(filtered.data.items).toMatchObject([{ id: 'a2', state: 'parked' }]);
    expect(shown.data).toMatchObject({ id: 'a2' });
    expect(missing.code).toBe(2);
    const resolved = await json('ledger', 'resolve', 'a2', '--as', 'not-applied', '--reason', 'not in the shop');
    expect(resolved).toMatchObject({ code: 0, data: { state: 'rejected' } });
    const again = await online('ledger', 'resolve', 'a2', '--as', 'applied', '--reason', 'x');
    expect(again.code).toBe(1);
  });

  it('audit verify names a row that was changed behind its back', async () => {
    const good = await online('audit', 'verify');
    expect([good.code, good.out]).toEqual([0, expect.stringMatching(/^all \d+ rows are as they were written$/)]);
    const { data } = await json('audit', 'list', '--limit', '1');
    const { id, reason } = data.items[0];
    const forge = async (text: string) => {
      await system.db.raw('alter table banyan.audit disable trigger audit_append_only');
      await system.db('banyan.audit').where({ id }).update({ reason: text });
      await system.db.raw('alter table banyan.audit enable trigger audit_append_only');
    };
    await forge('forged');
    const bad = await online('audit', 'verify');
    expect([bad.code, bad.out]).toEqual([1, `row ${id}: content does not match its hash`]);
    await forge(reason);

    // a chain that ends earlier is a chain too: only who has noted its end elsewhere can tell
    const { head } = (await json('audit', 'verify')).data as { head: string };
    expect(head).toBe(`${id}:${data.items[0].hash}`);
    const kept = await online('audit', 'verify', '--expect', head);
    expect([kept.code, kept.err]).toEqual([0, expect.stringContaining(head)]);
    const [other, cut, usage] = await Promise.all([
      online('audit', 'verify', '--expect', `${id}:${'0'.repeat(64)}`),
      json('audit', 'verify', '--expect', `${Number(id) + 1}:${'0'.repeat(64)}`),
      online('audit', 'verify', '--expect', 'x'),
    ]);
    expect([other.code, other.out]).toEqual([1, `row ${id}: is another one than was noted`]);
    expect([cut.code, cut.data.ok, cut.data.faults]).toEqual([1, false, [{ id: Number(id) + 1, fault: 'is gone' }]]);
    expect(usage.code).toBe(2);
  });

  it('capture goes through the gateway to the adapter', async () => {
    const shown = await json('capture', 'show');
    expect(shown.data).toEqual({ mode: 'trigger', installed: true });
    expect((await online('capture', 'install')).code).toBe(0);
    expect(adapter.requests.at(-1)).toMatchObject({ method: 'POST', url: '/v1/capture/install' });
    expect((await json('audit', 'list', '--limit', '1')).data.items[0]).toMatchObject({
      action: 'capture-install',
      actor: 'otto',
      reason: 'banyan capture install',
    });
  });
});

describe('doctor', () => {
  const written = async (name: string, text: string): Promise<string> => {
    const file = join(folder, name);
    await writeFile(file, text);
    return file;
  };
  const yaml = (ports: { listen: number; admin: number; legacy: string; store: string }) => `
version: 1
listen: 127.0.0.1:${ports.listen}
admin: { listen: "127.0.0.1:${ports.admin}" }
legacy: { url: "${ports.legacy}" }
store: ${ports.store}
`;

  it('says what is there and what is not', async () => {
    const [listen, admin] = [await freePort(), await freePort()];
    const good = await written('good.yaml', yaml({ listen, admin, legacy: adapter.url, store: database.url }));
    const well = await banyan(['doctor', '--config', good]);
    expect([well.code, well.out.match(/✗/g)]).toEqual([0, null]);
    expect(well.out).toContain('✓ store schema: up to date');
    expect(well.out).toContain(`✓ listen: 127.0.0.1:${listen} is free`);

    const taken = createServer();
    await new Promise<void>((resolve) => void taken.listen(listen, '127.0.0.1', resolve));
    const bad = await written(
      'bad.yaml',
      yaml({ listen, admin, legacy: 'http://127.0.0.1:1', store: 'postgres://nobody:hunter2@127.0.0.1:1/none' }),
    );
    const ill = await banyan(['doctor', '--config', bad, '--json']);
    await new Promise<void>((resolve) => void taken.close(() => resolve()));
    expect(ill.code).toBe(1);
    expect(ill.out).not.toContain('hunter2');
    const failed = (JSON.parse(ill.out) as { checks: { name: string; ok: boolean; detail: string }[] }).checks.filter((check) => !check.ok);
    expect(failed.map((check) => check.name).sort()).toEqual(['legacy', 'listen', 'store', 'store schema']);
    expect(failed.find((check) => check.name === 'listen')?.detail).toBe(`127.0.0.1:${listen}: EADDRINUSE`);
  });

  it('tells a running gateway from a taken port, and passes on which hosts it has left out', async () => {
    const admin = Number(new URL(url).port);
    const file = await written('running.yaml', yaml({ listen: 1, admin, legacy: adapter.url, store: database.url }));
    const { code, out } = await banyan(['doctor', '--config', file]);
    expect(out).toContain(`✓ admin: 127.0.0.1:${admin}: a gateway runs here`);
    expect(out.split('\n').filter((line) => line.startsWith('✗'))).toEqual(['✗ gateway: upstream extracted order: 1 of 2 hosts in use']);
    expect(code).toBe(1);
  });

  it('ends with 1 for a faulty or missing file, and names the fault', async () => {
    const faulty = await written('faulty.yaml', 'version: 1\nlisten: nowhere\n');
    const [bad, none] = await Promise.all([banyan(['doctor', '--config', faulty]), banyan(['doctor'])]);
    expect([bad.code, bad.out]).toEqual([1, expect.stringMatching(/✗ config: .*faulty\.yaml:2:\d+/)]);
    expect([none.code, none.out]).toEqual([1, expect.stringContaining('✗ config: there is no banyan.yaml in this folder')]);
  });
});
