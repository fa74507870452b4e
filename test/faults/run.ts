import { parseArgs } from 'node:util';
import { outage } from './storm/outage.ts';
import { HOLES, holesIn, type StormReport, storm } from './storm/storm.ts';
import { WEATHERS } from './storm/weather.ts';

const HELP = `Kills gateways, with their relays, and PostgreSQL under load, while the monolith fails before, after and instead of its answers; then holds
every fact on the stream and every answer against what the monolith did.

  npm run faults -- [--seed 1] [--minutes 1] [--rate 100] [--publisher both] [--naive] [--once] [--no-kills]
                    [--no-failures] [--stream calm] [--keyless] [--outage S] [--least N] [--json]

  --seed N         decides what is asked, what fails and who is killed when
  --minutes M      of storm for each publisher; up to three more until all is settled
  --rate N         commands per second
  --publisher P    ledger | capture | both
  --naive          the same storm on the naive pattern (publish, write, else publish a compensation): shows its holes
  --once           clients never repeat their key
  --no-kills       BANYAN_FAILPOINT does it instead (docs/dual-write.md)
  --no-failures    the monolith answers everything as it should
  --stream W       calm | flaky (a tenth of the records refused, a hundredth of the requests stored and answered 500) | reshard (2, 4, 2 … shards) | outage
  --keyless        a monolith that honours no keys and cannot be asked: nothing is sent twice, capture tells what became of it
  --outage S       no storm: the stream is away for S seconds at --rate commands a second, and nobody notices
  --least N        goes on until N commands have begun
  --json           one document on stdout

Exit code: 0 no hole; 1 a hole (never with --naive); 2 usage, or the storm could not be held.
`;

const lines = (report: object): string =>
  Object.entries(report)
    .map(([key, value]) => `${key.padEnd(20)} ${value}`)
    .join('\n');
const usage = (why: string): never => {
  process.stderr.write(`faults: ${why}\n\n${HELP}`);
  process.exit(2);
};
const read = () => {
  try {
    return parseArgs({
      options: {
        seed: { type: 'string', default: '1' },
        minutes: { type: 'string', default: '1' },
        rate: { type: 'string', default: '100' },
        publisher: { type: 'string', default: 'both' },
        least: { type: 'string', default: '0' },
        naive: { type: 'boolean', default: false },
        once: { type: 'boolean', default: false },
        'no-kills': { type: 'boolean', default: false },
        'no-failures': { type: 'boolean', default: false },
        stream: { type: 'string', default: 'calm' },
        keyless: { type: 'boolean', default: false },
        outage: { type: 'string' },
        json: { type: 'boolean', default: false },
        help: { type: 'boolean', default: false },
      },
    }).values;
  } catch (error) {
    return usage((error as Error).message);
  }
};
const options = read();
if (options.help) {
  process.stdout.write(HELP);
  process.exit(0);
}
const number = (text: string, what: string, least: number): number => {
  const value = Number(text);
  return Number.isFinite(value) && value >= least ? value : usage(`--${what} ${text}: expected a number, at least ${least}`);
};
const publishers = { ledger: ['ledger'], capture: ['capture'], both: ['ledger', 'capture'] } as const;
const chosen = Object.hasOwn(publishers, options.publisher)
  ? publishers[options.publisher as keyof typeof publishers]
  : usage(`--publisher ${options.publisher}: expected ledger, capture or both`);
const stream =
  WEATHERS.find((one) => one === options.stream) ?? usage(`--stream ${options.stream}: expected one of ${WEATHERS.join(', ')}`);

if (options.outage !== undefined) {
  const report = await outage({
    seed: number(options.seed, 'seed', 0),
    seconds: number(options.outage, 'outage', 1),
    perSecond: number(options.rate, 'rate', 1),
    say: (line) => process.stderr.write(`${line}\n`),
  });
  const wrong = (['client_errors', 'lost', 'phantom', 'doubled', 'acked_missing', 'out_of_order'] as const).filter(
    (key) => report[key] > 0,
  );
  process.stdout.write(
    options.json ? `${JSON.stringify(report)}\n` : `${lines(report)}\n\n${wrong.length === 0 ? 'no hole' : wrong.join(', ')}\n`,
  );
  process.exit(wrong.length === 0 ? 0 : 1);
}

const reports: StormReport[] = [];
try {
  for (const publisher of options.naive ? (['ledger'] as const) : options.keyless ? (['capture'] as const) : chosen)
    reports.push(
      await storm({
        seed: number(options.seed, 'seed', 0),
        seconds: number(options.minutes, 'minutes', 0) * 60,
        perSecond: number(options.rate, 'rate', 1),
        leastCommands: number(options.least, 'least', 0),
        publisher,
        naive: options.naive,
        once: options.once,
        kills: !options['no-kills'],
        failures: !options['no-failures'],
        stream,
        keyless: options.keyless,
        say: (line) => process.stderr.write(`${line}\n`),
      }),
    );
} catch (error) {
  process.stderr.write(`faults: ${error instanceof Error ? (error.stack ?? error.message) : String(error)}\n`);
  process.exit(2);
}
const holes = reports.flatMap((report) => holesIn(report).map((hole) => `${report.publisher}: ${hole}`));
if (options.json) {
  const sum = (of: (report: StormReport) => number): number => reports.reduce((total, report) => total + of(report), 0);
  const totals = Object.fromEntries(HOLES.map((hole) => [hole, sum((report) => report[hole])]));
  process.stdout.write(
    `${JSON.stringify({ seed: Number(options.seed), commands: sum((r) => r.commands), kills: sum((r) => r.kills), ...totals, storms: reports })}\n`,
  );
} else {
  for (const report of reports) process.stdout.write(`${lines(report)}\n\n`);
  process.stdout.write(holes.length === 0 ? 'no hole\n' : `${holes.join('\n')}\n`);
}
process.exitCode = holes.length > 0 && !options.naive ? 1 : 0;
