import { parseArgs } from 'node:util';
import knex from 'knex';
import { openWorkshop } from '../../bench/processes.ts';
import { migrate } from '../../gateway/migrations/migrate.ts';
import { storm } from './storm.ts';

/** `npm run storm`: the saga storm at full size, on a PostgreSQL of its own. Exit code 1 when the books do not add up. */
const { values } = parseArgs({ options: { sagas: { type: 'string' }, kills: { type: 'string' }, seed: { type: 'string' } } });
const numberOf = (text: string | undefined, fallback: number): number => {
  const value = text === undefined ? fallback : Number(text);
  if (!Number.isInteger(value) || value < 0 || value > 1e6) throw new Error(`${text}: expected a whole number`);
  return value;
};
const workshop = openWorkshop();
try {
  const { urls } = await workshop.startNode('dev/postgres/main.ts', ['--temporary', '--port', '0']);
  const url = new URL(urls.postgres!);
  const admin = knex({ client: 'pg', connection: url.href, pool: { min: 0, max: 1 } });
  await admin.raw('create database storm').finally(() => admin.destroy());
  url.pathname = '/storm';
  await migrate(url.href);
  const report = await storm({
    databaseUrl: url.href,
    sagas: numberOf(values.sagas, 500),
    kills: numberOf(values.kills, 100),
    seed: numberOf(values.seed, 1),
    patienceMs: 120_000,
  });
  process.stdout.write(`${JSON.stringify(report, null, 2)}\n`);
  process.exitCode = report.faults.length === 0 ? 0 : 1;
} finally {
  await workshop.close();
}
