import { parseArgs } from 'node:util';
import { CreateStreamCommand } from '@aws-sdk/client-kinesis';
import { createKinesis } from '@banyan/kit/kinesis.ts';
import knex from 'knex';
import { openWorkshop } from '../../bench/processes.ts';
import { churn, killMany, type Lab, stopOne } from './lab.ts';

const USAGE = `Readers of a stream as processes of their own, on a PostgreSQL and an emulator of their own. Exit code 1 when something was lost, doubled or out of order.

  npm run readers -- stop  [--stop-ms 30000] [--stops 4]   one is stopped beyond its lease (5 s), half of the times in the middle of a page
  npm run readers -- kills [--kills 500]                   each is killed around the commit of its first page
  npm run readers -- churn [--changes 12]                  8 instances, 64 shards; every 5 s one goes and another comes
`;

const { values, positionals } = parseArgs({
  allowPositionals: true,
  options: { 'stop-ms': { type: 'string' }, stops: { type: 'string' }, kills: { type: 'string' }, changes: { type: 'string' } },
});
const numberOf = (text: string | undefined, fallback: number): number => {
  const value = text === undefined ? fallback : Number(text);
  if (!Number.isInteger(value) || value < 1 || value > 1e6) throw new Error(`${text}: expected a whole number`);
  return value;
};
const SCENARIOS = {
  stop: {
    shards: 4,
    play: (lab: Lab) => stopOne(lab, { leaseMs: 5000, stopMs: numberOf(values['stop-ms'], 30_000), stops: numberOf(values.stops, 4) }),
  },
  kills: { shards: 4, play: (lab: Lab) => killMany(lab, { kills: numberOf(values.kills, 500), atOnce: 3, leaseMs: 500 }) },
  churn: {
    shards: 64,
    play: (lab: Lab) => churn(lab, { leaseMs: 5000, instances: 8, shards: 64, changes: numberOf(values.changes, 12), everyMs: 5000 }),
  },
} as const;

const scenario = SCENARIOS[positionals[0] as keyof typeof SCENARIOS];
if (!scenario) {
  process.stderr.write(USAGE);
  process.exit(2);
}
const workshop = openWorkshop();
try {
  const [postgres, emulator] = await Promise.all([
    workshop.startNode('dev/postgres/main.ts', ['--temporary', '--port', '0']),
    workshop.startNode('dev/kinesis/main.ts', ['--port', '0']),
  ]);
  const url = new URL(postgres.urls.postgres!);
  const admin = knex({ client: 'pg', connection: url.href, pool: { min: 0, max: 1 } });
  await admin.raw('create database readers').finally(() => admin.destroy());
  url.pathname = '/readers';
  const db = knex({ client: 'pg', connection: url.href, pool: { min: 0, max: 4 } });
  const kinesis = createKinesis({ region: 'eu-west-1', endpoint: emulator.urls.kinesis! });
  await kinesis.send(new CreateStreamCommand({ StreamName: 'facts', ShardCount: scenario.shards }));
  const rig = { url: emulator.urls.kinesis!, stream: 'facts', kinesis };
  const report = await scenario.play({ db, databaseUrl: url.href, workshop, rig }).finally(() => db.destroy());
  kinesis.destroy();
  process.stdout.write(`${JSON.stringify(report, null, 2)}\n`);
  process.exitCode = report.faults.length === 0 ? 0 : 1;
} finally {
  await workshop.close();
}
