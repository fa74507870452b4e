import { createServer, type IncomingMessage, type Server, type ServerResponse } from 'node:http';
import type { AddressInfo } from 'node:net';
import { AppError } from '@banyan/contracts/errors.ts';
import { afterEach, describe, expect, it } from '@jest/globals';
import { type Call, copyOf, prepare } from '../../gateway/proxy/call.ts';
import { collect, readBody } from '../../gateway/proxy/collect.ts';
import { sendProblem } from '../../gateway/proxy/problem.ts';
import { reply } from '../../gateway/proxy/reply.ts';
import { createUpstream, type Upstream } from '../../gateway/proxy/upstream.ts';
import { type RawConnection, type RawMessage, type RawServer, rawConnect, rawServer, statusOf, valuesOf } from '../harness/raw-http.ts';
import { answering, OK } from './proxy-rig.ts';

const timeouts = { connectMs: 1_000, responseMs: 2_000, idleMs: 2_000 };
const stops: (() => Promise<unknown>)[] = [];
afterEach(async () => {
  for (const stop of stops.splice(0).reverse()) await stop();
});

/** A server whose every request runs `work` on its prepared call; what it throws is answered. */
const serve = async (
  work: (call: Call, req: IncomingMessage, res: ServerResponse) => Promise<unknown>,
): Promise<{ client(): Promise<RawConnection> }> => {
  const handle = async (req: IncomingMessage, res: ServerResponse) => {
    try {
      await work(prepare(req, res, { trusted: () => false }), req, res);
    } catch (error) {
      sendProblem(req, res, error);
    }
  };
  const server: Server = createServer(handle);
  server.on('checkContinue', handle);
  await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve));
  stops.push(() => {
    server.closeAllConnections();
    return new Promise((resolve) => server.close(resolve));
  });
  return {
    client: async () => {
      const connection = await rawConnect((server.address() as AddressInfo).port);
      stops.push(async () => connection.destroy());
      return connection;
    },
  };
};

const behind = async (script: (connection: RawConnection) => Promise<void>): Promise<RawServer> => {
  const server = await rawServer(script);
  stops.push(() => server.close());
  return server;
};

const upstreamOf = (...urls: string[]): Upstream => {
  const upstream = createUpstream({ name: 'extracted', urls, timeouts });
  stops.push(() => upstream.stop());
  return upstream;
};

const POST = 'POST /x?a=1 HTTP/1.1\r\nHost: shop\r\nX-A: 1\r\nContent-Length: 3\r\n\r\nabc';

describe('readBody', () => {
  it('gives the bytes, which then go on with their length', async () => {
    const seen: RawMessage[] = [];
    const server = await behind(
      answering((request) => {
        seen.push(request);
        return OK;
      }),
    );
    const upstream = upstreamOf(server.url);
    const { client } = await serve(async (call, _req, res) => {
      const body = await readBody(call, 3);
      await reply(res, await upstream.forward(call, { body, headers: ['Idempotency-Key', 'k', 'x-a', ''] }));
    });
    expect(statusOf(await (await client()).write(POST).message())).toBe(200);
    const request = seen[0]!;
    expect([
      request.body.toString(),
      valuesOf(request, 'content-length'),
      valuesOf(request, 'idempotency-key'),
      valuesOf(request, 'x-a'),
    ]).toEqual(['abc', ['3'], ['k'], []]);
  });

  it.each([
    ['announced', 'POST / HTTP/1.1\r\nHost: shop\r\nContent-Length: 9\r\n\r\n'],
    ['found', 'POST / HTTP/1.1\r\nHost: shop\r\nTransfer-Encoding: chunked\r\n\r\n4\r\nabcd\r\n'],
  ])('past the limit, %s, is 413, and the connection closes', async (_how, bytes) => {
    const { client } = await serve((call) => readBody(call, 3));
    const connection = (await client()).write(bytes);
    const answer = await connection.message();
    expect([statusOf(answer), valuesOf(answer, 'connection'), JSON.parse(answer.body.toString()).code]).toEqual([
      413,
      ['close'],
      'payload-too-large',
    ]);
    expect(await connection.rest()).toBe('');
  });

  it('answers Expect: 100-continue itself, but not for a body that it would refuse', async () => {
    const { client } = await serve(async (call, _req, res) => res.end(await readBody(call, 3)));
    const head = (length: number) => `POST / HTTP/1.1\r\nHost: shop\r\nExpect: 100-continue\r\nContent-Length: ${length}\r\n\r\n`;
    const connection = (await client()).write(head(3));
    expect((await connection.message()).line).toBe('HTTP/1.1 100 Continue');
    expect((await connection.write('abc').message()).body.toString()).toBe('abc');
    expect(statusOf(await (await client()).write(head(4)).message())).toBe(413);
  });

  it('answers 408 to a body that stands still, and closes', async () => {
    const { client } = await serve((call) => readBody(call, 10, 50));
    const connection = await client();
    connection.write('POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 3\r\n\r\na');
    const answer = await connection.answer();
    expect(statusOf(answer)).toBe(408);
    expect(JSON.parse(answer.body.toString())).toMatchObject({ code: 'request-timeout' });
    expect(valuesOf(answer, 'connection')).toEqual(['close']);
  });

  it('of a client that leaves is client-left', async () => {
    let settle: (error: unknown) => void = () => {};
    const settled = new Promise<unknown>((resolve) => {
      settle = resolve;
    });
    const { client } = await serve((call) => readBody(call, 9).catch(settle));
    const connection = (await client()).write('POST / HTTP/1.1\r\nHost: shop\r\nContent-Length: 9\r\n\r\nabc');
    connection.destroy();
    expect(await settled).toMatchObject({ code: 'client-left', sent: 'no' });
  });
});

describe('a copy of a call', () => {
  it('goes out with its own fields and body, and is not bound to the client', async () => {
    const seen: RawMessage[] = [];
    const server = await behind(
      answering((request) => {
        seen.push(request);
        return `HTTP/1.1 103 Early Hints\r\nLink: </a>\r\n\r\n${OK}`;
      }),
    );
    const upstream = upstreamOf(server.url);
    let collected: (value: Awaited<ReturnType<typeof collect>>) => void = () => {};
    const done = new Promise<Awaited<ReturnType<typeof collect>>>((resolve) => {
      collected = resolve;
    });
    const { client } = await serve(async (call, _req, res) => {
      const copy = copyOf(call);
      res.end('bye');
      await new Promise((resolve) => res.once('close', resolve));
      collected(await collect(await upstream.forward(copy, { body: Buffer.from('xy'), headers: ['banyan-shadow', '1'] }), 10));
    });
    expect((await (await client()).write(POST).message()).body.toString()).toBe('bye');
    expect(await done).toMatchObject({
      bytes: 2,
      complete: true,
      body: Buffer.from('ok'),
      digest: null,
    });
    expect([seen[0]!.line, valuesOf(seen[0]!, 'banyan-shadow'), seen[0]!.body.toString()]).toEqual(['POST /x?a=1 HTTP/1.1', ['1'], 'xy']);
  });
});

describe('collect', () => {
  const collecting = async (bytes: string, limit: number) => {
    const server = await behind(async (connection) => {
      await connection.message();
      connection.write(bytes).end();
    });
    const upstream = upstreamOf(server.url);
    let result: Awaited<ReturnType<typeof collect>> | undefined;
    const { client } = await serve(async (call, _req, res) => {
      result = await collect(await upstream.forward(call), limit);
      res.end();
    });
    await (await client()).write('GET / HTTP/1.1\r\nHost: shop\r\n\r\n').message();
    return result!;
  };

  it('keeps no more than its limit but hashes all of what is larger', async () => {
    const large = await collecting('HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhello', 4);
    expect([large.body, large.bytes, large.complete]).toEqual([null, 5, true]);
    expect(large.digest).toBe('2cf24dba5fb0a30e26e83b2ac5b9e29e1b161e5c1fa7425e73043362938b9824');
  });

  it('says when the answer was cut short', async () => {
    const cut = await collecting('HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nhello', 9);
    expect([cut.complete, cut.bytes, cut.error?.code]).toEqual([false, 5, 'upstream-reset']);
  });
});

describe('an upstream', () => {
  it('of several urls leaves out the one that is down', async () => {
    const gone = await rawServer(async () => {});
    await gone.close();
    const server = await behind(answering(() => OK));
    const upstream = upstreamOf(gone.url, server.url);
    const { client } = await serve(async (call, _req, res) => reply(res, await upstream.forward(call)));
    const connection = await client();
    for (let i = 0; i < 4; i++) expect(statusOf(await connection.write('GET / HTTP/1.1\r\nHost: shop\r\n\r\n').message())).toBe(200);
  });

  it('waits for a free connection no longer than for an answer, and says that nothing was sent', async () => {
    const server = await behind(async (connection) => {
      await connection.rest();
    });
    const upstream = createUpstream({ name: 'legacy', urls: [server.url], timeouts: { ...timeouts, responseMs: 400 }, connections: 1 });
    stops.push(() => upstream.stop());
    const errors: AppError[] = [];
    const { client } = await serve((call) =>
      upstream.forward(call, call.path === '/first' ? { timeoutMs: 60_000 } : {}).catch((error: AppError) => {
        errors.push(error);
        throw error;
      }),
    );
    (await client()).write('GET /first HTTP/1.1\r\nHost: shop\r\n\r\n');
    while (upstream.inFlight === 0) await new Promise((resolve) => setImmediate(resolve));
    expect(statusOf(await (await client()).write('GET /second HTTP/1.1\r\nHost: shop\r\n\r\n').message())).toBe(504);
    expect(errors[0]).toMatchObject({ code: 'upstream-timeout', sent: 'no' });
  });

  it('can be told to stop by a signal', async () => {
    const server = await behind(async (connection) => {
      await connection.rest();
    });
    const upstream = upstreamOf(server.url);
    const stop = new AbortController();
    const { client } = await serve(async (call, _req, res) => {
      const failed = upstream.forward(copyOf(call), { signal: stop.signal }).catch((error: AppError) => error.code);
      stop.abort();
      res.end(await failed);
    });
    expect((await (await client()).write('GET / HTTP/1.1\r\nHost: shop\r\n\r\n').message()).body.toString()).toBe('client-left');
    expect(upstream.inFlight).toBe(0);
  });
});

describe('sendProblem', () => {
  it('says when to come again, and leaks nothing of an unknown error', async () => {
    const { client } = await serve(async (call) => {
      throw call.path === '/frozen' ? new AppError('context-frozen', 'Later', { retryAfterSeconds: 2 }) : new Error('secret');
    });
    const frozen = await (await client()).write('GET /frozen HTTP/1.1\r\nHost: shop\r\n\r\n').message();
    expect([statusOf(frozen), valuesOf(frozen, 'retry-after'), valuesOf(frozen, 'proxy-status')]).toEqual([
      503,
      ['2'],
      ['banyan; error=destination_unavailable'],
    ]);
    const unknown = await (await client()).write('GET / HTTP/1.1\r\nHost: shop\r\n\r\n').message();
    expect([statusOf(unknown), unknown.raw.includes('secret')]).toEqual([500, false]);
  });
});
