import { describe, expect, it } from '@jest/globals';
import fc from 'fast-check';
import { ResponseParser } from './response-parser.ts';

type Heard = {
  interims: number[];
  status: number;
  reason: string;
  fields: string[];
  body: string;
  trailers: readonly string[];
  end: string;
};

/** Everything that a parser says of these bytes, given to it in these pieces; then the connection closes. */
const hear = (bytes: string, cuts: readonly number[] = [], toHead = false): Heard => {
  const heard: Heard = { interims: [], status: 0, reason: '', fields: [], body: '', trailers: [], end: 'open' };
  const parser = new ResponseParser(
    {
      interim: (status) => heard.interims.push(status),
      head: (status, reason, fields) => Object.assign(heard, { status, reason, fields }),
      data: (chunk) => {
        heard.body += chunk.toString('latin1');
      },
      end: (trailers, reusable) => Object.assign(heard, { trailers, end: reusable ? 'reusable' : 'done' }),
    },
    1024,
  );
  parser.expect(toHead);
  const buffer = Buffer.from(bytes, 'latin1');
  const edges = [...new Set([0, ...cuts.map((cut) => cut % (buffer.length + 1)), buffer.length])].sort((a, b) => a - b);
  try {
    for (let i = 1; i < edges.length; i++) {
      // bytes behind the end spoil the connection, whether they come with it or later
      if (parser.over) heard.end = 'done';
      else parser.push(buffer.subarray(edges[i - 1], edges[i]));
    }
  } catch (error) {
    heard.end = (error as Error & { code: string }).code;
    return heard;
  }
  if (heard.end === 'open') parser.close();
  return heard;
};

const OK = 'HTTP/1.1 200 OK\r\n';

describe('a response', () => {
  it.each([
    ['with a length', `${OK}Content-Length: 3\r\n\r\nabc`, 'abc', 'reusable'],
    ['without a body', `${OK}Content-Length: 0\r\n\r\n`, '', 'reusable'],
    ['in chunks', `${OK}Transfer-Encoding: Chunked\r\n\r\n1;a="b"\r\na\r\n02 \r\nbc\r\n0\r\n\r\n`, 'abc', 'reusable'],
    ['until the end', `${OK}\r\nabc`, 'abc', 'done'],
    ['that closes', `${OK}Connection: x, Close\r\nContent-Length: 1\r\n\r\na`, 'a', 'done'],
    ['that closes in one line of two', `${OK}Connection: close\r\nConnection: keep-alive\r\nContent-Length: 1\r\n\r\na`, 'a', 'done'],
    ['of HTTP/1.0', 'HTTP/1.0 200 OK\r\nContent-Length: 1\r\n\r\na', 'a', 'done'],
    ['of HTTP/1.0 that stays', 'HTTP/1.0 200 OK\r\nConnection: keep-alive\r\nContent-Length: 1\r\n\r\na', 'a', 'reusable'],
    ['with more behind it', `${OK}Content-Length: 1\r\n\r\nab`, 'a', 'done'],
    ['with more behind its chunks', `${OK}Transfer-Encoding: chunked\r\n\r\n1\r\na\r\n0\r\n\r\nH`, 'a', 'done'],
    ['with more behind a 204', 'HTTP/1.1 204 No Content\r\n\r\nx', '', 'done'],
  ])('%s is read', (_, bytes, body, end) => {
    expect(hear(bytes)).toMatchObject({ status: bytes.includes('204') ? 204 : 200, body, end });
  });

  it.each([
    ['a head that is cut', `${OK}Content-Le`],
    ['a body that is cut', `${OK}Content-Length: 3\r\n\r\nab`],
    ['chunks that are cut', `${OK}Transfer-Encoding: chunked\r\n\r\n1\r\na\r\n`],
    ['trailers that are cut', `${OK}Transfer-Encoding: chunked\r\n\r\n0\r\nX: 1\r\n`],
  ])('%s has no end', (_, bytes) => {
    expect(hear(bytes).end).toBe('open');
  });

  it('keeps names, order and repeats, and drops what belongs to the connection', () => {
    const { fields } = hear(
      `${OK}A: 1\r\nConnection: X-Hop\r\nx-hop: 2\r\na:3 \r\nKeep-Alive: timeout=5\r\nB :\r\nContent-Length: 0\r\n\r\n`,
    );
    expect(fields).toEqual(['A', '1', 'a', '3', 'B', '', 'Content-Length', '0']);
  });

  it('gives no body to HEAD, 204 and 304, whatever the head says', () => {
    expect(hear(`${OK}Content-Length: 3\r\n\r\n`, [], true)).toMatchObject({ body: '', end: 'reusable' });
    expect(hear(`${OK}Transfer-Encoding: chunked\r\n\r\n`, [], true)).toMatchObject({ body: '', end: 'reusable' });
    expect(hear('HTTP/1.1 304 Not Modified\r\nContent-Length: 3\r\n\r\n')).toMatchObject({ body: '', end: 'reusable' });
  });

  it('passes interim answers, but not without end', () => {
    expect(hear(`HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 103 Early Hints\r\nLink: x\r\n\r\n${OK}Content-Length: 0\r\n\r\n`)).toMatchObject({
      interims: [100, 103],
      status: 200,
      end: 'reusable',
    });
    expect(hear('HTTP/1.1 102 Processing\r\n\r\n'.repeat(101)).end).toBe('upstream-protocol');
  });

  it('reads trailers and leaves out those that come too late', () => {
    const { trailers } = hear(`${OK}Transfer-Encoding: chunked\r\n\r\n0\r\nX-Sum: 1\r\nSet-Cookie: a=b\r\n\r\n`);
    expect(trailers).toEqual(['X-Sum', '1']);
  });

  it.each([
    'HTTP/2 200 OK\r\n\r\n',
    'HTTP/1.1 2000 OK\r\n\r\n',
    'HTTP/1.1  200 OK\r\n\r\n',
    'HTTP/1.1 200 O\0K\r\n\r\n',
    'hello\r\n\r\n',
    ' HTTP/1.1 200 OK\r\n\r\n',
    'HTTP/1.1 101 Switching Protocols\r\n\r\n',
    'HTTP/1.1 103 Early Hints\r\nContent-Length: 1\r\n\r\n',
    'HTTP/1.1 100 Continue\r\nTransfer-Encoding: chunked\r\n\r\n',
    `${OK}A\r\n\r\n`,
    `${OK}: b\r\n\r\n`,
    `${OK}A: b\r\n c\r\n\r\n`,
    `${OK}A: b\0c\r\n\r\n`,
    `${OK}A: b\rc\r\n\r\n`,
    `${OK}A: b\nC: d\r\n\r\n`,
    'HTTP/1.1 200 OK\nA: b\n\n',
    `${OK}Content-Length: 1\r\nContent-Length: 1\r\n\r\na`,
    `${OK}Content-Length: 1, 1\r\n\r\na`,
    `${OK}Content-Length: +1\r\n\r\na`,
    `${OK}Content-Length:\r\n\r\na`,
    `${OK}Content-Length: 1\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n`,
    `${OK}Transfer-Encoding: gzip, chunked\r\n\r\n0\r\n\r\n`,
    `${OK}Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n`,
    'HTTP/1.0 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n',
    `${OK}Transfer-Encoding: chunked\r\n\r\n-1\r\n\r\n`,
    `${OK}Transfer-Encoding: chunked\r\n\r\n0x1\r\na\r\n0\r\n\r\n`,
    `${OK}Transfer-Encoding: chunked\r\n\r\n1\na\r\n0\r\n\r\n`,
    `${OK}Transfer-Encoding: chunked\r\n\r\n1\r\nab\r\n0\r\n\r\n`,
    `${OK}Transfer-Encoding: chunked\r\n\r\n1\r\na\n0\r\n\r\n`,
    `${OK}Transfer-Encoding: chunked\r\n\r\nfffffffffffffff\r\n`,
    `${OK}Transfer-Encoding: chunked\r\n\r\n0\r\nX\r\n\r\n`,
    `${OK}A: ${'a'.repeat(1024)}\r\n\r\n`,
    `${OK}Transfer-Encoding: chunked\r\n\r\n0\r\nX: ${'a'.repeat(1024)}\r\n\r\n`,
    `${OK}Transfer-Encoding: chunked\r\n\r\n1;${'a'.repeat(5000)}\r\na\r\n0\r\n\r\n`,
  ])('%j is none', (bytes) => {
    expect(hear(bytes).end).toBe('upstream-protocol');
    // one byte at a time too
    expect(hear(bytes, [...bytes].keys().toArray()).end).toBe('upstream-protocol');
  });

  it('is the same however its bytes are cut', () => {
    const piece = fc.constantFrom(
      OK,
      'HTTP/1.1 103 Early Hints\r\nLink: x\r\n\r\n',
      'Content-Length: 5\r\n',
      'Transfer-Encoding: chunked\r\n',
      'X: 1\r\n',
      '\r\n',
      '5\r\nhello\r\n',
      '0\r\n',
      'hello',
      'a;b\r\n0123456789\r\n',
      '\n',
      '\0',
    );
    fc.assert(
      fc.property(fc.array(piece, { maxLength: 12 }), fc.array(fc.nat(), { maxLength: 20 }), fc.boolean(), (parts, cuts, head) => {
        const bytes = OK + parts.join('');
        expect(hear(bytes, cuts, head)).toEqual(hear(bytes, [], head));
      }),
      { numRuns: 2000 },
    );
  });
});
