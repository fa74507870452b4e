import type { Random } from './random.ts';

/** A request in its parts, each of which can be bent on its own. */
export type Draft = {
  before: string;
  method: string;
  gap: string;
  target: string;
  version: string;
  eol: string;
  readonly fields: DraftField[];
  /** The empty line. */
  end: string;
  body: string;
};

export type DraftField = { name: string; colon: string; value: string; eol: string };

export const textOf = (draft: Draft): string => {
  let text = `${draft.before}${draft.method}${draft.gap}${draft.target}${draft.version}${draft.eol}`;
  for (const { name, colon, value, eol } of draft.fields) text += `${name}${colon}${value}${eol}`;
  return `${text}${draft.end}${draft.body}`;
};

export const field = (name: string, value: string): DraftField => ({ name, colon: ': ', value, eol: '\r\n' });

const METHODS = [
  'GET',
  'GET',
  'GET',
  'POST',
  'POST',
  'PUT',
  'HEAD',
  'DELETE',
  'OPTIONS',
  'PATCH',
  'PROPFIND',
  'TRACE',
  'SEARCH',
  'M-SEARCH',
];
const HARMLESS: readonly (readonly [string, string])[] = [
  ['Accept', '*/*'],
  ['accept', 'text/html;q=0.9, */*;q=0.1'],
  ['Cookie', 'a=1; b="2"'],
  ['Cookie', 'c=3'],
  ['User-Agent', 'fuzz/1.0 (\xe4\xf6\xfc)'],
  ['X-Empty', ''],
  ['X-Colons', 'a:b: c'],
  ['x_under.score', '1'],
  ["!#$%&'*+-.^_`|~", 'every character of a token'],
  ['Connection', 'keep-alive'],
  ['Connection', 'x-empty, Keep-Alive'],
  ['Keep-Alive', 'timeout=5'],
  ['TE', 'trailers'],
  ['If-None-Match', '"x"'],
  ['Range', 'bytes=0-1'],
  ['X-Forwarded-For', '10.0.0.1'],
  ['Forwarded', 'for=10.0.0.1'],
  ['Via', '1.0 other'],
  ['Max-Forwards', '5'],
  ['Content-Type', 'application/octet-stream'],
  ['Proxy-Connection', 'keep-alive'],
];

const chunkedOf = (r: Random, body: string): string => {
  let text = '';
  for (let at = 0; at < body.length; ) {
    const size = 1 + r.below(body.length - at);
    const digits = r.chance(0.2) ? size.toString(16).toUpperCase().padStart(r.below(6), '0') : size.toString(16);
    text += `${digits}${r.chance(0.1) ? r.pick([';a', ';a=b', ';a="b;\\"c"', ';a;b=c']) : ''}\r\n${body.slice(at, at + size)}\r\n`;
    at += size;
  }
  const trailers = r.chance(0.15)
    ? r.pick(['X-Sum: 1\r\n', 'x-sum: 1\r\nX-Sum: 2\r\n', 'Content-Length: 3\r\n', 'Host: evil.test\r\nX-T:\r\n'])
    : '';
  return `${text}0\r\n${trailers}\r\n`;
};

const bodyOf = (r: Random, mark: string): string => {
  switch (r.below(8)) {
    case 0:
      return '';
    case 1:
      return `0\r\n\r\nGET /smuggled/${mark} HTTP/1.1\r\nHost: shop.test\r\n\r\n`;
    case 2:
      return `GET /smuggled/${mark} HTTP/1.1\r\nHost: shop.test\r\nX: `;
    case 3:
      return String.fromCharCode(...Array.from({ length: 1 + r.below(60) }, () => r.below(256)));
    case 4:
      return r.chance(0.1) ? `${mark};`.repeat(4_000 + r.below(6_000)) : `${mark}\n`;
    default:
      return `body of ${mark}`;
  }
};

/** A request that nobody has a reason to refuse. `mark` is in its target and mostly in its body. */
export const validDraft = (r: Random, mark: string): Draft => {
  const method = r.pick(METHODS);
  const query = r.pick(['', '', '?', '?a=1&b=%20', '?a=//x;y', '?%zz']);
  const path = r.pick(['/f/', '/f/', '//f//', '/f/%2F/', '/f/../', '/f;p=1/', '/f/"<>\\^`{|}/']) + mark + query;
  const absolute = r.chance(0.06);
  const fields: DraftField[] = [field(r.pick(['Host', 'Host', 'host', 'HOST']), r.pick(['shop.test', 'shop.test:8080', '[::1]:80', '']))];
  for (let more = r.below(5); more > 0; more--) {
    const [name, value] = r.pick(HARMLESS);
    fields.splice(r.below(fields.length + 1), 0, field(name, value));
  }
  let body = '';
  const framing = method === 'TRACE' ? 0 : method === 'POST' || method === 'PUT' || method === 'PATCH' ? 1 + r.below(3) : r.below(10);
  if (framing === 1) {
    body = bodyOf(r, mark);
    fields.splice(r.below(fields.length + 1), 0, field('Content-Length', String(body.length)));
  } else if (framing === 2) {
    body = chunkedOf(r, bodyOf(r, mark));
    fields.splice(r.below(fields.length + 1), 0, field(r.pick(['Transfer-Encoding', 'transfer-encoding']), r.pick(['chunked', 'Chunked'])));
  }
  if (body !== '' && r.chance(0.05)) fields.push(field('Expect', '100-continue'));
  if (r.chance(0.02)) fields.push(field('Connection', 'close'));
  const old = framing !== 2 && r.chance(0.03);
  if (old && r.chance(0.5)) fields.push(field('Connection', 'keep-alive'));
  return {
    before: '',
    method,
    gap: ' ',
    target: absolute ? `${r.pick(['http', 'HTTP', 'https'])}://other.test${r.pick(['', ':81'])}${path}` : path,
    version: old ? ' HTTP/1.0' : ' HTTP/1.1',
    eol: '\r\n',
    fields,
    end: '\r\n',
    body,
  };
};
