import { setTimeout as pause } from 'node:timers/promises';
import { startConsumer } from '@banyan/kit/consumer.ts';
import { project } from '@banyan/kit/handlers.ts';
import { createKinesis } from '@banyan/kit/kinesis.ts';
import knex from 'knex';
import { pino } from 'pino';
import { SCHEMA } from './lab.ts';

/** One instance of a consumer as a process of its own; what it is told stands in its environment. Its log goes to stderr. */
const { DATABASE_URL, KINESIS_ENDPOINT, STREAM = '', LEASE_MS = '5000', POLL_MS = '50', PAGE_MS = '0', DIE = '' } = process.env;

const db = knex({ client: 'pg', connection: DATABASE_URL!, pool: { min: 0, max: 8 }, log: { warn: () => undefined } });
const die = (): void => void process.kill(process.pid, 'SIGKILL');
/** In the middle of the transaction, about when it commits, or once it has: `facts` are effects by then, and nobody has heard of it. */
const when = DIE === '' ? null : (['insert', 'commit', 'after'] as const)[Math.floor(Math.random() * 3)]!;

process.send?.({ type: 'ready', urls: {} });
const consumer = startConsumer({
  kinesis: createKinesis({ region: 'eu-west-1', endpoint: KINESIS_ENDPOINT! }),
  stream: STREAM,
  consumer: 'test',
  db,
  schema: SCHEMA,
  log: pino({ level: 'info' }, process.stderr),
  leaseMs: Number(LEASE_MS),
  pollMs: Number(POLL_MS),
  discoverMs: 1000,
  handlers: [
    project({
      types: ['thing.done.v1'],
      applyAll: async (trx, facts) => {
        await trx(`${SCHEMA}.effect`).insert(
          facts.map(({ id, subject, sequence }) => ({ subject, fact: id, sequence: Number(sequence), pid: process.pid })),
        );
        process.send?.({ type: 'page', facts: facts.length });
        if (when === 'insert') die();
        // a commit takes some ms, fsync included
        if (when === 'commit') setTimeout(die, Math.random() * 8);
        if (PAGE_MS !== '0') await pause(Number(PAGE_MS));
      },
    }),
  ],
  onCounts: (counts) => {
    if (counts.applied > 0 && when !== null) die();
  },
});
process.on('SIGTERM', () => {
  void consumer.stop().then(() => process.exit(0));
});
