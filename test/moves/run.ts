import { parseArgs } from 'node:util';
import { openWorkshop } from '../../bench/processes.ts';
import { moveUnderLoad } from './moves.ts';

const HELP = `Moves a context to and fro between legacy, shadow and canary under load, and accounts for every request.

  npm run moves -- [--seconds 60] [--moves 200] [--rate 1000] [--replicas 2] [--workers 2] [--json]

Exit code: 0 nothing lost, doubled, reset or torn, and every move everywhere within a second; 1 otherwise; 2 usage.
`;

const usage = (why: string): never => {
  process.stderr.write(`moves: ${why}\n\n${HELP}`);
  process.exit(2);
};

const read = () => {
  try {
    return parseArgs({
      options: {
        seconds: { type: 'string', default: '60' },
        moves: { type: 'string', default: '200' },
        rate: { type: 'string', default: '1000' },
        replicas: { type: 'string', default: '2' },
        workers: { type: 'string', default: '2' },
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
const whole = (text: string, what: string): number => {
  const value = Number(text);
  return Number.isInteger(value) && value > 0 ? value : usage(`--${what}: expected a whole number above 0`);
};
const plan = {
  seconds: whole(options.seconds, 'seconds'),
  moves: whole(options.moves, 'moves'),
  perSecond: whole(options.rate, 'rate'),
  replicas: whole(options.replicas, 'replicas'),
  workers: whole(options.workers, 'workers'),
};
const shop = openWorkshop();
try {
  const { urls } = await shop.startNode('dev/postgres/main.ts', ['--temporary', '--port', '0']);
  const report = await moveUnderLoad({ ...plan, database: urls.postgres!, say: (line) => process.stderr.write(`${line}\n`) });
  const { faults, ...figures } = report;
  if (options.json) process.stdout.write(`${JSON.stringify(report, null, 2)}\n`);
  else {
    for (const [name, value] of Object.entries(figures)) process.stdout.write(`${name.padEnd(16)}${value}\n`);
    for (const fault of faults) process.stdout.write(`  ${fault}\n`);
  }
  const sound = report.lost + report.doubled + report.resets + report.torn + report.copiedTwice === 0;
  process.exitCode = sound && report.moves === plan.moves && report.slowestMoveMs < 1_000 ? 0 : 1;
} finally {
  await shop.close();
}
