import { mkdirSync, readFileSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import type { Workshop } from './processes.ts';
import type { BenchOptions } from './report.ts';

export type Installed = {
  /** Folder whose `node_modules` holds the packages; null when they could not be installed. */
  readonly folder: string | null;
  readonly versions: Readonly<Record<string, string>>;
  readonly missing: readonly string[];
};

/** Installs packages (name -> version) into a folder of the workshop, never into the repository. What is missing is said, never passed over. */
export const installPackages = async (
  shop: Workshop,
  options: Pick<BenchOptions, 'install' | 'say'>,
  packages: Readonly<Record<string, string>>,
): Promise<Installed> => {
  const names = Object.keys(packages);
  const none = (why: string): Installed => ({ folder: null, versions: {}, missing: names.map((name) => `${name}: ${why}`) });
  if (!options.install) return none('not installed (--no-install)');
  options.say(`installing ${names.join(', ')} into a temporary folder`);
  const folder = join(shop.folder, 'packages');
  mkdirSync(folder);
  writeFileSync(join(folder, 'package.json'), '{"private":true}');
  const flags = ['--no-save', '--no-audit', '--no-fund', '--ignore-scripts', '--prefer-offline', '--prefix', folder];
  try {
    await shop.run('npm', ['install', ...flags, ...names.map((name) => `${name}@${packages[name]}`)], { timeoutMs: 180_000 });
  } catch (error) {
    return none(error instanceof Error ? error.message : String(error));
  }
  const versionOf = (name: string): string =>
    (JSON.parse(readFileSync(join(folder, 'node_modules', name, 'package.json'), 'utf8')) as { version: string }).version;
  return { folder, versions: Object.fromEntries(names.map((name) => [name, versionOf(name)])), missing: [] };
};
