import { type AnswerWanted, answer, type Case, get, HOST, OK, replying, type UpstreamStep, type Wanted } from '../case.ts';

const relayed = (id: string, level: Case['level'], cite: string, what: string, bytes: string, wanted: AnswerWanted): Case => ({
  id: `answer-${id}`,
  level,
  cite,
  it: what,
  send: get('/a'),
  upstream: replying(bytes),
  want: { answers: [wanted] },
});

// A kept connection that ends without an answer may be asked again, so how often is not judged here.
const bad: Wanted = { answers: [{ status: 502 }], seen: 'any' };

/** An answer that no two readers need agree on: nobody downstream may see it as an answer. */
const broken = (id: string, bytes: string, cite: string, what: string, level: Case['level'] = 'must', ...or: Wanted[]): Case => ({
  id: `broken-${id}`,
  level,
  cite,
  it: `answers 502 to ${what}`,
  send: get('/a'),
  upstream: [['body', bytes, 'end']],
  want: bad,
  or: [{ answers: [{ status: [500, 502, 503, 504] }], seen: 'any' }, { answers: ['gone'], seen: 'any' }, ...or],
});

const cut = (
  id: string,
  steps: readonly UpstreamStep[],
  cite: string,
  what: string,
  seenAs: AnswerWanted = { status: 200, complete: false },
): Case => ({
  id: `cut-${id}`,
  level: 'must',
  cite,
  it: `never makes a clean end of ${what}`,
  send: get('/a'),
  upstream: [['body', ...steps]],
  want: { answers: [seenAs] },
  or: [{ answers: [{ status: 502 }] }, { answers: ['gone'] }],
});

/** Answers: what goes through, where they end, and what is no answer. */
export const responses: readonly Case[] = [
  relayed('length', 'must', 'RFC 9112 6.2', 'keeps a body with a length', answer('a\0\xff\r\n'), {
    status: 200,
    body: 'a\0\xff\r\n',
    framing: 'length',
  }),
  relayed(
    'chunked',
    'must',
    'RFC 9112 7.1',
    'keeps a chunked body',
    'HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n1;x=y\r\nd\r\n0\r\n\r\n',
    {
      status: 200,
      body: 'abcd',
    },
  ),
  relayed(
    'chunked-case',
    'must',
    'RFC 9112 7',
    'reads Transfer-Encoding: Chunked',
    'HTTP/1.1 200 OK\r\nTransfer-Encoding: Chunked\r\n\r\n1\r\na\r\n0\r\n\r\n',
    {
      status: 200,
      body: 'a',
    },
  ),
  relayed(
    'trailers',
    'should',
    'RFC 9110 6.5',
    'sends trailers on',
    'HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\nTrailer: X-Sum\r\n\r\n1\r\na\r\n0\r\nX-Sum: 1\r\n\r\n',
    {
      status: 200,
      body: 'a',
      trailers: [['x-sum', '1']],
    },
  ),
  relayed(
    'trailers-forbidden',
    'must',
    'RFC 9110 6.5.1',
    'lets no trailer set cookies or ask for a login',
    'HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n1\r\na\r\n0\r\nWWW-Authenticate: Basic\r\nSet-Cookie: a=b\r\n\r\n',
    {
      status: 200,
      body: 'a',
      trailers: [],
    },
  ),
  {
    ...relayed('until-close', 'must', 'RFC 9112 6.3', 'keeps a body that ends with the connection', '', {
      status: 200,
      body: 'until the end',
    }),
    upstream: [['body', 'HTTP/1.1 200 OK\r\nConnection: close\r\n\r\nuntil the end', 'end']],
  },
  {
    ...relayed('until-close-10', 'must', 'RFC 9112 6.3', 'keeps the body of an HTTP/1.0 answer', '', {
      status: 200,
      body: 'old',
      line: /^HTTP\/1\.1 200/,
    }),
    upstream: [['body', 'HTTP/1.0 200 OK\r\n\r\nold', 'end']],
  },
  {
    id: 'answer-head',
    level: 'must',
    cite: 'RFC 9110 9.3.2, 8.6',
    it: 'keeps the length of an answer to HEAD and sends no body',
    client: [`HEAD /a HTTP/1.1\r\n${HOST}\r\n`, { answer: 'final', head: true }, get('/b'), { answer: 'final' }],
    upstream: [['HTTP/1.1 200 OK\r\nContent-Length: 1234\r\n\r\n'], ['body', OK]],
    want: {
      answers: [
        { status: 200, has: { 'content-length': '1234' } },
        { status: 200, body: 'ok' },
      ],
      seen: [{ line: /^HEAD/ }, { line: /^GET/ }],
    },
  },
  {
    id: 'answer-head-chunked',
    level: 'must',
    cite: 'RFC 9112 6.3',
    it: 'sends no body for HEAD though the head says chunked',
    client: [`HEAD /a HTTP/1.1\r\n${HOST}\r\n`, { answer: 'final', head: true }, get('/b'), { answer: 'final' }],
    upstream: [['HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n'], ['body', OK]],
    want: { answers: [{ status: 200 }, { status: 200, body: 'ok' }], seen: [{ line: /^HEAD/ }, { line: /^GET/ }] },
  },
  {
    id: 'answer-204',
    level: 'must',
    cite: 'RFC 9110 15.3.5, 8.6',
    it: 'sends a 204 without body or framing',
    client: [get('/a'), { answer: 'final' }, get('/b'), { answer: 'final' }],
    upstream: [
      ['body', 'HTTP/1.1 204 No Content\r\nX-A: 1\r\n\r\n'],
      ['body', OK],
    ],
    want: {
      answers: [
        { status: 204, has: { 'x-a': '1' }, lacks: ['content-length', 'transfer-encoding'] },
        { status: 200, body: 'ok' },
      ],
      seen: [{}, {}],
    },
  },
  {
    id: 'answer-304',
    level: 'must',
    cite: 'RFC 9110 15.4.5; fastify-reply-from answers 500',
    it: 'sends a 304 with its length and without a body',
    client: [get('/a', 'If-None-Match: "x"\r\n'), { answer: 'final' }, get('/b'), { answer: 'final' }],
    upstream: [
      ['body', 'HTTP/1.1 304 Not Modified\r\nETag: "x"\r\nContent-Length: 10\r\n\r\n'],
      ['body', OK],
    ],
    want: {
      answers: [
        { status: 304, has: { etag: '"x"' } },
        { status: 200, body: 'ok' },
      ],
      seen: [{}, {}],
    },
  },
  relayed('205', 'must', 'RFC 9110 15.3.6', 'sends a 205 with an empty body', 'HTTP/1.1 205 Reset Content\r\nContent-Length: 0\r\n\r\n', {
    status: 205,
    body: '',
  }),
  relayed(
    '206',
    'must',
    'RFC 9110 15.3.7',
    'leaves ranges alone',
    answer('lo', 'Content-Range: bytes 3-4/11\r\nAccept-Ranges: bytes\r\n', 'HTTP/1.1 206 Partial Content'),
    {
      status: 206,
      body: 'lo',
      has: { 'content-range': 'bytes 3-4/11' },
    },
  ),
  {
    ...relayed(
      'range-ignored',
      'must',
      'RFC 9110 14.2; httpd serves ranges itself',
      'does not cut a 200 to a range',
      answer('hello world'),
      { status: 200, body: 'hello world' },
    ),
    send: get('/a', 'Range: bytes=3-4\r\n'),
  },
  relayed(
    '416',
    'must',
    'RFC 9110 15.5.17',
    'leaves a 416 alone',
    answer('', 'Content-Range: bytes */11\r\n', 'HTTP/1.1 416 Range Not Satisfiable'),
    {
      status: 416,
      has: { 'content-range': 'bytes */11' },
    },
  ),
  relayed(
    'status-unknown',
    'must',
    'RFC 9110 15',
    'sends a status on that nobody has registered',
    answer('x', '', 'HTTP/1.1 499 Odd One'),
    { status: 499, body: 'x' },
  ),
  {
    ...relayed(
      'error-body',
      'must',
      'RFC 9110 15.6',
      "sends an upstream's own error on with its body",
      answer('sorry', 'X-Err: 1\r\n', 'HTTP/1.1 503 Service Unavailable'),
      {
        status: 503,
        body: 'sorry',
        has: { 'x-err': '1' },
      },
    ),
  },
  relayed('reason', 'own', 'RFC 9112 4', 'keeps the reason phrase', answer('ok', '', 'HTTP/1.1 200 Fine By Me'), {
    status: 200,
    line: 'HTTP/1.1 200 Fine By Me',
  }),
  relayed('reason-empty', 'must', 'RFC 9112 4', 'takes an empty reason phrase', answer('ok', '', 'HTTP/1.1 200 '), {
    status: 200,
    body: 'ok',
  }),
  relayed(
    'set-cookies',
    'must',
    'RFC 6265 3; RFC 9110 5.3',
    'keeps Set-Cookie lines apart and in order',
    answer('ok', 'Set-Cookie: a=1; Expires=Wed, 01 Jan 2031 00:00:00 GMT; Domain=legacy.test; Path=/x\r\nSet-Cookie: b=2\r\n'),
    {
      status: 200,
      has: { 'set-cookie': ['a=1; Expires=Wed, 01 Jan 2031 00:00:00 GMT; Domain=legacy.test; Path=/x', 'b=2'] },
    },
  ),
  relayed(
    'authenticate',
    'should',
    'RFC 9110 11.6.1',
    'keeps WWW-Authenticate lines',
    answer('', 'WWW-Authenticate: Negotiate\r\nWWW-Authenticate: Basic realm="a, b"\r\n', 'HTTP/1.1 401 Unauthorized'),
    {
      status: 401,
      has: { 'www-authenticate': ['Negotiate', 'Basic realm="a, b"'] },
    },
  ),
  relayed(
    'location',
    'must',
    'RFC 9110 10.2.2',
    'leaves Location alone',
    answer('', 'Location: http://legacy.test:81/a?b=%2F#c\r\n', 'HTTP/1.1 302 Found'),
    {
      status: 302,
      has: { location: 'http://legacy.test:81/a?b=%2F#c' },
    },
  ),
  relayed(
    'field-order',
    'own',
    'RFC 9110 5.3',
    'keeps names, their case and their order',
    answer('ok', 'X-Zed: 1\r\nx-lower: 2\r\nETag: "e"\r\nX-UPPER: 3\r\n'),
    {
      status: 200,
      order: ['X-Zed', 'x-lower', 'ETag', 'X-UPPER'],
    },
  ),
  relayed('latin1', 'should', 'RFC 9110 5.5', 'keeps bytes beyond ASCII in a value', answer('ok', 'X-Name: caf\xe9 \xc3\xa9\r\n'), {
    status: 200,
    has: { 'x-name': 'caf\xe9 \xc3\xa9' },
  }),
  relayed('server', 'should', 'RFC 9110 10.2.4', 'leaves Server alone', answer('ok', 'Server: legacy/1\r\n'), {
    status: 200,
    has: { server: 'legacy/1' },
    lacks: ['x-powered-by'],
  }),
  relayed('date', 'must', 'RFC 9110 6.6.1', 'leaves Date alone', answer('ok', 'Date: Mon, 02 Jan 2006 15:04:05 GMT\r\n'), {
    status: 200,
    has: { date: 'Mon, 02 Jan 2006 15:04:05 GMT' },
  }),
  relayed(
    'encoded',
    'must',
    'RFC 9110 8.4',
    'leaves content codings alone',
    answer('\x1f\x8bnot really gzip', 'Content-Encoding: gzip\r\nVary: Accept-Encoding\r\n'),
    {
      status: 200,
      body: '\x1f\x8bnot really gzip',
      has: { 'content-encoding': 'gzip' },
    },
  ),
  relayed(
    'many-fields',
    'should',
    'RFC 9110 5.4',
    'takes 120 fields',
    answer('ok', Array.from({ length: 120 }, (_, i) => `X-Many-${i}: ${i}\r\n`).join('')),
    {
      status: 200,
      has: { 'x-many-0': '0', 'x-many-119': '119' },
    },
  ),
  relayed(
    'large-head',
    'should',
    'RFC 9110 5.4',
    'takes an answer with 12 KB of fields',
    answer('ok', `X-Long: ${'v'.repeat(6_000)}\r\nX-Too: ${'w'.repeat(6_000)}\r\n`),
    {
      status: 200,
      has: { 'x-long': /^v{6000}$/ },
    },
  ),
  relayed('via', 'own', 'RFC 9110 7.6.3 (MAY for a gateway)', 'adds itself to Via', answer('ok', 'Via: 1.0 inner\r\n'), {
    status: 200,
    has: { via: ['1.0 inner', '1.1 banyan'] },
  }),
  relayed(
    'hop',
    'must',
    'RFC 9110 7.6.1',
    "drops what belongs to the upstream's connection",
    answer(
      'ok',
      'Connection: X-Hop, keep-alive\r\nX-Hop: 1\r\nKeep-Alive: timeout=1\r\nProxy-Connection: close\r\nUpgrade: h2c\r\nX-Kept: 1\r\n',
    ),
    {
      status: 200,
      lacks: ['x-hop', 'proxy-connection', 'upgrade'],
      has: { 'x-kept': '1' },
    },
  ),
  {
    id: 'answer-close-is-not-ours',
    level: 'should',
    cite: 'RFC 9110 7.6.1; http-proxy-middleware passes it on',
    it: "keeps the client's connection though the upstream closes its own",
    client: [get('/1'), { answer: 'final' }, get('/2'), { answer: 'final' }],
    upstream: [['body', answer('ok', 'Connection: close\r\n'), 'end']],
    want: {
      answers: [
        { status: 200, body: 'ok' },
        { status: 200, body: 'ok' },
      ],
      seen: [{}, {}],
    },
  },
  {
    id: 'answer-http10-client',
    level: 'must',
    cite: 'RFC 9112 7 (no chunks to HTTP/1.0)',
    it: 'sends no chunks to an HTTP/1.0 client',
    client: [`GET /a HTTP/1.0\r\n${HOST}\r\n`, { answer: 'final' }],
    upstream: replying('HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\n\r\n'),
    want: { answers: [{ status: 200, body: 'abc', lacks: ['transfer-encoding'] }] },
  },
  {
    id: 'answer-excess',
    level: 'must',
    cite: 'RFC 9112 6.3, 9.2; response queue poisoning',
    it: 'gives nobody the bytes behind the end of an answer',
    client: [get('/1'), { answer: 'final' }, 'reconnect', get('/2'), { answer: 'final' }],
    upstream: [
      ['body', `${OK}${answer('not asked for')}`],
      ['body', answer('second')],
    ],
    want: {
      answers: [
        { status: 200, body: 'ok' },
        { status: 200, body: 'second' },
      ],
      seen: [{}, {}],
    },
    or: [{ answers: [{ status: 502 }, { status: 200, body: 'second' }], seen: [{}, {}] }],
  },
  {
    id: 'answer-excess-204',
    level: 'must',
    cite: 'RFC 9112 6.3',
    it: 'gives nobody the bytes behind a 204',
    client: [get('/1'), { answer: 'final' }, 'reconnect', get('/2'), { answer: 'final' }],
    upstream: [
      ['body', `HTTP/1.1 204 No Content\r\nContent-Length: 5\r\n\r\n${answer('stray')}`],
      ['body', answer('second')],
    ],
    want: { answers: [{ status: [204, 502] }, { status: 200, body: 'second' }], seen: [{}, {}] },
  },
  broken('silence', '', 'RFC 9110 15.6.3', 'an upstream that closes without a word'),
  broken('garbage', 'what?\r\n\r\n', 'RFC 9110 15.6.3; nginx relays it as HTTP/0.9', 'garbage'),
  broken('half-head', 'HTTP/1.1 200 OK\r\nX-A: 1\r\n', 'RFC 9112 8', 'half a head'),
  broken('version', 'HTTP/9.9 200 OK\r\nContent-Length: 2\r\n\r\nok', 'RFC 9110 2.5', 'an answer in HTTP/9.9', 'should'),
  broken('status-word', 'HTTP/1.1 OK\r\nContent-Length: 2\r\n\r\nok', 'RFC 9112 4', 'a status line without a status'),
  broken('status-short', 'HTTP/1.1 20 OK\r\nContent-Length: 2\r\n\r\nok', 'RFC 9112 4', 'a status of two digits'),
  broken(
    'two-lengths',
    'HTTP/1.1 200 OK\r\nContent-Length: 2\r\nContent-Length: 5\r\n\r\nok',
    'RFC 9112 6.3; nginx accepts it',
    'two lengths that differ',
  ),
  broken(
    'two-lengths-same',
    'HTTP/1.1 200 OK\r\nContent-Length: 2\r\nContent-Length: 2\r\n\r\nok',
    'RFC 9112 6.3',
    'two equal lengths, or makes one of them',
    'must',
    {
      answers: [{ status: 200, body: 'ok', has: { 'content-length': '2' } }],
    },
  ),
  broken('length-junk', 'HTTP/1.1 200 OK\r\nContent-Length: 2x\r\n\r\nok', 'RFC 9112 6.3', 'a length that is no number'),
  broken('length-negative', 'HTTP/1.1 200 OK\r\nContent-Length: -2\r\n\r\nok', 'RFC 9112 6.3', 'a negative length'),
  broken(
    'length-and-chunks',
    'HTTP/1.1 200 OK\r\nContent-Length: 3\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nok\r\n0\r\n\r\n',
    'RFC 9112 6.3',
    'both a length and chunks, or drops the length',
    'must',
    {
      answers: [{ status: 200, body: 'ok', lacks: ['content-length'] }],
    },
  ),
  broken('nul', 'HTTP/1.1 200 OK\r\nX-A: 1\0 2\r\nContent-Length: 2\r\n\r\nok', 'RFC 9110 5.5', 'a NUL in a value', 'must', {
    answers: [{ status: 200, has: { 'x-a': '1  2' } }],
  }),
  broken('bare-cr', 'HTTP/1.1 200 OK\r\nX-A: 1\r2\r\nContent-Length: 2\r\n\r\nok', 'RFC 9112 2.2', 'a bare CR in a value', 'must', {
    answers: [{ status: 200, has: { 'x-a': '1 2' } }],
  }),
  broken(
    'fold',
    'HTTP/1.1 200 OK\r\nX-A: 1\r\n 2\r\nContent-Length: 2\r\n\r\nok',
    'RFC 9112 5.2',
    'a folded value, or unfolds it',
    'must',
    {
      answers: [{ status: 200, has: { 'x-a': /^1 +2$/ } }],
    },
  ),
  {
    ...relayed(
      'space-before-colon',
      'must',
      'RFC 9112 5.1',
      'removes a space before the colon',
      'HTTP/1.1 200 OK\r\nX-A : 1\r\nContent-Length: 2\r\n\r\nok',
      { status: 200, body: 'ok', has: { 'x-a': '1' } },
    ),
    or: [bad, { answers: [{ status: 200, lacks: ['x-a', 'x-a '] }] }],
  },
  broken(
    'coding',
    'HTTP/1.1 200 OK\r\nTransfer-Encoding: rot13\r\nContent-Length: 2\r\n\r\nok',
    'RFC 9112 6.1',
    'a transfer coding that it does not know',
    'must',
    {
      answers: [{ status: 200, body: 'ok', complete: null, has: { 'transfer-encoding': 'rot13' }, lacks: ['content-length'] }],
    },
  ),
  broken(
    'head-too-large',
    `HTTP/1.1 200 OK\r\nX-Long: ${'v'.repeat(300_000)}\r\nContent-Length: 2\r\n\r\nok`,
    'RFC 9110 15.6.3',
    'a head without bounds',
    'should',
    {
      answers: [{ status: 200, body: 'ok' }],
    },
  ),
  broken(
    'unasked-101',
    'HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\nhello',
    'RFC 9110 15.2.2',
    'a 101 that nobody asked for',
  ),
  cut('length', ['HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nabc', 'end'], 'RFC 9112 8', 'a body short of its length'),
  cut('length-reset', ['HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nabc', 'reset'], 'RFC 9112 8', 'a body broken off by a reset'),
  cut(
    'chunked',
    ['HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n', 'end'],
    'RFC 9112 8; caddy#7845',
    'chunks without a last one',
  ),
  cut(
    'in-chunk',
    ['HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nA\r\nabc', 'end'],
    'RFC 9112 8; http-proxy-middleware appends an error text',
    'half a chunk',
  ),
  cut(
    'chunked-reset',
    ['HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n', 'reset'],
    'RFC 9112 8',
    'chunks broken off by a reset',
  ),
  {
    ...cut(
      'bad-chunk',
      ['HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\nzz\r\n', 'end'],
      'RFC 9112 7.1',
      'a chunk size that is no number',
      // it comes with the head, which therefore never goes out
      { status: 502 },
    ),
    or: [{ answers: [{ status: 200, complete: false }] }, { answers: ['gone'] }],
  },
  cut(
    'last-chunk',
    ['HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\n', 'end'],
    'RFC 9112 8',
    'a last chunk without its empty line',
  ),
  {
    ...cut(
      'http10-client',
      ['HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nabc', 'end'],
      'RFC 9112 8',
      'a short body to an HTTP/1.0 client',
    ),
    send: `GET /a HTTP/1.0\r\n${HOST}\r\n`,
  },
  {
    ...cut(
      'http10-client-chunked',
      ['HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n', 'end'],
      'RFC 9112 8',
      'missing chunks to an HTTP/1.0 client, which only a reset can tell',
    ),
    level: 'own',
    send: `GET /a HTTP/1.0\r\n${HOST}\r\n`,
  },
];
