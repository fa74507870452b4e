import { existsSync, mkdirSync, readFileSync, writeFileSync } from 'node:fs';
import { delimiter, join } from 'node:path';
import type { Workshop } from '../processes.ts';
import type { BenchOptions } from '../report.ts';

/** Debian package of each program that is compared or used. */
const PACKAGES = { nginx: 'nginx-light', haproxy: 'haproxy', wrk: 'wrk' } as const;
type Program = keyof typeof PACKAGES;

/** The newest when this was written; pinned, so that figures of two runs are about the same code. */
const NPM = { express: '5.3.0', 'http-proxy-middleware': '4.2.1', fastify: '5.12.8', '@fastify/http-proxy': '11.6.3' } as const;

export type Tools = {
  readonly programs: Readonly<Record<Program, string | null>>;
  /** Folder of the npm packages; null when they could not be installed. */
  readonly npm: string | null;
  readonly versions: Readonly<Record<string, string>>;
  readonly missing: readonly string[];
};

const find = (program: string): string | null => {
  const folders = [...(process.env.PATH ?? '').split(delimiter), '/usr/sbin', '/usr/local/sbin', '/sbin'];
  return folders.map((folder) => join(folder, program)).find((path) => existsSync(path)) ?? null;
};

const reason = (error: unknown): string => (error instanceof Error ? error.message : String(error));

/** Debian's packages when root may and apt is there. The services that they bring are not started (invoke-rc.d does nothing in runlevel 1). */
const installPrograms = async (shop: Workshop, packages: readonly string[]): Promise<void> => {
  const env = { DEBIAN_FRONTEND: 'noninteractive', RUNLEVEL: '1' };
  const install = () => shop.run('apt-get', ['install', '-y', '--no-install-recommends', ...packages], { timeoutMs: 180_000, env });
  try {
    await install();
  } catch {
    await shop.run('apt-get', ['update'], { timeoutMs: 120_000, env });
    await install();
  }
};

/** Finds, and where it may installs, what Banyan is compared with. What is missing is said, never passed over. */
export const findTools = async (shop: Workshop, options: BenchOptions): Promise<Tools> => {
  const missing: string[] = [];
  const wanted = (Object.keys(PACKAGES) as Program[]).filter((program) => find(program) === null);
  let why = options.install ? 'not installed; needs root and apt-get' : 'not installed (--no-install)';
  if (wanted.length > 0 && options.install && process.getuid?.() === 0 && find('apt-get') !== null) {
    const packages = wanted.map((program) => PACKAGES[program]);
    options.say(`installing ${packages.join(' ')} with apt-get`);
    await installPrograms(shop, packages).catch((error) => {
      why = reason(error);
    });
  }
  const programs = Object.fromEntries((Object.keys(PACKAGES) as Program[]).map((program) => [program, find(program)])) as Tools['programs'];
  for (const program of Object.keys(programs) as Program[]) if (programs[program] === null) missing.push(`${program}: ${why}`);

  const npm = join(shop.folder, 'npm');
  let found: string | null = null;
  if (!options.install) missing.push('express + http-proxy-middleware, @fastify/http-proxy: not installed (--no-install)');
  else {
    options.say(`installing ${Object.keys(NPM).join(', ')} into a temporary folder`);
    mkdirSync(npm);
    writeFileSync(join(npm, 'package.json'), '{"private":true}');
    const names = Object.entries(NPM).map(([name, version]) => `${name}@${version}`);
    const flags = ['--no-save', '--no-audit', '--no-fund', '--ignore-scripts', '--prefer-offline', '--prefix', npm];
    try {
      await shop.run('npm', ['install', ...flags, ...names], { timeoutMs: 180_000 });
      found = npm;
    } catch (error) {
      missing.push(`express + http-proxy-middleware, @fastify/http-proxy: ${reason(error)}`);
    }
  }
  return { programs, npm: found, versions: found === null ? {} : installed(found), missing };
};

const installed = (folder: string): Record<string, string> =>
  Object.fromEntries(
    Object.keys(NPM).map((name) => {
      const { version } = JSON.parse(readFileSync(join(folder, 'node_modules', name, 'package.json'), 'utf8')) as { version: string };
      return [name, version];
    }),
  );
