import { afterEach, describe, expect, it } from '@jest/globals';
import { type RawConnection, rawServer, statusOf, valuesOf } from '../harness/raw-http.ts';
import { answering, OK, openRig, type Rig } from './proxy-rig.ts';

let rig: Rig | undefined;
afterEach(async () => {
  await rig?.stop();
  rig = undefined;
});

const GET = 'GET / HTTP/1.1\r\nHost: shop\r\n\r\n';
const POST = 'POST / HTTP/1.1\r\nHost: shop\r\nContent-Length: 1\r\n\r\na';
const WAYS = [
  ['pooled', GET],
  ['streamed', POST],
] as const;

describe('an upstream that breaks off in the middle is seen as broken off', () => {
  it.each(WAYS)('short of its Content-Length (%s)', async (_way, ask) => {
    rig = await openRig(async (connection) => {
      await connection.message();
      connection.write('HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nabc').end();
    });
    const answer = await rig.ask(ask);
    expect([statusOf(answer), answer.complete]).toEqual([200, false]);
    expect(rig.delivered[0]).toMatchObject({ complete: false, truncated: true, clientLeft: false });
  });

  it.each(WAYS)('before its last chunk (%s)', async (_way, ask) => {
    rig = await openRig(async (connection) => {
      await connection.message();
      connection.write('HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n').end();
    });
    const answer = await rig.ask(ask);
    expect([answer.complete, answer.body.toString(), answer.raw.endsWith('0\r\n\r\n')]).toEqual([false, 'abc', false]);
  });

  it('by a reset', async () => {
    rig = await openRig(async (connection) => {
      await connection.message();
      connection.write('HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n');
      await connection.until('never').catch(() => {});
    });
    const client = (await rig.client()).write(GET);
    await client.until('abc\r\n');
    rig.server.connections[0]!.reset();
    expect(await client.rest()).toBe('');
  });

  it('by a bad chunk', async () => {
    let broken: (() => void) | undefined;
    rig = await openRig(async (connection) => {
      await connection.message();
      connection.write('HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n');
      broken = () => connection.write('zz\r\n');
      await connection.until('never').catch(() => {});
    });
    const client = (await rig.client()).write(GET);
    await client.until('abc\r\n');
    broken?.();
    expect(await client.rest()).toBe('');
  });

  it('or by 502 when the bad chunk comes with the head', async () => {
    rig = await openRig(async (connection) => {
      await connection.message();
      connection.write('HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\nzz\r\n');
    });
    expect((await rig.ask(GET)).line).toBe('HTTP/1.1 502 Bad Gateway');
  });

  it('towards an HTTP/1.0 client by a reset, since closing would be a clean end', async () => {
    rig = await openRig(async (connection) => {
      await connection.message();
      connection.write('HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n');
      await connection.until('never').catch(() => {});
    });
    const client = (await rig.client()).write('GET / HTTP/1.0\r\n\r\n');
    await client.until('abc');
    rig.server.connections[0]!.reset();
    expect(await client.closed).toEqual({ reset: true });
  });

  it('when it falls silent', async () => {
    rig = await openRig(
      async (connection) => {
        await connection.message();
        connection.write('HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nabc');
        await connection.rest();
      },
      { timeouts: { idleMs: 300 } },
    );
    expect((await rig.ask(GET)).complete).toBe(false);
    expect((await rig.ask(POST)).complete).toBe(false);
  });
});

describe('an upstream that does not answer', () => {
  it.each(WAYS)('refused: 502 with Proxy-Status, nothing sent (%s)', async (_way, ask) => {
    const gone = await rawServer(async () => {});
    await gone.close();
    rig = await openRig(async () => {}, { url: gone.url });
    const answer = await rig.ask(ask);
    expect([statusOf(answer), valuesOf(answer, 'proxy-status'), valuesOf(answer, 'content-type')]).toEqual([
      502,
      ['banyan; error=connection_refused'],
      ['application/problem+json'],
    ]);
    expect(JSON.parse(answer.body.toString())).toMatchObject({ status: 502, code: 'upstream-unreachable' });
    expect(answer.body.toString()).not.toContain('127.0.0.1');
    expect(rig.errors[0]).toMatchObject({ code: 'upstream-unreachable', sent: 'no', retryable: true });
  });

  it.each(WAYS)('unknown by name: 502 dns_error (%s)', async (_way, ask) => {
    rig = await openRig(async () => {}, { url: 'http://no-such-host.invalid:80' });
    expect(valuesOf(await rig.ask(ask), 'proxy-status')).toEqual(['banyan; error=dns_error']);
  });

  it.each(WAYS)('in time: 504, perhaps seen (%s)', async (_way, ask) => {
    rig = await openRig(
      async (connection) => {
        await connection.rest();
      },
      { timeouts: { responseMs: 300 } },
    );
    const answer = await rig.ask(ask);
    expect([statusOf(answer), valuesOf(answer, 'proxy-status')]).toEqual([504, ['banyan; error=http_response_timeout']]);
    expect(rig.errors[0]).toMatchObject({ code: 'upstream-timeout', sent: 'maybe' });
  });

  it.each(WAYS)('but closes: 502, perhaps seen (%s)', async (_way, ask) => {
    rig = await openRig(async (connection) => {
      await connection.message();
      connection.end();
    });
    const answer = await rig.ask(ask);
    expect([statusOf(answer), valuesOf(answer, 'proxy-status')]).toEqual([502, ['banyan; error=connection_terminated']]);
    expect(rig.errors[0]).toMatchObject({ code: 'upstream-reset', sent: 'maybe' });
    expect(rig.server.connections).toHaveLength(1);
  });

  it.each([
    ['garbage', 'garbage\r\n\r\n'],
    ['HTTP/0.9', '<html>hello</html>'],
    ['two Content-Lengths', 'HTTP/1.1 200 OK\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\nab'],
    ['Content-Length and chunks', 'HTTP/1.1 200 OK\r\nContent-Length: 1\r\nTransfer-Encoding: chunked\r\n\r\n1\r\na\r\n0\r\n\r\n'],
    ['a NUL in a value', 'HTTP/1.1 200 OK\r\nX: a\0b\r\nContent-Length: 1\r\n\r\na'],
    ['a folded field', 'HTTP/1.1 200 OK\r\nX: a\r\n b\r\nContent-Length: 1\r\n\r\na'],
    ['a head without end', `HTTP/1.1 200 OK\r\nX: ${'a'.repeat(70_000)}\r\n\r\n`],
    ['101 that nobody asked for', 'HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: x\r\n\r\n'],
  ])('but sends %s: 502 http_protocol_error', async (_what, bytes) => {
    for (const [, ask] of WAYS) {
      rig = await openRig(async (connection) => {
        await connection.message();
        connection.write(bytes);
      });
      const answer = await rig.ask(ask);
      expect([statusOf(answer), valuesOf(answer, 'proxy-status')]).toEqual([502, ['banyan; error=http_protocol_error']]);
      await rig.stop();
    }
  });
});

describe('a keep-alive connection gone stale', () => {
  /** Answers one request on each connection, then closes when the next comes: what an idle time-out at the wrong moment looks like. */
  const stale = async (connection: RawConnection): Promise<void> => {
    await connection.message();
    connection.write(OK);
    await connection.message();
    connection.reset();
  };

  it.each(['GET', 'HEAD', 'OPTIONS'])('is replaced once, unseen, for %s', async (method) => {
    rig = await openRig(stale);
    const client = await rig.client();
    expect(statusOf(await client.write(GET).message())).toBe(200);
    const answer = await client.write(`${method} / HTTP/1.1\r\nHost: shop\r\n\r\n`).message({ head: method === 'HEAD' });
    expect(statusOf(answer)).toBe(200);
    expect(rig.server.connections).toHaveLength(2);
  });

  it.each([
    ['POST', 'POST / HTTP/1.1\r\nHost: shop\r\n\r\n'],
    ['DELETE', 'DELETE / HTTP/1.1\r\nHost: shop\r\n\r\n'],
    ['GET with a body', 'GET / HTTP/1.1\r\nHost: shop\r\nContent-Length: 1\r\n\r\na'],
  ])('is not for %s: it may have been seen', async (what, bytes) => {
    rig = await openRig(stale);
    const client = await rig.client();
    const first = what === 'GET with a body' ? bytes : GET;
    expect(statusOf(await client.write(first).message())).toBe(200);
    expect(statusOf(await client.write(bytes).message())).toBe(502);
    expect(rig.errors[0]).toMatchObject({ code: 'upstream-reset', sent: 'maybe' });
    expect(rig.server.connections).toHaveLength(1);
  });

  it('that had been closed while idle is not used at all', async () => {
    rig = await openRig(async (connection) => {
      await connection.message();
      connection.write(OK).end();
    });
    const client = await rig.client();
    expect(statusOf(await client.write(GET).message())).toBe(200);
    await rig.server.connections[0]!.closed;
    expect(statusOf(await client.write('POST / HTTP/1.1\r\nHost: shop\r\n\r\n').message())).toBe(200);
  });
});

describe('a client that leaves', () => {
  it.each(WAYS)('before the answer ends the request upstream (%s)', async (_way, ask) => {
    let arrived: (connection: RawConnection) => void = () => {};
    const connected = new Promise<RawConnection>((resolve) => {
      arrived = resolve;
    });
    rig = await openRig(async (connection) => {
      await connection.message();
      arrived(connection);
      await connection.rest();
    });
    const client = (await rig.client()).write(ask);
    const connection = await connected;
    client.destroy();
    await connection.closed;
    expect(rig.errors[0]).toMatchObject({ code: 'client-left' });
  });

  it.each(WAYS)('in the middle of the answer ends it upstream (%s)', async (_way, ask) => {
    rig = await openRig(async (connection) => {
      await connection.message();
      connection.write('HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n1\r\na\r\n');
      await connection.rest();
    });
    const client = (await rig.client()).write(ask);
    await client.until('a\r\n');
    client.reset();
    await rig.server.connections[0]!.closed;
    expect(rig.delivered[0]).toMatchObject({ complete: false, truncated: false, clientLeft: true });
  });

  it('in the middle of its upload never lets the upstream see a whole request', async () => {
    rig = await openRig(async (connection) => {
      await connection.bytes(1);
      await connection.rest();
    });
    const client = (await rig.client()).write('POST / HTTP/1.1\r\nHost: shop\r\nTransfer-Encoding: chunked\r\n\r\n1\r\na\r\n');
    while (rig.server.connections.length === 0) await new Promise((resolve) => setImmediate(resolve));
    client.destroy();
    await rig.server.connections[0]!.closed;
    expect(rig.server.connections[0]!.pending).not.toContain('0\r\n\r\n');
  });
});

describe('drain', () => {
  it('lets what is in flight finish, refuses what is new, closes what is idle', async () => {
    let release: () => void = () => {};
    rig = await openRig(
      answering(async (request) => {
        if (request.line.includes('slow')) {
          await new Promise<void>((resolve) => {
            release = resolve;
          });
        }
        return OK;
      }),
    );
    const idle = await rig.client();
    expect(statusOf(await idle.write(GET).message())).toBe(200);
    const silent = await rig.client(); // as a browser opens one ahead
    const busy = (await rig.client()).write('GET /slow HTTP/1.1\r\nHost: shop\r\n\r\n');
    while (rig.upstream.inFlight === 0) await new Promise((resolve) => setImmediate(resolve));
    const drained = rig.listener.drain(10_000);
    expect(await idle.rest()).toBe('');
    expect(await silent.rest()).toBe('');
    await expect(rig.client()).rejects.toThrow('ECONNREFUSED');
    release();
    expect((await busy.message()).body.toString()).toBe('ok');
    await drained;
  });

  it('destroys what does not finish by its deadline', async () => {
    rig = await openRig(async (connection) => {
      await connection.rest();
    });
    const client = (await rig.client()).write(GET);
    while (rig.upstream.inFlight === 0) await new Promise((resolve) => setImmediate(resolve));
    await rig.listener.drain(100);
    expect(await client.rest()).toBe('');
  });
});
