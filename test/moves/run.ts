import { parseArgs } from 'node:util';
import { openWorkshop } from '../../bench/processes.ts';
import { flipUnderLoad } from './flips.ts';
import { moveUnderLoad } from './moves.ts';

const HELP = `Moves a context to and fro between legacy, shadow and canary under load, and accounts for every request.

  npm run moves -- [--seconds 60] [--moves 200] [--rate 1000] [--replicas 2] [--workers 2] [--json]

With --flips the demo shop's orders go into and out of cutover so many times, and then there is a kill at cutover, under queries and commands:

  npm run moves -- --flips 20 [--rate 1000] [--commands 20] [--replicas 2] [--workers 2] [--json]

Exit code: 0 nothing lost, doubled, reset or torn, every move everywhere within a second, every flip done, no command done by both sides, commands
refused only under a freeze and with Retry-After; 1 otherwise; 2 usage.
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
        flips: { type: 'string' },
        commands: { type: 'string', default: '20' },
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
const say = (line: string): void => void process.stderr.write(`${line}\n`);
const print = ({ faults, ...figures }: { readonly faults: readonly string[] }): void => {
  if (options.json) return void process.stdout.write(`${JSON.stringify({ ...figures, faults }, null, 2)}\n`);
  for (const [name, value] of Object.entries(figures)) process.stdout.write(`${name.padEnd(26)}${value}\n`);
  for (const fault of faults) process.stdout.write(`  ${fault}\n`);
};

const runMoves = async (): Promise<boolean> => {
  const shop = openWorkshop();
  try {
    const { urls } = await shop.startNode('dev/postgres/main.ts', ['--temporary', '--port', '0']);
    const report = await moveUnderLoad({ ...plan, database: urls.postgres!, say });
    print(report);
    const sound = report.lost + report.doubled + report.resets + report.torn + report.copiedTwice === 0;
    return sound && report.moves === plan.moves && report.slowestMoveMs < 1_000;
  } finally {
    await shop.close();
  }
};

const runFlips = async (flips: number): Promise<boolean> => {
  const report = await flipUnderLoad({ ...plan, flips, commandsPerSecond: whole(options.commands, 'commands'), say });
  print(report);
  const queries = report.queriesLost + report.queriesDoubled + report.resets;
  const commands = report.commandsLost + report.commandsDoubled + report.doneByBoth;
  const refused = report.refusedWithoutRetryAfter + report.refusedOutsideFreeze;
  return (
    queries + commands + refused === 0 && report.flips === flips && report.killQueriesMs < 1_000 && Number.isFinite(report.killCommandsMs)
  );
};

process.exitCode = (await (options.flips === undefined ? runMoves() : runFlips(whole(options.flips, 'flips')))) ? 0 : 1;
