import { resolve } from 'node:path';
import { parseArgs } from 'node:util';
import { type BenchOptions, type Report, render } from './report.ts';

/** Every benchmark there is; each measures and gives one report. */
const BENCHES: Readonly<Record<string, () => Promise<(options: BenchOptions) => Promise<Report>>>> = {
  consumer: async () => (await import('./consumer/consumer.ts')).benchConsumer,
  proxy: async () => (await import('./proxy/proxy.ts')).benchProxy,
  parity: async () => (await import('./parity/parity.ts')).benchParity,
  'parity-live': async () => (await import('./parity-live/parity-live.ts')).benchParityLive,
  'parity-noise': async () => (await import('./parity-noise/parity-noise.ts')).benchParityNoise,
  'dual-write': async () => (await import('./dual-write/dual-write.ts')).benchDualWrite,
  shadow: async () => (await import('./shadow/shadow.ts')).benchShadow,
  tunnels: async () => (await import('./tunnels/tunnels.ts')).benchTunnels,
  ramp: async () => (await import('./ramp/ramp.ts')).benchRamp,
  simulate: async () => (await import('./simulate/simulate.ts')).benchSimulate,
};

const usage = `usage: npm run bench -- NAME [--json] [--quick] [--no-install] [--count N] [--seed N] [--against DIR] [--only LIST]
  NAME          ${Object.keys(BENCHES).join(' | ')}
  --json        one JSON document on stdout instead of a table
  --quick       a smoke run of about 30 s; its figures mean little
  --count N     tunnels: how many (default 5000); simulate: bad services (default 200)
  --seed N      simulate: another draw
  --against DIR shadow: another checkout of this project, measured in the same rounds
  --only LIST   dual-write: some of codec,commands,relay,storm
  --no-install  install nothing: missing peers are reported and left out
`;

const fail = (message: string): never => {
  process.stderr.write(`bench: ${message}\n${usage}`);
  process.exit(2);
};

const read = () => {
  try {
    return parseArgs({
      allowPositionals: true,
      options: {
        json: { type: 'boolean', default: false },
        quick: { type: 'boolean', default: false },
        'no-install': { type: 'boolean', default: false },
        count: { type: 'string' },
        seed: { type: 'string' },
        against: { type: 'string' },
        only: { type: 'string' },
      },
    });
  } catch (error) {
    return fail(error instanceof Error ? error.message : String(error));
  }
};

const { values, positionals } = read();
const numberOf = (flag: 'count' | 'seed'): number | null => {
  const text = values[flag];
  if (text === undefined) return null;
  if (!/^[1-9]\d{0,5}$/.test(text)) fail(`--${flag} is a number from 1 to 999999`);
  return Number(text);
};
const count = numberOf('count');
const seed = numberOf('seed');
const [name = '', ...more] = positionals;
const bench = Object.hasOwn(BENCHES, name) ? BENCHES[name] : undefined;
if (bench === undefined || more.length > 0) fail(name === '' ? 'which benchmark?' : `there is no benchmark ${positionals.join(' ')}`);
else {
  try {
    const measure = await bench();
    const report = await measure({
      quick: values.quick,
      install: !values['no-install'],
      count,
      seed,
      against: values.against === undefined ? null : resolve(values.against),
      only: values.only === undefined ? null : values.only.split(','),
      say: (line) => process.stderr.write(`${line}\n`),
    });
    process.stdout.write(values.json ? `${JSON.stringify(report)}\n` : render(report));
  } catch (error) {
    process.stderr.write(`bench: ${error instanceof Error ? error.message : String(error)}\n`);
    process.exitCode = 2;
  }
}
