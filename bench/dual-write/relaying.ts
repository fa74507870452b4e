import { join } from 'node:path';
import type { Workshop } from '../processes.ts';
import { median, type Row, round } from '../report.ts';
import { createStream } from './create-stream.ts';
import { feedOutbox, fillOutbox, makeFacts } from './outbox.ts';

type Relayed = { facts: number; records: number; units: number; bytes: number; wallSeconds: number; cpuSeconds: number };
type Measured = { readonly figures: Record<string, number>; readonly table: readonly Row[] };

/** At which the ratio of facts to PUT units is told beside that at saturation. */
const STEADY_PER_SECOND = 1_000;
/** What a slow machine may take for one round, ms. */
const PATIENCE_MS = 300_000;

/** The relay alone in a process of its own: first through an outbox that is full, as fast as it can, then while 1,000 facts a second come in. */
export const measureRelay = async (
  shop: Workshop,
  store: string,
  kinesis: string,
  { rounds, quick, say }: { rounds: number; quick: boolean; say: (line: string) => void },
): Promise<Measured> => {
  const figures: Record<string, number> = {};
  const table: Row[] = [];
  const relay = async (stream: string, facts: number): Promise<Relayed> => {
    const flags = ['--store', store, '--endpoint', kinesis, '--stream', stream, '--facts', String(facts)];
    return JSON.parse(
      await shop.run(process.execPath, [join(import.meta.dirname, 'relay.ts'), ...flags], { timeoutMs: PATIENCE_MS }),
    ) as Relayed;
  };

  const facts = quick ? 20_000 : 200_000;
  const relayed: Relayed[] = [];
  await makeFacts(store, 'order', facts, 5_000);
  for (let i = 0; i < rounds; i++) {
    say(`${facts} facts through the relay, round ${i + 1} of ${rounds}`);
    await createStream(kinesis, `relay-${i}`, 16);
    await fillOutbox(store);
    const one = await relay(`relay-${i}`, facts);
    relayed.push(one);
    table.push({
      what: 'relay, outbox preloaded (per second of its processor time)',
      per_s: Math.round(one.facts / one.cpuSeconds),
      wall_per_s: Math.round(one.facts / one.wallSeconds),
      facts_per_put_unit: round(one.facts / one.units, 1),
      bytes_per_fact: Math.round(one.bytes / one.facts),
    });
  }
  figures.events_per_s = Math.round(median(relayed.map((one) => one.facts / one.cpuSeconds)));
  figures.events_per_s_wall = Math.round(median(relayed.map((one) => one.facts / one.wallSeconds)));
  figures.put_unit_ratio = round(median(relayed.map((one) => one.facts / one.units)), 1);

  const seconds = quick ? 2 : 8;
  say(`${STEADY_PER_SECOND} facts a second for ${seconds} s through the relay`);
  await createStream(kinesis, 'relay-steady', 16);
  await fillOutbox(store, 0);
  const [steady, fedSeconds] = await Promise.all([
    relay('relay-steady', seconds * STEADY_PER_SECOND),
    feedOutbox(store, 'order', STEADY_PER_SECOND, seconds),
  ]);
  figures.put_unit_ratio_at_1000 = round(steady.facts / steady.units, 1);
  table.push({
    what: `relay while facts come in${fedSeconds > seconds * 1.2 ? ' (slower than asked for)' : ''}`,
    wall_per_s: Math.round(steady.facts / fedSeconds),
    facts_per_put_unit: figures.put_unit_ratio_at_1000,
    bytes_per_fact: Math.round(steady.bytes / steady.facts),
  });
  return { figures, table };
};
