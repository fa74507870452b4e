import { once } from 'node:events';
import { createServer, type IncomingMessage, request, type Server, type ServerResponse } from 'node:http';
import type { AddressInfo } from 'node:net';
import type { ConfigInput } from '../../gateway/config.ts';
import { type Banyan, createBanyan } from '../../gateway/embed.ts';

/** What one side saw of a request. */
export type Seen = {
  readonly method: string;
  readonly url: string;
  readonly headers: IncomingMessage['headers'];
  readonly raw: readonly string[];
};

export type Listening = { readonly url: string; readonly server: Server; stop(): Promise<void> };

export const listenOn = async (handler: (req: IncomingMessage, res: ServerResponse) => void): Promise<Listening> => {
  const server = createServer({ keepAliveTimeout: 60_000 }, handler);
  server.listen(0, '127.0.0.1');
  await once(server, 'listening');
  return {
    url: `http://127.0.0.1:${(server.address() as AddressInfo).port}`,
    server,
    async stop() {
      server.closeAllConnections();
      server.close();
      await once(server, 'close');
    },
  };
};

export type Side = Listening & { readonly seen: Seen[]; answer: ((req: IncomingMessage, res: ServerResponse) => boolean) | null };

/** A side that says its name in `x-side`; `answer` may take a request over by giving true. */
const startSide = async (name: string): Promise<Side> => {
  const seen: Seen[] = [];
  const listening = await listenOn((req, res) => {
    seen.push({ method: req.method ?? '', url: req.url ?? '', headers: req.headers, raw: req.rawHeaders });
    req.resume();
    res.setHeader('x-side', name);
    if (side.answer?.(req, res) !== true) res.end(name);
  });
  const side: Side = { ...listening, seen, answer: null };
  return side;
};

export type Got = { readonly status: number; readonly headers: IncomingMessage['headers']; readonly body: string };

/** One GET (or another method) on a connection of the default agent. */
export const get = (url: string, headers: Readonly<Record<string, string | string[]>> = {}, method = 'GET'): Promise<Got> =>
  new Promise((resolve, reject) => {
    const req = request(url, { headers, method }, (res) => {
      const chunks: Buffer[] = [];
      res.on('data', (chunk: Buffer) => chunks.push(chunk));
      res.on('end', () => resolve({ status: res.statusCode ?? 0, headers: res.headers, body: Buffer.concat(chunks).toString() }));
      res.on('error', reject);
    });
    req.on('error', reject);
    req.end();
  });

type ContextInput = NonNullable<ConfigInput['contexts']>[string];

export type TwoSides = {
  readonly legacy: Side;
  readonly extracted: Side;
  readonly banyan: Banyan;
  /** Of the gateway. */
  readonly url: string;
  stop(): Promise<void>;
};

/** A gateway without a store between two sides; the context `order` owns `/api/orders/**`. */
export const openTwoSides = async (order: Partial<ContextInput>, more: Partial<ConfigInput> = {}): Promise<TwoSides> => {
  const [legacy, extracted] = await Promise.all([startSide('legacy'), startSide('extracted')]);
  const banyan = await createBanyan({
    version: 1,
    log: { level: 'silent' },
    debugHeaders: true,
    ...more,
    legacy: { url: legacy.url, ...more.legacy },
    contexts: {
      order: {
        match: [
          { path: '/api/orders/:id', methods: ['GET', 'POST'] },
          { path: '/api/orders/**', methods: ['GET'] },
        ],
        else: 'legacy',
        extracted: { url: extracted.url },
        parity: { sample: '0%' },
        ...order,
      },
      ...more.contexts,
    },
  }).catch(async (error: unknown) => {
    await Promise.all([legacy.stop(), extracted.stop()]);
    throw error;
  });
  const front = await listenOn((req, res) => banyan.handler(req, res));
  front.server.on('upgrade', banyan.upgrade);
  return {
    legacy,
    extracted,
    banyan,
    url: front.url,
    async stop() {
      await front.stop();
      await banyan.close();
      await Promise.all([legacy.stop(), extracted.stop()]);
    },
  };
};

/** `order;upstream=extracted;reason=SPLIT;stage=canary` to its parts. */
export const routeOf = (got: Got): { upstream: string | undefined; reason: string | undefined } => {
  const text = String(got.headers['banyan-route'] ?? '');
  return { upstream: /upstream=(\w+)/.exec(text)?.[1], reason: /reason=(\w+)/.exec(text)?.[1] };
};
