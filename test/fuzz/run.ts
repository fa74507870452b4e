import { mkdtempSync, readFileSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { parseArgs } from 'node:util';
import { type Failure, faultsOf, fuzzRequests } from './request-fuzz.ts';
import type { Script } from './requests.ts';
import { resources } from './resources.ts';
import { shrink } from './shrink.ts';
import { type Mode, openRequestStand } from './stands.ts';

const HELP = `Sends a gateway connections full of bent and broken requests over raw sockets, and holds what its upstreams see against a strict reader.

  npm run fuzz -- [options]

  --requests N         how many requests (default 100000)
  --seed S             0 to 4294967295 (default: a random one, which is printed)
  --mode plain         or diverted, where a context answers
  --first N            begin with case N of the seed, not with 0
  --replay FILE        play one connection that an earlier run has kept
  --json               one document instead of text

Exit code: 0 nothing was found, 1 something was, 2 usage.
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

/** Keeps each failure as a file that `--replay` takes, the first ones as short as they will go. */
const keep = async (failures: readonly Failure[], mode: Mode): Promise<object[]> => {
  const folder = mkdtempSync(join(tmpdir(), 'banyan-fuzz-'));
  const stand = await openRequestStand(mode, PATIENCE_MS);
  const kept: object[] = [];
  for (const [i, failure] of failures.entries()) {
    const small =
      i < MAX_SHRUNK && failure.case >= 0
        ? await shrink(failure.script, async (script) => (await faultsOf(stand, script)).length > 0)
        : failure.script;
    const file = join(folder, `case-${failure.case}.json`);
    writeFileSync(file, JSON.stringify(small, null, 2));
    kept.push({ case: failure.case, faults: failure.faults, file, writes: small.writes });
  }
  await stand.stop();
  return kept;
};

const main = async (): Promise<number> => {
  const options = read();
  if (options.help) {
    process.stdout.write(HELP);
    return 0;
  }
  const mode = options.mode === 'plain' || options.mode === 'diverted' ? options.mode : usage('--mode must be plain or diverted');
  if (options.replay !== undefined) return replay(options.replay, mode);
  const seed = whole(options.seed, 'seed', 2 ** 32 - 1);
  const requests = whole(options.requests, 'requests', 1e9);
  const first = whole(options.first, 'first', 2 ** 40);

  const before = await resources();
  const started = performance.now();
  const stand = await openRequestStand(mode, PATIENCE_MS);
  const tally = await fuzzRequests(stand, { seed, requests, first });
  const stopping = performance.now();
  await stand.stop();
  const stoppedMs = Math.round(performance.now() - stopping);
  const after = await resources(before.sockets);
  const seconds = Math.round(stopping - started) / 1000;
  const faults = [...crashes];
  if (after.sockets > before.sockets) faults.push(`${after.sockets - before.sockets} sockets were left open`);
  // The drain ends at once when no connection is stuck; its limit here is a second.
  if (stoppedMs > 900) faults.push(`the gateway took ${stoppedMs} ms to stop: a connection was stuck`);
  const failures = tally.failures.length === 0 ? [] : await keep(tally.failures, mode);
  const heapGrowthMb = Math.round((after.heapBytes - before.heapBytes) / 2 ** 20);
  const document = { seed, mode, seconds, ...tally, failures, faults, heapGrowthMb };
  if (options.json) process.stdout.write(`${JSON.stringify(document, null, 2)}\n`);
  else {
    const { connections, answered, refused, ends } = tally;
    process.stdout.write(
      `seed ${seed}, ${mode}: ${tally.requests} requests on ${connections} connections in ${seconds} s; ${answered} answered by an upstream, ${refused} refused\n`,
    );
    process.stdout.write(
      `connections by how the strict reader says they end: ${Object.entries(ends)
        .map(([end, count]) => `${end} ${count}`)
        .join(', ')}\n`,
    );
    process.stdout.write(`heap ${heapGrowthMb >= 0 ? '+' : ''}${heapGrowthMb} MB, stopped in ${stoppedMs} ms\n`);
    for (const failure of failures) process.stdout.write(`${JSON.stringify(failure, null, 2)}\n`);
    for (const fault of faults) process.stdout.write(`${fault}\n`);
  }
  return failures.length + faults.length === 0 ? 0 : 1;
};

process.exitCode = await main();
