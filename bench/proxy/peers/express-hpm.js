import { Agent, createServer } from 'node:http';
import express from 'express';
import { createProxyMiddleware } from 'http-proxy-middleware';

// express with http-proxy-middleware as its README sets it up, connections kept alive. Upstream 127.0.0.1:18080; usual 18081, impatient 18082.
const listen = (port, options, server) => {
  const app = express();
  app.disable('x-powered-by');
  const proxy = createProxyMiddleware({
    target: 'http://127.0.0.1:18080',
    ws: true,
    xfwd: true,
    agent: new Agent({ keepAlive: true, maxSockets: 256 }),
    ...options,
  });
  app.use(proxy);
  createServer(server, app).on('upgrade', proxy.upgrade).listen(port, '127.0.0.1');
};

listen(18081, {}, {});
listen(
  18082,
  { proxyTimeout: 1000, timeout: 1000 },
  { headersTimeout: 1000, requestTimeout: 1000, keepAliveTimeout: 1000, connectionsCheckingInterval: 500 },
);
