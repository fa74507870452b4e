import { writeFileSync } from 'node:fs';
import { constants, setPriority } from 'node:os';
import { join } from 'node:path';
import { freePort, type Started, type Workshop } from '../processes.ts';

export type Server = { readonly url: string; readonly pid: number; stop(): Promise<void> };

const at = (port: number, started: Started): Server => ({ url: `http://127.0.0.1:${port}`, pid: started.pid, stop: started.stop });

const nginx = async (shop: Workshop, program: string, name: string, http: string, port: number): Promise<Server> => {
  const folder = join(shop.folder, name);
  const temporary = ['client_body', 'proxy', 'fastcgi', 'uwsgi', 'scgi'].map((kind) => `${kind}_temp_path ${folder}-${kind};`).join(' ');
  writeFileSync(
    `${folder}.conf`,
    `daemon off; worker_processes 1; pid ${folder}.pid; error_log ${folder}.log;
${process.getuid?.() === 0 ? 'user root;' : ''}
events { worker_connections 4096; }
http { access_log off; keepalive_requests 100000000; keepalive_timeout 65s; ${temporary}
${http}
}`,
  );
  return at(port, await shop.start(program, ['-c', `${folder}.conf`, '-e', `${folder}.log`, '-p', shop.folder]));
};

/** The upstream of every proxy: one kilobyte of JSON, whatever is asked. */
export const startUpstream = async (shop: Workshop, program: string | null): Promise<Server> => {
  if (program === null) {
    const stub = await shop.startNode('bench/proxy/stub.ts', []);
    return { url: stub.urls.http!, pid: stub.pid, stop: stub.stop };
  }
  const port = await freePort();
  const head = '{"name":"bench","text":"';
  const body = `${head}${'x'.repeat(1024 - head.length - 2)}"}`;
  const server = `server { listen 127.0.0.1:${port} backlog=4096; default_type application/json; location / { return 200 '${body}'; } }`;
  return nginx(shop, program, 'upstream', server, port);
};

export const startNginx = async (shop: Workshop, program: string, upstream: string): Promise<Server> => {
  const port = await freePort();
  return nginx(
    shop,
    program,
    'nginx',
    `upstream legacy { server ${new URL(upstream).host}; keepalive 256; keepalive_requests 100000000; }
server { listen 127.0.0.1:${port} backlog=4096;
  location / { proxy_pass http://legacy; proxy_http_version 1.1; proxy_set_header Connection ""; proxy_set_header Host $http_host;
    proxy_set_header X-Forwarded-For $remote_addr; proxy_set_header X-Forwarded-Proto $scheme; } }`,
    port,
  );
};

export const startHaproxy = async (shop: Workshop, program: string, upstream: string): Promise<Server> => {
  const port = await freePort();
  const file = join(shop.folder, 'haproxy.cfg');
  writeFileSync(
    file,
    `global
  nbthread 1
  maxconn 4096
defaults
  mode http
  option forwardfor
  http-reuse always
  timeout connect 5s
  timeout client 65s
  timeout server 65s
frontend in
  bind 127.0.0.1:${port}
  default_backend legacy
backend legacy
  server one ${new URL(upstream).host}
`,
  );
  return at(port, await shop.start(program, ['-db', '-f', file]));
};

export const startNpmPeer = async (
  shop: Workshop,
  kind: 'express-hpm' | 'fastify',
  packages: string,
  upstream: string,
): Promise<Server> => {
  const { urls, pid, stop } = await shop.startNode('bench/proxy/npm-peer.ts', [kind, packages, upstream]);
  return { url: urls.http!, pid, stop };
};

export const startStub = async (shop: Workshop, args: readonly string[]): Promise<Server> => {
  const { urls, pid, stop } = await shop.startNode('bench/proxy/stub.ts', args);
  return { url: urls.http!, pid, stop };
};

/**
 * One that stands for a machine of its own: it may have what the others leave of the processors, and takes none from them. What is measured beside it would
 * otherwise wait for a core, which no proxy can help.
 */
export const startRemoteStub = async (shop: Workshop, args: readonly string[]): Promise<Server> => {
  const server = await startStub(shop, args);
  setPriority(server.pid, constants.priority.PRIORITY_LOW);
  return server;
};

/** Fails early where a proxy does not answer as its upstream would. */
export const check = async (server: Server, path: string): Promise<void> => {
  const answer = await fetch(`${server.url}${path}`);
  const { length } = await answer.text();
  if (answer.status !== 200 || length !== 1024) throw new Error(`${server.url}${path} answers ${answer.status} with ${length} bytes`);
};
