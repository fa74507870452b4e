import { CODE, request } from '../../harness/raw-http2.ts';

/** One head of HTTP/2, frame by frame, that no client ought to send. Nobody upstream may see it. */
export type HeadCase = {
  readonly id: string;
  readonly cite: string;
  readonly it: string;
  readonly fields: readonly (readonly [string, string])[];
  /** Statuses that say so; besides them RST_STREAM with PROTOCOL_ERROR always will do. */
  readonly statuses: readonly number[];
};

const head = (id: string, cite: string, it: string, fields: HeadCase['fields'], ...statuses: number[]): HeadCase => ({
  id: `h2-${id}`,
  cite,
  it: `refuses ${it}`,
  fields,
  statuses,
});

const withField = (name: string, value: string): HeadCase['fields'] => [...request('/a'), [name, value]];
const withPseudo = (changes: Readonly<Record<string, string | null>>, path = '/a'): HeadCase['fields'] => request(path, changes);

/** The code that a stream of such a head is reset with (RFC 9113 8.1.1). */
export const MALFORMED = CODE.protocol;

export const HEAD_CASES: readonly HeadCase[] = [
  head('connection', 'RFC 9113 8.2.2', 'a Connection field', withField('connection', 'close')),
  head('keep-alive', 'RFC 9113 8.2.2', 'a Keep-Alive field', withField('keep-alive', '5')),
  head('proxy-connection', 'RFC 9113 8.2.2', 'a Proxy-Connection field', withField('proxy-connection', 'x')),
  head(
    'transfer-encoding',
    'RFC 9113 8.2.2; HTTP/2 downgrade smuggling',
    'a Transfer-Encoding field',
    withField('transfer-encoding', 'chunked'),
  ),
  head('upgrade', 'RFC 9113 8.2.2, 8.6', 'an Upgrade field', withField('upgrade', 'websocket')),
  head('te-gzip', 'RFC 9113 8.2.2', 'a TE other than trailers', withField('te', 'gzip')),
  head('upper-case', 'RFC 9113 8.2.1', 'a name in upper case', withField('X-Upper', '1')),
  head('no-path', 'RFC 9113 8.3.1', 'a request without :path', withPseudo({ ':path': null })),
  head('empty-path', 'RFC 9113 8.3.1', 'an empty :path', request('')),
  head('relative-path', 'RFC 9113 8.3.1', 'a :path without a slash', request('a')),
  head('asterisk-get', 'RFC 9113 8.3.1', '* for GET', request('*'), 400),
  head('space-in-path', 'RFC 9113 8.2.1; HTTP/2 downgrade smuggling', 'a space in :path', request('/a b')),
  head('line-in-path', 'RFC 9113 10.3; HTTP/2 downgrade smuggling', 'a request line in :path', request('/a HTTP/1.1\r\nx: ')),
  head('fragment', 'RFC 9112 3.2; RFC 3986 3.5', 'a fragment in :path', request('/a#b'), 400),
  head('no-method', 'RFC 9113 8.3.1', 'a request without :method', withPseudo({ ':method': null })),
  head('method-no-token', 'RFC 9110 9.1; HTTP/2 downgrade smuggling', 'a :method that is no token', withPseudo({ ':method': 'GET /x' })),
  head('method-lower-case', 'RFC 9110 9.1', 'a :method in lower case', withPseudo({ ':method': 'get' }), 400),
  head('no-scheme', 'RFC 9113 8.3.1', 'a request without :scheme', withPseudo({ ':scheme': null })),
  head('other-scheme', 'RFC 9113 8.3.1', 'a scheme that is not http or https', withPseudo({ ':scheme': 'ftp' }), 400),
  head('no-authority', 'RFC 9113 8.3.1', 'a request without :authority and host', withPseudo({ ':authority': null })),
  head('host-differs', 'RFC 9113 8.3.1', 'a host that is not the :authority', withField('host', 'other.test'), 400),
  head(
    'host-twice',
    'RFC 9110 7.2; RFC 9112 3.2',
    'two host fields',
    [...withPseudo({ ':authority': null }), ['host', 'shop.test'], ['host', 'shop.test']],
    400,
  ),
  head('userinfo', 'RFC 9113 8.3.1', 'a user in :authority', withPseudo({ ':authority': 'user@shop.test' }), 400),
  head('pseudo-twice', 'RFC 9113 8.3', 'a pseudo-field that comes twice', withField(':path', '/b')),
  head('pseudo-late', 'RFC 9113 8.3', 'a pseudo-field behind a field', [['x-a', '1'], ...request('/a')]),
  head('pseudo-unknown', 'RFC 9113 8.3', 'an unknown pseudo-field', withPseudo({ ':upstream': 'x' })),
  head('pseudo-status', 'RFC 9113 8.3', 'a pseudo-field of answers', withPseudo({ ':status': '200' })),
  head('length-twice', 'RFC 9110 8.6', 'two lengths', [...withField('content-length', '0'), ['content-length', '1']]),
  head('length-plus', 'RFC 9110 8.6', 'a length that is no number', withField('content-length', '+1')),
  head('length-of-nothing', 'RFC 9113 8.1.1', 'a length where there is no body', withField('content-length', '5')),
  head('connect', 'RFC 9113 8.5; RFC 9110 9.3.6', 'CONNECT', withPseudo({ ':method': 'CONNECT', ':path': null, ':scheme': null }), 405),
  head('connect-extended', 'RFC 8441 4', 'extended CONNECT', withPseudo({ ':method': 'CONNECT', ':protocol': 'websocket' })),
  head('expect-other', 'RFC 9110 10.1.1', 'an unknown expectation', withField('expect', 'wonders'), 417),
];
