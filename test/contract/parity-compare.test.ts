import { mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { brotliCompressSync, deflateRawSync, deflateSync, gzipSync, zstdCompressSync } from 'node:zlib';
import { afterAll, describe, expect, it } from '@jest/globals';
import { runParityCompare } from '../../gateway/cli/parity-compare.ts';
import { decodeObservation } from '../../gateway/parity/decode.ts';

const folder = mkdtempSync(join(tmpdir(), 'banyan-compare-'));
afterAll(() => rmSync(folder, { recursive: true }));

let files = 0;
const file = (content: string | Buffer, name: string): string => {
  const path = join(folder, `${files++}-${name}`);
  writeFileSync(path, content);
  return path;
};
const json = (content: string): string => file(content, 'body.json');
const raw = (head: string[], body: string | Buffer = ''): string =>
  file(Buffer.concat([Buffer.from(`${head.join('\r\n')}\r\n\r\n`), Buffer.from(body)]), 'answer.http');
const chunked = (body: Buffer): Buffer =>
  Buffer.concat([
    Buffer.from('3\r\n'),
    body.subarray(0, 3),
    Buffer.from(`\r\n${(body.length - 3).toString(16)};x=y\r\n`),
    body.subarray(3),
    Buffer.from('\r\n0\r\n\r\n'),
  ]);

type Ran = { code: number; out: string; err: string };
const run = async (a: string, b: string, options: { rules?: string; json?: boolean } = { json: true }): Promise<Ran> => {
  const ran: Ran = { code: -1, out: '', err: '' };
  await runParityCompare(a, b, options, {
    out: (text) => {
      ran.out += text;
    },
    err: (text) => {
      ran.err += text;
    },
    exit: (code) => {
      ran.code = code;
    },
    now: () => Date.parse('2026-06-01'),
  });
  return ran;
};

describe('banyan parity compare', () => {
  it('matches chunked gzip and brotli with other member orders', async () => {
    const type = 'Content-Type: application/json';
    const a = raw(
      ['HTTP/1.1 100 Continue', '', 'HTTP/1.1 200 OK', type, 'Content-Encoding: gzip', 'Transfer-Encoding: chunked'],
      chunked(gzipSync('{"a":1,"b":2}')),
    );
    const b = raw(['HTTP/1.1 200 Fine', type, 'content-encoding: br'], brotliCompressSync('{"b":2,"a":1.0}'));
    expect(await run(a, b)).toEqual({ code: 0, out: '{"verdict":"match","differences":[],"noise":[],"why":null}\n', err: '' });
  });
  it('prints four keys, raw tokens, and exits 1 on a mismatch', async () => {
    expect(await run(json('{"total":10.00}'), json('{"total":9.99}'))).toEqual({
      code: 1,
      out: '{"verdict":"mismatch","differences":[{"path":"$.total","kind":"value","legacy":10.00,"extracted":9.99}],"noise":[],"why":null}\n',
      err: '',
    });
  });
  it('applies rules from YAML, and warns of expired ones', async () => {
    const rules = file(
      'ignore:\n  - { at: $.a, because: clock, until: 2027-03-01 }\n  - { at: $.b, because: old, until: 2020-01-01 }\nsample: 10%\n',
      'rules.yaml',
    );
    const noise = await run(json('{"a":1}'), json('{"a":2}'), { rules, json: true });
    expect(noise.code).toBe(0);
    expect(JSON.parse(noise.out)).toEqual({
      verdict: 'noise',
      differences: [],
      noise: [{ path: '$.a', kind: 'value', legacy: 1, extracted: 2, rule: 'ignore $.a: clock' }],
      why: null,
    });
    expect(noise.err).toContain('$.b');
    expect((await run(json('{"b":1}'), json('{"b":2}'), { rules, json: true })).code).toBe(1);
  });
  it('is incomparable when an answer is cut off', async () => {
    const whole = raw(['HTTP/1.1 200 OK', 'Content-Length: 2'], '{}');
    for (const cut of [
      raw(['HTTP/1.1 200 OK', 'Content-Length: 5'], '{}'),
      raw(['HTTP/1.1 200 OK', 'Transfer-Encoding: chunked'], '5\r\n{}'),
    ]) {
      const ran = await run(whole, cut);
      expect(ran.code).toBe(1);
      expect(JSON.parse(ran.out)).toMatchObject({ verdict: 'incomparable', why: 'truncated' });
    }
  });
  it('prints lines for people', async () => {
    expect((await run(json('[1]'), json('[1,2]'), {})).out).toBe('mismatch\n- $[1] extra extracted 2\n');
  });
  it.each([
    ['no such file', () => [join(folder, 'absent.http'), json('1')]],
    ['is a folder', () => [folder, json('1')]],
    ['status line', () => [file('hello\n\nworld', 'x.http'), json('1')]],
    ['empty line', () => [file('', 'x.http'), json('1')]],
    ['chunk size', () => [raw(['HTTP/1.1 200 OK', 'Transfer-Encoding: chunked'], 'zz\r\n'), json('1')]],
    ['ignore[0].at', () => [json('1'), json('1'), file('ignore: [ { at: nonsense, because: x } ]', 'r.yaml')]],
    ['ignroe', () => [json('1'), json('1'), file('{"ignroe":[]}', 'r.json')]],
    ['r.yaml', () => [json('1'), json('1'), file('a: [', 'r.yaml')]],
  ])('exits 2 with one clear line: %s', async (said, make) => {
    const [a = '', b = '', rules] = make();
    const ran = await run(a, b, { json: true, ...(rules === undefined ? {} : { rules }) });
    expect(ran).toMatchObject({ code: 2, out: '' });
    expect(ran.err).toContain(said);
  });
});

describe('content codings', () => {
  const observed = (body: Buffer, coding: string) => ({
    status: 200,
    headers: [['Content-Encoding', coding]] as const,
    body,
    complete: true,
  });
  const text = Buffer.from('hello '.repeat(100));
  it.each([
    ['gzip', gzipSync(text)],
    ['x-gzip', gzipSync(text)],
    ['deflate', deflateSync(text)],
    ['deflate', deflateRawSync(text)],
    ['br', brotliCompressSync(text)],
    ['zstd', zstdCompressSync(text)],
    ['gzip, br', brotliCompressSync(gzipSync(text))],
    ['identity', text],
  ])('takes off %s', async (coding, body) => {
    expect(Buffer.from((await decodeObservation(observed(body, coding), 10_000)).body!)).toEqual(text);
  });
  it('stops a bomb at the limit and keeps its digest', async () => {
    const bomb = gzipSync(Buffer.alloc(50 * 1024 * 1024));
    const decoded = await decodeObservation(observed(bomb, 'gzip'), 1024 * 1024);
    expect(decoded).toMatchObject({ body: null, digest: expect.stringMatching(/^[0-9a-f]{64}$/) as unknown });
  });
  it.each([
    ['gzip', 'not gzip'],
    ['rot13', 'unknown content coding "rot13"'],
    ['gzip,gzip,gzip,gzip', 'more than 3 content codings'],
  ])('marks what does not decode: %s', async (coding, fault) => {
    expect((await decodeObservation(observed(Buffer.from('x'), coding), 100)).encodingFault).toBe(fault);
  });
});
