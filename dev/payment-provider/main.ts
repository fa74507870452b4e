import { parseArgs } from 'node:util';
import { CALM, type Moods, startProvider } from './provider.ts';

const USAGE = `A card provider for this machine, which charges nobody.

  npx node dev/payment-provider/main.ts [--port N] [--fail SHARE] [--fail-after SHARE] [--hang SHARE] [--late SHARE] [--late-ms N] [--refuse SHARE]

  --port N             default 4010; 0 = any free port
  --fail SHARE         answer 500 before anything is done, 0..1; --fail-after: after it
  --hang SHARE         never answer
  --late SHARE         answer after --late-ms (1000)
  --refuse SHARE       refuse the card
`;

const FLAGS = { fail: 'fail', 'fail-after': 'failAfter', hang: 'hang', late: 'late', 'late-ms': 'lateMs', refuse: 'refuse' } as const;

const read = (): { port: number; moods: Moods } | 'help' => {
  const text = { type: 'string' } as const;
  const { values } = parseArgs({
    options: {
      port: text,
      fail: text,
      'fail-after': text,
      hang: text,
      late: text,
      'late-ms': text,
      refuse: text,
      help: { type: 'boolean' },
    },
  });
  if (values.help) return 'help';
  const numberOf = (flag: string, given: string | undefined, fallback: number, max: number): number => {
    const value = given === undefined ? fallback : Number(given);
    if (!(value >= 0 && value <= max)) throw new Error(`--${flag} ${given}: expected a number from 0 to ${max}`);
    return value;
  };
  const moods: Record<string, number> = {};
  for (const [flag, mood] of Object.entries(FLAGS))
    moods[mood] = numberOf(flag, values[flag as keyof typeof FLAGS], CALM[mood], mood === 'lateMs' ? 600_000 : 1);
  return { port: numberOf('port', values.port, 4010, 65_535), moods: moods as Moods };
};

try {
  const flags = read();
  if (flags === 'help') process.stdout.write(USAGE);
  else {
    const provider = await startProvider(flags);
    const stop = (): void => void provider.stop().then(() => process.exit(0));
    process.on('SIGTERM', stop).on('SIGINT', stop).on('disconnect', stop);
    process.stdout.write(`payment-provider: ${provider.url}\n`);
    process.send?.({ type: 'ready', urls: { provider: provider.url } });
  }
} catch (error) {
  process.stderr.write(`payment-provider: ${(error as Error).message} (--help explains)\n`);
  process.exit(2);
}
