import { join } from 'node:path';
import { setTimeout as pause } from 'node:timers/promises';
import { openWorkshop } from '../../../bench/processes.ts';
import { readFacts } from '../../harness/facts.ts';
import { startCapture } from './capture.ts';
import { check, type Holes } from './check.ts';
import { startClients, type Told } from './clients.ts';
import { startKills, startWaking } from './kills.ts';
import { type Legacy, startLegacy } from './legacy.ts';
import { query } from './query.ts';
import { outsideShards, startWeather, type Weather } from './weather.ts';
import { answering, createStream, startBanyan, startNaive } from './world.ts';

export type StormOptions = {
  readonly seed: number;
  readonly seconds: number;
  readonly perSecond: number;
  readonly publisher: 'ledger' | 'capture';
  /** The naive pattern instead of the gateway. */
  readonly naive: boolean;
  /** Clients never repeat a key: what nobody asks for again shows what the pattern alone leaves behind. */
  readonly once: boolean;
  /** Kill anything at all? A failpoint may do it instead. */
  readonly kills: boolean;
  /** Does the monolith fail before, after and instead of its answers? */
  readonly failures: boolean;
  /** What the stream does meanwhile. */
  readonly stream: Weather;
  /** A monolith that honours no keys: what is sent twice is done twice. Nothing but new subjects, and publisher capture. */
  readonly keyless: boolean;
  /** Never less than so many commands, however long that takes (at most ten times `seconds`). */
  readonly leastCommands: number;
  readonly say: (line: string) => void;
};

export type StormReport = Holes & {
  /** Commands that had their effect twice. */
  readonly doubled_effects: number;
  /** Effects whose event cannot be built, and that legacy was not asked exactly once to take back. */
  readonly not_taken_back: number;
  readonly publisher: string;
  readonly commands: number;
  readonly effects: number;
  readonly kills: number;
  readonly gave_up: number;
  readonly gave_up_after: readonly string[];
  /** From the end of the storm to the last fact on the stream and the last answer. */
  readonly calm_seconds: number;
  /** Members of records outside the hash range of the shard that has them: a KCL reader drops their whole record. */
  readonly outside_shards: number;
  /** Commands that legacy took back, once each, because their event could not be built. */
  readonly taken_back: number;
  /** Facts that the stream has more than once; readers drop them. */
  readonly repeats_on_stream: number;
  readonly parked: number;
  readonly parked_reasons: readonly string[];
  /** Rows of the ledger that neither ended nor wait for a person. */
  readonly not_terminal: number;
};

const CALM_MS = 90_000;

const settled = async (store: string): Promise<{ state: string; error: string | null; count: number }[]> =>
  query(store, 'select state, error, count(*)::int as count from banyan.ledger group by state, error');

const TERMINAL = ['done', 'rejected', 'expired', 'compensated', 'parked'];

/** Every effect has its fact on the stream, or time is up. */
const drained = async (
  kinesis: string,
  legacy: Legacy,
  store: string | null,
  told: readonly Told[],
): Promise<Awaited<ReturnType<typeof readFacts>>> => {
  const until = performance.now() + CALM_MS;
  for (;;) {
    const open =
      store === null
        ? []
        : (await settled(store).catch(() => [{ state: 'sent', error: null, count: 1 }])).filter(({ state }) => !TERMINAL.includes(state));
    if (open.length === 0 || performance.now() > until) {
      const facts = await readFacts(kinesis);
      const { lost } = check(facts, legacy.effects, told);
      if ((lost === 0 && legacy.notTakenBack() === 0) || store === null || performance.now() > until) return facts;
    }
    await pause(500);
  }
};

/** One storm from an empty store to the last fact on the stream. */
export const storm = async (options: StormOptions): Promise<StormReport> => {
  const { seed, say } = options;
  const shop = openWorkshop();
  const legacy = await startLegacy(
    seed + 2,
    options.failures
      ? { failBefore: 0.05, failAfter: 0.05, hangAfter: 0.05, refuse: 0.03 }
      : { failBefore: 0, failAfter: 0, hangAfter: 0, refuse: 0 },
    options.keyless,
  );
  try {
    const kinesis = (await shop.startNode('dev/kinesis/main.ts', ['--port', '0', '--no-throttle', '--data', join(shop.folder, 'kinesis')]))
      .urls.kinesis!;
    await createStream(kinesis);
    const world = await (options.naive
      ? startNaive(shop, legacy.url, kinesis)
      : startBanyan(shop, legacy.url, kinesis, options.publisher, options.keyless));
    await answering(world.urls);
    say(
      `storm: seed ${seed}, ${options.naive ? 'naive' : `publisher ${options.publisher}`}, ${options.seconds} s at ${options.perSecond}/s`,
    );
    const capture = world.store !== null && options.publisher === 'capture' ? startCapture(world.store, legacy) : null;
    const clients = startClients({
      seed,
      urls: world.urls,
      perSecond: options.perSecond,
      once: options.once,
      keyless: options.keyless,
      subjects: 200,
      shares: options.keyless
        ? { orders: 1, entries: 0, rushes: 0 }
        : { orders: 0.4, entries: 0.35, rushes: options.naive || options.publisher === 'capture' ? 0 : 0.05 },
    });
    const weather = startWeather(kinesis, options.stream);
    const waking = startWaking(world.gateways);
    const kills = options.kills ? startKills(seed, world.gateways, world.store ?? '', world.postmaster) : null;
    const end = performance.now() + options.seconds * 1000;
    while (performance.now() < end || (clients.begun() < options.leastCommands && performance.now() < end + options.seconds * 9_000))
      await pause(100);
    await kills?.stop();
    await weather.stop();
    legacy.calm();
    say(`storm: over after ${kills?.count() ?? 0} kills and ${clients.begun()} commands; waiting for the rest`);
    const over = performance.now();
    const told = await clients.finish(CALM_MS);
    await capture?.finish();
    const facts = await drained(kinesis, legacy, world.store, told);
    const rows = world.store === null ? [] : await settled(world.store);
    const parked = rows.filter(({ state }) => state === 'parked');
    const report: StormReport = {
      publisher: options.naive ? 'naive' : options.publisher,
      ...check(facts, legacy.effects, told),
      doubled_effects: legacy.doubles(),
      not_taken_back: legacy.notTakenBack(),
      outside_shards: await outsideShards(kinesis),
      taken_back: legacy.takenBack(),
      commands: told.length,
      effects: legacy.effects.size,
      kills: kills?.count() ?? 0,
      gave_up: told.filter(({ status }) => status === 0).length,
      gave_up_after: told
        .filter(({ status }) => status === 0)
        .map(({ key, attempts, last }) => `${key}: ${attempts} attempts, ${last}`)
        .slice(0, 5),
      calm_seconds: Math.round((performance.now() - over) / 100) / 10,
      repeats_on_stream: facts.length - new Set(facts.map((fact) => `${fact.source} ${fact.id}`)).size,
      parked: parked.reduce((sum, { count }) => sum + count, 0),
      parked_reasons: [...new Set(parked.map(({ error }) => error ?? 'no reason'))].slice(0, 10),
      not_terminal: rows.filter(({ state }) => !TERMINAL.includes(state)).reduce((sum, { count }) => sum + count, 0),
    };
    waking.stop();
    await world.stop();
    return report;
  } finally {
    await legacy.stop();
    await shop.close();
  }
};

/** The keys that must be 0. */
export const HOLES = [
  'lost',
  'phantom',
  'doubled',
  'acked_missing',
  'out_of_order',
  'wrongly_compensated',
  'undecided',
  'doubled_effects',
  'not_taken_back',
  'outside_shards',
  'not_terminal',
] as const;
export const holesIn = (report: StormReport): string[] =>
  HOLES.filter((hole) => report[hole] !== 0).map((hole) => `${hole} ${report[hole]}`);
