import type { Draft } from './draft.ts';
import type { Random } from './random.ts';
import { anyMessage, CODINGS, EOLS, LENGTHS, put, type Trick } from './tricks.ts';

/** Nobody asked for it. Whoever gets it was handed bytes that belong to no exchange. */
export const POISON = 'HTTP/1.1 200 OK\r\nX-Mark: poison\r\nContent-Length: 6\r\n\r\npoison';
const INTERIM = [
  'HTTP/1.1 100 Continue\r\n\r\n', 'HTTP/1.1 102 Processing\r\n\r\n', 'HTTP/1.1 103 Early Hints\r\nLink: </a>; rel=preload\r\n\r\n', 'HTTP/1.1 199 X\r\nConnection: close\r\n\r\n',
  'HTTP/1.0 100 Continue\r\n\r\n', 'HTTP/1.1 103 \r\nContent-Length: 5\r\n\r\n', 'HTTP/1.1 103 \r\nTransfer-Encoding: chunked\r\n\r\n', 'HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n',
  'HTTP/1.1 103 \r\nX: \0\r\n\r\n', 'HTTP/1.1 100\r\n\r\n', 'HTTP/1.1 103 Early\nX: 1\n\n', 'HTTP/1.1 103 \r\n X: 1\r\n\r\n',
]; // biome-ignore format: a list to be read at a glance

/** A response is a draft with the version in place of the method, the status in that of the target, the reason in that of the version. */
const responseOnly: readonly Trick[] = [
  (d, r) => { d.method = r.pick(['HTTP/1.0', 'HTTP/1.0', 'HTTP/0.9', 'HTTP/2.0', 'HTTP/1.2', 'http/1.1', 'HTTP/1', 'HTTP/11', 'ICY', 'HTTP/1.1\0', '', ' HTTP/1.1', 'HTTPS/1.1', 'HTTP/01.1']); },
  (d, r) => { d.target = r.pick(['000', '099', '600', '999', '1000', '20', '2OO', '', '+200', '0200', '101', '100', '204', '205', '304', '-200', '200.0', '2\x000', '404', '500', '503']); },
  (d, r) => { d.gap = r.pick(['  ', '\t', '', ' \t', '\0', '\r']); },
  (d, r) => { d.version = r.pick(['', ' ', ' O\xe9', ' \xff\xfe', ' O\0K', ' O\rK', '\tOK', ' OK\x7f', ` ${'k'.repeat(5_000)}`, ' \t', ' HTTP/1.1', '  OK']); },
  (d, r) => { d.eol = r.pick(EOLS); },
  (d, r) => { d.before = r.pick(['\r\n', '\n', '\r', ' ', '\0', 'x', '\x15\x03\x01\0\x02\x02', 'SSH-2.0-x\r\n', '\xef\xbb\xbf', '<html></html>', '\r\n\r\n']); },
  (d, r) => { for (let n = 1 + r.below(3); n > 0; n--) d.before += r.pick(INTERIM); },
  (d, r) => { d.before = 'HTTP/1.1 102 Processing\r\n\r\n'.repeat(r.pick([20, 300])); },
  (d, r) => { put(d, r, 'Content-Length', r.pick([...LENGTHS, '0', '5', '9', '1000'])); },
  (d, r) => { for (const f of d.fields) if (f.name === 'Content-Length') f.value = r.chance(0.5) ? r.pick(LENGTHS) : String(Math.max(0, Number(f.value) + r.pick([-1, 1, -3, 100]))); },
  (d, r) => { put(d, r, 'Transfer-Encoding', r.pick([...CODINGS, 'chunked'])); },
  (d) => { for (const f of [...d.fields]) if (f.name === 'Content-Length' || f.name === 'Transfer-Encoding') d.fields.splice(d.fields.indexOf(f), 1); },
  (d, r) => { d.target = r.pick(['204', '304', '205', '199']); d.body += r.pick(['', 'x', POISON]); },
  (d, r) => { d.body += r.pick(['x', '\r\n', '0\r\n\r\n', POISON, '\0', POISON.slice(0, 30)]); },
  (d, r) => { d.body = d.body.slice(0, r.below(d.body.length + 1)); },
  (d, r) => { put(d, r, 'Connection', r.pick(['close', 'keep-alive', 'Upgrade', 'x-mark', 'content-length', 'transfer-encoding', 'close, x'])); },
  (d, r) => { d.method = 'HTTP/1.0'; put(d, r, 'Connection', 'keep-alive'); },
  (d, r) => { put(d, r, 'Trailer', 'X-T'); },
  (d, r) => { put(d, r, 'Upgrade', r.pick(['h2c', 'websocket'])); },
  (d, r) => { put(d, r, 'X-Huge', 'h'.repeat(r.pick([30_000, 66_000, 200_000]))); },
]; // biome-ignore format: one trick a line

const all: readonly Trick[] = [...responseOnly, ...responseOnly, ...anyMessage];

export const bendResponse = (draft: Draft, r: Random): void => r.pick(all)(draft, r);
