import { Agent, createServer } from 'node:http';
import { createRequire } from 'node:module';
import type { AddressInfo } from 'node:net';
import { join } from 'node:path';

/** The proxies from npm, as their READMEs set them up, with connections kept alive and no logging: `npm-peer.ts KIND FOLDER UPSTREAM`. */
const [kind = '', folder = '', upstream = ''] = process.argv.slice(2);
// they live in a folder of their own, not in the repository's
const load = createRequire(join(folder, 'package.json'));

const ready = (port: number): void => {
  process.send?.({ type: 'ready', urls: { http: `http://127.0.0.1:${port}` } });
};

type Handler = (req: unknown, res: unknown) => void;

const hpm = (): void => {
  const express = load('express') as () => Handler & { use(handler: unknown): void; disable(setting: string): void };
  const { createProxyMiddleware } = load('http-proxy-middleware') as { createProxyMiddleware(options: object): unknown };
  const app = express();
  app.disable('x-powered-by');
  app.use(createProxyMiddleware({ target: upstream, xfwd: true, agent: new Agent({ keepAlive: true, maxSockets: 256 }) }));
  const server = createServer(app).listen(0, '127.0.0.1', () => ready((server.address() as AddressInfo).port));
};

const fastify = async (): Promise<void> => {
  const create = load('fastify') as (options: object) => {
    register(plugin: unknown, options: object): void;
    listen(options: object): Promise<string>;
  };
  const app = create({ logger: false });
  app.register(load('@fastify/http-proxy'), { upstream, undici: { connections: 256, pipelining: 1 } });
  ready(Number(new URL(await app.listen({ port: 0, host: '127.0.0.1' })).port));
};

process.once('SIGTERM', () => process.exit(0));
if (kind === 'express-hpm') hpm();
else await fastify();
