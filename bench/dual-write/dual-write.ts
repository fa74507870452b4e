import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { createRequire } from 'node:module';
import { join } from 'node:path';
import { openWorkshop, ROOT } from '../processes.ts';
import { type BenchOptions, machine, type Report, type Row } from '../report.ts';
import { measureCodec } from './codec.ts';
import { measureCommands } from './commands.ts';
import { createStream } from './create-stream.ts';
import { measureRelay } from './relaying.ts';

/** What `--only` may name. */
const PARTS = ['codec', 'commands', 'relay', 'storm'] as const;

type Storm = {
  commands: number;
  kills: number;
  lost: number;
  phantom: number;
  doubled: number;
  acked_missing: number;
  out_of_order: number;
};

/** The storm is a program of the tests, run as a stranger would. */
const storm = async (minutes: number, say: (line: string) => void): Promise<Storm> => {
  const child = spawn(process.execPath, [join(ROOT, 'test/faults/run.ts'), '--seed', '1', '--minutes', String(minutes), '--json'], {
    stdio: ['ignore', 'pipe', 'pipe'],
  });
  let output = '';
  child.stdout.setEncoding('utf8').on('data', (text: string) => {
    output += text;
  });
  child.stderr.setEncoding('utf8').on('data', (text: string) => say(text.trimEnd()));
  await once(child, 'close');
  const last = output.trim().split('\n').at(-1) ?? '';
  try {
    return JSON.parse(last) as Storm;
  } catch {
    throw new Error(`the storm gave no report: ${last.slice(0, 300)}`);
  }
};

const versions = (): Record<string, string> => {
  const require = createRequire(import.meta.url);
  const of = (name: string): string => (require(`${name}/package.json`) as { version: string }).version;
  return { pg: of('pg'), knex: of('knex') };
};

/**
 * The dual write alone: `banyan run` in front of a monolith that costs nothing, embedded PostgreSQL with fsync, the Kinesis emulator. In the same run, on the
 * same server, single-row inserts show what the disk gives anybody.
 */
export const benchDualWrite = async ({ quick, only, say }: BenchOptions): Promise<Report> => {
  const wants = (part: (typeof PARTS)[number]): boolean => only === null || only.includes(part);
  const unknown = only?.find((part) => !PARTS.some((known) => known === part));
  if (unknown !== undefined) throw new Error(`--only ${unknown}: expected some of ${PARTS.join(', ')}`);
  const rounds = quick ? 1 : 3;
  const about = machine();
  const table: Row[] = [];
  const missing: string[] = PARTS.filter((part) => !wants(part)).map((part) => `${part}: not asked for`);
  const figures: Record<string, number> = {};
  const take = (measured: { figures: Record<string, number>; table: readonly Row[] }): void => {
    Object.assign(figures, measured.figures);
    table.push(...measured.table);
  };
  if (wants('codec')) {
    say('codec');
    const codec = measureCodec(quick ? 1 : 5, quick ? 200 : 400);
    figures.codec_events_per_s = Math.min(codec.encode, codec.decode);
    table.push({ what: 'codec: encode, 200 B', per_s: codec.encode }, { what: 'codec: decode, 200 B', per_s: codec.decode });
  }
  if (wants('commands') || wants('relay')) {
    const shop = openWorkshop();
    try {
      const postgres = await shop.startNode('dev/postgres/main.ts', ['--temporary', '--port', '0']);
      const store = postgres.urls.postgres!;
      const kinesis = await shop.startNode('dev/kinesis/main.ts', ['--port', '0', '--no-throttle', '--data', join(shop.folder, 'kinesis')]);
      const endpoint = kinesis.urls.kinesis!;
      await createStream(endpoint, 'domain-events', 4);
      if (wants('commands'))
        take(await measureCommands(shop, { pid: postgres.pid, url: store }, endpoint, { seconds: quick ? 2 : 5, rounds, quick, say }));
      if (wants('relay')) take(await measureRelay(shop, store, endpoint, { rounds, quick, say }));
      await kinesis.stop();
      await postgres.stop();
    } finally {
      await shop.close();
    }
  }
  if (wants('storm')) {
    const minutes = quick ? 0.1 : 0.25;
    say(`a storm of ${minutes} minutes`);
    try {
      const { lost, phantom, doubled, acked_missing, out_of_order, commands, kills } = await storm(minutes, say);
      Object.assign(figures, { lost, phantom, doubled, acked_missing, out_of_order });
      table.push({ what: `storm: ${commands} commands, ${kills} kills`, errors: lost + phantom + doubled + acked_missing + out_of_order });
    } catch (error) {
      missing.push(`storm: ${error instanceof Error ? error.message : String(error)}`);
    }
  }
  return { name: 'dual-write', machine: about, figures, table, missing, versions: versions() };
};
