import { existsSync, readdirSync } from 'node:fs';
import { join } from 'node:path';

/** `npm run service -- NAME [flags]`: runs extracted-services/NAME/main.ts in this process. */
const names = readdirSync(import.meta.dirname)
  .filter((name) => existsSync(join(import.meta.dirname, name, 'main.ts')))
  .sort();

const USAGE = `Runs one of the extracted services.

  npm run service -- NAME [flags]     NAME: ${names.join(', ')}
  npm run service -- NAME --help
`;

const [name, ...rest] = process.argv.slice(2);
if (name === '--help' || name === '-h') process.stdout.write(USAGE);
else if (name === undefined || !names.includes(name)) {
  process.stderr.write(
    `service: ${name === undefined ? 'no name given' : `there is no service "${name}"`}; there are ${names.join(', ')}\n`,
  );
  process.exitCode = 2;
} else {
  process.argv.splice(2, process.argv.length, ...rest);
  await import(`./${name}/main.ts`);
}
