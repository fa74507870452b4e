import { parseArgs } from 'node:util';
import type { Level } from './case.ts';
import { CASES } from './cases.ts';
import { PEERS, type Peer, startPeer } from './peers.ts';
import { play, type Stand } from './play.ts';
import { openScriptedUpstream, type ScriptedUpstream } from './scripted-upstream.ts';

const HELP = `Holds any HTTP/1.1 reverse proxy to the conformance cases.

  npm run conformance -- --proxy http://127.0.0.1:8080 --upstream-port 9000 [options]

The proxy has to send everything on to 127.0.0.1:9000, where this program answers by script. Or, with the set-ups in bench/proxy/peers:

  npm run conformance -- --peer ${PEERS.join('|')}

  --trusting URL    the same proxy, set up to believe its peer's X-Forwarded-*
  --impatient URL   the same proxy with time-outs of a second or so; without it cases about time-outs are left out
  --strict          hold it to what Banyan promises, not to all that the cited texts allow
  --only TEXT       cases whose id contains TEXT
  --patience MS     longest wait for one step (default 5000)
  --json            one document instead of a table

Exit code: 0 all passed, 1 some failed, 2 usage or nothing to test.
`;

type Row = {
  readonly id: string;
  readonly level: Level;
  readonly cite: string;
  readonly it: string;
  readonly result: 'pass' | 'fail' | 'skip';
  readonly faults: readonly string[];
};

const portOf = (url: string): number => {
  const { protocol, hostname, port } = new URL(url);
  if (protocol !== 'http:' || !['127.0.0.1', 'localhost'].includes(hostname)) throw new Error(`${url}: expected http://127.0.0.1:PORT`);
  return Number(port || 80);
};

const usage = (why: string): never => {
  process.stderr.write(`conformance: ${why}\n\n${HELP}`);
  process.exit(2);
};

const read = () => {
  try {
    return parseArgs({
      options: {
        proxy: { type: 'string' },
        peer: { type: 'string' },
        'upstream-port': { type: 'string' },
        trusting: { type: 'string' },
        impatient: { type: 'string' },
        strict: { type: 'boolean', default: false },
        only: { type: 'string', default: '' },
        patience: { type: 'string', default: '5000' },
        json: { type: 'boolean', default: false },
        help: { type: 'boolean', default: false },
      },
    }).values;
  } catch (error) {
    return usage((error as Error).message);
  }
};

/** A proxy that somebody else started. */
const byUrl = (options: ReturnType<typeof read>): Peer => {
  const { proxy = usage('--proxy or --peer is missing') } = options;
  const upstreamPort = Number(options['upstream-port'] ?? usage('--upstream-port is missing'));
  if (!Number.isInteger(upstreamPort) || upstreamPort < 1 || upstreamPort > 65_535) usage('--upstream-port must be 1 to 65535');
  const optional = (url: string | undefined): number | null => (url === undefined ? null : portOf(url));
  try {
    const ports = { usual: portOf(proxy), trusting: optional(options.trusting), impatient: optional(options.impatient) };
    return { version: proxy, upstreamPort, ports, stop: async () => undefined };
  } catch (error) {
    return usage((error as Error).message);
  }
};

const main = async (): Promise<number> => {
  const options = read();
  if (options.help) {
    process.stdout.write(HELP);
    return 0;
  }
  const patienceMs = Number(options.patience);
  if (!Number.isInteger(patienceMs) || patienceMs < 1) usage('--patience must be a number of milliseconds');
  const target = options.peer === undefined ? byUrl(options) : await startPeer(options.peer).catch((error: Error) => error.message);
  if (typeof target === 'string') {
    process.stderr.write(`conformance: ${options.peer}: ${target}\n`);
    return 2;
  }
  const { ports, upstreamPort, version } = target;
  let upstream: ScriptedUpstream;
  try {
    upstream = await openScriptedUpstream(upstreamPort);
  } catch (error) {
    process.stderr.write(`conformance: cannot listen on 127.0.0.1:${upstreamPort}: ${(error as Error).message}\n`);
    await target.stop();
    return 2;
  }
  const rows: Row[] = [];
  for (const one of CASES.filter(({ id }) => id.includes(options.only))) {
    const { id, level, cite, it } = one;
    const port = ports[one.setup ?? 'usual'];
    if (port === null) {
      rows.push({ id, level, cite, it, result: 'skip', faults: [`needs --${one.setup}`] });
      continue;
    }
    const stand: Stand = { port, upstreams: [upstream], patienceMs, strict: options.strict };
    const { passed, faults } = await play(one, stand);
    rows.push({ id, level, cite, it, result: passed ? 'pass' : 'fail', faults });
    if (!options.json) process.stdout.write(lineOf(rows.at(-1)!));
  }
  await upstream.close();
  await target.stop();
  const counts = countsOf(rows);
  if (options.json) process.stdout.write(`${JSON.stringify({ proxy: version, counts, cases: rows }, null, 2)}\n`);
  else {
    process.stdout.write(`\n${version}\n`);
    for (const [level, { pass, fail, skip }] of Object.entries(counts))
      process.stdout.write(`${level.padEnd(8)}${pass} passed, ${fail} failed, ${skip} left out\n`);
  }
  if (rows.every(({ result }) => result === 'skip')) return 2;
  return rows.some(({ result }) => result === 'fail') ? 1 : 0;
};

const lineOf = ({ id, level, cite, it, result, faults }: Row): string =>
  `${result}  ${level.padEnd(6)}  ${id.padEnd(30)}  ${it} (${cite})\n${faults.map((fault) => `        ${fault}\n`).join('')}`;

const countsOf = (rows: readonly Row[]): Record<Level, Record<Row['result'], number>> => {
  const counts = { must: { pass: 0, fail: 0, skip: 0 }, should: { pass: 0, fail: 0, skip: 0 }, own: { pass: 0, fail: 0, skip: 0 } };
  for (const { level, result } of rows) counts[level][result]++;
  return counts;
};

process.exitCode = await main();
