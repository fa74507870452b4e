import { spawnSync } from 'node:child_process';
import { existsSync, globSync, readdirSync, readFileSync } from 'node:fs';
import { dirname, join } from 'node:path';
import { ERROR_CODES, STATUS_OF } from '@banyan/contracts/errors.ts';
import { STAGES, UPSTREAMS, VERDICTS } from '@banyan/contracts/vocabulary.ts';
import { describe, expect, it } from '@jest/globals';
import { parse } from 'yaml';
import { loadConfig } from '../../gateway/config.ts';
import { movesAsRows } from '../../gateway/core/ledger-moves.ts';
import { rampMovesAsRows } from '../../gateway/core/ramp/states.ts';
import { repository } from '../harness/processes.ts';

const read = (file: string): string => readFileSync(join(repository, file), 'utf8');
const exists = (file: string): boolean => existsSync(join(repository, file));
/** Words in code font. */
const words = (text: string): string[] => [...text.matchAll(/`([^`]+)`/g)].map((found) => found[1] ?? '');
const pages = ['README.md', 'CONTRIBUTING.md', 'CHANGELOG.md', ...globSync('docs/**/*.md', { cwd: repository })];

describe('problem pages', () => {
  it('explain every error code, and no other', () => {
    expect(readdirSync(join(repository, 'docs/problems')).sort()).toEqual(ERROR_CODES.map((code) => `${code}.md`).sort());
  });

  it.each([...ERROR_CODES])('%s says its code and status, what was sent and what to do', (code) => {
    const page = read(`docs/problems/${code}.md`);
    expect(page.startsWith(`# ${code}\n\nHTTP status ${STATUS_OF[code]}.\n`)).toBe(true);
    for (const part of ['**What happened.** ', '**What was sent.** ', '**What to do.** '])
      expect(page.split(part)[1]?.trim().length).toBeGreaterThan(10);
  });
});

describe('glossary', () => {
  /** The code words of a row's second cell, from its `part`-th `/`. */
  const row = (word: string, part = 0): string[] => {
    const line = read('docs/glossary.md')
      .split('\n')
      .find((candidate) => candidate.split('|')[1]?.trim() === word);
    const cell = line?.split('|')[2] ?? '';
    return words(part === 0 ? cell : (cell.split(' / ')[part] ?? ''));
  };

  it('names the stages, upstreams and verdicts that the contracts know, in their order', () => {
    expect(row('stage')).toEqual([...STAGES]);
    expect(row('upstream')).toEqual([...UPSTREAMS]);
    expect(row('observation / pair / verdict', 2)).toEqual([...VERDICTS]);
  });
});

describe('README', () => {
  it('opens with the two commands that set everything up', () => {
    const [first, second, third] = read('README.md').split('\n');
    expect(first).toMatch(/^ {4}npm install && npm start {2,}# /);
    expect(second).toMatch(/^ {4}npm install && npm test {2,}# /);
    expect(third).toBe('');
  });

  it('mentions only commands that exist', () => {
    const help = spawnSync(process.execPath, ['--disable-warning=ExperimentalWarning', 'gateway/cli/main.ts', '--help'], {
      cwd: repository,
      encoding: 'utf8',
    });
    expect(help.status).toBe(0);
    const commands = [...(help.stdout.split('Commands:')[1] ?? '').matchAll(/^ {2}([a-z]+)/gm)].map((found) => found[1]);
    const text = read('README.md');
    const mentioned = [...text.matchAll(/(?:`|npx )banyan ([a-z]+)/g)].map((found) => found[1]);
    expect(mentioned.length).toBeGreaterThan(10);
    expect([...new Set(mentioned)].filter((name) => !commands.includes(name))).toEqual([]);
  });
});

it('the pages link to files that are there', () => {
  const broken = pages.flatMap((page) =>
    [...read(page).matchAll(/\]\(([^)#\s]+)[^)]*\)/g)]
      .map((found) => found[1] ?? '')
      .filter((target) => !/^[a-z]+:/.test(target) && !exists(join(dirname(page), target)))
      .map((target) => `${page}: ${target}`),
  );
  expect(broken).toEqual([]);
});

type Service = {
  readonly command?: readonly string[];
  readonly build?: { readonly dockerfile: string };
  readonly depends_on?: Readonly<Record<string, unknown>>;
  readonly volumes?: readonly string[];
  readonly ports?: readonly string[];
  readonly healthcheck?: unknown;
};

describe('docker-compose.yml', () => {
  const compose = parse(read('docker-compose.yml'), { merge: true }) as {
    readonly services: Readonly<Record<string, Service>>;
    readonly volumes: Readonly<Record<string, unknown>>;
  };
  const services = Object.entries(compose.services);

  it('has every part of the demo', () => {
    expect(Object.keys(compose.services).sort()).toEqual(
      ['adapter', 'gateway', 'inventory', 'localstack', 'monolith', 'notification', 'order', 'postgres'].sort(),
    );
  });

  it.each(services)('%s names scripts, files, mounts and services that are there', (_name, service) => {
    const [script, ...args] = service.command ?? [];
    const named = [service.build?.dockerfile, script, ...args.filter((arg) => arg.endsWith('.yaml'))].filter((file) => file !== undefined);
    expect(named.filter((file) => !exists(file))).toEqual([]);
    if (script === 'extracted-services/run.ts') expect(exists(`extracted-services/${args[0]}/main.ts`)).toBe(true);
    for (const volume of service.volumes ?? []) {
      const source = volume.split(':')[0] ?? '';
      expect(source.startsWith('.') ? exists(source) : Object.hasOwn(compose.volumes, source)).toBe(true);
    }
    expect(Object.keys(service.depends_on ?? {}).filter((other) => compose.services[other]?.healthcheck === undefined)).toEqual([]);
    expect(service.healthcheck).toBeDefined();
    expect((service.ports ?? []).filter((port) => !port.startsWith('127.0.0.1:'))).toEqual([]);
  });

  it('is built from files that are there, with the manifest of every workspace', () => {
    const sources = [...read('deploy/Dockerfile').matchAll(/^COPY (.+) \S+$/gm)].flatMap((found) => (found[1] ?? '').split(' '));
    expect(sources.filter((source) => !exists(source))).toEqual([]);
    const workspaces = (JSON.parse(read('package.json')) as { workspaces: string[] }).workspaces;
    const manifests = globSync(
      workspaces.map((workspace) => `${workspace}/package.json`),
      { cwd: repository },
    );
    expect(sources.filter((source) => source.endsWith('/package.json')).sort()).toEqual([...manifests].sort());
  });

  it('gives the gateway a valid configuration with the contexts of the demo', async () => {
    const file = join(repository, 'deploy/banyan.compose.yaml');
    const env = {
      BANYAN_ADMIN_TOKEN: 'token',
      BANYAN_SEAL_KEY: 'a-passphrase',
      DATABASE_URL: 'postgres://postgres@postgres/banyan',
      LEGACY_DATABASE_URL: 'postgres://postgres@postgres/shop',
      KINESIS_ENDPOINT: 'http://localstack:4566',
    };
    expect(await loadConfig({ file, env })).toMatchObject({ ok: true, warnings: [] });
    type File = { contexts: Record<string, { extracted: { url: string } }> };
    const elsewhere = ({ contexts }: File) =>
      Object.entries(contexts).map(([name, context]) => [
        name,
        { ...context, extracted: { ...context.extracted, url: new URL(context.extracted.url).port } },
      ]);
    expect(elsewhere(parse(read('deploy/banyan.compose.yaml')) as File)).toEqual(elsewhere(parse(read('dev/stack/demo.yaml')) as File));
  });
});

describe('docs/dual-write.md', () => {
  it('draws the moves of the ledger, all of them and no other', () => {
    const drawn = [...read('docs/dual-write.md').matchAll(/^ {2}(\w+) --> (\w+): ([\w-]+)$/gm)].map(
      ([, from, to, event]) => `${from} ${event} ${to}`,
    );
    expect(drawn.sort()).toEqual(
      movesAsRows()
        .map(({ from, event, to }) => `${from} ${event} ${to}`)
        .sort(),
    );
  });
});

describe('docs/ramp.md', () => {
  it('lists the moves of a ramp, all of them and no other', () => {
    const listed = [...read('docs/ramp.md').matchAll(/^\| `([\w-]+)` +\| ([\w-]+) +\| `([\w-]+)` +\|$/gm)].map(
      ([, from, event, to]) => `${from} ${event} ${to}`,
    );
    expect(listed.sort()).toEqual(
      rampMovesAsRows()
        .map(({ from, event, to }) => `${from} ${event} ${to}`)
        .sort(),
    );
  });
});
