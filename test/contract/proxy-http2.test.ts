import { once } from 'node:events';
import { afterEach, describe, expect, it } from '@jest/globals';
import { type RawConnection, valuesOf } from '../harness/raw-http.ts';
import { CODE, FLAG, FRAME, fieldBlock, GREETING, headersFrame, type RawHttp2, request } from '../harness/raw-http2.ts';
import { answering, OK, openRig, type Rig, type RigOptions } from './proxy-rig.ts';

let rig: Rig | undefined;
afterEach(async () => {
  await rig?.stop();
  rig = undefined;
});

/** A gateway that answers everybody, and a client that has introduced itself. */
const meet = async (
  script: (connection: RawConnection, index: number) => Promise<void> = answering(() => OK),
  options: RigOptions = {},
): Promise<{ rig: Rig; client: RawHttp2 }> => {
  rig = await openRig(script, { http2: true, ...options });
  return { rig, client: (await rig.http2()).greet() };
};

const fields = (...more: [string, string][]): [string, string][] => [...request('/a'), ...more];

describe('a request that is no request (RFC 9113 8.1.1)', () => {
  it.each<[string, [string, string]]>([
    ['a space in its name', ['x y', '1']],
    ['an empty name', ['', '1']],
    ['a line break in its value', ['x-a', '1\r\nx-b: 2']],
    ['a NUL in its value', ['x-a', 'a\0b']],
    ['a space around its value', ['x-a', ' a']],
  ])('is not what a field with %s makes of it: Node takes the field out', async (_what, field) => {
    const { promise, resolve } = Promise.withResolvers<string>();
    const { client } = await meet(
      answering((seen) => {
        resolve(seen.raw);
        return OK;
      }),
    );
    client.headers(1, fields(['x-before', '1'], field, ['x-behind', '2']));
    expect(await client.outcome(1)).toMatchObject({ status: 200 });
    const raw = await promise;
    expect(raw).toMatch(/x-before: 1\r\nx-behind: 2\r\n/);
    expect(raw).not.toMatch(/x-[ab]:|x y|\0/);
  });

  it.each([
    ['less', 'ab', true],
    ['more', 'abcdef', false],
  ])('that brings %s than its content-length is reset and never whole upstream', async (_what, body, end) => {
    const { promise, resolve } = Promise.withResolvers<string>();
    const begun = Promise.withResolvers<void>();
    const { client } = await meet(async (connection) => {
      await connection.head();
      begun.resolve();
      resolve(await connection.rest());
    });
    client.headers(1, [...request('/a', { ':method': 'POST' }), ['content-length', '4']], false);
    await begun.promise;
    client.data(1, body, end);
    const { status, reset } = await client.outcome(1);
    // Node makes an error of the connection of one that brings more (RFC 9113 5.4 leaves it the choice).
    expect([status, client.closed ? client.goaway : reset]).toEqual([null, client.closed ? CODE.internal : CODE.protocol]);
    expect((await promise).length).toBeLessThan(4);
  });
});

describe('what goes upstream', () => {
  it('says host, cookies, origin and way as HTTP/1.1 does', async () => {
    const { promise, resolve } = Promise.withResolvers<readonly (readonly [string, string])[]>();
    const { client } = await meet(
      answering((seen) => {
        resolve(seen.fields);
        return OK;
      }),
    );
    client.headers(1, fields(['host', 'SHOP.test:80'], ['cookie', 'a=1'], ['x-latin', 'caf\xe9'], ['cookie', 'b=2'], ['te', 'trailers']));
    await client.outcome(1);
    const seen = { fields: await promise } as Parameters<typeof valuesOf>[0];
    expect(valuesOf(seen, 'host')).toEqual(['shop.test']);
    expect(valuesOf(seen, 'cookie')).toEqual(['a=1; b=2']);
    expect(valuesOf(seen, 'x-latin')).toEqual(['caf\xe9']);
    expect(valuesOf(seen, 'via')).toEqual(['2.0 banyan']);
    expect(valuesOf(seen, 'te')).toEqual(['trailers']);
    expect(valuesOf(seen, 'x-forwarded-proto')).toEqual(['http']);
  });

  it('is a body without a length as chunks, its trailers behind it', async () => {
    const { promise, resolve } = Promise.withResolvers<unknown>();
    const { client } = await meet(
      answering((seen) => {
        resolve([seen.body.toString(), seen.trailers]);
        return OK;
      }),
    );
    client.headers(1, request('/a', { ':method': 'POST' }), false).data(1, 'hello');
    client.send(
      FRAME.headers,
      FLAG.endHeaders | FLAG.endStream,
      1,
      fieldBlock([
        ['x-sum', '7'],
        ['host', 'evil.test'],
      ]),
    );
    expect(await client.outcome(1)).toMatchObject({ status: 200, ended: true });
    expect(await promise).toEqual(['hello', [['x-sum', '7']]]);
  });

  it.each([
    ['CANCEL', CODE.cancel],
    ['NO_ERROR, which ends the readable side as if all had come', CODE.none],
  ])('is never a whole body when the client resets with %s', async (_what, code) => {
    const { promise, resolve } = Promise.withResolvers<boolean>();
    const reading = Promise.withResolvers<void>();
    const { client, rig: open } = await meet(async (connection) => {
      await connection.until('hello');
      reading.resolve();
      resolve(await connection.rest().then((rest) => rest.includes('0\r\n\r\n')));
    });
    client.headers(1, request('/a', { ':method': 'POST' }), false).data(1, 'hello');
    await reading.promise;
    client.reset(1, code);
    expect(await promise).toBe(false);
    expect(open.errors[0]).toMatchObject({ code: 'client-left' });
  });

  it('is given up when the client resets while it waits', async () => {
    const { promise, resolve } = Promise.withResolvers<void>();
    const { client } = await meet(async (connection) => {
      await connection.message();
      client.reset(1, CODE.cancel);
      await connection.rest();
      resolve();
    });
    client.headers(1, request('/a'));
    await promise;
  });
});

describe('what comes back', () => {
  it('is reset, never ended, when the upstream breaks off; what came before arrives', async () => {
    const { client } = await meet(async (connection) => {
      await connection.message();
      connection.write('HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nabc').end();
    });
    client.headers(1, request('/a'));
    expect(await client.outcome(1)).toEqual({ status: 200, body: 'abc', ended: false, reset: CODE.internal });
  });

  it('is whole and then NO_ERROR when it comes before the upload is over', async () => {
    const { client } = await meet(async (connection) => {
      await connection.head();
      connection.write('HTTP/1.1 413 Too Large\r\nContent-Length: 2\r\n\r\nno');
      await connection.rest();
    });
    client.headers(1, request('/a', { ':method': 'POST' }), false).data(1, 'some');
    await client.until(() => client.seen(1).reset !== null);
    expect(client.seen(1)).toEqual({ status: 413, body: 'no', ended: true, reset: CODE.none });
    const order = client.frames.filter(({ stream }) => stream === 1).map(({ type }) => type);
    expect(order.at(-1)).toBe(FRAME.reset);
  });

  it('has no body where there is none', async () => {
    const { client } = await meet(
      answering((seen) =>
        seen.line.startsWith('HEAD')
          ? 'HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\n'
          : `HTTP/1.1 ${seen.line.includes('/204') ? '204 No Content' : '304 Not Modified'}\r\nETag: "a"\r\n\r\n`,
      ),
    );
    client
      .headers(1, request('/head', { ':method': 'HEAD' }))
      .headers(3, request('/204'))
      .headers(5, request('/304'));
    for (const [stream, status] of [
      [1, 200],
      [3, 204],
      [5, 304],
    ] as const)
      expect(await client.outcome(stream)).toEqual({ status, body: '', ended: true, reset: null });
  });

  it('waits for a client that reads nothing, and holds little of it', async () => {
    // Far more than what the system itself holds for two sockets.
    const PIECES = 320;
    let sent = 0;
    const { client } = await meet(async (connection) => {
      await connection.message();
      connection.write('HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n');
      const piece = `10000\r\n${'x'.repeat(65_536)}\r\n`;
      for (let i = 0; i < PIECES; i++) {
        if (!connection.socket.write(piece)) await once(connection.socket, 'drain');
        sent += 65_536;
      }
      connection.write('0\r\n\r\n');
    });
    client.headers(1, request('/a'));
    await client.until(() => client.received(1) === 65_535);
    // The window is used up; however often we look, no more comes, and the upstream is not read.
    for (let i = 0; i < 20; i++) await client.settled();
    expect(client.received(1)).toBe(65_535);
    expect(sent).toBeLessThan(PIECES * 65_536);
    client.window(0, 2 ** 30).window(1, 2 ** 30);
    await client.outcome(1);
    expect(client.received(1)).toBe(PIECES * 65_536);
  });

  it('does not take in more of an upload than a window while the upstream reads nothing', async () => {
    const stalled = Promise.withResolvers<void>();
    const { client } = await meet(async (connection) => {
      await connection.head();
      connection.socket.pause();
      await stalled.promise;
      connection.socket.resume();
      const body = await connection.until('0\r\n\r\n');
      connection.write(`HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n${body.length > 4_000_000 ? 'ok' : 'no'}`);
    });
    client.headers(1, request('/a', { ':method': 'POST' }), false);
    let left = 65_535;
    let connectionLeft = 65_535;
    let sent = 0;
    let read = 0;
    const grant = (): void => {
      for (; read < client.frames.length; read++) {
        const { type, stream, payload } = client.frames[read]!;
        if (type !== FRAME.window) continue;
        if (stream === 0) connectionLeft += payload.readUInt32BE();
        else left += payload.readUInt32BE();
      }
    };
    const pour = async (most: number): Promise<void> => {
      for (let quiet = 0; quiet < 40 && sent < most; ) {
        grant();
        const size = Math.min(16_384, left, connectionLeft, most - sent);
        if (size <= 0) {
          quiet++;
          await client.settled();
          continue;
        }
        quiet = 0;
        client.data(1, Buffer.alloc(size, 120));
        sent += size;
        left -= size;
        connectionLeft -= size;
      }
    };
    await pour(24 * 1024 * 1024);
    expect(sent).toBeLessThan(24 * 1024 * 1024);
    stalled.resolve();
    await pour(sent + 4_000_000);
    client.data(1, '', true);
    expect(await client.outcome(1)).toMatchObject({ status: 200, body: 'ok' });
  });
});

describe('a client that asks for too much', () => {
  it('gets 431 for a head beyond the limit, and its stream reset for one beyond twice that', async () => {
    const { rig: open, client } = await meet(undefined, { limits: { maxHeaderBytes: 8_192 } });
    client.headers(1, fields(['x-long', 'x'.repeat(9_000)]));
    expect(await client.outcome(1)).toMatchObject({ status: 431, ended: true });
    client.headers(3, fields(['x-a', 'x'.repeat(8_000)], ['x-b', 'x'.repeat(8_000)], ['x-c', 'x'.repeat(200)]));
    expect(await client.outcome(3)).toMatchObject({ status: null, reset: CODE.calm });
    expect(open.server.connections).toHaveLength(0);
  });

  it('is refused streams beyond those it may have open (RFC 9113 5.1.2)', async () => {
    const release = Promise.withResolvers<void>();
    const { rig: open, client } = await meet(
      answering(async () => {
        await release.promise;
        return OK;
      }),
      { limits: { maxStreams: 2 } },
    );
    await client.settled();
    for (const stream of [1, 3, 5]) client.headers(stream, request('/a'));
    // nghttp2 makes an error of the connection of it once the limit has been acknowledged (RFC 9113 5.4 leaves it the choice).
    await client.until(() => client.closed);
    expect(client.seen(5).status).toBeNull();
    expect(open.server.connections.length).toBeLessThanOrEqual(2);
    release.resolve();
  });

  it('is sent away when it opens and resets streams without end (CVE-2023-44487)', async () => {
    const { rig: open, client } = await meet(
      answering(() => null),
      { limits: { maxStreams: 10 } },
    );
    for (let i = 0; i < 1_000 && !client.closed; i++) {
      client.headers(2 * i + 1, request('/a')).reset(2 * i + 1, CODE.cancel);
      if (i % 50 === 0) await client.settled();
    }
    await client.until(() => client.closed);
    expect(client.goaway).toBe(CODE.calm);
    expect(open.server.connections.length).toBeLessThan(150);
  });

  it('is sent away when it makes us reset streams without end (CVE-2025-8671)', async () => {
    const { client } = await meet(
      answering(() => null),
      { limits: { maxStreams: 10 } },
    );
    for (let i = 0; i < 1_000 && !client.closed; i++) {
      client.headers(2 * i + 1, request('/a')).window(2 * i + 1, 2 ** 31 - 1);
      if (i % 50 === 0) await client.settled();
    }
    await client.until(() => client.closed);
    expect(client.goaway).not.toBeNull();
  });

  it.each<[string, (client: RawHttp2, i: number) => void]>([
    ['PING (CVE-2019-9512)', (client) => client.send(FRAME.ping, 0, 0, Buffer.alloc(8))],
    ['SETTINGS (CVE-2019-9515)', (client) => client.send(FRAME.settings, 0, 0)],
    ['DATA without data (CVE-2019-9518)', (client) => client.data(1, '')],
    [
      'CONTINUATION (CVE-2024-27316)',
      (client, i) =>
        client.send(i === 0 ? FRAME.headers : FRAME.continuation, 0, 3, i === 0 ? fieldBlock(request('/a')) : fieldBlock([['x-a', 'b']])),
    ],
  ])('is sent away when it floods us with %s', async (_what, flood) => {
    const { client } = await meet(answering(() => null));
    client.headers(1, request('/a', { ':method': 'POST' }), false);
    for (let i = 0; i < 20_000 && !client.closed; i++) {
      flood(client, i);
      if (i % 500 === 0) await new Promise(setImmediate);
    }
    await client.until(() => client.closed);
    expect(client.closed).toBe(true);
  });

  it('is cut off for frames that HTTP/2 does not know in that place', async () => {
    const { client } = await meet();
    client.data(1, 'nothing was asked');
    await client.until(() => client.closed);
    expect(client.goaway).toBe(CODE.protocol);
  });
});

describe('a connection that stands still', () => {
  it.each<[string, (client: RawHttp2) => void]>([
    ['says nothing', () => undefined],
    ['stops in the preface', (client) => client.write(Buffer.from('PRI * HT'))],
    ['stops before its SETTINGS', (client) => client.write(Buffer.from('PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n'))],
  ])('is closed when it %s', async (_what, act) => {
    rig = await openRig(
      answering(() => OK),
      { http2: true, limits: { headerTimeoutMs: 200 } },
    );
    const client = await rig.http2();
    act(client);
    await client.until(() => client.closed);
    expect(client.closed).toBe(true);
  });

  it('is closed with GOAWAY when it has no stream for long enough, though it keeps sending PING', async () => {
    const { client } = await meet(undefined, { limits: { idleTimeoutMs: 300 } });
    client.headers(1, request('/a'));
    await client.outcome(1);
    const pings = setInterval(() => client.send(FRAME.ping, 0, 0, Buffer.alloc(8)), 50);
    await client.until(() => client.closed);
    clearInterval(pings);
    expect(client.goaway).toBe(CODE.none);
  });

  it('is closed though a head was begun on it', async () => {
    const { client } = await meet(undefined, { limits: { idleTimeoutMs: 300 } });
    await client.settled();
    client.send(FRAME.headers, FLAG.endStream, 1, fieldBlock(request('/a')));
    await client.until(() => client.closed);
    expect(client.seen(1).status).toBeNull();
  });

  it('gets 408 for a body that stops', async () => {
    const { client } = await meet(
      async (connection) => {
        await connection.message();
      },
      { timeouts: { idleMs: 200 } },
    );
    client.headers(1, request('/a', { ':method': 'POST' }), false).data(1, 'a');
    expect(await client.outcome(1)).toMatchObject({ status: 408, ended: true });
  });
});

describe('on drain', () => {
  it('each client is told, what is under way finishes, and the connection closes', async () => {
    const release = Promise.withResolvers<void>();
    const { rig: open, client } = await meet(
      answering(async () => {
        await release.promise;
        return OK;
      }),
    );
    client.headers(1, request('/a'));
    await client.settled();
    const drained = open.listener.drain(5_000);
    await client.until(() => client.goaway !== null);
    // The first GOAWAY refuses nothing: what was on its way is still served.
    client.headers(3, request('/b'));
    release.resolve();
    expect(await client.outcome(1)).toMatchObject({ status: 200, body: 'ok', ended: true });
    await drained;
    expect(client.closed).toBe(true);
    expect(client.goaway).toBe(CODE.none);
  });

  it('an idle connection closes at once', async () => {
    const { rig: open, client } = await meet();
    client.headers(1, request('/a'));
    await client.outcome(1);
    await open.listener.drain(60_000);
    expect(open.listener.connections).toBe(0);
  });
});

it('takes everything byte by byte', async () => {
  rig = await openRig(
    answering(() => OK),
    { http2: true },
  );
  const client = await rig.http2();
  for (const byte of Buffer.concat([GREETING, headersFrame(1, request('/a'))])) {
    client.write(Buffer.from([byte]));
    await new Promise(setImmediate);
  }
  expect(await client.outcome(1)).toMatchObject({ status: 200, body: 'ok', ended: true });
});

it('serves HTTP/1.1 on the same port, also to a client that begins with one byte', async () => {
  rig = await openRig(
    answering(() => OK),
    { http2: true },
  );
  const client = await rig.client();
  client.socket.setNoDelay(true);
  client.write('P');
  await new Promise(setImmediate);
  client.write('OST /a HTTP/1.1\r\nHost: shop\r\nContent-Length: 2\r\n\r\nhi');
  expect((await client.answer()).body.toString()).toBe('ok');
  client.write('GET /b HTTP/1.1\r\nHost: shop\r\n\r\n');
  expect((await client.answer()).body.toString()).toBe('ok');
});
