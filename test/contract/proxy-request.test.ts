import { afterEach, describe, expect, it } from '@jest/globals';
import { type RawConnection, type RawMessage, statusOf, valuesOf } from '../harness/raw-http.ts';
import { answering, OK, openRig, type Rig, type RigOptions } from './proxy-rig.ts';

let rig: Rig | undefined;
afterEach(async () => {
  await rig?.stop();
  rig = undefined;
});

/** A rig whose upstream notes what it saw and says ok. */
const noting = async (options?: RigOptions): Promise<{ rig: Rig; seen: RawMessage[] }> => {
  const seen: RawMessage[] = [];
  rig = await openRig(
    answering((request) => {
      seen.push(request);
      return request.line.startsWith('HEAD') ? 'HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n' : OK;
    }),
    options,
  );
  return { rig, seen };
};

/** What the upstream saw of this request. */
const sentOn = async (bytes: string, options?: RigOptions): Promise<RawMessage> => {
  const { rig, seen } = await noting(options);
  const answer = await rig.ask(bytes, { head: bytes.startsWith('HEAD') });
  expect(statusOf(answer)).toBe(200);
  expect(seen).toHaveLength(1);
  return seen[0]!;
};

const targetOf = (message: RawMessage): string => message.line.split(' ')[1]!;

describe('the request target', () => {
  it.each([
    ['/a%2Fb', 'an escaped slash (RFC 3986 2.2)'],
    ['//a//b', 'double slashes'],
    ['/a;x=1/b;y', 'path parameters'],
    ['/a?', 'an empty query'],
    ['/a??b?c', 'question marks in the query'],
    ['/a/../b/./c', 'dot segments, which are collapsed for matching only'],
    ['/%zz', 'a broken escape'],
    ['/a|b^c`d{e}', 'characters that URL parsers re-encode'],
    ['/a?q=%C3%A9+%20&q=', 'escapes and plus in the query'],
    ['/%2e%2E/x', 'escaped dots'],
    ['/a\'b"c<d>', 'quotes and angles'],
    ['/a?u=http://x/y', 'a URL in the query'],
  ])('passes %s byte for byte: %s', async (target) => {
    expect(targetOf(await sentOn(`GET ${target} HTTP/1.1\r\nHost: shop\r\n\r\n`))).toBe(target);
  });

  it('in absolute form loses its authority to Host, whatever Host said (RFC 9112 3.2.2)', async () => {
    const request = await sentOn('GET http://real:81/a//b?c HTTP/1.1\r\nHost: liar\r\n\r\n');
    expect(targetOf(request)).toBe('/a//b?c');
    expect(valuesOf(request, 'host')).toEqual(['real:81']);
    expect(valuesOf(request, 'x-forwarded-host')).toEqual(['real:81']);
  });

  it('in absolute form without a path becomes /', async () => {
    expect(targetOf(await sentOn('GET http://real?q HTTP/1.1\r\nHost: real\r\n\r\n'))).toBe('/?q');
  });

  it('OPTIONS * is sent on as it is (RFC 9110 9.3.7)', async () => {
    expect((await sentOn('OPTIONS * HTTP/1.1\r\nHost: shop\r\n\r\n')).line).toBe('OPTIONS * HTTP/1.1');
  });

  it.each(['PROPFIND', 'MKCOL', 'REPORT', 'PATCH', 'M-SEARCH', 'TRACE'])('%s passes as a method', async (method) => {
    expect((await sentOn(`${method} /x HTTP/1.1\r\nHost: shop\r\n\r\n`)).line).toBe(`${method} /x HTTP/1.1`);
  });
});

describe('request fields', () => {
  it('keep their order, case and repeats', async () => {
    const request = await sentOn(
      'GET / HTTP/1.1\r\nHost: shop\r\nX-B: 1\r\nx-a: 2\r\nX-B: 3\r\nAccept: a\r\nCookie: a=1\r\nCookie: b=2\r\nX-Empty:\r\n\r\n',
    );
    const own = request.fields.filter(([name]) => ['x-b', 'x-a', 'accept', 'cookie', 'x-empty'].includes(name.toLowerCase()));
    expect(own).toEqual([
      ['X-B', '1'],
      ['x-a', '2'],
      ['X-B', '3'],
      ['Accept', 'a'],
      ['Cookie', 'a=1'],
      ['Cookie', 'b=2'],
      ['X-Empty', ''],
    ]);
  });

  it('keep Latin-1 bytes, on both ways upstream', async () => {
    expect(valuesOf(await sentOn('GET / HTTP/1.1\r\nHost: shop\r\nX-L: caf\xe9\r\n\r\n'), 'x-l')).toEqual(['caf\xe9']);
    await rig?.stop();
    const streamed = await sentOn('POST / HTTP/1.1\r\nHost: shop\r\nX-L: caf\xe9\r\nContent-Length: 1\r\n\r\na');
    expect(valuesOf(streamed, 'x-l')).toEqual(['caf\xe9']);
  });

  it('with dots and underscores in their names pass', async () => {
    const request = await sentOn('GET / HTTP/1.1\r\nHost: shop\r\nx.y: 1\r\nx_y: 2\r\n\r\n');
    expect([...valuesOf(request, 'x.y'), ...valuesOf(request, 'x_y')]).toEqual(['1', '2']);
  });

  it('of the connection, and those it names, are dropped (RFC 9110 7.6.1)', async () => {
    const request = await sentOn(
      'GET / HTTP/1.1\r\nHost: shop\r\nConnection: keep-alive, X-Hop\r\nX-Hop: 1\r\nKeep-Alive: timeout=9\r\nProxy-Connection: x\r\nTE: gzip, trailers\r\nUpgrade: h2c\r\nHTTP2-Settings: AA\r\nX-Stay: 1\r\n\r\n',
    );
    for (const name of ['x-hop', 'keep-alive', 'proxy-connection', 'upgrade', 'http2-settings'])
      expect(valuesOf(request, name)).toEqual([]);
    expect(valuesOf(request, 'te')).toEqual(['trailers']);
    expect(valuesOf(request, 'x-stay')).toEqual(['1']);
  });

  it('that frame or identify cannot be dropped by naming them in Connection', async () => {
    const request = await sentOn(
      'POST / HTTP/1.1\r\nHost: shop\r\nConnection: Host, Content-Length, X-Forwarded-For, Forwarded, Via\r\nContent-Length: 2\r\n\r\nab',
    );
    expect(request.body.toString()).toBe('ab');
    for (const name of ['host', 'x-forwarded-for', 'forwarded', 'via']) expect(valuesOf(request, name)).toHaveLength(1);
  });

  it('that say who the client is are ours when the peer is not trusted', async () => {
    const request = await sentOn(
      'GET / HTTP/1.1\r\nHost: shop:8080\r\nX-Forwarded-For: 6.6.6.6\r\nX-Forwarded-Proto: https\r\nX_Forwarded_For: 6.6.6.6\r\nX-Real-IP: 6.6.6.6\r\nForwarded: for=6.6.6.6\r\nX-Forwarded-Port: 1\r\nX-Forwarded-Prefix: /x\r\n\r\n',
    );
    expect(request.raw).not.toContain('6.6.6.6');
    expect(valuesOf(request, 'x-forwarded-for')).toEqual(['127.0.0.1']);
    expect(valuesOf(request, 'x-forwarded-proto')).toEqual(['http']);
    expect(valuesOf(request, 'x-forwarded-host')).toEqual(['shop:8080']);
    expect(valuesOf(request, 'x-forwarded-port')).toEqual(['8080']);
    expect(valuesOf(request, 'x-forwarded-prefix')).toEqual([]);
    expect(valuesOf(request, 'forwarded')).toEqual(['for=127.0.0.1;host="shop:8080";proto=http']);
  });

  it('that say who the client is are believed and appended to when the peer is trusted', async () => {
    const request = await sentOn(
      'GET / HTTP/1.1\r\nHost: shop\r\nX-Forwarded-For: 6.6.6.6\r\nX-Forwarded-For: 10.0.0.1\r\nX-Forwarded-Proto: https\r\nForwarded: for=6.6.6.6\r\n\r\n',
      { trusted: (address) => address === '127.0.0.1' },
    );
    expect(valuesOf(request, 'x-forwarded-for')).toEqual(['6.6.6.6, 10.0.0.1, 127.0.0.1']);
    expect(valuesOf(request, 'x-forwarded-proto')).toEqual(['https']);
    expect(valuesOf(request, 'forwarded')).toEqual(['for=6.6.6.6, for=127.0.0.1;host="shop";proto=http']);
  });

  it("that are Banyan's own are not taken from a client", async () => {
    expect((await sentOn('GET / HTTP/1.1\r\nHost: shop\r\nBanyan-Shadow: 1\r\nbanyan_epoch: 2\r\n\r\n')).raw.toLowerCase()).not.toMatch(
      /banyan[-_]/,
    );
  });

  it('get Via, after those that are there, and a request id', async () => {
    const request = await sentOn('GET / HTTP/1.1\r\nHost: shop\r\nVia: 1.0 edge\r\n\r\n');
    expect(valuesOf(request, 'via')).toEqual(['1.0 edge', '1.1 banyan']);
    expect(valuesOf(request, 'x-request-id')[0]).toMatch(/^[0-9a-f-]{36}$/);
  });

  it('keep a request id that is fit to be one', async () => {
    expect(valuesOf(await sentOn('GET / HTTP/1.1\r\nHost: shop\r\nX-Request-ID: abc-1\r\n\r\n'), 'x-request-id')).toEqual(['abc-1']);
  });

  it('Host is kept, or that of the upstream when asked for', async () => {
    expect(valuesOf(await sentOn('GET / HTTP/1.1\r\nHost: Shop.example:1\r\n\r\n'), 'host')).toEqual(['Shop.example:1']);
    await rig?.stop();
    const request = await sentOn('GET / HTTP/1.1\r\nHost: Shop.example:1\r\n\r\n', { hostHeader: 'upstream' });
    expect(valuesOf(request, 'host')).toEqual([new URL(rig!.server.url).host]);
    expect(valuesOf(request, 'x-forwarded-host')).toEqual(['Shop.example:1']);
  });
});

describe('request bodies', () => {
  it('with Content-Length keep it', async () => {
    const request = await sentOn('POST / HTTP/1.1\r\nHost: shop\r\nContent-Length: 5\r\n\r\nhello');
    expect([valuesOf(request, 'content-length'), valuesOf(request, 'transfer-encoding'), request.body.toString()]).toEqual([
      ['5'],
      [],
      'hello',
    ]);
  });

  it.each(['POST', 'DELETE', 'OPTIONS', 'GET'])('in chunks stay in chunks for %s (CVE-2026-29057)', async (method) => {
    const request = await sentOn(`${method} /x HTTP/1.1\r\nHost: shop\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\n\r\n`);
    expect([valuesOf(request, 'content-length'), valuesOf(request, 'transfer-encoding'), request.body.toString()]).toEqual([
      [],
      ['chunked'],
      'hello',
    ]);
  });

  it('in chunks that are empty stay in chunks', async () => {
    const request = await sentOn('POST / HTTP/1.1\r\nHost: shop\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n');
    expect([valuesOf(request, 'transfer-encoding'), request.complete]).toEqual([['chunked'], true]);
  });

  it('of no bytes get Content-Length: 0 with POST, none with DELETE', async () => {
    expect(valuesOf(await sentOn('POST / HTTP/1.1\r\nHost: shop\r\n\r\n'), 'content-length')).toEqual(['0']);
    await rig?.stop();
    expect(valuesOf(await sentOn('DELETE / HTTP/1.1\r\nHost: shop\r\n\r\n'), 'content-length')).toEqual([]);
  });

  it('of a GET with Content-Length: 0 keep saying so', async () => {
    expect(valuesOf(await sentOn('GET / HTTP/1.1\r\nHost: shop\r\nContent-Length: 0\r\n\r\n'), 'content-length')).toEqual(['0']);
  });

  it('carry their trailers on, but none that frame or identify (RFC 9110 6.5)', async () => {
    const request = await sentOn(
      'POST / HTTP/1.1\r\nHost: shop\r\nTrailer: X-Sum\r\nTransfer-Encoding: chunked\r\n\r\n1\r\na\r\n0\r\nX-Sum: 7\r\nX-Sum: 8\r\nAuthorization: x\r\nX-Forwarded-For: 6.6.6.6\r\n\r\n',
    );
    expect(request.trailers).toEqual([
      ['X-Sum', '7'],
      ['X-Sum', '8'],
    ]);
    expect(valuesOf(request, 'trailer')).toEqual(['X-Sum']);
  });

  it('flow before they are whole: the head goes up at once, each piece as it comes', async () => {
    const heads: string[] = [];
    let first: (text: string) => void = () => {};
    const firstPiece = new Promise<string>((resolve) => {
      first = resolve;
    });
    rig = await openRig(async (connection) => {
      heads.push((await connection.head()).line);
      connection.write('HTTP/1.1 103 Early Hints\r\nLink: </a>\r\n\r\n');
      first((await connection.bytes(5)).toString());
      await connection.bytes(5);
      connection.write(OK);
    });
    const client = (await rig.client()).write('POST / HTTP/1.1\r\nHost: shop\r\nContent-Length: 10\r\n\r\n');
    expect((await client.message()).line).toBe('HTTP/1.1 103 Early Hints');
    expect(heads).toEqual(['POST / HTTP/1.1']);
    client.write('12345');
    expect(await firstPiece).toBe('12345');
    client.write('67890');
    expect(statusOf(await client.message())).toBe(200);
  });

  it('pipelined behind one another are answered in order', async () => {
    const { rig, seen } = await noting();
    const client = (await rig.client()).write(
      'POST /1 HTTP/1.1\r\nHost: shop\r\nContent-Length: 1\r\n\r\naGET /2 HTTP/1.1\r\nHost: shop\r\n\r\n',
    );
    expect(statusOf(await client.message())).toBe(200);
    expect(statusOf(await client.message())).toBe(200);
    expect(seen.map(targetOf).sort()).toEqual(['/1', '/2']);
  });
});

describe('Expect', () => {
  it('100-continue goes to the upstream and its 100 comes back before the body goes', async () => {
    let early = '';
    rig = await openRig(async (connection: RawConnection) => {
      const head = await connection.head();
      expect(head.raw).toContain('Expect: 100-continue');
      early = connection.pending;
      connection.write('HTTP/1.1 100 Continue\r\n\r\n');
      expect((await connection.bytes(3)).toString()).toBe('abc');
      connection.write(OK);
    });
    const client = (await rig.client()).write('POST / HTTP/1.1\r\nHost: shop\r\nExpect: 100-continue\r\nContent-Length: 3\r\n\r\n');
    expect((await client.message()).line).toBe('HTTP/1.1 100 Continue');
    client.write('abc');
    expect(statusOf(await client.message())).toBe(200);
    expect(early).toBe('');
  });

  it('100-continue that the upstream refuses never asks for the body', async () => {
    rig = await openRig(async (connection) => {
      await connection.head();
      connection.write('HTTP/1.1 401 Unauthorized\r\nContent-Length: 0\r\nWWW-Authenticate: A\r\nWWW-Authenticate: B\r\n\r\n');
      await connection.rest();
    });
    const client = (await rig.client()).write('POST / HTTP/1.1\r\nHost: shop\r\nExpect: 100-continue\r\nContent-Length: 3\r\n\r\n');
    const answer = await client.message();
    expect([statusOf(answer), valuesOf(answer, 'www-authenticate'), valuesOf(answer, 'connection')]).toEqual([401, ['A', 'B'], ['close']]);
  });

  it('100-continue to an upstream that ignores it is answered for it', async () => {
    const { rig } = await noting();
    const client = (await rig.client()).write('POST / HTTP/1.1\r\nHost: shop\r\nExpect: 100-continue\r\nContent-Length: 3\r\n\r\n');
    expect((await client.message()).line).toBe('HTTP/1.1 100 Continue');
    client.write('abc');
    expect(statusOf(await client.message())).toBe(200);
  });

  it('of anything else is 417 (RFC 9110 10.1.1)', async () => {
    const { rig, seen } = await noting();
    expect(statusOf(await rig.ask('GET / HTTP/1.1\r\nHost: shop\r\nExpect: tea\r\n\r\n'))).toBe(417);
    expect(seen).toEqual([]);
  });
});

describe('what two readers could read differently is refused with 400 and the connection closed', () => {
  const SMUGGLED = 'GET /smuggled HTTP/1.1\r\nHost: shop\r\n\r\n';
  it.each([
    [
      'Content-Length with Transfer-Encoding',
      'POST / HTTP/1.1\r\nHost: shop\r\nContent-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n',
    ],
    ['two Content-Lengths that differ', 'POST / HTTP/1.1\r\nHost: shop\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\na'],
    ['two Content-Lengths that agree', 'POST / HTTP/1.1\r\nHost: shop\r\nContent-Length: 1\r\nContent-Length: 1\r\n\r\na'],
    ['a list as Content-Length', 'POST / HTTP/1.1\r\nHost: shop\r\nContent-Length: 1, 1\r\n\r\na'],
    ['an empty Content-Length', 'POST / HTTP/1.1\r\nHost: shop\r\nContent-Length:\r\n\r\n'],
    ['a signed Content-Length', 'POST / HTTP/1.1\r\nHost: shop\r\nContent-Length: +1\r\n\r\na'],
    ['another Transfer-Encoding', 'POST / HTTP/1.1\r\nHost: shop\r\nTransfer-Encoding: gzip, chunked\r\n\r\n0\r\n\r\n'],
    ['chunked that is not last', 'POST / HTTP/1.1\r\nHost: shop\r\nTransfer-Encoding: chunked, gzip\r\n\r\n0\r\n\r\n'],
    [
      'Transfer-Encoding twice',
      'POST / HTTP/1.1\r\nHost: shop\r\nTransfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n',
    ],
    ['Transfer-Encoding in HTTP/1.0', 'POST / HTTP/1.0\r\nHost: shop\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n'],
    ['a bad chunk size', 'POST / HTTP/1.1\r\nHost: shop\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n'],
    ['a folded field', 'GET / HTTP/1.1\r\nHost: shop\r\nX-A: 1\r\n 2\r\n\r\n'],
    ['a bare LF', 'GET / HTTP/1.1\nHost: shop\n\n'],
    ['a bare CR in a value', 'GET / HTTP/1.1\r\nHost: shop\r\nX-A: a\rb\r\n\r\n'],
    ['NUL in a value', 'GET / HTTP/1.1\r\nHost: shop\r\nX-A: a\0b\r\n\r\n'],
    ['a space before the colon', 'GET / HTTP/1.1\r\nHost: shop\r\nX-A : 1\r\n\r\n'],
    ['a field without a name', 'GET / HTTP/1.1\r\nHost: shop\r\n: 1\r\n\r\n'],
    ['two Hosts', 'GET / HTTP/1.1\r\nHost: shop\r\nHost: other\r\n\r\n'],
    ['no Host', 'GET / HTTP/1.1\r\n\r\n'],
    ['a malformed Host', 'GET / HTTP/1.1\r\nHost: a b/c\r\n\r\n'],
    ['a Host with userinfo', 'GET / HTTP/1.1\r\nHost: u@shop\r\n\r\n'],
    ['userinfo in an absolute target', 'GET http://u@shop/ HTTP/1.1\r\nHost: shop\r\n\r\n'],
    ['another scheme', 'GET ftp://shop/ HTTP/1.1\r\nHost: shop\r\n\r\n'],
    ['* with another method', 'GET * HTTP/1.1\r\nHost: shop\r\n\r\n'],
    ['an unknown method', 'BREW / HTTP/1.1\r\nHost: shop\r\n\r\n'],
    ['another HTTP version', 'GET / HTTP/9.9\r\nHost: shop\r\n\r\n'],
  ])('%s', async (_name, bytes) => {
    const { rig, seen } = await noting();
    const client = (await rig.client()).write(bytes + SMUGGLED);
    const answer = await client.message();
    expect([statusOf(answer), valuesOf(answer, 'connection')]).toEqual([400, ['close']]);
    expect(valuesOf(answer, 'proxy-status')).toEqual(['banyan; error=http_request_error']);
    expect(await client.rest()).toBe('');
    expect(seen.filter((request) => request.complete)).toEqual([]);
  });
});

describe('the listener', () => {
  it('answers CONNECT with 405', async () => {
    const { rig } = await noting();
    expect(statusOf(await rig.ask('CONNECT shop:443 HTTP/1.1\r\nHost: shop:443\r\n\r\n'))).toBe(405);
  });

  it('answers a head that is too large with 431', async () => {
    const { rig } = await noting({ limits: { maxHeaderBytes: 8_192 } });
    expect(statusOf(await rig.ask(`GET / HTTP/1.1\r\nHost: shop\r\nX-Big: ${'a'.repeat(9_000)}\r\n\r\n`))).toBe(431);
  });

  it('answers a head that does not come with 408', async () => {
    const { rig } = await noting({ limits: { headerTimeoutMs: 300 } });
    expect(statusOf(await rig.ask('GET / HTTP/1.1\r\nHost: '))).toBe(408);
  });

  it('lets thousands of small fields through, none dropped in silence', async () => {
    const fields = Array.from({ length: 2_500 }, (_, i) => `X-${i}: ${i}`).join('\r\n');
    const request = await sentOn(`GET / HTTP/1.1\r\nHost: shop\r\n${fields}\r\n\r\n`);
    expect(valuesOf(request, 'x-2499')).toEqual(['2499']);
  });

  it('speaks HTTP/1.0 to those who do, and closes', async () => {
    const { rig, seen } = await noting();
    const client = (await rig.client()).write('GET / HTTP/1.0\r\n\r\n');
    expect(statusOf(await client.message())).toBe(200);
    expect(await client.rest()).toBe('');
    expect(valuesOf(seen[0]!, 'via')).toEqual(['1.0 banyan']);
  });

  it('keeps a connection for many requests and closes it when asked', async () => {
    const { rig } = await noting();
    const client = await rig.client();
    for (let i = 0; i < 3; i++) expect(statusOf(await client.write('GET / HTTP/1.1\r\nHost: shop\r\n\r\n').message())).toBe(200);
    const last = await client.write('GET / HTTP/1.1\r\nHost: shop\r\nConnection: close\r\n\r\n').message();
    expect(valuesOf(last, 'connection')).toEqual(['close']);
    expect(await client.rest()).toBe('');
  });
});
