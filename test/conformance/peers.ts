import { type ChildProcess, execFileSync, spawn } from 'node:child_process';
import { once } from 'node:events';
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { connect } from 'node:net';
import { tmpdir } from 'node:os';
import { join, resolve } from 'node:path';
import type { Case } from './case.ts';

const repository = resolve(import.meta.dirname, '../..');

type Setup = NonNullable<Case['setup']>;

/** A proxy that this program starts itself, with the set-up that stands in `bench/proxy/peers`. */
export type Peer = {
  readonly version: string;
  readonly upstreamPort: number;
  readonly ports: Readonly<Record<Setup, number | null>>;
  stop(): Promise<void>;
};

const UPSTREAM = 18_080;
const PORTS: Record<Setup, number> = { usual: 18_081, impatient: 18_082, trusting: 18_083 };
const START_MS = 20_000;

const file = (name: string): string => join(repository, 'bench/proxy/peers', name);

const firstLine = (command: string, args: readonly string[]): string => {
  const text = execFileSync(command, args, { encoding: 'utf8', stdio: ['ignore', 'pipe', 'pipe'], cwd: repository });
  return text.trim().split('\n')[0] ?? '';
};

type Recipe = { readonly setups: readonly Setup[]; version(): string; commands(folder: string): (readonly string[])[] };

const packageVersion = (name: string): string =>
  `${name} ${firstLine(process.execPath, ['-p', `require('./node_modules/${name}/package.json').version`])}`;

const RECIPES: Readonly<Record<string, Recipe>> = {
  nginx: {
    setups: ['usual', 'impatient', 'trusting'],
    // it tells on stderr
    version: () => firstLine('sh', ['-c', 'nginx -v 2>&1']).replace('nginx version: ', ''),
    commands: (folder) => [['nginx', '-p', folder, '-c', file('nginx.conf'), '-e', join(folder, 'error.log')]],
  },
  haproxy: {
    setups: ['usual', 'impatient', 'trusting'],
    version: () => firstLine('haproxy', ['-v']),
    commands: () => [['haproxy', '-db', '-q', '-f', file('haproxy.cfg')]],
  },
  'express-hpm': {
    setups: ['usual', 'impatient'],
    version: () => `${packageVersion('express')}, ${packageVersion('http-proxy-middleware')}, Node ${process.version}`,
    commands: () => [[process.execPath, file('express-hpm.js')]],
  },
  banyan: {
    setups: ['usual', 'impatient', 'trusting'],
    version: () => `banyan, Node ${process.version}`,
    commands: (folder) =>
      (Object.keys(PORTS) as Setup[]).map((setup) => {
        const hurried = setup === 'impatient';
        const config = {
          version: 1,
          listen: `127.0.0.1:${PORTS[setup]}`,
          admin: { listen: '127.0.0.1:0' },
          client: hurried ? { headerTimeout: '1s', idleTimeout: '1s' } : {},
          trustedProxies: setup === 'trusting' ? ['127.0.0.1/32'] : [],
          legacy: { url: `http://127.0.0.1:${UPSTREAM}`, timeouts: hurried ? { response: '1s', idle: '1s' } : {} },
        };
        const path = join(folder, `${setup}.yaml`);
        writeFileSync(path, JSON.stringify(config));
        return [process.execPath, join(repository, 'gateway/cli/main.ts'), 'run', '--config', path];
      }),
  },
};

export const PEERS: readonly string[] = Object.keys(RECIPES);

/** @throws when the program is missing, or does not listen within 20 s. */
export const startPeer = async (name: string): Promise<Peer> => {
  const recipe = RECIPES[name];
  if (recipe === undefined) throw new Error(`no such peer: ${name}; there are ${PEERS.join(', ')}`);
  const version = recipe.version();
  const folder = mkdtempSync(join(tmpdir(), 'banyan-conformance-'));
  const children: ChildProcess[] = [];
  const stop = async (): Promise<void> => {
    for (const child of children) {
      if (child.exitCode !== null || child.signalCode !== null || child.pid === undefined) continue;
      child.kill('SIGTERM');
      const late = setTimeout(() => child.kill('SIGKILL'), 3_000);
      await once(child, 'exit');
      clearTimeout(late);
    }
    rmSync(folder, { recursive: true, force: true });
  };
  try {
    for (const [command, ...args] of recipe.commands(folder)) {
      const child = spawn(command!, args, { cwd: folder, stdio: ['ignore', 'ignore', 'inherit'] });
      children.push(child);
      await once(child, 'spawn');
    }
    const ports: Record<Setup, number | null> = { usual: null, impatient: null, trusting: null };
    for (const setup of recipe.setups) {
      await listening(PORTS[setup], children);
      ports[setup] = PORTS[setup];
    }
    return { version, upstreamPort: UPSTREAM, ports, stop };
  } catch (error) {
    await stop();
    throw error;
  }
};

const listening = async (port: number, children: readonly ChildProcess[]): Promise<void> => {
  const deadline = Date.now() + START_MS;
  for (;;) {
    const socket = connect(port, '127.0.0.1');
    const open = await Promise.race([once(socket, 'connect').then(() => true), once(socket, 'error').then(() => false)]).catch(() => false);
    socket.destroy();
    if (open) return;
    if (children.some((child) => child.exitCode !== null)) throw new Error(`it ended before it listened on port ${port}`);
    if (Date.now() > deadline) throw new Error(`it does not listen on port ${port}`);
    await new Promise((resolve) => setTimeout(resolve, 50));
  }
};
