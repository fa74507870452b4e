import { createHash } from 'node:crypto';
import { afterEach, describe, expect, it } from '@jest/globals';
import { type RawConnection, type RawMessage, statusOf, valuesOf } from '../harness/raw-http.ts';
import { until } from '../harness/wait.ts';
import { answering, OK, openRig, type Rig, type RigOptions } from './proxy-rig.ts';

let rig: Rig | undefined;
afterEach(async () => {
  await rig?.stop();
  rig = undefined;
});

const GET = 'GET / HTTP/1.1\r\nHost: shop\r\n\r\n';

/** What the client gets when the upstream writes these bytes, by both ways to an upstream. */
const relayed = async (bytes: string, options: RigOptions & { ask?: string; head?: boolean } = {}): Promise<RawMessage> => {
  rig = await openRig(
    answering(() => bytes),
    options,
  );
  return rig.ask(options.ask ?? GET, { head: options.head ?? false });
};

describe('response fields', () => {
  const POST = 'POST / HTTP/1.1\r\nHost: shop\r\nContent-Length: 1\r\n\r\na';
  it.each([
    ['pooled', GET],
    ['streamed', POST],
  ])('keep status, reason, order, case, repeats and Latin-1 bytes (%s)', async (_way, ask) => {
    const answer = await relayed(
      'HTTP/1.1 299 Fine By Me\r\nServer: x\r\nSet-Cookie: a=1\r\nx-odd: caf\xe9\r\nSet-Cookie: b=2\r\nWWW-Authenticate: A\r\nWWW-Authenticate: B\r\nDate: Thu, 01 Jan 1970 00:00:00 GMT\r\nContent-Length: 2\r\n\r\nok',
      { ask },
    );
    expect(answer.line).toBe('HTTP/1.1 299 Fine By Me');
    expect(answer.fields.slice(0, 8)).toEqual([
      ['Server', 'x'],
      ['Set-Cookie', 'a=1'],
      ['x-odd', 'caf\xe9'],
      ['Set-Cookie', 'b=2'],
      ['WWW-Authenticate', 'A'],
      ['WWW-Authenticate', 'B'],
      ['Date', 'Thu, 01 Jan 1970 00:00:00 GMT'],
      ['Content-Length', '2'],
    ]);
  });

  it('of the connection, and those it names, are dropped, and the client keeps its connection', async () => {
    const answer = await relayed(
      'HTTP/1.1 200 OK\r\nConnection: close, X-Hop\r\nX-Hop: 1\r\nKeep-Alive: timeout=1\r\nProxy-Connection: x\r\nUpgrade: h2c\r\nContent-Length: 2\r\n\r\nok',
    );
    for (const name of ['x-hop', 'proxy-connection', 'upgrade']) expect(valuesOf(answer, name)).toEqual([]);
    expect(valuesOf(answer, 'connection')).toEqual(['keep-alive']);
    expect(valuesOf(answer, 'keep-alive')).toEqual(['timeout=20']);
    expect(valuesOf(answer, 'via')).toEqual(['1.1 banyan']);
  });

  it('Location, Set-Cookie domains and Server are left alone', async () => {
    const answer = await relayed(
      'HTTP/1.1 302 Found\r\nLocation: http://127.0.0.1:1/x\r\nSet-Cookie: a=1; Domain=legacy\r\nServer: L\r\nContent-Length: 0\r\n\r\n',
    );
    expect([valuesOf(answer, 'location'), valuesOf(answer, 'set-cookie'), valuesOf(answer, 'server')]).toEqual([
      ['http://127.0.0.1:1/x'],
      ['a=1; Domain=legacy'],
      ['L'],
    ]);
  });

  it('get a Date when there is none (RFC 9110 6.6.1)', async () => {
    expect(valuesOf(await relayed(OK), 'date')).toHaveLength(1);
  });

  it('extra fields of ours come behind', async () => {
    const answer = await relayed(OK, { reply: { extraHeaders: ['banyan-route', 'order'] } });
    expect(valuesOf(answer, 'banyan-route')).toEqual(['order']);
  });
});

describe('response bodies', () => {
  it('in chunks stay in chunks', async () => {
    const answer = await relayed('HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n2\r\nde\r\n0\r\n\r\n');
    expect([valuesOf(answer, 'transfer-encoding'), answer.body.toString(), answer.complete]).toEqual([['chunked'], 'abcde', true]);
  });

  it('in chunks end by closing for an HTTP/1.0 client', async () => {
    const answer = await relayed('HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\n\r\n', {
      ask: 'GET / HTTP/1.0\r\n\r\n',
    });
    expect([valuesOf(answer, 'transfer-encoding'), answer.body.toString(), answer.complete]).toEqual([[], 'abc', true]);
  });

  it('that end by closing come in chunks, ended cleanly', async () => {
    rig = await openRig(async (connection) => {
      await connection.message();
      connection.write('HTTP/1.1 200 OK\r\n\r\nto the end').end();
    });
    const answer = await rig.ask(GET);
    expect([answer.body.toString(), answer.complete]).toEqual(['to the end', true]);
  });

  it('of an HTTP/1.0 upstream come whole', async () => {
    rig = await openRig(async (connection) => {
      await connection.message();
      connection.write('HTTP/1.0 200 OK\r\n\r\nold').end();
    });
    expect((await rig.ask(GET)).body.toString()).toBe('old');
  });

  it('of HEAD are none, and its Content-Length stays', async () => {
    const answer = await relayed('HTTP/1.1 200 OK\r\nContent-Length: 123\r\n\r\n', {
      ask: 'HEAD / HTTP/1.1\r\nHost: shop\r\n\r\n',
      head: true,
    });
    expect([statusOf(answer), valuesOf(answer, 'content-length'), valuesOf(answer, 'transfer-encoding')]).toEqual([200, ['123'], []]);
  });

  it('of HEAD without any framing do not hang the connection', async () => {
    rig = await openRig(answering((request) => (request.line.startsWith('HEAD') ? 'HTTP/1.1 200 OK\r\nX: 1\r\n\r\n' : OK)));
    const client = (await rig.client()).write(`HEAD / HTTP/1.1\r\nHost: shop\r\n\r\n${GET}`);
    expect(statusOf(await client.message({ head: true }))).toBe(200);
    expect((await client.message()).body.toString()).toBe('ok');
  });

  it('of 204 are none', async () => {
    const answer = await relayed('HTTP/1.1 204 No Content\r\nX: 1\r\n\r\n');
    expect([statusOf(answer), valuesOf(answer, 'transfer-encoding'), valuesOf(answer, 'x')]).toEqual([204, [], ['1']]);
  });

  it('of 304 are none, and ETag and Content-Length stay', async () => {
    const answer = await relayed('HTTP/1.1 304 Not Modified\r\nETag: "x"\r\nContent-Length: 77\r\n\r\n', {
      ask: 'GET / HTTP/1.1\r\nHost: shop\r\nIf-None-Match: "x"\r\n\r\n',
    });
    expect([statusOf(answer), valuesOf(answer, 'etag'), valuesOf(answer, 'content-length')]).toEqual([304, ['"x"'], ['77']]);
  });

  it('of ranges pass untouched', async () => {
    const answer = await relayed('HTTP/1.1 206 Partial Content\r\nContent-Range: bytes 1-2/9\r\nContent-Length: 2\r\n\r\nbc', {
      ask: 'GET / HTTP/1.1\r\nHost: shop\r\nRange: bytes=1-2\r\n\r\n',
    });
    expect([statusOf(answer), valuesOf(answer, 'content-range'), answer.body.toString()]).toEqual([206, ['bytes 1-2/9'], 'bc']);
  });

  it('carry their trailers', async () => {
    const answer = await relayed(
      'HTTP/1.1 200 OK\r\nTrailer: X-Sum\r\nTransfer-Encoding: chunked\r\n\r\n1\r\na\r\n0\r\nX-Sum: 7\r\nSet-Cookie: no=1\r\n\r\n',
    );
    expect([answer.trailers, valuesOf(answer, 'trailer')]).toEqual([[['X-Sum', '7']], ['X-Sum']]);
  });

  it('of events come as they are written, the head before the first of them', async () => {
    let emit: (text: string) => void = () => {};
    rig = await openRig(async (connection) => {
      await connection.message();
      connection.write('HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nX-L: \xe9\r\nTransfer-Encoding: chunked\r\n\r\n');
      emit = (text) => connection.write(`${text.length.toString(16)}\r\n${text}\r\n`);
      await connection.rest();
    });
    const client = (await rig.client()).write(GET);
    const head = await client.head();
    expect(head.fields).toContainEqual(['X-L', '\xe9']);
    for (const event of ['data: 1\n\n', 'data: 2\n\n']) {
      emit(event);
      expect(await client.until(`${event}\r\n`)).toBe(`9\r\n${event}\r\n`);
    }
  });

  it('can be kept by the way, when small enough, for a comparison', async () => {
    await relayed(OK, { reply: { tee: { limitBytes: 2 } } });
    expect(rig?.delivered[0]).toMatchObject({ complete: true, bytes: 2, truncated: false, clientLeft: false });
    expect(rig?.delivered[0]?.body?.toString()).toBe('ok');
    await rig?.stop();
    await relayed(OK, { reply: { tee: { limitBytes: 1 } } });
    expect(rig?.delivered[0]).toMatchObject({ complete: true, bytes: 2, body: undefined });
  });

  it('and uploads of any size pass at the pace of the slower side, in bounded memory', async () => {
    const size = 24 * 1024 * 1024;
    const piece = Buffer.alloc(64 * 1024, 'x');
    const digest = createHash('sha256').update(Buffer.alloc(size, 'x')).digest('hex');
    let produced = 0;
    const produce = async (connection: RawConnection, limit: number) => {
      while (produced < limit && !connection.socket.destroyed) {
        produced += piece.length;
        if (!connection.socket.write(piece)) {
          await Promise.race([new Promise((resolve) => connection.socket.once('drain', resolve)), connection.closed]);
        }
      }
    };
    let uploaded = '';
    rig = await openRig(async (connection) => {
      if ((await connection.head()).line.startsWith('GET')) {
        connection.write(`HTTP/1.1 200 OK\r\nContent-Length: ${size}\r\n\r\n`);
        await produce(connection, size);
        // the same connection carries what comes next
        await connection.head();
      }
      const hash = createHash('sha256');
      for (let left = size; left > 0; left -= piece.length) hash.update(await connection.bytes(piece.length));
      uploaded = hash.digest('hex');
      connection.write(OK);
    });
    // Nobody reads: what the upstream could hand over is what sockets and one held piece take.
    const slow = await rig.client();
    slow.socket.pause();
    slow.write(GET);
    let before = -1;
    while (produced !== before) {
      before = produced;
      await new Promise((resolve) => setTimeout(resolve, 200));
    }
    expect(produced).toBeLessThan(size / 2);
    const hash = createHash('sha256');
    slow.socket.resume();
    await slow.head();
    for (let left = size; left > 0; left -= piece.length) hash.update(await slow.bytes(piece.length));
    expect(hash.digest('hex')).toBe(digest);

    const up = (await rig.client()).write(`PUT / HTTP/1.1\r\nHost: shop\r\nContent-Length: ${size}\r\n\r\n`);
    produced = 0;
    await produce(up, size);
    expect(statusOf(await up.message())).toBe(200);
    expect(uploaded).toBe(digest);
  });
});

describe('a client that stops reading', () => {
  it('holds no connection to the upstream for longer than the idle time-out, and sees a broken-off answer', async () => {
    let gone: Promise<unknown> = new Promise(() => undefined);
    const begun = new Promise<void>((resolve) => {
      void openRig(
        async (connection) => {
          await connection.head();
          gone = connection.closed;
          connection.write(`HTTP/1.1 200 OK\r\nContent-Length: ${64 * 1024 * 1024}\r\n\r\n`);
          connection.write('x'.repeat(32 * 1024 * 1024));
          resolve();
          await connection.closed;
        },
        { timeouts: { idleMs: 300 } },
      ).then(async (opened) => {
        rig = opened;
        const client = await opened.client();
        client.socket.pause();
        client.write(GET);
      });
    });
    await begun;
    await gone;
    await until(() => (rig?.delivered.length ?? 0) > 0, { describe: 'the end of the delivery' });
    expect(rig?.delivered[0]).toMatchObject({ complete: false, clientLeft: true, truncated: false });
  });
});

describe('interim answers', () => {
  it.each([
    ['pooled', GET],
    ['streamed', 'POST / HTTP/1.1\r\nHost: shop\r\nContent-Length: 1\r\n\r\na'],
  ])('103 comes through before the answer, repeats kept (%s)', async (_way, ask) => {
    rig = await openRig(answering(() => `HTTP/1.1 103 Early Hints\r\nLink: </a>\r\nLink: </b>\r\n\r\n${OK}`));
    const client = (await rig.client()).write(ask);
    const early = await client.message();
    expect([early.line, valuesOf(early, 'link')]).toEqual(['HTTP/1.1 103 Early Hints', ['</a>', '</b>']]);
    expect(statusOf(await client.message())).toBe(200);
  });

  it('are kept from HTTP/1.0 clients (RFC 9110 15.2)', async () => {
    rig = await openRig(answering(() => `HTTP/1.1 103 Early Hints\r\nLink: </a>\r\n\r\n${OK}`));
    const client = (await rig.client()).write('GET / HTTP/1.0\r\n\r\n');
    expect(statusOf(await client.message())).toBe(200);
  });

  it('100 that nobody asked for is kept back', async () => {
    rig = await openRig(answering(() => `HTTP/1.1 100 Continue\r\n\r\n${OK}`));
    const client = (await rig.client()).write('POST / HTTP/1.1\r\nHost: shop\r\nContent-Length: 1\r\n\r\na');
    expect(statusOf(await client.message())).toBe(200);
  });
});

describe('an early answer', () => {
  it('reaches a client that still uploads, and its connection closes', async () => {
    rig = await openRig(async (connection) => {
      await connection.head();
      connection.write('HTTP/1.1 413 Too Large\r\nContent-Length: 3\r\n\r\nbig');
      await connection.rest();
    });
    const client = (await rig.client()).write('POST / HTTP/1.1\r\nHost: shop\r\nContent-Length: 1000000\r\n\r\nabc');
    const answer = await client.message();
    expect([statusOf(answer), answer.body.toString(), valuesOf(answer, 'connection')]).toEqual([413, 'big', ['close']]);
    client.write('still going').end();
    expect(await client.rest()).toBe('');
  });

  it('may go both ways at once', async () => {
    rig = await openRig(async (connection) => {
      await connection.head();
      connection.write('HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n');
      for (let i = 0; i < 3; i++) connection.write(`1\r\n${(await connection.bytes(1)).toString()}\r\n`);
      connection.write('0\r\n\r\n');
      await connection.rest();
    });
    const client = (await rig.client()).write('POST / HTTP/1.1\r\nHost: shop\r\nContent-Length: 3\r\n\r\n');
    await client.head();
    for (const letter of 'abc') expect(await client.write(letter).until(`${letter}\r\n`)).toBe(`1\r\n${letter}\r\n`);
    expect(await client.until('0\r\n\r\n')).toBe('0\r\n\r\n');
  });
});
