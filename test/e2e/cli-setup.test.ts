import { type ChildProcess, spawn, spawnSync } from 'node:child_process';
import { once } from 'node:events';
import { chmodSync, existsSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join, resolve } from 'node:path';
import { afterAll, beforeAll, describe, expect, it, jest } from '@jest/globals';
import { loadConfig } from '../../gateway/config.ts';
import { compileRoutes } from '../../gateway/core/match.ts';
import { normalisePath } from '../../gateway/proxy/path.ts';
import { freePort } from '../harness/ports.ts';
import { rawConnect, valuesOf } from '../harness/raw-http.ts';
import { type Listening, listenOn } from '../harness/two-sides.ts';
import { until } from '../harness/wait.ts';

/** What people need once: a first file, completion of their shell, a proxy in front. */

jest.setTimeout(120_000);

const MAIN = resolve(import.meta.dirname, '../../gateway/cli/main.ts');
/** A program that some machines have, and no dependency. */
const FISH: string = 'fish';
const folders: string[] = [];
const folder = (): string => {
  const made = mkdtempSync(join(tmpdir(), 'banyan setup-'));
  folders.push(made);
  return made;
};
afterAll(() => {
  for (const made of folders) rmSync(made, { recursive: true, force: true });
});

type Ended = { readonly code: number | null; readonly out: string; readonly err: string };
const ended = async (child: ChildProcess): Promise<Ended> => {
  let [out, err] = ['', ''];
  child.stdout!.setEncoding('utf8').on('data', (text: string) => {
    out += text;
  });
  child.stderr!.setEncoding('utf8').on('data', (text: string) => {
    err += text;
  });
  child.stdin!.end();
  const [code] = (await once(child, 'close')) as [number | null];
  return { code, out, err };
};
const banyan = (cwd: string, ...args: string[]): Promise<Ended> =>
  ended(spawn(process.execPath, [MAIN, ...args], { cwd, env: { PATH: process.env.PATH ?? '', HOME: cwd } }));
/** Is it installed here? nginx and HAProxy are asked by `-v`. */
const has = (program: string, flag = '-v'): boolean => spawnSync(program, [flag]).status === 0;

const SHOP = (gateway: string, legacy: string): string => `version: 1
listen: ${gateway}
legacy: { url: ${legacy} }
contexts:
  order:
    match:
      - { path: /api/orders/**, methods: [ GET, HEAD ] }
      - { path: /api/orders/:id/cancel, methods: [ POST ] }
    else: legacy
    extracted: { url: http://127.0.0.1:4001 }
  basket:
    match: [ { path: /basket, methods: [ GET ] } ]
    else: legacy
    extracted: { url: http://127.0.0.1:4002 }
`;

describe('init', () => {
  it('writes a file that is valid, runs, and is never written over', async () => {
    const at = folder();
    const port = await freePort();
    const first = await banyan(at, 'init', '--legacy', `http://127.0.0.1:${port}/`, '--json');
    expect([first.code, JSON.parse(first.out)]).toEqual([
      0,
      { file: 'banyan.yaml', schema: 'banyan.schema.json', legacy: `http://127.0.0.1:${port}`, reachable: false },
    ]);
    const text = readFileSync(join(at, 'banyan.yaml'), 'utf8');
    const loaded = await loadConfig({ text, env: {} });
    expect(loaded.ok && loaded.config.legacy.urls).toEqual([`http://127.0.0.1:${port}`]);
    expect(JSON.parse(readFileSync(join(at, 'banyan.schema.json'), 'utf8'))).toHaveProperty('$schema');
    // the first context that it proposes is one
    const [before = '', proposed = ''] = text.split('# contexts:\n');
    const opened = await loadConfig({ text: `${before}contexts:\n${proposed.replaceAll(/^# /gm, '')}`, env: {} });
    expect(opened.ok ? opened.config.contexts.order?.stage : opened.faults).toBe('shadow');

    const again = await banyan(at, 'init', '--yes');
    expect([again.code, again.out, again.err]).toEqual([1, '', 'banyan: banyan.yaml is there already; nothing was written\n']);
    expect(readFileSync(join(at, 'banyan.yaml'), 'utf8')).toBe(text);
  });

  it('asks nobody where nobody can answer, and refuses what is no address', async () => {
    const at = folder();
    const [nobody, bad, yes] = await Promise.all([
      banyan(at, 'init'),
      banyan(at, 'init', '--legacy', 'not an address'),
      banyan(folder(), 'init', '--yes'),
    ]);
    expect([nobody.code, nobody.err]).toEqual([2, 'banyan: which monolith? say --legacy URL, or --yes for the defaults\n']);
    expect([bad.code, bad.out]).toEqual([2, '']);
    expect(existsSync(join(at, 'banyan.yaml'))).toBe(false);
    expect([yes.code, yes.out]).toEqual([0, 'banyan.yaml\n']);
  });
});

describe('completion', () => {
  let at: string;
  let script: string;
  beforeAll(async () => {
    at = folder();
    writeFileSync(join(at, 'banyan.yaml'), SHOP('127.0.0.1:8080', 'http://127.0.0.1:3000'));
    writeFileSync(join(at, 'banyan'), `#!/bin/sh\nexec "${process.execPath}" "${MAIN}" "$@"\n`);
    chmodSync(join(at, 'banyan'), 0o755);
    const printed = await banyan(at, 'completion', 'bash');
    expect([printed.code, printed.err]).toEqual([0, '']);
    script = join(at, 'completion.bash');
    writeFileSync(script, printed.out);
  });

  /** What bash offers after these words, the last one unfinished; several lines of words in one shell. */
  const offered = async (lines: readonly string[][]): Promise<string[][]> => {
    const asks = lines.map(
      (words) =>
        `COMP_WORDS=(${['./banyan', ...words].map((word) => `'${word}'`).join(' ')}); COMP_CWORD=${words.length}; _banyan; echo "\${COMPREPLY[*]}"`,
    );
    const bash = spawn('bash', ['--norc', '--noprofile'], {
      cwd: at,
      stdio: ['pipe', 'pipe', 'pipe'],
      env: { PATH: process.env.PATH ?? '', HOME: at },
    });
    bash.stdin.write(`source '${script}'\ncomplete -p banyan >&2\n${asks.join('\n')}\n`);
    const { code, out, err } = await ended(bash);
    expect([code, err]).toEqual([0, 'complete -F _banyan banyan\n']);
    return out
      .replace(/\n$/, '')
      .split('\n')
      .map((line) => line.split(' ').filter((word) => word !== ''));
  };

  (has('bash', '--version') ? it : it.skip)('in bash knows commands, flags, stages, states, and the contexts of the file', async () => {
    const [commands, stage, contexts, stages, some, flags, state, equals, of, group, ramp, nothing] = await offered([
      [''],
      ['sta'],
      ['stage', ''],
      ['stage', 'order', ''],
      ['stage', 'order', 'c'],
      ['stage', 'order', 'canary', '--'],
      ['ledger', 'list', '--state', 'p'],
      ['ledger', 'list', '--state', '=', 'pa'],
      ['audit', 'list', '--context', 'o'],
      ['parity', ''],
      ['ramp', '--reason', 'stage', 'order', 'p'],
      ['stage', 'order', 'canary', '--reason', ''],
    ]);
    expect(commands).toEqual(
      expect.arrayContaining(['run', 'init', 'stage', 'kill', 'revive', 'ramp', 'parity', 'audit', 'export', 'completion']),
    );
    expect(commands).not.toContain('__contexts');
    expect(stage).toEqual(['status', 'stage']);
    expect(contexts).toEqual(['order', 'basket']);
    expect(stages).toEqual(['legacy', 'shadow', 'canary', 'cutover', 'retired']);
    expect(some).toEqual(['canary', 'cutover']);
    expect(flags).toEqual(expect.arrayContaining(['--percent', '--force', '--reason', '--json', '--help']));
    expect([state, equals, of]).toEqual([['published', 'parked'], ['parked'], ['order']]);
    expect([...group!].sort()).toEqual(['compare', 'latency', 'rejudge', 'replay', 'report']);
    expect([ramp, nothing]).toEqual([['pause'], []]);
  });

  it('names every command that the help names, and every flag of each', async () => {
    const text = readFileSync(script, 'utf8');
    const help = (await banyan(at, '--help')).out;
    const names = [...(help.split('Commands:')[1] ?? '').matchAll(/^ {2}([a-z]+)/gm)].map(([, name]) => name!);
    expect(names.length).toBeGreaterThan(15);
    expect(help).not.toContain('__contexts');
    for (const name of names.filter((one) => one !== 'help')) expect(text).toContain(`"/${name}"`);
    const stage = (await banyan(at, 'stage', '--help')).out;
    const flags = [...stage.matchAll(/ (--[a-z-]+)/g)].map(([, flag]) => flag!);
    const line = text.split('\n').find((one) => one.trim().startsWith('"/stage") COMPREPLY'))!;
    for (const flag of flags.filter((one) => stage.includes(`\n  ${one}`))) expect(line).toContain(flag);
  });

  it.each([
    ['zsh', '-n'],
    ['fish', '-n'],
    ['bash', '-n'],
  ])('in %s is a script that the shell reads', async (shell, flag) => {
    const printed = await banyan(at, 'completion', shell);
    expect([printed.code, printed.out.split('\n').length > 50]).toEqual([0, true]);
    if (!has(shell, '--version')) return;
    const file = join(at, `script.${shell}`);
    writeFileSync(file, printed.out);
    const { status, stderr } = spawnSync(shell, [flag, file], { encoding: 'utf8' });
    expect([status, stderr]).toEqual([0, '']);
  });

  (has(FISH, '--version') ? it : it.skip)('in fish offers the same', async () => {
    const printed = await banyan(at, 'completion', 'fish');
    const file = join(at, 'offers.fish');
    writeFileSync(
      file,
      `${printed.out}\nset -x PATH . $PATH\nfor line in 'banyan stage ' 'banyan stage order c' 'banyan ramp order r'\n  complete -C $line\nend\n`,
    );
    const { stdout } = spawnSync(FISH, [file], { cwd: at, encoding: 'utf8', env: { PATH: process.env.PATH ?? '', HOME: at } });
    expect(stdout.split('\n').map((line) => line.split('\t')[0])).toEqual(['basket', 'order', 'canary', 'cutover', 'resume', '']);
  });

  it('knows its shells', async () => {
    const { code, err } = await banyan(at, 'completion', 'tcsh');
    expect([code, err]).toEqual([2, expect.stringContaining('bash, zsh, fish')]);
  });
});

describe('export', () => {
  let gateway: Listening;
  let legacy: Listening;
  const said = (name: string) => listenOn((req, res) => void res.setHeader('x-for', String(req.headers['x-forwarded-for'])).end(name));
  beforeAll(async () => {
    [gateway, legacy] = await Promise.all([said('gateway'), said('legacy')]);
  });
  afterAll(() => Promise.all([gateway.stop(), legacy.stop()]));

  const exported = async (kind: string): Promise<{ at: string; port: number; text: string }> => {
    const at = folder();
    const port = await freePort();
    writeFileSync(join(at, 'banyan.yaml'), SHOP(gateway.url.replace('http://', ''), legacy.url));
    const { code, out, err } = await banyan(at, 'export', kind, '--listen', `127.0.0.1:${port}`);
    expect([code, err]).toEqual([0, '']);
    return { at, port, text: out };
  };

  /** Targets in spellings that proxies do not agree about. */
  const TARGETS = [
    '/',
    '/shop?x=/api/orders/1',
    '/api/ordersX',
    '/api/orders',
    '/api/orders/',
    '/api/orders?x=1',
    '/api/orders/1/items/2',
    '/api//orders/1',
    '//api/orders/1',
    '/api/./orders/1',
    '/api/x/../orders/1',
    '/%61pi/orders/1',
    '/api/%6Frders',
    '/api/%2e/orders/1',
    '/api/orders/a%2Fb/cancel',
    '/basket',
    '/basket/',
    '//basket',
    '/basket2',
    '/API/orders/1',
  ];

  const through = async (port: number, target: string): Promise<{ side: string; from: string }> => {
    const connection = await rawConnect(port);
    await connection.write(`GET ${target} HTTP/1.1\r\nHost: shop.test\r\nX-Forwarded-For: 9.9.9.9\r\nConnection: close\r\n\r\n`);
    const answer = await connection.message();
    connection.destroy();
    return { side: answer.body.toString(), from: valuesOf(answer, 'x-for').join() };
  };

  const check = async (port: number): Promise<void> => {
    const routes = compileRoutes(
      ['/api/orders/**', '/api/orders/:id/cancel', '/basket'].map((path) => ({ context: 'c', path, methods: null, rest: null })),
    );
    for (const target of TARGETS) {
      const { side, from } = await through(port, target);
      const path = normalisePath(target.split('?')[0]!);
      // none that a context owns may slip past the gateway; others may meet it, but need not
      if (path !== null && routes.match('GET', path).kind !== 'none') expect([target, side]).toEqual([target, 'gateway']);
      expect(from).toBe('127.0.0.1');
    }
    for (const target of ['/', '/shop?x=/api/orders/1', '/api/ordersX', '/basket2', '/API/orders/1'])
      expect([target, (await through(port, target)).side]).toEqual([target, 'legacy']);
  };

  const serving = async (program: string, args: readonly string[], port: number): Promise<() => Promise<void>> => {
    const child = spawn(program, args, { stdio: ['ignore', 'ignore', 'pipe'] });
    let err = '';
    child.stderr!.on('data', (text) => (err += text));
    await until(
      async () => {
        if (child.exitCode !== null) throw new Error(`${program} ended: ${err}`);
        return (await fetch(`http://127.0.0.1:${port}/`)).status === 200;
      },
      { describe: `${program} to listen` },
    );
    return async () => {
      const gone = once(child, 'exit');
      child.kill('SIGTERM');
      await gone;
    };
  };

  (has('nginx') ? it : it.skip)('for nginx lets no owned path past the gateway, however it is spelt', async () => {
    const { at, port, text } = await exported('nginx');
    writeFileSync(join(at, 'banyan.conf'), text);
    writeFileSync(
      join(at, 'nginx.conf'),
      `daemon off;\npid nginx.pid;\nerror_log error.log crit;\nevents {}\nhttp { access_log off; client_body_temp_path b; proxy_temp_path p; fastcgi_temp_path f; uwsgi_temp_path u; scgi_temp_path s; include "${join(at, 'banyan.conf')}"; }\n`,
    );
    const stop = await serving('nginx', ['-p', at, '-c', join(at, 'nginx.conf'), '-e', join(at, 'error.log')], port);
    try {
      await check(port);
    } finally {
      await stop();
    }
  });

  (has('haproxy') ? it : it.skip)('for HAProxy lets no owned path past the gateway, however it is spelt', async () => {
    const { at, port, text } = await exported('haproxy');
    writeFileSync(join(at, 'haproxy.cfg'), text);
    const stop = await serving('haproxy', ['-db', '-f', join(at, 'haproxy.cfg')], port);
    try {
      await check(port);
    } finally {
      await stop();
    }
  });

  it('takes several gateways, gives one document, and refuses what it cannot tell', async () => {
    const at = folder();
    writeFileSync(join(at, 'banyan.yaml'), SHOP('127.0.0.1:0', 'https://shop.internal'));
    const [none, two, bad] = await Promise.all([
      banyan(at, 'export', 'nginx'),
      banyan(at, 'export', 'haproxy', '--gateway', '10.0.0.1:8080', '--gateway', '10.0.0.2:8080', '--json'),
      banyan(at, 'export', 'nginx', '--gateway', 'a b'),
    ]);
    expect([none.code, none.err]).toEqual([1, expect.stringContaining('say --gateway HOST:PORT')]);
    const { gateways, owned, text } = JSON.parse(two.out) as { gateways: string[]; owned: unknown; text: string };
    expect(gateways).toEqual(['10.0.0.1:8080', '10.0.0.2:8080']);
    expect(owned).toContainEqual({ path: '/api/orders/', exact: false });
    expect(text).toContain('server legacy1 shop.internal:443 ssl sni str(shop.internal) verify required');
    expect(bad.code).toBe(2);
  });
});
