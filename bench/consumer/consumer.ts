import { readFileSync } from 'node:fs';
import { join } from 'node:path';
import knex, { type Knex } from 'knex';
import { handlers as inventoryHandlers } from '../../extracted-services/inventory/consumer.ts';
import { SCHEMA as INVENTORY, migrations as inventoryMigrations } from '../../extracted-services/inventory/store.ts';
import { createFanOutKinesis, createKinesis } from '../../extracted-services/kit/kinesis.ts';
import { handlers as mailHandlers } from '../../extracted-services/notification/consumer.ts';
import { SCHEMA as MAIL, migrations as mailMigrations } from '../../extracted-services/notification/store.ts';
import { handlers as orderHandlers } from '../../extracted-services/order/consumer.ts';
import { SCHEMA as ORDER, migrations as orderMigrations } from '../../extracted-services/order/store.ts';
import { migrate } from '../../gateway/migrations/migrate.ts';
import { openWorkshop, ROOT } from '../processes.ts';
import { type BenchOptions, machine, percentile, type Report, round } from '../report.ts';
import { type Drained, drain, type Reader } from './drain.ts';
import { measureLatency } from './latency.ts';
import { puts } from './puts.ts';

const FACTS = 400_000;
const SUBJECTS = 20_000;
const PER_SECOND = 1_000;
/** Applied by each of the demo's services. */
const SERVICE_FACTS = 100_000;
const LATENCY_SECONDS = 30;
const PUT_RECORDS = 1_000_000;

const untold = async (): Promise<null> => null;
/** The projections of the demo's services, on the same facts. */
const SERVICES: readonly Reader[] = [
  { name: 'order', schema: ORDER, migrations: orderMigrations, handlers: orderHandlers, effects: untold },
  { name: 'inventory', schema: INVENTORY, migrations: inventoryMigrations, handlers: inventoryHandlers, effects: untold },
  { name: 'notification', schema: MAIL, migrations: mailMigrations, handlers: mailHandlers, effects: untold },
];

const openDatabase = async (server: string, name: string, migrated = false): Promise<Knex> => {
  const admin = knex({ client: 'pg', connection: server, pool: { min: 0, max: 1 } });
  await admin.raw(`create database ${name}`).finally(() => admin.destroy());
  const url = new URL(server);
  url.pathname = `/${name}`;
  if (migrated) await migrate(url.href);
  return knex({ client: 'pg', connection: url.href, pool: { min: 0, max: 16 } });
};

/** `consumer`: how many facts per second the kit applies on embedded PostgreSQL (fsync on), how long one takes, and what the emulator takes. */
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
    const services: (Drained & { name: string })[] = [];
    for (const reader of SERVICES) {
      const count = quick ? SERVICE_FACTS / 20 : SERVICE_FACTS;
      say(`applying ${count} facts with the ${reader.name} service`);
      const own = await openDatabase(server, `service_${reader.name}`);
      services.push({ name: reader.name, ...(await drain(kinesis, own, count, count / 20, reader).finally(() => own.destroy())) });
    }
    say(`${PER_SECOND} facts per second from the outbox to their effects`);
    const store = await openDatabase(server, 'live', true);
    const fanOut = createFanOutKinesis({ region: 'eu-west-1', endpoint: emulator.urls.kinesis! });
    const live = await measureLatency({
      kinesis,
      fanOut,
      endpoint: emulator.urls.kinesis!,
      db: store,
      perSecond: PER_SECOND,
      seconds: quick ? 3 : LATENCY_SECONDS,
    }).finally(() => store.destroy());
    fanOut.destroy();
    say('records that the emulator takes');
    const put = await puts(kinesis, quick ? PUT_RECORDS / 20 : PUT_RECORDS);
    kinesis.destroy();
    const { version } = JSON.parse(readFileSync(join(ROOT, 'package.json'), 'utf8')) as { version: string };
    const perSecond = Math.round(drained.facts / drained.seconds);
    return {
      name: 'consumer',
      machine: machineBefore,
      figures: {
        events_per_s: perSecond,
        latency_p50_ms: round(percentile(live.latencies, 0.5), 1),
        latency_p99_ms: round(percentile(live.latencies, 0.99), 1),
        ...Object.fromEntries(services.map(({ name, facts, seconds }) => [`${name}_events_per_s`, Math.round(facts / seconds)])),
        emulator_records_per_s: Math.round(put.records / put.seconds),
      },
      table: [
        {
          what: 'drain',
          facts: drained.facts,
          records: drained.records,
          seconds: round(drained.seconds, 2),
          'facts/s': perSecond,
        },
        ...services.map(({ name, facts, records, seconds }) => ({
          what: name,
          facts,
          records,
          seconds: round(seconds, 2),
          'facts/s': Math.round(facts / seconds),
        })),
        {
          what: 'latency',
          facts: live.latencies.length,
          records: null,
          seconds: live.latencies.length / PER_SECOND,
          'facts/s': PER_SECOND,
          pushed: live.pushed,
          polled: live.polled,
        },
        { what: 'emulator', facts: null, records: put.records, seconds: round(put.seconds, 2), 'facts/s': null },
      ],
      missing: [],
      versions: { banyan: version },
    };
  } finally {
    await workshop.close();
  }
};
