import { mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { createServer, type IncomingMessage, type Server, type ServerResponse } from 'node:http';
import type { AddressInfo } from 'node:net';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { gzipSync } from 'node:zlib';
import { afterAll, beforeAll, describe, expect, it } from '@jest/globals';
import { Exit } from '../../gateway/cli/exit.ts';
import { newProgram } from '../../gateway/cli/new-program.ts';
import type { Io } from '../../gateway/cli/output.ts';
import { registerParityReplay } from '../../gateway/cli/parity-replay.ts';
import { parseXml } from '../../gateway/core/parity/xml.ts';
import type { ReplayDocument } from '../../gateway/parity/replay/summary.ts';

const folder = mkdtempSync(join(tmpdir(), 'banyan-replay-'));
let files = 0;
const file = (name: string, content = ''): string => {
  const path = join(folder, `${files++}-${name}`);
  writeFileSync(path, content);
  return path;
};

type Seen = { method: string; url: string; headers: IncomingMessage['headers'] };
type Side = { server: Server; url: string; seen: Seen[] };
const serve = async (answer: (req: IncomingMessage, res: ServerResponse, times: number) => void): Promise<Side> => {
  const seen: Seen[] = [];
  const server = createServer((req, res) => {
    req.resume();
    req.on('end', () => {
      seen.push({ method: req.method!, url: req.url!, headers: req.headers });
      answer(req, res, seen.filter(({ url }) => url === req.url).length);
    });
  });
  await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve));
  return { server, url: `http://127.0.0.1:${(server.address() as AddressInfo).port}`, seen };
};
const json = (res: ServerResponse, value: unknown, status = 200): void =>
  void res.writeHead(status, { 'content-type': 'application/json' }).end(typeof value === 'string' ? value : JSON.stringify(value));

let legacy: Side;
let extracted: Side;
beforeAll(async () => {
  const secret = 'pass-word-0001';
  legacy = await serve((req, res, times) => {
    const path = req.url!.split('?')[0]!;
    if (req.method === 'POST' && path === '/carts') json(res, { id: 501 }, 201);
    else if (path.startsWith('/carts/')) json(res, { id: Number(path.slice(7)), n: 1 }, path === '/carts/501' ? 200 : 404);
    else if (path === '/clock') json(res, { at: new Date(1_760_000_000_000 + times * 1_000).toISOString(), id: 1 });
    else if (path === '/lag') json(res, { n: 1 });
    else if (path === '/private') json(res, {}, 401);
    else if (path === '/big') json(res, '{"n":9007199254740993,"a":1,"a":2}');
    else if (path === '/zip')
      res.writeHead(200, { 'content-type': 'application/json', 'content-encoding': 'gzip' }).end(gzipSync('{"a":1,"b":2}'));
    else json(res, { path, total: 10, password: secret });
  });
  extracted = await serve((req, res, times) => {
    const path = req.url!.split('?')[0]!;
    if (req.method === 'POST' && path === '/carts') json(res, { id: 90_210 }, 201);
    else if (path.startsWith('/carts/')) json(res, { id: Number(path.slice(7)), n: 1 }, path === '/carts/90210' ? 200 : 404);
    else if (path === '/clock') json(res, { id: 1, at: new Date(1_770_000_000_000 + times * 7_000).toISOString() });
    else if (path === '/lag') json(res, { n: times === 1 ? 0 : 1 });
    else if (path === '/private') json(res, {}, 401);
    else if (path === '/big') json(res, '{"n":9007199254740993,"a":2}');
    else if (path === '/zip') json(res, '{"b":2,"a":1.0}');
    else if (path === '/reset') res.destroy();
    else json(res, { password: secret, total: path.endsWith('/7') ? 11 : 10, path });
  });
});
afterAll(() => {
  for (const side of [legacy, extracted]) {
    side.server.closeAllConnections();
    side.server.close();
  }
  rmSync(folder, { recursive: true });
});

type Ran = { code: number; out: string; err: string };
const run = async (...args: string[]): Promise<Ran> => {
  const ran: Ran = { code: 0, out: '', err: '' };
  const io: Io = {
    out: (text) => {
      ran.out += `${text}\n`;
    },
    err: (text) => {
      ran.err += `${text}\n`;
    },
    color: false,
    interactive: false,
  };
  const program = newProgram(io);
  registerParityReplay(program, io);
  try {
    await program.parseAsync(['parity', ...args], { from: 'user' });
  } catch (error) {
    ran.code = error instanceof Exit ? error.code : 2;
    ran.err += `${(error as Error).message}\n`;
  }
  return ran;
};
const replay = (requests: string, ...more: string[]): Promise<Ran> =>
  run('replay', '--requests', requests, '--legacy', legacy.url, '--extracted', extracted.url, ...more);
const lines = (...targets: string[]): string => targets.map((target) => JSON.stringify({ method: 'GET', target })).join('\n');

describe('banyan parity replay', () => {
  it('sends the queries of a capture once to both sides, and says match', async () => {
    legacy.seen.length = extracted.seen.length = 0;
    const capture = file(
      'capture.jsonl',
      `${lines('/orders/1', '/orders/2?a=b', '/zip')}\n${JSON.stringify({ method: 'POST', target: '/orders', body: '{}' })}\nnonsense\n`,
    );
    const ran = await replay(capture, '--json', '--header', 'X-Shop: 1');
    const document = JSON.parse(ran.out) as ReplayDocument;
    expect(ran.code).toBe(0);
    expect(ran.err).toContain('line 5');
    expect(document).toMatchObject({ verdict: 'match', requests: 3, match: 3, skipped: { commands: 1, unreadable: 1 } });
    expect(document.byRoute.map(({ route, requests }) => [route, requests])).toEqual([
      ['GET /orders/:id', 2],
      ['GET /zip', 1],
    ]);
    for (const side of [legacy, extracted]) {
      expect(side.seen.map(({ method, url }) => `${method} ${url}`).sort()).toEqual(['GET /orders/1', 'GET /orders/2?a=b', 'GET /zip']);
      expect(side.seen[0]!.headers).toMatchObject({ 'x-shop': '1', 'banyan-shadow': '1', host: new URL(side.url).host });
    }
  });

  it('asks again: confirms a difference, excuses a clock, and calls lagging what does not show again', async () => {
    const ran = await replay(file('urls.txt', `/orders/7\nGET ${legacy.url}/clock\n/lag\n/reset\n`), '--json');
    const document = JSON.parse(ran.out) as ReplayDocument;
    expect(ran.code).toBe(1);
    expect(document).toMatchObject({ verdict: 'mismatch', mismatch: 1, noise: 1, incomparable: 2 });
    expect(document.pairs.map(({ target, verdict, confirmed, why }) => [target, verdict, confirmed, why])).toEqual([
      ['/orders/7', 'mismatch', true, null],
      ['/lag', 'incomparable', false, 'lagging'],
      ['/reset', 'incomparable', false, 'reset'],
    ]);
    expect(document.pairs[0]!.differences).toEqual([{ path: '$.total', kind: 'value', legacy: 10, extracted: 11 }]);
    expect(document.byField).toContainEqual({ field: '$.at', kind: 'value', rule: 'probe', count: 1 });
  });

  it('writes a report as HTML that needs nothing else, and as JUnit, without secrets', async () => {
    const har = file(
      'x.har',
      JSON.stringify({
        log: {
          entries: ['/orders/7?token=query-secret-1', '/orders/8'].map((path) => ({
            request: {
              method: 'GET',
              url: `https://shop.example${path}`,
              headers: [{ name: 'Authorization', value: 'Bearer bearer-secret-1' }],
            },
          })),
        },
      }),
    );
    const [html, xml, store] = [file('report.html'), file('report.xml'), file('pairs.jsonl')];
    expect((await replay(har, '--out', html, '--store', store)).code).toBe(1);
    expect((await replay(har, '--out', xml)).code).toBe(1);
    const [page, junit] = [readFileSync(html, 'utf8'), readFileSync(xml, 'utf8')];
    expect(page).toContain('$.total');
    expect(page).not.toMatch(/<script|<link|src=/);
    expect(parseXml(junit)).toMatchObject({ ok: true });
    expect(junit).toContain('<testsuites tests="1" failures="1" skipped="0">');
    expect(junit).toContain('-H &#39;Authorization: &#39;&quot;$AUTHORIZATION&quot;');
    for (const text of [page, junit, readFileSync(store, 'utf8')])
      expect(text).not.toMatch(/pass-word-0001|query-secret-1|bearer-secret-1/);
  });

  it('says incomparable when both sides refuse, and when there is nothing to ask', async () => {
    const refused = await replay(file('log.txt', '127.0.0.1 - - [28/Nov/2026:12:00:00 +0000] "GET /private HTTP/1.1" 200 12 "-" "curl"\n'));
    expect(refused.code).toBe(1);
    expect(refused.out).toMatch(/^incomparable: 1 of 1 requests were refused/);
    expect((await replay(file('log.txt', '"POST /orders HTTP/1.1" 201\n'))).out).toMatch(/^incomparable: nothing/);
  });

  it('goes on where it has stopped', async () => {
    const store = file('pairs.jsonl');
    await replay(file('a.jsonl', lines('/orders/1', '/orders/2')), '--store', store);
    writeFileSync(store, `${readFileSync(store, 'utf8')}{"index":2,"cut`);
    legacy.seen.length = 0;
    const ran = await replay(file('b.jsonl', lines('/orders/1', '/orders/2', '/orders/3')), '--store', store, '--resume', '--json');
    expect(JSON.parse(ran.out)).toMatchObject({ verdict: 'match', requests: 3 });
    expect(legacy.seen.map(({ url }) => url)).toEqual(['/orders/3']);
  });

  it('sends commands to loopback only, each once, with a key of its own', async () => {
    const capture = file(
      'c.jsonl',
      JSON.stringify({ method: 'post', url: 'http://x/orders', headers: { 'Content-Type': 'application/json' }, body: '{"a":1}' }),
    );
    const refused = await run(
      'replay',
      '--requests',
      capture,
      '--legacy',
      'http://10.0.0.1',
      '--extracted',
      extracted.url,
      '--include-commands',
    );
    expect(refused).toMatchObject({ code: 2, err: expect.stringContaining('loopback') as unknown });
    legacy.seen.length = extracted.seen.length = 0;
    expect((await replay(capture, '--include-commands')).code).toBe(0);
    for (const side of [legacy, extracted]) {
      expect(side.seen.map(({ method }) => method)).toEqual(['POST']);
      expect(side.seen[0]!.headers).toMatchObject({ 'content-length': '7', 'content-type': 'application/json' });
      expect(side.seen[0]!.headers['banyan-shadow']).toBeUndefined();
    }
    expect(legacy.seen[0]!.headers['idempotency-key']).toBe(extracted.seen[0]!.headers['idempotency-key']);
  });

  it('asks each side about the ids that it has minted itself, and takes them for the same', async () => {
    const capture = file('d.jsonl', `${JSON.stringify({ method: 'POST', target: '/carts' })}\n${lines('/carts/501')}`);
    legacy.seen.length = extracted.seen.length = 0;
    const document = JSON.parse((await replay(capture, '--include-commands', '--json')).out) as ReplayDocument;
    expect(document).toMatchObject({ verdict: 'match', noise: 2, byField: [{ field: '$.id', rule: 'alias', count: 2 }] });
    expect(legacy.seen.map(({ url }) => url)).toEqual(['/carts', '/carts/501']);
    expect(extracted.seen.map(({ url }) => url)).toEqual(['/carts', '/carts/90210']);
  });

  it('judges what it kept anew: alike under the same rules, otherwise under others', async () => {
    const store = file('pairs.jsonl');
    const targets = [...Array.from({ length: 500 }, (_, i) => `/orders/${i}`), '/clock', '/lag', '/big', '/zip'];
    const live = JSON.parse((await replay(file('a.jsonl', lines(...targets)), '--store', store, '--json')).out) as ReplayDocument;
    const again = JSON.parse((await run('rejudge', store, '--json')).out) as ReplayDocument;
    const verdicts = ({ match, noise, mismatch, incomparable, pairs }: ReplayDocument) => ({
      counts: [match, noise, mismatch, incomparable],
      pairs: pairs.map(({ target, verdict, differences }) => [target, verdict, differences]),
    });
    expect(verdicts(live).counts).toEqual([500, 1, 2, 1]);
    expect(verdicts(again)).toEqual(verdicts(live));
    const rules = file(
      'rules.yaml',
      'ignore:\n  - { at: $.total, because: known }\n  - { at: $.a, because: repeats, until: 2020-01-01 }\n',
    );
    const other = await run('rejudge', store, '--json', '--rules', rules);
    expect(other.err).toContain('rule for $.a expired');
    expect(verdicts(JSON.parse(other.out) as ReplayDocument).counts).toEqual([500, 2, 1, 1]);
  });

  it.each([
    [['replay', '--requests', 'x', '--legacy', 'ftp://x', '--extracted', 'http://x'], 'http://HOST'],
    [['replay', '--requests', '/nowhere.har', '--legacy', 'http://127.0.0.1:1', '--extracted', 'http://127.0.0.1:1'], 'no such file'],
    [['replay', '--requests', 'x', '--legacy', 'http://x', '--extracted', 'http://x', '--header', 'nonsense'], 'NAME: VALUE'],
    [['replay', '--requests', 'x', '--legacy', 'http://x', '--extracted', 'http://x', '--resume'], '--store'],
    [['rejudge', '/nowhere.jsonl'], 'no such file'],
  ])('refuses %j', async (args, why) => {
    expect(await run(...args)).toMatchObject({ code: 2, err: expect.stringContaining(why) as unknown });
  });
});
