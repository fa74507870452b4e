import { randomUUID } from 'node:crypto';
import { parseArgs } from 'node:util';
import knex from 'knex';
import { createRelay } from '../../gateway/dual-write/relay.ts';
import { createKinesisStream } from '../../gateway/dual-write/stream.ts';
import { round } from '../report.ts';

/**
 * One relay and nothing else in this process: its processor time is all that an event costs outside PostgreSQL and the stream. Prints one JSON line when
 * `--facts` facts are marked as published.
 */
const { values } = parseArgs({
  options: { store: { type: 'string' }, endpoint: { type: 'string' }, stream: { type: 'string' }, facts: { type: 'string' } },
});
const facts = Number(values.facts);
const db = knex({ client: 'pg', connection: values.store!, pool: { min: 0, max: 3 } });
const relay = createRelay({
  db,
  memberId: randomUUID(),
  stream: createKinesisStream({
    stream: values.stream!,
    region: 'eu-west-1',
    endpoint: values.endpoint!,
    credentials: { accessKeyId: 'bench', secretAccessKey: 'bench' },
  }),
  log: { warn: (fields, message) => console.error(message, fields), error: (fields, message) => console.error(message, fields) },
  maxBacklogBytes: 64 * 2 ** 30,
});
const cpuBefore = process.cpuUsage();
const began = performance.now();
relay.start();
await new Promise<void>((resolve) => {
  const timer = setInterval(() => {
    if (relay.stats().facts < facts) return;
    clearInterval(timer);
    resolve();
  }, 2);
});
const cpu = process.cpuUsage(cpuBefore);
const { records, bytes } = relay.stats();
process.stdout.write(
  `${JSON.stringify({ facts, records, bytes, wallSeconds: round((performance.now() - began) / 1000, 3), cpuSeconds: round((cpu.user + cpu.system) / 1e6, 3) })}\n`,
);
await relay.stop();
await db.destroy();
