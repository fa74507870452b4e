import { mkdtempSync, readFileSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { parseArgs } from 'node:util';
import { runAgainst } from './against.ts';
import { type Failure, faultsOf, fuzzRequests } from './request-fuzz.ts';
import type { Script } from './requests.ts';
import { type Resources, resources } from './resources.ts';
import { fuzzResponses } from './response-fuzz.ts';
import { shrink } from './shrink.ts';
import { type Mode, openRequestStand, openResponseStand } from './stands.ts';

const HELP = `Fuzzes a gateway over raw sockets, and holds it against a strict reader of both its sides: connections full of bent and broken requests,
then upstreams that answer with bent and broken bytes.

  npm run fuzz -- [options]

  --requests N         how many requests (default 100000)
  --responses N        how many answers (default as many)
  --seed S             0 to 4294967295 (default: a random one, which is printed)
  --mode plain         or diverted, where a context answers
  --first N            begin with case N of the seed, not with 0
  --against nginx      send single requests to nginx too, and explain every difference
  --replay FILE        play one connection that an earlier run has kept
  --json               one document instead of text

Exit code: 0 nothing was found, 1 something was, 2 usage or no nginx.
`;

const usage = (why: string): never => {
  process.stderr.write(`fuzz: ${why}\n\n${HELP}`);
  process.exit(2);
};

const whole = (text: string, name: string, most: number): number => {
  const value = Number(text);
  return Number.isInteger(value) && value >= 0 && value <= most ? value : usage(`--${name} must be 0 to ${most}`);
};

const read = () => {
  try {
    return parseArgs({
      options: {
        requests: { type: 'string', default: '100000' },
        responses: { type: 'string' },
        against: { type: 'string' },
        seed: { type: 'string', default: String(Math.floor(Math.random() * 2 ** 32)) },
        mode: { type: 'string', default: 'plain' },
        first: { type: 'string', default: '0' },
        replay: { type: 'string' },
        json: { type: 'boolean', default: false },
        help: { type: 'boolean', default: false },
      },
    }).values;
  } catch (error) {
    return usage((error as Error).message);
  }
};

const PATIENCE_MS = 5_000;
const MAX_SHRUNK = 5;

/** Something that nobody caught: in production the process would be gone. */
const crashes: string[] = [];
for (const event of ['uncaughtException', 'unhandledRejection'] as const) {
  process.on(event, (error: unknown) => crashes.push(`${event}: ${error instanceof Error ? error.stack : String(error)}`));
}

const replay = async (file: string, mode: Mode): Promise<number> => {
  const script = JSON.parse(readFileSync(file, 'utf8')) as Script;
  const stand = await openRequestStand(mode, PATIENCE_MS);
  const faults = await faultsOf(stand, script);
  await stand.stop();
  process.stdout.write(faults.length === 0 ? 'nothing was found\n' : `${faults.join('\n')}\n`);
  return faults.length === 0 ? 0 : 1;
};

type Kept = { readonly case: number; readonly faults: readonly string[]; readonly file?: string; readonly writes: readonly string[] };

/** Keeps each failure as a file that `--replay` takes, the first ones as short as they will go. */
const keep = async (failures: readonly Failure[], mode: Mode): Promise<Kept[]> => {
  if (failures.length === 0) return [];
  const folder = mkdtempSync(join(tmpdir(), 'banyan-fuzz-'));
  const stand = await openRequestStand(mode, PATIENCE_MS);
  const fails = async (script: Script): Promise<boolean> => (await faultsOf(stand, script)).length > 0;
  const kept: Kept[] = [];
  for (const [i, { case: index, faults, script }] of failures.entries()) {
    const { writes, fin } = i < MAX_SHRUNK && index >= 0 ? await shrink(script, fails) : script;
    const file = join(folder, `case-${index}.json`);
    writeFileSync(file, JSON.stringify({ writes, fin }, null, 2));
    kept.push({ case: index, faults, file, writes });
  }
  await stand.stop();
  return kept;
};

/** Of a run, and what it left behind. The drain ends at once when no connection is stuck; its limit here is a second. */
const stopped = async (stop: () => Promise<void>, before: Resources): Promise<{ faults: string[]; heapGrowthMb: number }> => {
  const started = performance.now();
  await stop();
  const ms = Math.round(performance.now() - started);
  const after = await resources(before.sockets);
  const faults = crashes.splice(0);
  if (after.sockets > before.sockets) faults.push(`${after.sockets - before.sockets} sockets were left open`);
  if (ms > 900) faults.push(`the gateway took ${ms} ms to stop: a connection was stuck`);
  return { faults, heapGrowthMb: Math.round((after.heapBytes - before.heapBytes) / 2 ** 20) };
};

const seconds = (since: number): number => Math.round(performance.now() - since) / 1000;

const runRequests = async (mode: Mode, seed: number, requests: number, first: number) => {
  const before = await resources();
  const stand = await openRequestStand(mode, PATIENCE_MS);
  const started = performance.now();
  const tally = await fuzzRequests(stand, { seed, requests, first });
  const took = seconds(started);
  const left = await stopped(stand.stop, before);
  return { seconds: took, ...tally, failures: await keep(tally.failures, mode), ...left };
};

const runResponses = async (mode: Mode, seed: number, exchanges: number, first: number) => {
  const before = await resources();
  const stand = await openResponseStand(mode, PATIENCE_MS);
  const started = performance.now();
  const tally = await fuzzResponses(stand, { seed, exchanges, first });
  const took = seconds(started);
  return { seconds: took, ...tally, ...(await stopped(stand.stop, before)) };
};

const counts = (record: Readonly<Record<string, number>>): string =>
  Object.entries(record)
    .sort(([, a], [, b]) => b - a)
    .map(([name, count]) => `${name} ${count}`)
    .join(', ');

const main = async (): Promise<number> => {
  const options = read();
  if (options.help) {
    process.stdout.write(HELP);
    return 0;
  }
  const mode = options.mode === 'plain' || options.mode === 'diverted' ? options.mode : usage('--mode must be plain or diverted');
  if (options.replay !== undefined) return replay(options.replay, mode);
  const seed = whole(options.seed, 'seed', 2 ** 32 - 1);
  const wanted = whole(options.requests, 'requests', 1e9);
  const first = whole(options.first, 'first', 2 ** 40);
  if (options.against !== undefined) {
    if (options.against !== 'nginx') usage('--against knows nginx only');
    return runAgainst(seed, wanted, first, options.json);
  }
  const requests = await runRequests(mode, seed, wanted, first);
  const responses = await runResponses(mode, seed, whole(options.responses ?? options.requests, 'responses', 1e9), first);
  if (options.json) process.stdout.write(`${JSON.stringify({ seed, mode, requests, responses }, null, 2)}\n`);
  else {
    process.stdout.write(
      `seed ${seed}, ${mode}\n${requests.requests} requests on ${requests.connections} connections in ${requests.seconds} s: ${requests.answered} answered by an upstream, ${requests.refused} refused\n` +
        `  connections by how they end: ${counts(requests.ends)}\n  heap ${requests.heapGrowthMb} MB more than before\n` +
        `${responses.exchanges} answers in ${responses.seconds} s: ${counts(responses.outcomes)}\n  by what they are: ${counts(responses.readings)}\n  heap ${responses.heapGrowthMb} MB more than before\n`,
    );
    for (const failure of [...requests.failures, ...responses.failures]) process.stdout.write(`${JSON.stringify(failure, null, 2)}\n`);
    for (const fault of [...requests.faults, ...responses.faults]) process.stdout.write(`${fault}\n`);
  }
  const found = [requests.failures, requests.faults, responses.failures, responses.faults].some((list) => list.length > 0);
  return found ? 1 : 0;
};

process.exitCode = await main();
