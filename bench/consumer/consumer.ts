import { readFileSync } from 'node:fs';
import { join } from 'node:path';
import knex, { type Knex } from 'knex';
import { createKinesis } from '../../extracted-services/kit/kinesis.ts';
import { openWorkshop, ROOT } from '../processes.ts';
import { type BenchOptions, machine, type Report, round } from '../report.ts';
import { drain } from './drain.ts';

const FACTS = 400_000;
const SUBJECTS = 20_000;

const openDatabase = async (server: string, name: string): Promise<Knex> => {
  const admin = knex({ client: 'pg', connection: server, pool: { min: 0, max: 1 } });
  await admin.raw(`create database ${name}`).finally(() => admin.destroy());
  const url = new URL(server);
  url.pathname = `/${name}`;
  return knex({ client: 'pg', connection: url.href, pool: { min: 0, max: 16 } });
};

/** `consumer`: how many facts per second the kit applies on embedded PostgreSQL (fsync on). */
export const benchConsumer = async ({ quick, say }: BenchOptions): Promise<Report> => {
  const machineBefore = machine();
  const workshop = openWorkshop();
  try {
    const [postgres, emulator] = await Promise.all([
      workshop.startNode('dev/postgres/main.ts', ['--temporary', '--port', '0']),
      workshop.startNode('dev/kinesis/main.ts', ['--port', '0', '--no-throttle', '--memory-mib', '1024']),
    ]);
    const server = postgres.urls.postgres!;
    const kinesis = createKinesis({ region: 'eu-west-1', endpoint: emulator.urls.kinesis! });
    const db = await openDatabase(server, 'consumer');
    const facts = quick ? FACTS / 20 : FACTS;
    say(`applying ${facts} facts that lie on the stream`);
    const drained = await drain(kinesis, db, facts, quick ? SUBJECTS / 20 : SUBJECTS).finally(() => db.destroy());
    if (drained.effects !== drained.facts) throw new Error(`${drained.facts} facts had ${drained.effects} effects`);
    kinesis.destroy();
    const { version } = JSON.parse(readFileSync(join(ROOT, 'package.json'), 'utf8')) as { version: string };
    const perSecond = Math.round(drained.facts / drained.seconds);
    return {
      name: 'consumer',
      machine: machineBefore,
      figures: { events_per_s: perSecond },
      table: [
        {
          what: 'drain',
          facts: drained.facts,
          records: drained.records,
          seconds: round(drained.seconds, 2),
          'facts/s': perSecond,
        },
      ],
      missing: [],
      versions: { banyan: version },
    };
  } finally {
    await workshop.close();
  }
};
