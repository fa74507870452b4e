// node .ci/complete-lock.mjs package-lock.json, after a change of dependencies: adds the optional packages of other platforms that a partial mirror
// does not carry. Without them `npm ci` calls the lock incomplete, on every platform.
import { readFileSync, writeFileSync } from 'node:fs';

const file = process.argv[2];
const lock = JSON.parse(readFileSync(file, 'utf8'));
const CPU = {
  x64: 'x64',
  arm64: 'arm64',
  arm: 'arm',
  ia32: 'ia32',
  ppc64: 'ppc64',
  s390x: 's390x',
  riscv64: 'riscv64',
  loong64: 'loong64',
};
let added = 0;
for (const [at, entry] of Object.entries(lock.packages)) {
  for (const [name, version] of Object.entries(entry.optionalDependencies ?? {})) {
    if (lock.packages[`node_modules/${name}`] || lock.packages[`${at}/node_modules/${name}`]) continue;
    const found =
      /(?:^|[-/])(android|darwin|linux|win32|freebsd|openharmony)-(x64|arm64|arm|ia32|ppc64|s390x|riscv64|loong64)(?:-(\w+))?$/.exec(name);
    if (!found || !/^\d/.test(version)) {
      console.error('skipped', at, name, version);
      continue;
    }
    const [, os, cpu, abi = ''] = found;
    lock.packages[`node_modules/${name}`] = {
      version,
      cpu: [CPU[cpu]],
      ...(entry.dev ? { dev: true } : {}),
      ...(os === 'linux' && /musl/.test(abi) ? { libc: ['musl'] } : os === 'linux' && /gnu/.test(abi) ? { libc: ['glibc'] } : {}),
      optional: true,
      os: [os],
    };
    added += 1;
  }
}
const { '': root, ...rest } = lock.packages;
lock.packages = { '': root, ...Object.fromEntries(Object.entries(rest).sort(([a], [b]) => a.localeCompare(b, 'en'))) };
writeFileSync(file, JSON.stringify(lock, null, 2) + '\n');
console.log('added', added);
