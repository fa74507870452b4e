import { type Case, HOST } from '../case.ts';

const ASK = `GET /ws HTTP/1.1\r\n${HOST}Connection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n`;
const switching = (fields = '', connection = 'Upgrade'): string =>
  `HTTP/1.1 101 Switching Protocols\r\nConnection: ${connection}\r\nUpgrade: websocket\r\nSec-WebSocket-Accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo=\r\n${fields}\r\n`;

/** What a 101 carries, and how a tunnel ends. */
export const upgrades: readonly Case[] = [
  {
    id: 'upgrade-101-fields',
    level: 'must',
    cite: 'RFC 9110 5.2, 5.3; httpxy writes the head of a 101 as UTF-8',
    it: 'keeps the fields of a 101, repeats and bytes beyond ASCII too',
    client: [ASK, { answer: 'final' }, { until: 'tunnel' }],
    upstream: [[`${switching('Set-Cookie: a=1\r\nSet-Cookie: b=\xe4\r\nX-Rep: 1\r\nX-Rep: 2\r\n')}tunnel`, 'gone']],
    want: { answers: [{ status: 101, has: { 'set-cookie': ['a=1', 'b=\xe4'], 'x-rep': ['1', '2'] } }], seen: [{}] },
    or: [{ answers: [{ status: 101, has: { 'set-cookie': ['a=1', 'b=\xe4'], 'x-rep': '1, 2' } }], seen: [{}] }],
  },
  {
    id: 'upgrade-101-hop',
    level: 'must',
    cite: 'RFC 9110 7.6.1',
    it: 'drops what the Connection of a 101 names, but not Upgrade',
    client: [ASK, { answer: 'final' }, { until: 'tunnel' }],
    upstream: [[`${switching('X-Hop: 1\r\nKeep-Alive: timeout=5\r\n', 'Upgrade, X-Hop')}tunnel`, 'gone']],
    want: { answers: [{ status: 101, has: { upgrade: 'websocket' }, lacks: ['x-hop', 'keep-alive'] }], seen: [{}] },
  },
  {
    id: 'upgrade-interim',
    level: 'must',
    cite: 'RFC 9110 15.2 (a proxy must forward 1xx)',
    it: 'relays a 103 that comes before the 101',
    client: [ASK, { answer: 'interim' }, { answer: 'final' }, { until: 'tunnel' }],
    upstream: [[`HTTP/1.1 103 Early Hints\r\nLink: </a.css>\r\n\r\n${switching()}tunnel`, 'gone']],
    want: { answers: [{ status: 103, has: { link: '</a.css>' } }, { status: 101 }], seen: [{}] },
  },
  {
    id: 'upgrade-refused-fields',
    level: 'must',
    cite: 'RFC 9110 5.3, 15.5.22; RFC 9112 7.1.2',
    it: "relays a refusal's reason, repeats and trailers",
    client: [ASK, { answer: 'final' }],
    upstream: [
      [
        'HTTP/1.1 401 Log In First\r\nWWW-Authenticate: Basic realm="a"\r\nWWW-Authenticate: Bearer\r\nTrailer: X-End\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nno\r\n0\r\nX-End: 1\r\n\r\n',
      ],
    ],
    want: {
      answers: [
        {
          status: 401,
          line: 'HTTP/1.1 401 Log In First',
          body: 'no',
          has: { 'www-authenticate': ['Basic realm="a"', 'Bearer'] },
          trailers: [['X-End', '1']],
        },
      ],
      seen: [{}],
    },
    or: [{ answers: [{ status: 401, body: 'no', has: { 'www-authenticate': ['Basic realm="a"', 'Bearer'] } }], seen: [{}] }],
  },
  {
    id: 'upgrade-refused-truncated',
    level: 'must',
    cite: 'RFC 9112 8',
    it: 'shows that the body of a refusal was cut short',
    client: [ASK, { answer: 'final' }],
    upstream: [['HTTP/1.1 403 Forbidden\r\nTransfer-Encoding: chunked\r\n\r\n4\r\nhalf\r\n', 'end']],
    want: { answers: [{ status: 403, complete: false }], seen: [{}] },
    or: [{ answers: [{ status: 502 }], seen: [{}] }],
  },
  {
    id: 'tunnel-half-closed',
    level: 'should',
    cite: 'RFC 9110 7.8; RFC 9293 3.6 (half-closed)',
    it: 'delivers what an upstream of a tunnel still says after the client is done',
    client: [ASK, { answer: 'final' }, 'last', 'end', { signal: 'done' }, { until: 'answer' }],
    upstream: [[switching(), { until: 'last' }, { await: 'done' }, 'answer', 'end']],
    want: { answers: [{ status: 101 }], seen: [{}] },
  },
];
