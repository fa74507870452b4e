import { spawn } from 'node:child_process';
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { createServer, type Server } from 'node:http';
import type { AddressInfo } from 'node:net';
import { tmpdir } from 'node:os';
import { join, resolve } from 'node:path';
import { afterAll, beforeAll, describe, expect, it } from '@jest/globals';

/** The commands that need no gateway, and what those that need one say when it refuses or is not there. */

const MAIN = resolve(import.meta.dirname, '../../gateway/cli/main.ts');

type Ended = { readonly code: number | null; readonly out: string; readonly err: string };

let folder: string;
beforeAll(() => {
  folder = mkdtempSync(join(tmpdir(), 'banyan cli-'));
});
afterAll(() => rmSync(folder, { recursive: true, force: true }));

const file = (name: string, text: string): string => {
  const path = join(folder, name);
  writeFileSync(path, text);
  return path;
};

const banyan = async (args: readonly string[], env: Readonly<Record<string, string>> = {}): Promise<Ended> => {
  const child = spawn(process.execPath, [MAIN, ...args], { cwd: folder, env: { PATH: process.env.PATH ?? '', HOME: folder, ...env } });
  let out = '';
  let err = '';
  child.stdout.setEncoding('utf8').on('data', (text: string) => {
    out += text;
  });
  child.stderr.setEncoding('utf8').on('data', (text: string) => {
    err += text;
  });
  child.stdin.end();
  const code = await new Promise<number | null>((done) => child.once('close', done));
  return { code, out, err };
};

const SHOP = `version: 1
legacy: { url: http://127.0.0.1:3000 }
admin: { tokens: [ { name: ci, role: operator, token: "\${CI_TOKEN:-hunter2}" } ] }
contexts:
  order:
    match: [ { path: /api/orders/**, methods: [ GET, HEAD ] } ]
    else: legacy
    extracted: { url: http://127.0.0.1:4001 }
    stage: canary
    share: 80%
`;

const BAD = `version: 1
listn: 127.0.0.1:8080
drain: soon
legacy: { url: http://127.0.0.1:3000 }
contexts:
  order:
    match: [ { path: api/orders } ]
`;

describe('validate', () => {
  it('says yes with 0', async () => {
    const path = file('shop.yaml', SHOP);
    expect(await banyan(['validate', path])).toEqual({ code: 0, out: `${path} is valid\n`, err: '' });
  });

  it('lists every fault on stderr with 1, and nothing on stdout', async () => {
    const path = file('bad.yaml', BAD);
    const { code, out, err } = await banyan(['validate', path]);
    expect({ code, out }).toEqual({ code: 1, out: '' });
    expect(err.trim().split('\n')).toEqual([
      `${path}:2:1: listn: unknown key "listn"; did you mean "listen"?`,
      `${path}:3:8: drain: "soon" does not fit; expected a duration such as 250ms, 5s, 2m, 1h or 7d`,
      `${path}:7:22: contexts.order.match[0].path: "api/orders" does not fit; expected a path that starts with /`,
    ]);
  });

  it('gives one document with --json', async () => {
    const { code, out, err } = await banyan(['validate', file('bad.yaml', BAD), '--json']);
    expect({ code, err }).toEqual({ code: 1, err: '' });
    expect(JSON.parse(out)).toMatchObject({
      valid: false,
      faults: [
        { line: 2, column: 1, path: 'listn' },
        { line: 3, column: 8, path: 'drain' },
        { line: 7, column: 22 },
      ],
      warnings: [],
    });
  });

  it('reads a TypeScript configuration, with a function as a mapping', async () => {
    const path = file(
      'banyan.config.ts',
      `const url: string = 'http://127.0.0.1:3000';
export default { version: 1, legacy: { url }, store: 'postgres://u:p@127.0.0.1/b', streams: {}, contexts: { order: { match: [{ path: '/o', methods: ['POST'] }], else: 'legacy',
  events: [{ when: 'POST /o 2xx', type: 'order.placed.v1', aggregate: (source: object) => Object.keys(source).length, data: {} }] } } };`,
    );
    expect((await banyan(['validate', path])).code).toBe(0);
    const broken = await banyan(['validate', file('broken.config.ts', 'export default {\n  version: 1,\n  = 2\n};\n')]);
    expect(broken.code).toBe(1);
    expect(broken.err.trim().split('\n')).toHaveLength(1);
    expect(broken.err).toContain('broken.config.ts');
  });

  it('asks the neighbours with --online', async () => {
    const legacy = createServer((_, response) => response.writeHead(404).end());
    await new Promise<void>((done) => legacy.listen(0, '127.0.0.1', done));
    const { port } = legacy.address() as AddressInfo;
    const closed = createServer();
    await new Promise<void>((done) => closed.listen(0, '127.0.0.1', done));
    const gone = (closed.address() as AddressInfo).port;
    await new Promise((done) => closed.close(done));
    try {
      const text = SHOP.replace(/:3000\b/, `:${port}`).replace(/:4001\b/, `:${gone}`);
      const { code, out } = await banyan(['validate', file('online.yaml', text), '--online', '--json']);
      expect(code).toBe(1);
      expect(JSON.parse(out)).toMatchObject({
        valid: false,
        online: [
          { what: 'legacy', ok: true },
          { what: 'extracted order', ok: false, why: 'ECONNREFUSED' },
        ],
      });
    } finally {
      await new Promise((done) => legacy.close(done));
    }
  });

  it.each([
    [['validate', 'nowhere.yaml']],
    [['validate', '--nonsense']],
    [['validate', 'a', 'b']],
    [['nonsense']],
    [['run', '--lisen', 'x']],
    [['run', '--workers', 'many', '--legacy', 'http://127.0.0.1:1']],
    [['bucket', 'order']],
    [['config', 'dump', '--config', 'nowhere.yaml']],
  ])('answers %j with one clear line and 2', async (args) => {
    const { code, out, err } = await banyan(args);
    expect({ code, out, lines: err.trim().split('\n').length }).toEqual({ code: 2, out: '', lines: 1 });
    expect(err).not.toMatch(/\bat .*\.ts:\d/);
  });
});

describe('run', () => {
  it('prints every fault of its file and ends with 2 before anything starts', async () => {
    const { code, err } = await banyan(['run', '--config', file('bad.yaml', BAD)]);
    expect(code).toBe(2);
    expect(err.match(/^.*bad\.yaml:\d+:\d+: /gm)).toHaveLength(3);
  });

  it('blames the flag for a bad value', async () => {
    const { code, err } = await banyan(['run', '--legacy', 'nonsense', '--listen', '8080']);
    expect(code).toBe(2);
    expect(err).toContain('command line: legacy.url: "nonsense" does not fit');
    expect(err).toContain('command line: listen: "8080" does not fit');
  });
});

describe('dev', () => {
  it('refuses a bad file before it starts a part', async () => {
    const { code, err } = await banyan(['dev', '--config', file('bad.yaml', BAD)]);
    expect(code).toBe(2);
    expect(err).toContain('bad.yaml:2:1: listn');
  });

  it('hands its flags to the stack and ends with its code', async () => {
    const { code, err } = await banyan(['dev', '--only', 'nonsense']);
    expect(code).toBe(2);
    expect(err).toContain('nonsense');
  });
});

describe('config', () => {
  it('prints a draft-07 schema', async () => {
    const { code, out, err } = await banyan(['config', 'schema']);
    expect({ code, err }).toEqual({ code: 0, err: '' });
    expect(JSON.parse(out)).toMatchObject({
      $schema: 'http://json-schema.org/draft-07/schema#',
      properties: { drain: { default: '30s' } },
      additionalProperties: false,
    });
  });

  it('dumps what a file means, without its secrets', async () => {
    const { code, out } = await banyan(['config', 'dump', '--config', file('shop.yaml', SHOP), '--json'], { CI_TOKEN: 'hunter3' });
    expect(code).toBe(0);
    expect(JSON.parse(out)).toMatchObject({
      drain: 30_000,
      contexts: { order: { share: 8_000 } },
      admin: { tokens: [{ name: 'ci', token: '***' }] },
    });
    expect(out).not.toContain('hunter');
  });
});

describe('bucket', () => {
  it.each([
    ['user-1', 7_271, 'extracted'],
    ['u1', 9_086, 'legacy'],
    ['ü', 3_355, 'extracted'],
    ['😀', 1_333, 'extracted'],
  ])('places %s from the file alone', async (key, bucket, upstream) => {
    const { code, out } = await banyan(['bucket', 'order', key, '--config', file('shop.yaml', SHOP)]);
    expect(code).toBe(0);
    expect(JSON.parse(out)).toEqual({ context: 'order', key, bucket, upstream, reason: 'SPLIT' });
  });

  it('supposes another stage or share', async () => {
    const path = file('shop.yaml', SHOP);
    expect(JSON.parse((await banyan(['bucket', 'order', 'user-1', '--config', path, '--percent', '72.71'])).out)).toMatchObject({
      upstream: 'legacy',
    });
    expect(JSON.parse((await banyan(['bucket', 'order', 'user-1', '--config', path, '--percent', '72.72'])).out)).toMatchObject({
      upstream: 'extracted',
    });
    expect(JSON.parse((await banyan(['bucket', 'order', 'u1', '--config', path, '--stage', 'cutover'])).out)).toMatchObject({
      upstream: 'extracted',
      reason: 'STAGE',
    });
  });

  it('knows no context that the file does not name', async () => {
    const { code, err } = await banyan(['bucket', 'constructor', 'u1', '--config', file('shop.yaml', SHOP)]);
    expect(code).toBe(2);
    expect(err).toContain('it has order');
  });
});

describe('commands that ask a gateway', () => {
  let server: Server;
  let url: string;
  const seen: { method: string | undefined; url: string | undefined; authorization: string | undefined }[] = [];
  const answers: Record<string, { status: number; body: string }> = {
    'GET /api/v1/contexts/order': {
      status: 200,
      body: JSON.stringify({ name: 'order', group: null, stage: 'canary', percent: 80, killed: false }),
    },
    'GET /api/v1/contexts/killed': {
      status: 200,
      body: JSON.stringify({ name: 'killed', group: 'order', stage: 'cutover', percent: 100, killed: true }),
    },
    'GET /api/v1/contexts/odd': { status: 200, body: '[]' },
    'GET /api/v1/contexts/html': { status: 200, body: '<html>' },
    'POST /api/v1/config/reload': {
      status: 409,
      body: JSON.stringify({ title: 'Conflict', detail: 'order is past shadow and its route would narrow' }),
    },
    'GET /api/v1/contexts/secret': { status: 401, body: JSON.stringify({ detail: 'who asks?' }) },
  };
  beforeAll(async () => {
    server = createServer((request, response) => {
      seen.push({ method: request.method, url: request.url, authorization: request.headers.authorization });
      const answer = answers[`${request.method} ${request.url}`] ?? {
        status: 404,
        body: JSON.stringify({ detail: 'there is no such context' }),
      };
      response.writeHead(answer.status, { 'content-type': 'application/json' }).end(answer.body);
    });
    await new Promise<void>((done) => server.listen(0, '127.0.0.1', done));
    url = `http://127.0.0.1:${(server.address() as AddressInfo).port}`;
  });
  afterAll(async () => {
    server.closeAllConnections();
    await new Promise((done) => server.close(done));
  });

  it('place a key as the gateway stands, with the token from the environment', async () => {
    const { code, out } = await banyan(['bucket', 'order', 'user-1', '--admin', url], { BANYAN_ADMIN_TOKEN: 'hush' });
    expect(code).toBe(0);
    expect(JSON.parse(out)).toEqual({ context: 'order', key: 'user-1', bucket: 7_271, upstream: 'extracted', reason: 'SPLIT' });
    expect(seen.at(-1)?.authorization).toBe('Bearer hush');
  });

  it('use the salt of the group and see the kill', async () => {
    const { out } = await banyan(['bucket', 'killed', 'user-1', '--admin', url, '--token-file', file('token', 'from-file\n')]);
    expect(JSON.parse(out)).toEqual({ context: 'killed', key: 'user-1', bucket: 7_271, upstream: 'legacy', reason: 'KILLED' });
    expect(seen.at(-1)?.authorization).toBe('Bearer from-file');
  });

  it.each([
    [['config', 'reload'], 1, 'order is past shadow and its route would narrow'],
    [['bucket', 'nope', 'x'], 2, 'there is no such context'],
    [['bucket', 'secret', 'x'], 2, 'who asks?'],
    [['bucket', 'odd', 'x'], 2, 'not with a context'],
    [['bucket', 'html', 'x'], 2, 'not as Banyan'],
  ])('%j end with %i', async (args, code, message) => {
    const ended = await banyan([...args, '--admin', url]);
    expect(ended).toMatchObject({ code, out: '' });
    expect(ended.err).toContain(message);
    expect(ended.err.trim().split('\n')).toHaveLength(1);
  });

  it('end with 2 and one line when nobody is there', async () => {
    const gone = createServer();
    await new Promise<void>((done) => gone.listen(0, '127.0.0.1', done));
    const { port } = gone.address() as AddressInfo;
    await new Promise((done) => gone.close(done));
    const { code, err } = await banyan(['config', 'reload', '--admin', `http://127.0.0.1:${port}`]);
    expect(code).toBe(2);
    expect(err.trim().split('\n')).toEqual([expect.stringContaining('ECONNREFUSED')]);
  });

  it('show what a refused reload found', async () => {
    const before = answers['POST /api/v1/config/reload'];
    answers['POST /api/v1/config/reload'] = {
      status: 200,
      body: JSON.stringify({ ok: false, faults: ['banyan.yaml:3:8: drain: …'], warnings: [] }),
    };
    const { code, out, err } = await banyan(['config', 'reload', '--admin', url]);
    if (before !== undefined) answers['POST /api/v1/config/reload'] = before;
    expect({ code, out }).toEqual({ code: 1, out: '' });
    expect(err).toContain('banyan.yaml:3:8: drain');
    expect(err).toContain('the configuration before stays');
  });

  it('compare the file with what runs', async () => {
    const path = file('shop.yaml', SHOP);
    const dumped: unknown = JSON.parse((await banyan(['config', 'dump', '--config', path, '--json'])).out);
    answers['GET /api/v1/config'] = { status: 200, body: JSON.stringify({ config: dumped }) };
    expect(await banyan(['config', 'diff', '--config', path, '--admin', url])).toMatchObject({ code: 0, out: '' });
    const changed = await banyan([
      'config',
      'diff',
      '--config',
      file('changed.yaml', SHOP.replace('80%', '90%')),
      '--admin',
      url,
      '--json',
    ]);
    expect(changed.code).toBe(1);
    expect(JSON.parse(changed.out)).toEqual({ same: false, changes: [{ path: 'contexts.order.share', running: 8_000, file: 9_000 }] });
  });
});

it('a reader that leaves early is no failure', async () => {
  const child = spawn(process.execPath, [MAIN, 'config', 'schema'], { cwd: folder });
  child.stdout.destroy();
  let err = '';
  child.stderr.setEncoding('utf8').on('data', (text: string) => {
    err += text;
  });
  const code = await new Promise<number | null>((done) => child.once('close', done));
  expect({ code, err }).toEqual({ code: 0, err: '' });
});
