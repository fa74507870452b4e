import { createHash, randomUUID } from 'node:crypto';
import { Agent, type IncomingMessage, type RequestOptions, request } from 'node:http';
import { connect } from 'node:http2';
import { WebSocket } from 'ws';
import { bytesOf, digestOf } from './bytes.ts';

/** Why a visit was not what it should have been. `answer` = an error of the gateway's own; `cut` = an answer that broke off; `connection` = none came. */
export type Fault = { readonly kind: 'answer' | 'cut' | 'connection' | 'wrong'; readonly what: string };

export type Visitor = {
  readonly name: string;
  /** How many of them at once. */
  readonly crowd: number;
  /** One visit. Null = as it should be. Never rejects. */
  visit(): Promise<Fault | null>;
};

/** Longest that a visit may take before it counts as one that never ends, ms. */
const PATIENCE_MS = 30_000;
const UPLOAD = 256 * 1024;
const DOWNLOAD = 1024 * 1024;
const LARGE = 8 * 1024 * 1024;

type Answer = { readonly status: number; readonly headers: IncomingMessage['headers']; readonly body: Buffer };

const cutOff = (what: string): Fault => ({ kind: 'cut', what });
const wrong = (what: string): Fault => ({ kind: 'wrong', what });

/** An error of the gateway's own names itself in Proxy-Status (RFC 9209). */
const refusal = (status: number, proxyStatus: unknown): Fault =>
  typeof proxyStatus === 'string' && status >= 502 && status <= 504
    ? { kind: 'answer', what: `${status} ${proxyStatus}` }
    : wrong(`status ${status}`);

const ask = (url: string, options: RequestOptions, body?: NodeJS.ReadableStream | string): Promise<Answer | Fault> =>
  new Promise((resolve) => {
    const outgoing = request(url, { ...options, timeout: PATIENCE_MS }, (incoming) => {
      const parts: Buffer[] = [];
      incoming.on('data', (part: Buffer) => parts.push(part));
      incoming.on('end', () => resolve({ status: incoming.statusCode ?? 0, headers: incoming.headers, body: Buffer.concat(parts) }));
      incoming.on('error', (error) => resolve(cutOff(error.message)));
    });
    outgoing.on('timeout', () => {
      resolve(wrong(`no end after ${PATIENCE_MS} ms`));
      outgoing.destroy();
    });
    outgoing.on('error', (error) => resolve({ kind: 'connection', what: error.message }));
    if (body === undefined || typeof body === 'string') outgoing.end(body);
    else body.pipe(outgoing);
  });

const isFault = (result: Answer | Fault): result is Fault => 'kind' in result;

/** Everybody who comes to `url`; `placed` gets the id of every order that was acknowledged. */
export const visitorsOf = (url: string, placed: (id: string) => void): { visitors: readonly Visitor[]; stop(): void } => {
  const agent = new Agent({ keepAlive: true, maxSockets: 200 });
  const get = async (path: string, check: (answer: Answer) => boolean): Promise<Fault | null> => {
    const result = await ask(`${url}${path}`, { agent });
    if (isFault(result)) return result;
    if (result.status !== 200) return refusal(result.status, result.headers['proxy-status']);
    return check(result) ? null : wrong(`another answer to ${path}`);
  };
  const sha = (body: Buffer): string => createHash('sha256').update(body).digest('hex');
  const downloaded = digestOf(DOWNLOAD);
  const uploaded = digestOf(UPLOAD);

  const item = async (): Promise<Fault | null> => {
    const id = randomUUID();
    return get(`/item/${id}`, ({ body }) => (JSON.parse(body.toString()) as { id: string }).id === id);
  };
  const order = async (): Promise<Fault | null> => {
    const id = randomUUID();
    const result = await ask(`${url}/order/${id}`, { agent, method: 'POST', headers: { 'content-length': 2 } }, '{}');
    if (isFault(result)) return result;
    if (result.status !== 201) return refusal(result.status, result.headers['proxy-status']);
    placed(id);
    return (JSON.parse(result.body.toString()) as { id: string }).id === id ? null : wrong('another order');
  };
  let turn = 0;
  const upload = async (): Promise<Fault | null> => {
    const headers = turn++ % 2 === 0 ? { 'content-length': UPLOAD } : { 'transfer-encoding': 'chunked' };
    const result = await ask(`${url}/echo`, { agent, method: 'POST', headers }, bytesOf(UPLOAD));
    if (isFault(result)) return result;
    if (result.status !== 200) return refusal(result.status, result.headers['proxy-status']);
    return sha(result.body) === uploaded ? null : wrong('other bytes than were sent');
  };
  /** Goes away in the middle of its answer, as people do. */
  const leave = (): Promise<Fault | null> =>
    new Promise((resolve) => {
      const outgoing = request(`${url}/bytes/${LARGE}`, { agent: new Agent(), timeout: PATIENCE_MS }, (incoming) => {
        if (incoming.statusCode !== 200) {
          incoming.resume();
          resolve(refusal(incoming.statusCode ?? 0, incoming.headers['proxy-status']));
          return;
        }
        incoming.on('error', () => {});
        incoming.once('data', () => {
          outgoing.destroy();
          resolve(null);
        });
        incoming.once('close', () => resolve(cutOff('before the first byte')));
      });
      outgoing.on('timeout', () => outgoing.destroy(new Error('no answer in time')));
      outgoing.on('error', (error) => resolve({ kind: 'connection', what: error.message }));
      outgoing.end();
    });
  const talk = (): Promise<Fault | null> =>
    new Promise((resolve) => {
      const socket = new WebSocket(`${url.replace('http', 'ws')}/talk`, { handshakeTimeout: PATIENCE_MS });
      const words = ['one', 'two', 'three', 'x'.repeat(70_000), 'end'];
      let heard = 0;
      let opened = false;
      socket.on('open', () => {
        opened = true;
        socket.send(words[0]!);
      });
      socket.on('message', (data) => {
        if (data.toString() !== words[heard]) resolve(wrong('another word came back'));
        heard++;
        if (heard < words.length) socket.send(words[heard]!);
        else socket.close(1000);
      });
      socket.on('close', (code) =>
        resolve(heard === words.length && code === 1000 ? null : cutOff(`closed with ${code} after ${heard} words`)),
      );
      socket.on('unexpected-response', (_, response) => {
        response.resume();
        resolve(refusal(response.statusCode ?? 0, response.headers['proxy-status']));
        socket.terminate();
      });
      socket.on('error', (error) => resolve(opened ? cutOff(error.message) : { kind: 'connection', what: error.message }));
    });
  /** Ten streams at once on one HTTP/2 connection. */
  const many = async (): Promise<Fault | null> => {
    const session = connect(url);
    session.on('error', () => {});
    const one = (): Promise<Fault | null> =>
      new Promise((resolve) => {
        const id = randomUUID();
        const stream = session.request({ ':path': `/item/${id}` });
        let status = 0;
        let proxyStatus: unknown;
        let body = '';
        stream.setTimeout(PATIENCE_MS, () => stream.close());
        stream.on('response', (headers) => {
          status = Number(headers[':status']);
          proxyStatus = headers['proxy-status'];
        });
        stream.setEncoding('utf8').on('data', (text: string) => {
          body += text;
        });
        let ended = false;
        stream.on('end', () => {
          ended = true;
        });
        stream.on('error', () => {});
        stream.on('close', () => {
          if (status === 0) resolve({ kind: 'connection', what: `stream closed with ${stream.rstCode}` });
          else if (status !== 200) resolve(refusal(status, proxyStatus));
          else if (!ended || stream.rstCode !== 0) resolve(cutOff(`stream reset with ${stream.rstCode}`));
          else resolve(body.includes(id) ? null : wrong('another answer on a stream'));
        });
      });
    const faults = await Promise.all(Array.from({ length: 10 }, one));
    session.close();
    return faults.find((fault) => fault !== null) ?? null;
  };

  return {
    visitors: [
      { name: 'item', crowd: 12, visit: item },
      { name: 'order', crowd: 4, visit: order },
      { name: 'upload', crowd: 2, visit: upload },
      { name: 'download', crowd: 1, visit: () => get(`/bytes/${DOWNLOAD}`, ({ body }) => sha(body) === downloaded) },
      { name: 'slow', crowd: 8, visit: () => get('/slow/yes', ({ body }) => body.toString() === 'yes') },
      { name: 'events', crowd: 4, visit: () => get('/events', ({ body }) => body.toString().endsWith('data: end\n\n')) },
      { name: 'leaver', crowd: 1, visit: leave },
      { name: 'websocket', crowd: 3, visit: talk },
      { name: 'http2', crowd: 2, visit: many },
    ],
    stop: () => agent.destroy(),
  };
};
