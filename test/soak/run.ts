import { parseArgs } from 'node:util';
import { soak } from './soak.ts';

const HELP = `Mixed load on a whole gateway while it is reloaded and its upstreams and workers are killed.

  npm run soak -- [--minutes 10] [--workers 2] [--reload-every 5] [--restart-every 20] [--kill-every 30] [--json]

  --minutes N        how long
  --workers N        1 = a single process, whose workers cannot be killed
  --reload-every S   seconds between two new configurations (by saving the file and by SIGHUP in turn); 0 = never
  --restart-every S  seconds between two SIGKILLs of an upstream, which is started again at once; 0 = never
  --kill-every S     seconds between two SIGKILLs of a worker; 0 = never
  --json             one document on stdout

Exit code: 0 nothing unexplained, lost, doubled or leaked; 1 otherwise; 2 usage.
`;

/** Growth between the second and the last fifth of a run that is still steady: what a garbage collector lets lie about. */
const STEADY_MIB = 40;
const STEADY_SHARE = 0.15;
const STEADY_FILES = 10;
const STEADY_TIMERS = 10;

const usage = (why: string): never => {
  process.stderr.write(`soak: ${why}\n\n${HELP}`);
  process.exit(2);
};

const read = () => {
  try {
    return parseArgs({
      options: {
        minutes: { type: 'string', default: '10' },
        workers: { type: 'string', default: '2' },
        'reload-every': { type: 'string', default: '5' },
        'restart-every': { type: 'string', default: '20' },
        'kill-every': { type: 'string', default: '30' },
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
const number = (text: string, what: string): number => {
  const value = Number(text);
  return Number.isFinite(value) && value >= 0 ? value : usage(`--${what}: expected a number`);
};
const report = await soak({
  seconds: number(options.minutes, 'minutes') * 60,
  workers: number(options.workers, 'workers'),
  reloadEvery: number(options['reload-every'], 'reload-every'),
  restartEvery: number(options['restart-every'], 'restart-every'),
  killEvery: number(options['kill-every'], 'kill-every'),
  say: (line) => process.stderr.write(`${line}\n`),
});
const leaks = report.processes.filter(
  ({ rssBefore, rssAfter, filesBefore, filesAfter }) =>
    rssAfter - rssBefore > Math.max(STEADY_MIB, rssBefore * STEADY_SHARE) || filesAfter - filesBefore > STEADY_FILES,
);
if (options.json) process.stdout.write(`${JSON.stringify(report, null, 2)}\n`);
else {
  const { unexplained, processes, byUpstream, ...counts } = report;
  for (const [name, value] of Object.entries({
    ...counts,
    'byUpstream.answer': byUpstream.answer ?? 0,
    'byUpstream.cut': byUpstream.cut ?? 0,
  }))
    process.stdout.write(`${name.padEnd(20)}${value}\n`);
  for (const { name, rssBefore, rssAfter, filesBefore, filesAfter } of processes)
    process.stdout.write(`${name.padEnd(20)}RSS ${rssBefore} -> ${rssAfter} MiB, open files ${filesBefore} -> ${filesAfter}\n`);
  process.stdout.write(`${'unexplained'.padEnd(20)}${unexplained.length}\n`);
  for (const line of unexplained.slice(0, 50)) process.stdout.write(`  ${line}\n`);
}
// an absent figure is no proof
const timersSteady = report.timersAfter - report.timersBefore <= STEADY_TIMERS;
process.exitCode = report.unexplained.length + report.lost + report.doubled + leaks.length > 0 || !timersSteady ? 1 : 0;
