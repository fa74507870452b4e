import { randomUUID } from 'node:crypto';
import { parseArgs } from 'node:util';
import knex from 'knex';
import { createRelay } from '../../gateway/dual-write/relay.ts';
import { createKinesisStream } from '../../gateway/dual-write/stream.ts';
import { round } from '../report.ts';

/**
 * One relay and nothing else in this process: its processor time is all that an event costs outside PostgreSQL and the stream. Prints one JSON line when
 * `--facts` facts are on the stream.
 */
const { values } = parseArgs({
  options: { store: { type: 'string' }, endpoint: { type: 'string' }, stream: { type: 'string' }, facts: { type: 'string' } },
});
const facts = Number(values.facts);
const db = knex({ client: 'pg', connection: values.store!, pool: { min: 0, max: 3 } });
let published = 0;
let finish: () => void = () => undefined;
const finished = new Promise<void>((resolve) => {
  finish = resolve;
});
const kinesis = createKinesisStream({
  stream: values.stream!,
  region: 'eu-west-1',
  endpoint: values.endpoint!,
  credentials: { accessKeyId: 'bench', secretAccessKey: 'bench' },
});
/** What AWS bills: every 25 KB of a record that was begun. */
let units = 0;
const relay = createRelay({
  db,
  memberId: randomUUID(),
  stream: {
    ...kinesis,
    put: async (records) => {
      const results = await kinesis.put(records);
      results.forEach((result, i) => {
        if (result.ok) units += Math.ceil((records[i]!.data.length + Buffer.byteLength(records[i]!.partitionKey)) / 25_600);
      });
      return results;
    },
  },
  log: {
    warn: (fields, message) => console.error(message, fields),
    error: (fields, message) => console.error(message, fields),
  },
  maxBacklogBytes: 64 * 2 ** 30,
  onFacts: (_context, outcome, count) => {
    if (outcome === 'published') published += count;
    if (published >= facts) finish();
  },
});
const cpuBefore = process.cpuUsage();
const began = performance.now();
relay.start();
await finished;
const cpu = process.cpuUsage(cpuBefore);
const { records, bytes } = relay.stats();
process.stdout.write(
  `${JSON.stringify({ facts, records, units, bytes, wallSeconds: round((performance.now() - began) / 1000, 3), cpuSeconds: round((cpu.user + cpu.system) / 1e6, 3) })}\n`,
);
await relay.stop();
await db.destroy();
