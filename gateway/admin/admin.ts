import { once } from 'node:events';
import { createServer, type Server } from 'node:http';
import { join } from 'node:path';
import { AppError, problemOf } from '@banyan/contracts/errors.ts';
import express, { type ErrorRequestHandler, type Express, type Request, type RequestHandler } from 'express';
import { z } from 'zod';
import { isLoopback } from '../config.ts';
import { answerHeaders, changeGuard, createAuthenticator, demand, hostGuard } from './access.ts';
import { createAdapterClient } from './adapter-client.ts';
import { contextRoutes } from './context-routes.ts';
import { createContextViews } from './context-views.ts';
import { type Endpoint, parse } from './endpoint.ts';
import { evidenceRoutes } from './evidence-routes.ts';
import { createLive } from './live.ts';
import { ofrepRouter } from './ofrep.ts';
import { openapiOf } from './openapi.ts';
import { PEER_HEADER } from './peers.ts';
import type { AdminDeps } from './ports.ts';
import { createServiceClient } from './service-client.ts';
import { serviceRoutes } from './service-routes.ts';
import { readinessOf } from './status.ts';
import { isStoreTrouble } from './store-trouble.ts';
import { systemRoutes } from './system-routes.ts';

export type Admin = {
  /** The express application, for tests and embedding. */
  readonly handler: Express;
  /** Listens on `admin.listen`. @throws AppError `not-configured` where strangers could reach it without a token; Error when the port is taken */
  start(): Promise<{ url: string }>;
  /** Ends live streams, then waits for requests in flight. */
  stop(): Promise<void>;
};

/** Bytes of a request body; the largest real one is a reason of 1,000 characters. */
const BODY_LIMIT = 65_536;

/** A parameter that a path does not know is a mistake worth hearing of. */
const NO_QUERY = z.strictObject({});

const notThere = (req: Request): AppError => new AppError('not-found', `${req.method} ${req.path.slice(0, 200)} is not a path of this API`);

/** body-parser's and express' own errors carry a `status` and a `type`; everything else of theirs is ours to hide. */
const appErrorOf = (error: unknown): unknown => {
  if (error instanceof AppError || typeof error !== 'object' || error === null) return error;
  const { status, type } = error as { status?: unknown; type?: unknown };
  if (type === 'entity.too.large')
    return new AppError('payload-too-large', `the body is longer than ${BODY_LIMIT} bytes`, { cause: error });
  if (type === 'entity.parse.failed') return new AppError('bad-request', 'body: expected JSON', { cause: error });
  if (status === 415)
    return new AppError('unsupported-media-type', 'content-type: expected plain application/json in UTF-8', { cause: error });
  if (typeof status === 'number' && status >= 400 && status < 500)
    return new AppError('bad-request', 'the request cannot be read', { cause: error });
  if (isStoreTrouble(error))
    return new AppError('store-unavailable', 'the store does not answer', { cause: error, retryable: true, retryAfterSeconds: 2 });
  return error;
};

/** The control surface: API, health, metrics and a page, on a listener of its own. */
export const createAdmin = (deps: AdminDeps): Admin => {
  const settings = () => deps.config().admin;
  const startedAt = new Date(deps.now());
  const boundTo = settings().listen.host;
  const identify = createAuthenticator(settings, () => isLoopback(boundTo));
  const views = createContextViews(deps);
  const live = createLive(deps.flags, views);
  const adapter = createAdapterClient({ url: () => deps.config().adapter.url, token: deps.adapterToken });
  const services = createServiceClient({ config: deps.config, token: deps.serviceToken });
  const endpoints = [
    ...contextRoutes(deps, views),
    ...evidenceRoutes(deps, views),
    ...serviceRoutes(deps, services),
    ...systemRoutes(deps, views, adapter, startedAt),
  ];

  const run =
    (endpoint: Endpoint): RequestHandler =>
    async (req, res) => {
      const identity = identify(req.headers.authorization);
      demand(identity, endpoint.role);
      const query = parse(endpoint.query ?? NO_QUERY, { ...req.query }, 'query');
      const body = endpoint.body ? parse(endpoint.body, req.body, 'body') : null;
      const reply = await endpoint.handle({
        params: req.params as Record<string, string>,
        body,
        query,
        actor: identity.name,
        authorization: req.headers.authorization,
        fromPeer: req.get(PEER_HEADER) ?? null,
      });
      res.status(reply.status).set(reply.headers ?? {});
      if (reply.status >= 400) res.type('application/problem+json').send(JSON.stringify(reply.body));
      else res.json(reply.body);
    };

  const app = express();
  app.disable('x-powered-by').disable('etag').set('query parser', 'simple').set('case sensitive routing', true);
  app.use(answerHeaders);
  // Probes come by address from whoever runs the process, and tell nothing.
  app.get('/livez', (_req, res) => void res.json({ status: 'alive' }));
  app.get('/readyz', async (req, res) => {
    const { status, reason, checks } = await readinessOf(deps);
    const verbose = req.query.verbose !== undefined;
    res
      .status(status === 'ready' || status === 'degraded' ? 200 : 503)
      .json({ status, ...(reason === null ? {} : { reason }), ...(verbose ? { checks } : {}) });
  });
  app.use(hostGuard(settings));
  app.use(changeGuard);
  app.get('/metrics', async (req, res) => {
    demand(identify(req.headers.authorization), 'viewer');
    const text = await deps.registry.metrics();
    res.set('content-type', deps.registry.contentType).send(text);
  });
  app.get('/openapi.json', (_req, res) => void res.json(openapiOf(endpoints, deps.version)));

  const api = express.Router({ caseSensitive: true });
  api.use((req, _res, next) => {
    // before the body is read: strangers may not make us parse
    identify(req.headers.authorization);
    next();
  });
  api.use(express.json({ limit: BODY_LIMIT, type: () => true, inflate: false }));
  api.get('/live', (req, res) => {
    demand(identify(req.headers.authorization), 'viewer');
    if (req.method === 'HEAD') res.type('text/event-stream').end();
    else live.watch(res);
  });
  for (const endpoint of endpoints) api[endpoint.method](endpoint.path, run(endpoint));
  app.use('/api/v1', api);
  app.use('/ofrep/v1', ofrepRouter(deps.flags, identify));
  app.use(express.static(join(import.meta.dirname, 'page'), { etag: false, lastModified: false, cacheControl: false, redirect: false }));
  app.use((req, _res, next) => next(notThere(req)));

  const answerError: ErrorRequestHandler = (raw, _req, res, _next) => {
    const error = appErrorOf(raw);
    const problem = problemOf(error);
    if (problem.status >= 500) deps.log[problem.code === 'internal' ? 'error' : 'warn']({ err: error }, 'the admin API could not answer');
    if (res.headersSent) {
      res.destroy();
      return;
    }
    if (problem.status === 401) res.set('www-authenticate', 'Bearer realm="banyan"');
    if (error instanceof AppError && error.retryAfterSeconds !== undefined) res.set('retry-after', String(error.retryAfterSeconds));
    res.status(problem.status).type('application/problem+json').send(JSON.stringify(problem));
  };
  app.use(answerError);

  let server: Server | null = null;
  return {
    handler: app,
    async start() {
      const { listen, tokens } = settings();
      if (tokens.length === 0 && !isLoopback(listen.host))
        throw new AppError(
          'not-configured',
          `admin.listen ${listen.host}:${listen.port} can be reached from other machines: set admin.tokens, or listen on 127.0.0.1`,
        );
      const next = createServer({ requestTimeout: 30_000, headersTimeout: 10_000 }, app);
      next.maxConnections = 1_000;
      next.listen({ host: listen.host, port: listen.port });
      // rejects on 'error', such as a port that is taken
      await once(next, 'listening');
      next.on('error', (error) => deps.log.warn({ err: error }, 'the admin listener could not accept a connection'));
      server = next;
      const address = next.address();
      const port = typeof address === 'object' && address !== null ? address.port : listen.port;
      return { url: `http://${listen.host.includes(':') ? `[${listen.host}]` : listen.host}:${port}` };
    },
    async stop() {
      live.stop();
      const open = server;
      server = null;
      if (!open) return;
      const closed = once(open, 'close');
      open.close();
      open.closeIdleConnections();
      const timer = setTimeout(() => open.closeAllConnections(), 5_000);
      await closed;
      clearTimeout(timer);
    },
  };
};
