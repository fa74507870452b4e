import { type Draft, type DraftField, field } from './draft.ts';
import type { Random } from './random.ts';

/** Bends one message in one way that some reader, somewhere, has taken for something else. */
export type Trick = (draft: Draft, r: Random) => void;

const anyField = (draft: Draft, r: Random): DraftField => {
  if (draft.fields.length === 0) draft.fields.push(field('X-Only', '1'));
  return r.pick(draft.fields);
};
export const put = (draft: Draft, r: Random, name: string, value: string): void => {
  draft.fields.splice(r.below(draft.fields.length + 1), 0, field(name, value));
};
export const EOLS = ['\n', '\r', '\r\r\n', '\n\r', '\r\n\r', '\n\n', '', '\r\n ', ' \r\n', '\x0b\r\n', '\0\r\n', '\x85\r\n'];
const CONTROLS = ['\0', '\x01', '\x08', '\x0b', '\x0c', '\x1f', '\x7f', '\r', '\n', '\t', ' ', '\x80', '\xa0', '\xff'];
export const LENGTHS = [
  '+5',
  '-5',
  '-0',
  '5,5',
  '5, 6',
  '0x5',
  '5 5',
  '05',
  ' 5',
  '5\t',
  '1e1',
  '5.0',
  '',
  '9'.repeat(20),
  '18446744073709551616',
  '5;',
  '\x0b5',
  '"5"',
];
export const CODINGS = [
  'chunked, chunked', 'gzip, chunked', 'chunked, gzip', 'identity', 'chunked, identity', 'xchunked', 'chunked;q=1', '"chunked"', 'chunked,', ', chunked',
  'chunked\t', '\x0bchunked', 'chun ked', 'CHUNKED', 'cow', '', 'chunked\0', 'chunke\xe4', 'chunked\r\n ', ' chunked',
]; // biome-ignore format: a list to be read at a glance
const SIZES = [
  '0x3',
  '+3',
  '-1',
  '3 ',
  ' 3',
  '3\t',
  'g',
  '',
  '00000000000000000003',
  '10000000000000003',
  'ffffffffffffffff',
  '3;',
  '3;=',
  '3;a="',
  '3;a="\r"',
  '3;a=b c',
  '3,',
  '3\0',
  '\xb3',
];
const SMUGGLED = 'GET /smuggled/x HTTP/1.1\r\nHost: shop.test\r\n\r\n';

const requestLine: readonly Trick[] = [
  (d, r) => { d.method = r.pick(['get', 'G=T', 'FOO', '', 'GE T', 'GET\t', '\0GET', 'G\xcbT', 'POST/', 'CONNECT', 'PRI', 'BREW', 'A'.repeat(100), '"GET"', 'GET:']); },
  (d, r) => { d.gap = r.pick(['  ', '\t', '', ' \t', '\x0b', '\r', '\xa0']); },
  (d, r) => { d.version = r.pick(['', ' HTTP/1.2', ' HTTP/1.9', ' HTTP/2.0', ' HTTP/0.9', ' HTTP/9.9', ' http/1.1', ' HTTP/1.1 ', '  HTTP/1.1', ' HTTP/1', ' HTTP/01.1', ' HTTP/1.10', ' HTTP/1,1', '\tHTTP/1.1', ' HTTPS/1.1', ' ICE/1.0', ' HTTP/1.1\0', ' HTTP/ 1.1', ' HTTP/11']); },
  (d, r) => { d.target = r.pick([
    '*', '', 'f', '?x', '#', '/#frag', '/a#b', 'http://', 'http:///x', 'http://user@h/x', 'ftp://h/x', 'http:/x', '//', 'shop.test:80', 'http://[::1/x', 'http://a b/', 'http://h?q', 'http://h',
    '/\0', '/\x7f', '/\xe4', '/a b', '/\t', '/%', '/\\', 'http://:80/', 'HTTP://h:x/', `/${'a'.repeat(300)}`, 'http://h,i/', 'http://%/x', '/\r', '/\n',
  ]); },
  (d, r) => { d.eol = r.pick(EOLS); },
  (d, r) => { d.before = r.pick(['\r\n', '\n', '\r', '\r\n\r\n', ' ', '\t', '\0', '\x16\x03\x01', 'PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n', '\xef\xbb\xbf', '\n\n\n', 'x']); },
]; // biome-ignore format: one trick a line

/** Fields and framing, of requests and responses alike. */
export const anyMessage: readonly Trick[] = [
  (d, r) => { anyField(d, r).eol = r.pick(EOLS); },
  (d, r) => { anyField(d, r).colon = r.pick([':', ' : ', ' :', '\t:', ':\t', '', ' ', '::', ':\r\n ', ':\n', '\0:', '\x0b:', '=', ': \r\n\t']); },
  (d, r) => { const f = anyField(d, r); const at = r.below(f.value.length + 1); f.value = f.value.slice(0, at) + r.pick(CONTROLS) + f.value.slice(at); },
  (d, r) => { const f = anyField(d, r); const at = r.below(f.name.length + 1); f.name = f.name.slice(0, at) + r.pick([...CONTROLS, ':', '(', '"', '/', '[', '{', '@', ',']) + f.name.slice(at); },
  (d, r) => { anyField(d, r).name = ''; },
  (d, r) => { const f = anyField(d, r); d.fields.splice(r.below(d.fields.length + 1), 0, { ...f }); },
  (d, r) => { d.fields.splice(r.below(d.fields.length), 1); },
  (d) => { d.fields.unshift({ name: ' X-Folded', colon: ': ', value: '1', eol: '\r\n' }); },
  (d, r) => { d.end = r.pick(['\n', '\r', '', '\r\n\r\n', '\r\r\n', ' \r\n', '\n\r\n', '\0\r\n']); },
  (d, r) => { put(d, r, 'X-Long', 'v'.repeat(r.pick([8_000, 62_000, 70_000, 140_000]))); },
  (d, r) => { for (let i = r.pick([100, 1_000, 2_500]); i > 0; i--) d.fields.push(field(`X-${i}`, '')); },
  (d, r) => { put(d, r, r.pick(['Content-Length', 'content-length', 'Content_Length', 'Content-Length ', 'Content-Length\0', 'CONTENT-LENGTH']), r.pick([...LENGTHS, '5', '0', '1', '100'])); },
  (d, r) => { for (const f of d.fields) if (f.name.toLowerCase() === 'content-length') f.value = r.chance(0.5) ? r.pick(LENGTHS) : String(Number(f.value) + r.pick([-1, 1, 2, 1_000, 1e9])); },
  (d, r) => { put(d, r, r.pick(['Transfer-Encoding', 'transfer-encoding', 'Transfer_Encoding', 'Transfer-Encoding ', ' Transfer-Encoding', 'Transfer-Encoding\x01', 'Content-Encoding', 'X: x\r\nTransfer-Encoding', 'X: x\nTransfer-Encoding']), r.pick([...CODINGS, 'chunked', 'chunked'])); },
  (d, r) => { for (const f of d.fields) if (f.name.toLowerCase() === 'transfer-encoding') f.value = r.pick(CODINGS); },
  (d, r) => { put(d, r, 'Transfer-Encoding', 'chunked'); put(d, r, 'Content-Length', String(r.below(20))); },
  (d) => { d.version = ' HTTP/1.0'; d.fields.push(field('Transfer-Encoding', 'chunked'), field('Connection', 'keep-alive')); d.body = '0\r\n\r\n'; },
  (d, r) => { put(d, r, 'Transfer-Encoding', 'chunked'); d.body = `${r.pick(SIZES)}\r\nabc\r\n0\r\n\r\n`; },
  (d, r) => { put(d, r, 'Transfer-Encoding', 'chunked'); d.body = `3${r.pick(['\n', '\r', '\r\r\n', '', ';\n', ';a\n', ';a=\n', ';"\r\n"\r\n', ' ;a\r\n', ' ; a = b\r\n'])}abc\r\n0\r\n\r\n`; },
  (d, r) => { put(d, r, 'Transfer-Encoding', 'chunked'); d.body = `3\r\nabc${r.pick(['', '\n', '\r', 'd\r\n', '\r\n\r\n', '  \r\n', '\0\r\n', 'XX'])}0\r\n\r\n`; },
  (d, r) => { put(d, r, 'Transfer-Encoding', 'chunked'); d.body = `3\r\nabc\r\n${r.pick(['0', '00', '0;', '0;a', '-0', '0x0', '', ' 0', '0 '])}${r.pick(['\r\n', '\n', '\r'])}${r.pick(['\r\n', '\n', '', 'X-T: 1\r\n\r\n', 'X-T: 1\n\r\n', 'X-T : 1\r\n\r\n', ' X-T: 1\r\n\r\n', 'X-T\r\n\r\n', ':\r\n\r\n', 'X-T: \0\r\n\r\n', `X-T: ${'t'.repeat(70_000)}\r\n\r\n`])}`; },
  (d, r) => { put(d, r, 'Transfer-Encoding', 'chunked'); d.body = `3;${'e'.repeat(r.pick([100, 5_000, 20_000]))}\r\nabc\r\n0\r\n\r\n`; },
  (d, r) => { put(d, r, 'Transfer-Encoding', 'chunked'); d.body = `${'0'.repeat(r.below(40))}3\r\nabc\r\n0\r\n${r.pick(['Transfer-Encoding: chunked', 'Content-Length: 5', 'Host: evil.test', 'X-Forwarded-For: 1.2.3.4', 'Authorization: x', 'Trailer: x', 'Cookie: x'])}\r\n\r\n`; },
]; // biome-ignore format: one trick a line

const requestFields: readonly Trick[] = [
  (d, r) => { put(d, r, r.pick(['Host', 'hOST', 'Host ', 'Host\t', 'Host\0', ' Host']), r.pick(['shop.test', 'evil.test', ''])); },
  (d, r) => { for (const f of d.fields) if (f.name.toLowerCase() === 'host') f.value = r.pick(['a b', 'a/b', 'a@b', 'a,b', 'a?b', 'a#b', 'a\\b', 'a:b', 'a:', 'a:99999999', '[::1', '::1', 'a%', 'a%41', 'a\xe4', 'http://a', 'a:80:80', '<a>', 'a\tb']); },
  (d) => { for (let i = d.fields.length - 1; i >= 0; i--) if (d.fields[i]!.name.toLowerCase() === 'host') d.fields.splice(i, 1); },
  (d, r) => { put(d, r, 'Connection', r.pick(['close', 'Close', 'keep-alive, close', 'close, x', 'content-length', 'transfer-encoding', 'host, x-forwarded-for', 'connection', ',', 'te', 'upgrade', 'closed', 'close;x', '"close"', 'x'.repeat(300)])); },
  (d, r) => { put(d, r, 'Connection', r.pick(['Upgrade', 'upgrade, HTTP2-Settings', 'keep-alive, Upgrade'])); put(d, r, 'Upgrade', r.pick(['websocket', 'h2c', 'TLS/1.0', 'foo', '', 'h2c, websocket'])); if (r.chance(0.3)) put(d, r, 'HTTP2-Settings', 'AAMAAABkAAQAAP__'); },
  (d, r) => { put(d, r, 'Expect', r.pick(['100-continue', '100-Continue', '200-ok', '', '100-continue, x', '100-continue;q=1', '\t100-continue'])); },
  (d, r) => { put(d, r, 'TE', r.pick(['trailers', 'trailers, deflate', 'chunked', '', 'TRAILERS;q=0.5'])); if (r.chance(0.5)) put(d, r, 'Connection', 'TE'); },
  (d, r) => { d.version = r.pick([' HTTP/1.0', ' HTTP/1.0', '']); },
  (d, r) => { d.method = r.pick(['OPTIONS', 'TRACE', 'GET']); put(d, r, 'Max-Forwards', r.pick(['0', '1', '-1', '', 'x', '00'])); },
  (d, r) => { d.method = 'OPTIONS'; d.target = r.pick(['*', 'http://h', 'http://h/', 'http://h?', '*?x', '**']); },
  (d, r) => { d.method = 'CONNECT'; d.target = r.pick(['shop.test:443', '/', '*', 'http://h/']); },
  (d, r) => { d.body += r.pick(['x', '\r\n', '0\r\n\r\n', SMUGGLED, '\0', ' ']); },
  (d, r) => { d.body = d.body.slice(0, r.below(d.body.length + 1)); },
]; // biome-ignore format: one trick a line

const requestTricks: readonly Trick[] = [...requestLine, ...anyMessage, ...requestFields];

export const bend = (draft: Draft, r: Random): void => r.pick(requestTricks)(draft, r);

const SNIPPETS = [
  '\r\n', '\n', '\r', '\r\n\r\n', ' ', '\t', '\0', ':', ': ', ',', ';', '\xff', '0\r\n\r\n', '\r\n0\r\n\r\n', 'Content-Length: 5\r\n', 'Transfer-Encoding: chunked\r\n', 'Host: evil.test\r\n',
  'Connection: close\r\n', 'HTTP/1.1', ' HTTP/1.1\r\n', 'GET / HTTP/1.1\r\nHost: a\r\n\r\n', SMUGGLED, '\r\n ', 'Upgrade: websocket\r\nConnection: upgrade\r\n', 'Expect: 100-continue\r\n', '%00', '%0d%0a',
]; // biome-ignore format: a list to be read at a glance

/** One change anywhere in the bytes, blind to what they mean. */
export const mutate = (text: string, r: Random): string => {
  const at = r.below(text.length + 1);
  const span = 1 + r.below(r.chance(0.8) ? 4 : 60);
  switch (r.below(8)) {
    case 0:
      return text.slice(0, at) + String.fromCharCode((text.charCodeAt(at) || 0) ^ (1 << r.below(8))) + text.slice(at + 1);
    case 1:
      return text.slice(0, at) + String.fromCharCode(r.below(256)) + text.slice(at + 1);
    case 2:
      return text.slice(0, at) + r.pick(SNIPPETS) + text.slice(at);
    case 3:
      return text.slice(0, at) + text.slice(at + span);
    case 4:
      return text.slice(0, at) + text.slice(at, at + span).repeat(2) + text.slice(at + span);
    case 5: {
      const from = r.below(text.length + 1);
      return text.slice(0, at) + text.slice(from, from + 1 + r.below(80)) + text.slice(at);
    }
    case 6:
      return r.chance(0.3) ? text.slice(0, at) : text;
    default:
      return text.slice(0, at) + r.pick(SNIPPETS) + text.slice(at + span);
  }
};
