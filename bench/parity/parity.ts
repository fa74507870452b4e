import { createRequire } from 'node:module';
import { join } from 'node:path';
import { pathToFileURL } from 'node:url';
import { compareObservations } from '../../gateway/core/parity/compare.ts';
import type { Observation } from '../../gateway/core/parity/observation.ts';
import { compileRules } from '../../gateway/core/parity/rules.ts';
import { installPackages } from '../npm.ts';
import { openWorkshop } from '../processes.ts';
import { type BenchOptions, machine, median, type Report, type Row, round } from '../report.ts';
import { corpusOf, type TextPair } from './corpus.ts';

/** The newest when this was written; pinned, so that figures of two runs are about the same code. */
const PEERS = { jsondiffpatch: '0.7.7', 'json-diff-ts': '4.10.4' } as const;

type Contender = {
  readonly name: string;
  /** Does the pair differ? Undefined = it does not say. */
  readonly run: (index: number) => boolean | undefined;
};

const PAIRS = 200;
const SEED = 20_261;

const ours = (corpus: readonly TextPair[]): Contender => {
  const utf8 = new TextEncoder();
  const headers = (length: number): [string, string][] => [
    ['Content-Type', 'application/json; charset=utf-8'],
    ['Content-Length', String(length)],
    ['Date', 'Sat, 28 Nov 2026 12:00:00 GMT'],
    ['Cache-Control', 'no-store'],
    ['X-Powered-By', 'Express'],
  ];
  const observe = (text: string): Observation => {
    const body = utf8.encode(text);
    return { status: 200, headers: headers(body.length), body, complete: true };
  };
  const pairs = corpus.map(({ legacy, extracted }) => [observe(legacy), observe(extracted)] as const);
  const rules = compileRules({}, 0);
  return { name: 'Banyan: bytes to verdict, headers included', run: (i) => compareObservations(...pairs[i]!, rules).kind === 'mismatch' };
};

const twoParses = (corpus: readonly TextPair[]): Contender => ({
  name: 'two JSON.parse',
  run: (i) => {
    const { legacy, extracted } = corpus[i]!;
    // Used, so that nobody optimises it away.
    if (JSON.parse(legacy) === JSON.parse(extracted)) throw new Error('two objects are one');
    return undefined;
  },
});

type Diff = (a: unknown, b: unknown) => unknown;

/** The peers as their READMEs use them; what they compare is parsed first. */
const peersOf = async (folder: string, corpus: readonly TextPair[]): Promise<Contender[]> => {
  const load = createRequire(join(folder, 'package.json'));
  const found = async (name: keyof typeof PEERS): Promise<{ diff: Diff }> => {
    // Some have an entry for import only.
    const path = (() => {
      try {
        return load.resolve(name);
      } catch {
        const { exports, module, main } = load(`./node_modules/${name}/package.json`) as {
          exports?: { '.'?: { import?: string | { default?: string } } };
          module?: string;
          main?: string;
        };
        const entry = exports?.['.']?.import;
        return join(folder, 'node_modules', name, (typeof entry === 'string' ? entry : entry?.default) ?? module ?? main ?? 'index.js');
      }
    })();
    return (await import(pathToFileURL(path).href)) as { diff: Diff };
  };
  const bodies = corpus.map(({ legacy, extracted }) => [Buffer.from(legacy), Buffer.from(extracted)] as const);
  const contender = (name: string, differs: (a: unknown, b: unknown) => boolean): Contender => ({
    name: `${name}, parsing included`,
    run: (i) => differs(JSON.parse(bodies[i]![0].toString()), JSON.parse(bodies[i]![1].toString())),
  });
  const [patch, ts] = [await found('jsondiffpatch'), await found('json-diff-ts')];
  return [
    contender('jsondiffpatch', (a, b) => patch.diff(a, b) !== undefined),
    contender('json-diff-ts', (a, b) => (ts.diff(a, b) as readonly unknown[]).length > 0),
  ];
};

/** One pass over the corpus, in microseconds a pair. */
const pass = (contender: Contender, pairs: number): number => {
  const from = process.hrtime.bigint();
  for (let i = 0; i < pairs; i++) contender.run(i);
  return Number(process.hrtime.bigint() - from) / 1_000 / pairs;
};

/** Share of pairs about which a contender says the right thing; null when it says nothing. */
const rightIn = (contender: Contender, corpus: readonly TextPair[]): number | null => {
  const said = corpus.map((_, i) => contender.run(i));
  if (said.includes(undefined)) return null;
  return round(said.filter((differs, i) => differs === corpus[i]!.differs).length / corpus.length, 4);
};

/**
 * How quick the comparison is, in one thread: 10 KB pairs, half with the members of all objects reordered, half with one number changed, none
 * equal in bytes. Ours begins with bytes and ends with a verdict, headers included; peers
 * begin with bytes too and compare nothing but bodies; the yardstick is `JSON.parse` of both texts.
 * Contenders take turns within each round; figures are medians of the rounds' ratios, so that a busy machine slows all alike.
 */
export const benchParity = async (options: BenchOptions): Promise<Report> => {
  const about = machine();
  const shop = openWorkshop();
  try {
    const corpus = corpusOf(options.quick ? 40 : PAIRS, SEED);
    const installed = await installPackages(shop, options, PEERS);
    const missing = [...installed.missing];
    const peers =
      installed.folder === null
        ? []
        : await peersOf(installed.folder, corpus).catch((error: unknown): Contender[] => {
            missing.push(`peers: ${error instanceof Error ? error.message : String(error)}`);
            return [];
          });
    const contenders = [twoParses(corpus), ours(corpus), ...peers];
    const rounds = options.quick ? 5 : 40;
    for (const contender of contenders) for (let i = 0; i < (options.quick ? 2 : 5); i++) pass(contender, corpus.length);
    const times = contenders.map((): number[] => []);
    for (let i = 0; i < rounds; i++) {
      options.say(`round ${i + 1} of ${rounds}`);
      for (const [at, contender] of contenders.entries()) times[at]!.push(pass(contender, corpus.length));
    }
    const over = (at: number): number => median(times[at]!.map((time, i) => time / times[0]![i]!));
    const table = contenders.map((contender, at): Row => {
      const us = median(times[at]!);
      return {
        what: contender.name,
        'us/pair': round(us, 1),
        'pairs/s': Math.round(1e6 / us),
        'x two JSON.parse': round(over(at), 2),
        right: rightIn(contender, corpus),
      };
    });
    const named = (prefix: string): number => contenders.findIndex(({ name }) => name.startsWith(prefix));
    const figures: Record<string, number> = {
      pairs_per_s: Math.round(1e6 / median(times[1]!)),
      over_two_json_parse: round(over(1), 2),
      right: rightIn(contenders[1]!, corpus) ?? 0,
      pair_bytes: Math.round(corpus.reduce((sum, { legacy }) => sum + legacy.length, 0) / corpus.length),
    };
    // Below 1 = we are quicker.
    for (const [key, at] of [
      ['over_jsondiffpatch', named('jsondiffpatch')],
      ['over_json_diff_ts', named('json-diff-ts')],
    ] as const)
      if (at >= 0) figures[key] = round(median(times[1]!.map((time, i) => time / times[at]![i]!)), 2);
    return { name: 'parity', machine: about, figures, table, missing, versions: { node: process.version, ...installed.versions } };
  } finally {
    await shop.close();
  }
};
