import { existsSync } from 'node:fs';
import { createRequire } from 'node:module';
import { resolve } from 'node:path';
import { cruise, type ICruiseOptions, type ICruiseResult } from 'dependency-cruiser';
import extractTSConfig from 'dependency-cruiser/config-utl/extract-ts-config';

/** Without TypeScript's JavaScript API the cruiser reads no .ts file and finds nothing wrong: too few modules is a failure. */
const FEWEST_MODULES = 50;
const FEWEST_IMPORTS = 200;
const FOLDERS = ['contracts', 'gateway', 'legacy-adapter', 'extracted-services', 'dev', 'test', 'bench', '.ci'];

process.chdir(resolve(import.meta.dirname, '..'));
const { forbidden, options } = createRequire(import.meta.url)('../.dependency-cruiser.cjs') as {
  forbidden: NonNullable<ICruiseOptions['ruleSet']>['forbidden'];
  options: ICruiseOptions;
};

const { output } = await cruise(
  FOLDERS.filter((folder) => existsSync(folder)),
  { ...options, ruleSet: { forbidden, options }, validate: true } as ICruiseOptions,
  undefined,
  { tsConfig: extractTSConfig('tsconfig.json') },
);
const { modules, summary } = output as ICruiseResult;
const own = modules.filter((module) => !module.coreModule && !module.source.includes('node_modules') && !module.couldNotResolve);
const imports = own.reduce((sum, module) => sum + module.dependencies.filter((found) => found.module.startsWith('.')).length, 0);

for (const { rule, from, to, cycle } of summary.violations)
  console.error(`${rule.name}: ${from} -> ${cycle ? cycle.map((step) => (typeof step === 'string' ? step : step.name)).join(' -> ') : to}`);

let failed = summary.violations.length > 0;
if (own.length <= FEWEST_MODULES || imports <= FEWEST_IMPORTS) {
  console.error(
    `only ${own.length} modules with ${imports} relative imports were seen: the check sees nothing (is \`typescript\` the version with an API?)`,
  );
  failed = true;
}
console.log(`import rules: ${own.length} modules, ${imports} relative imports, ${summary.violations.length} violations`);
process.exitCode = failed ? 1 : 0;
