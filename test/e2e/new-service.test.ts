import { spawnSync } from 'node:child_process';
import { cpSync, mkdirSync, mkdtempSync, readdirSync, readFileSync, rmSync, symlinkSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll, beforeAll, expect, it, jest } from '@jest/globals';
import { loadConfig } from '../../gateway/config.ts';
import { repository } from '../harness/processes.ts';

/** The generator in a copy of the repository: what it makes is checked, tested and started there as a team would. */
jest.setTimeout(400_000);

let folder: string;
beforeAll(() => {
  folder = mkdtempSync(join(tmpdir(), 'banyan-new-service-'));
  for (const name of readdirSync(repository))
    if (!['node_modules', '.git', '.banyan', 'docs', 'bench'].includes(name))
      cpSync(join(repository, name), join(folder, name), { recursive: true, filter: (path) => !/[/\\](node_modules|dist)$/.test(path) });
  // libraries as they are, our own packages from the copy
  const modules = join(folder, 'node_modules');
  mkdirSync(join(modules, '@banyan'), { recursive: true });
  for (const name of readdirSync(join(repository, 'node_modules')))
    if (name !== '@banyan') symlinkSync(join(repository, 'node_modules', name), join(modules, name));
  const packages = (
    JSON.parse(readFileSync(join(folder, 'package-lock.json'), 'utf8')) as { packages: Record<string, { link?: true; resolved: string }> }
  ).packages;
  for (const [path, { link, resolved }] of Object.entries(packages)) if (link) symlinkSync(join(folder, resolved), join(folder, path));
});
afterAll(() => rmSync(folder, { recursive: true, force: true }));

const node = (...args: string[]) => {
  const { NODE_OPTIONS: _ofJest, BANYAN_TEST_DATABASES: _ours, JEST_WORKER_ID: _worker, ...env } = process.env;
  const { status, stdout, stderr } = spawnSync(process.execPath, args, { cwd: folder, env, encoding: 'utf8', timeout: 300_000 });
  return { status, stdout, stderr };
};
const make = (...args: string[]) => node('extracted-services/new-service.ts', ...args);
const bin = (name: string): string => join('node_modules', name);

it('makes a service in one command that passes lint, types and its own tests, and is a workspace with a configuration', async () => {
  const { status, stdout, stderr } = make('loyalty-card');
  expect([status, stderr]).toEqual([0, expect.stringContaining('npm run service -- loyalty-card')]);

  const files = ['extracted-services/loyalty-card', 'test/contract/service-loyalty-card.test.ts'];
  expect(node(bin('@biomejs/biome/bin/biome'), 'ci', '--colors=off', ...files)).toMatchObject({ status: 0 });
  writeFileSync(join(folder, 'tsconfig.new.json'), JSON.stringify({ extends: './tsconfig.json', include: files }));
  expect(node(bin('@typescript/native/bin/tsc'), '--noEmit', '-p', 'tsconfig.new.json')).toMatchObject({ status: 0, stdout: '' });
  const tested = node('--experimental-vm-modules', bin('jest/bin/jest.js'), 'loyalty-card');
  expect([tested.status, tested.stderr]).toEqual([0, expect.stringMatching(/Tests: +5 passed, 5 total/)]);
  expect(node('extracted-services/run.ts', 'loyalty-card', '--help').stdout).toContain('The loyalty-card service');

  const lock = JSON.parse(readFileSync(join(folder, 'package-lock.json'), 'utf8')) as { packages: Record<string, object> };
  const names = Object.keys(lock.packages);
  expect(names).toContain('node_modules/@banyan/service-loyalty-card');
  const before = Object.keys((JSON.parse(readFileSync(join(repository, 'package-lock.json'), 'utf8')) as typeof lock).packages);
  // nothing else has moved
  expect(names.filter((each) => !each.endsWith('loyalty-card'))).toEqual(before);
  expect(readFileSync(join(folder, 'deploy/Dockerfile'), 'utf8')).toContain('COPY extracted-services/loyalty-card/package.json ');
  const text = `version: 1\nlegacy: { url: http://127.0.0.1:3000 }\n${stdout}`;
  expect(await loadConfig({ text, env: {} })).toMatchObject({ ok: true });
});

it('refuses a name that is taken or none, and changes nothing', () => {
  const before = readFileSync(join(folder, 'package-lock.json'), 'utf8');
  for (const args of [['kit'], ['../x'], []]) {
    const { status, stderr, stdout } = make(...args);
    expect([status, stdout, stderr]).toEqual([2, '', expect.stringMatching(/^new-service: /)]);
  }
  expect(readFileSync(join(folder, 'package-lock.json'), 'utf8')).toBe(before);
});
