import { execFileSync, spawn } from 'node:child_process';
import { once } from 'node:events';
import { mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { connect } from 'node:net';
import { tmpdir } from 'node:os';
import { join, resolve } from 'node:path';
import { freePort } from '../harness/ports.ts';

const CONFIG = resolve(import.meta.dirname, '../../bench/proxy/peers/nginx.conf');
const START_MS = 10_000;

export type Nginx = { readonly version: string; readonly port: number; stop(): Promise<void> };

/** nginx in front of an upstream, set up as for the conformance cases, on ports of its own. @throws Error where it is not installed, or does not start */
export const startNginx = async (upstreamPort: number): Promise<Nginx> => {
  const version = execFileSync('sh', ['-c', 'nginx -v 2>&1'], { encoding: 'utf8' }).trim().replace('nginx version: ', '');
  const folder = mkdtempSync(join(tmpdir(), 'banyan-fuzz-nginx-'));
  const [port, impatient, trusting] = [await freePort(), await freePort(), await freePort()];
  const text = readFileSync(CONFIG, 'utf8')
    .replaceAll('18080', String(upstreamPort))
    .replaceAll('18081', String(port))
    .replaceAll('18082', String(impatient))
    .replaceAll('18083', String(trusting))
    // a client's FIN says that it has no more to send, not that it has gone
    .replace('proxy_http_version 1.1;', 'proxy_http_version 1.1; proxy_ignore_client_abort on;');
  const config = join(folder, 'nginx.conf');
  writeFileSync(config, text);
  const child = spawn('nginx', ['-p', folder, '-c', config, '-e', join(folder, 'error.log')], { stdio: ['ignore', 'ignore', 'inherit'] });
  const stop = async (): Promise<void> => {
    if (child.exitCode === null && child.signalCode === null && child.pid !== undefined) {
      child.kill('SIGTERM');
      await once(child, 'exit');
    }
    rmSync(folder, { recursive: true, force: true });
  };
  await once(child, 'spawn');
  for (const deadline = Date.now() + START_MS; ; ) {
    const socket = connect(port, '127.0.0.1');
    const open = await Promise.race([once(socket, 'connect').then(() => true), once(socket, 'error').then(() => false)]).catch(() => false);
    socket.destroy();
    if (open) return { version, port, stop };
    if (child.exitCode !== null || Date.now() > deadline) {
      await stop();
      throw new Error('nginx does not start');
    }
    await new Promise((again) => setTimeout(again, 50));
  }
};
