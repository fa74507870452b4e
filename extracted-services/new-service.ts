import { spawnSync } from 'node:child_process';
import { existsSync, mkdirSync, readdirSync, readFileSync, symlinkSync, writeFileSync } from 'node:fs';
import { dirname, join, resolve } from 'node:path';
import { filesOf } from './new-service-files.ts';

/** `npm run new-service NAME`: a service on the kit, with its tests, as a workspace of this repository. */
const ROOT = resolve(import.meta.dirname, '..');
const USAGE = `Makes a new extracted service: extracted-services/NAME with its tests.

  npm run new-service NAME     NAME: lower-case letters, digits and -, such as customer
`;

class Refused extends Error {}

const write = (path: string, text: string): void => {
  mkdirSync(dirname(join(ROOT, path)), { recursive: true });
  writeFileSync(join(ROOT, path), text);
};
const read = (path: string): string => readFileSync(join(ROOT, path), 'utf8');

/** One above the highest that a service has. */
const freePort = (): number => {
  const ports = readdirSync(join(ROOT, 'extracted-services'))
    .map((name) => `extracted-services/${name}/compose.ts`)
    .filter((file) => existsSync(join(ROOT, file)))
    .flatMap((file) => [...read(file).matchAll(/defaultPort: (\d+)/g)].map((found) => Number(found[1])));
  return Math.max(4000, ...ports) + 1;
};

/** As `npm install` would: the workspace in the lockfile, in npm's order, and its link in node_modules. */
const enlist = (name: string, manifest: { name: string; version: string; license: string; dependencies: object }): void => {
  const at = `extracted-services/${name}`;
  const lock = JSON.parse(read('package-lock.json')) as { packages: Record<string, object> };
  const { name: packageName, version, license, dependencies } = manifest;
  const packages = Object.entries({
    ...lock.packages,
    [at]: { name: packageName, version, license, dependencies },
    [`node_modules/${packageName}`]: { resolved: at, link: true },
  }).sort(([a], [b]) => a.localeCompare(b, 'en'));
  write('package-lock.json', `${JSON.stringify({ ...lock, packages: Object.fromEntries(packages) }, null, 2)}\n`);
  const link = join(ROOT, 'node_modules', packageName);
  if (existsSync(dirname(link)) && !existsSync(link)) symlinkSync(join('../..', at), link);
  const image = 'deploy/Dockerfile';
  const last = [...read(image).matchAll(/^COPY extracted-services\/.+\/package\.json .+$/gm)].at(-1);
  if (last) write(image, read(image).replace(last[0], `${last[0]}\nCOPY ${at}/package.json ${at}/`));
};

const make = (name: string): void => {
  if (!/^[a-z](-?[a-z0-9])*$/.test(name) || name.length > 40)
    throw new Refused(`"${name}" is no name for a service: expected lower-case letters, digits and single -, at most 40`);
  const files = filesOf(name, freePort());
  const there = [`extracted-services/${name}`, ...Object.keys(files)].find((file) => existsSync(join(ROOT, file)));
  if (there !== undefined) throw new Refused(`${there} is there already; nothing was changed`);
  for (const [path, text] of Object.entries(files)) write(path, text);
  // where lines break depends on the length of the name
  const biome = join(ROOT, 'node_modules/@biomejs/biome/bin/biome');
  const formatted = existsSync(biome)
    ? spawnSync(process.execPath, [biome, 'check', '--write', ...Object.keys(files)], { cwd: ROOT, encoding: 'utf8' })
    : null;
  if (formatted !== null && formatted.status !== 0) process.stderr.write(`not formatted (npm run format does it): ${formatted.stderr}\n`);
  enlist(name, JSON.parse(files[`extracted-services/${name}/package.json`]!));
  const port = /defaultPort: (\d+)/.exec(files[`extracted-services/${name}/compose.ts`]!)![1];
  process.stderr.write(`${Object.keys(files).join('\n')}\n
  npm test -- service-${name} extracted-services/${name}
  npm run service -- ${name}

Next: its fields (domain.ts), its routes (api.ts), what the adapter tells about it (legacy-adapter/translate). For the configuration:\n\n`);
  process.stdout.write(`contexts:
  ${name}:
    match:
      - { path: /api/${name}/**, methods: [GET, HEAD] }
    else: legacy
    extracted: { url: http://127.0.0.1:${port} }
    stickyKey: [header:x-user-id, cookie:session]
    publisher: capture
`);
};

const [name, ...rest] = process.argv.slice(2);
if (name === '--help' || name === '-h') process.stdout.write(USAGE);
else
  try {
    if (name === undefined || rest.length > 0) throw new Refused('expected one name (see --help)');
    make(name);
  } catch (error) {
    if (!(error instanceof Refused)) throw error;
    process.stderr.write(`new-service: ${error.message}\n`);
    process.exitCode = 2;
  }
