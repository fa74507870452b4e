import { randomBytes } from 'node:crypto';
import { createReadStream, createWriteStream, existsSync } from 'node:fs';
import { readFile, stat, writeFile } from 'node:fs/promises';
import { createInterface } from 'node:readline';
import { AppError } from '@banyan/contracts/errors.ts';
import { type Command, InvalidArgumentError } from 'commander';
import { isLoopback } from '../config.ts';
import { parseJson, printable } from '../core/parity/json.ts';
import type { CompiledRules } from '../core/parity/rules.ts';
import { decodePair } from '../parity/decode.ts';
import { renderFor } from '../parity/replay/render.ts';
import { isQuery, type Replayed, replay } from '../parity/replay/replay.ts';
import { readRecording } from '../parity/replay/requests.ts';
import { createSender } from '../parity/replay/send.ts';
import { type ReplayDocument, rejudge, replayDocument, type StoredPair, storedPair } from '../parity/replay/summary.ts';
import { answerNo, cannot } from './exit.ts';
import { groupOf, type Io, type Register } from './output.ts';
import { readRulesFile } from './parity-compare.ts';

/** What is never written to a report or a store, beside what `--redact` adds. */
const REDACT = ['header:authorization', 'header:cookie', 'header:set-cookie', 'header:x-api-key', 'query:token', '$..password', '$..card'];
const MAX_FILE_BYTES = 512 * 1024 * 1024;
const BODY_LIMIT_BYTES = 64 * 1024 * 1024;

type Flags = {
  readonly requests: string;
  readonly legacy: URL;
  readonly extracted: URL;
  readonly rules?: string;
  readonly header: readonly (readonly [string, string])[];
  readonly redact: readonly string[];
  readonly includeCommands?: boolean;
  readonly rate?: number;
  readonly concurrency: number;
  readonly timeout: number;
  readonly out?: string;
  readonly store?: string;
  readonly resume?: boolean;
  readonly json?: boolean;
};

const urlOf = (text: string): URL => {
  try {
    const url = new URL(text);
    if (url.protocol !== 'http:' && url.protocol !== 'https:') throw new Error('scheme');
    if (url.username !== '' || url.search !== '' || url.hash !== '') throw new Error('parts');
    return url;
  } catch {
    throw new InvalidArgumentError('expected http://HOST[:PORT][/PREFIX]');
  }
};
const headerOf = (text: string, before: readonly (readonly [string, string])[]): (readonly [string, string])[] => {
  const found = /^([!#$%&'*+.^_`|~0-9A-Za-z-]+):[ \t]*([^\r\n\u0000]*)$/.exec(text);
  if (!found) throw new InvalidArgumentError("expected 'NAME: VALUE'");
  return [...before, [found[1]!, found[2]!]];
};
const numberOf =
  (min: number, max: number) =>
  (text: string): number => {
    const value = Number(text);
    if (!/^\d+(?:\.\d+)?$/.test(text) || value < min || value > max)
      throw new InvalidArgumentError(`expected a number from ${min} to ${max}`);
    return value;
  };

const readText = async (file: string): Promise<string> => {
  try {
    if ((await stat(file)).size > MAX_FILE_BYTES) throw cannot(`${file}: larger than ${MAX_FILE_BYTES} bytes`);
    return await readFile(file, 'utf8');
  } catch (error) {
    const code = (error as NodeJS.ErrnoException).code;
    throw code === undefined ? error : cannot(`${file}: ${code === 'ENOENT' ? 'no such file' : `cannot be read (${code})`}`);
  }
};

/** Pairs of a store, one JSON text a line; a last line that a crash has cut is left out. */
const readStore = async (file: string): Promise<StoredPair[]> => {
  const pairs: StoredPair[] = [];
  const input = createReadStream(file, 'utf8');
  const lines = createInterface({ input, crlfDelay: Number.POSITIVE_INFINITY });
  try {
    for await (const line of lines) {
      const parsed = parseJson(line);
      // Read with our own parser, so that numbers keep their tokens.
      const pair = parsed.ok ? (printable(parsed.value) as StoredPair) : undefined;
      if (typeof pair?.index === 'number' && typeof pair.legacy?.status === 'number' && typeof pair.extracted?.status === 'number')
        pairs.push(pair);
    }
  } catch (error) {
    const code = (error as NodeJS.ErrnoException).code;
    throw code === undefined ? error : cannot(`${file}: ${code === 'ENOENT' ? 'no such file' : `cannot be read (${code})`}`);
  }
  return pairs;
};

const rulesOf = async (file: string | undefined, io: Io): Promise<CompiledRules> => {
  const rules = await readRulesFile(file, Date.now());
  for (const { at, until } of rules.expired) io.err(`banyan: rule for ${at} expired on ${until} and is not applied`);
  return rules;
};

const finish = async (document: ReplayDocument, flags: Pick<Flags, 'out' | 'json'>, io: Io): Promise<void> => {
  if (flags.out !== undefined) await writeFile(flags.out, renderFor(flags.out, document));
  if (flags.json === true) io.out(JSON.stringify(document, null, 2));
  else {
    const { requests, compared, match, noise, mismatch, incomparable } = document;
    io.out(`${document.verdict}${document.why === null ? '' : `: ${document.why}`}`);
    io.out(
      `${requests} requests, ${compared} compared: ${match} match, ${noise} noise, ${mismatch} mismatch, ${incomparable} incomparable`,
    );
    for (const { field, kind, count } of document.byField.filter(({ rule }) => rule === null).slice(0, 20))
      io.out(`- ${field} ${kind}: ${count}`);
    const first = document.pairs.find(({ verdict }) => verdict === 'mismatch');
    if (first) io.out(`${first.curl.legacy}\n${first.curl.extracted}`);
  }
  if (document.verdict !== 'match') throw answerNo();
};

/** One line on a terminal, rewritten ten times a second at most. */
const progressOf = (total: number): { readonly step: (mismatches: number) => void; readonly end: () => void } => {
  const { stderr } = process;
  let [done, last] = [0, 0];
  const show = (mismatches: number): void => {
    const filled = Math.round((done / Math.max(1, total)) * 30);
    stderr.write(`\r[${'#'.repeat(filled)}${'.'.repeat(30 - filled)}] ${done}/${total}, ${mismatches} differ `);
  };
  return {
    step: (mismatches) => {
      done++;
      const now = performance.now();
      if (!stderr.isTTY || (now - last < 100 && done < total)) return;
      last = now;
      show(mismatches);
    },
    end: () => void (stderr.isTTY && stderr.write('\n')),
  };
};

const runReplay = async (flags: Flags, io: Io): Promise<void> => {
  if (flags.includeCommands && ![flags.legacy, flags.extracted].every((url) => isLoopback(url.hostname.replace(/^\[|\]$/g, ''))))
    throw cannot('--include-commands sends requests that change data, and is allowed for loopback addresses only');
  if (flags.resume && flags.store === undefined) throw cannot('--resume needs --store FILE, where the earlier run kept its pairs');
  const rules = await rulesOf(flags.rules, io);
  const recording = readRecording(flags.requests, await readText(flags.requests));
  if (recording.firstFault !== null) io.err(`banyan: ${recording.unreadable} entries hold no request; the first: ${recording.firstFault}`);
  const wanted = recording.requests.filter((request) => flags.includeCommands || isQuery(request));
  const pairs = flags.resume && existsSync(flags.store!) ? await readStore(flags.store!) : [];
  const known = new Set(pairs.map(({ index }) => index));
  const left = wanted.filter(({ index }) => !known.has(index));
  const store = flags.store === undefined ? null : createWriteStream(flags.store, { flags: flags.resume ? 'a' : 'w', mode: 0o600 });
  let broken: Error | null = null;
  store?.on('error', (error) => {
    broken = error;
    stop.abort();
  });
  const stop = new AbortController();
  const interrupt = (): void => stop.abort();
  process.once('SIGINT', interrupt);
  const sockets = { timeoutMs: flags.timeout * 1_000, sockets: flags.concurrency };
  const [legacy, extracted] = [createSender(flags.legacy, sockets), createSender(flags.extracted, sockets)];
  const progress = progressOf(left.length);
  const key = randomBytes(32);
  const waiting = new Set<Promise<void>>();
  let mismatches = 0;
  const keep = async (result: Replayed): Promise<void> => {
    const decoded = await decodePair(result.legacy.observation, result.extracted.observation, BODY_LIMIT_BYTES);
    const pair = storedPair(result, decoded, [...REDACT, ...flags.redact], key);
    // Bodies of pairs that match stay on disk only.
    pairs.push(
      pair.verdict === 'match' ? { ...pair, legacy: { ...pair.legacy, body: null }, extracted: { ...pair.extracted, body: null } } : pair,
    );
    store?.write(`${JSON.stringify(pair)}\n`);
    if (pair.verdict === 'mismatch') mismatches++;
    progress.step(mismatches);
  };
  try {
    await replay(left, {
      legacy,
      extracted,
      hosts: { legacy: flags.legacy.host, extracted: flags.extracted.host },
      rules,
      headers: flags.header,
      // What follows a command may need what it has made.
      concurrency: flags.includeCommands ? 1 : flags.concurrency,
      rate: flags.rate ?? null,
      random: Math.random,
      signal: stop.signal,
      onResult: (result) => {
        const job = keep(result).finally(() => waiting.delete(job));
        waiting.add(job);
      },
    });
    await Promise.all(waiting);
  } finally {
    process.off('SIGINT', interrupt);
    legacy.close();
    extracted.close();
    progress.end();
    if (store) await new Promise<void>((resolve) => (store.destroyed ? resolve() : store.end(resolve)));
  }
  if (broken !== null) throw cannot(`${flags.store}: ${(broken as Error).message}`);
  const skipped = { commands: recording.requests.length - wanted.length, unreadable: recording.unreadable };
  const about = { legacy: flags.legacy.href, extracted: flags.extracted.href, skipped, interrupted: stop.signal.aborted };
  await finish(replayDocument(pairs, about), flags, io);
};

const runRejudge = async (file: string, flags: Pick<Flags, 'rules' | 'out' | 'json'>, io: Io): Promise<void> => {
  const rules = await rulesOf(flags.rules, io);
  const judged = (await readStore(file)).map((pair) => rejudge(pair, rules));
  const about = { legacy: 'http://legacy', extracted: 'http://extracted', skipped: { commands: 0, unreadable: 0 }, interrupted: false };
  await finish(replayDocument(judged, about), flags, io);
};

const known = async (run: () => Promise<void>): Promise<void> => {
  try {
    await run();
  } catch (error) {
    throw error instanceof AppError ? cannot(error.message) : error;
  }
};

/** `banyan parity replay` and `rejudge`. Exit codes: 0 match, 1 mismatch or incomparable, 2 wrong usage or files that cannot be read. */
export const registerParityReplay: Register = (program, io) => {
  const parity: Command = groupOf(program, 'parity', 'what comparing both sides has shown');
  parity
    .command('replay')
    .description('send recorded queries to both sides and compare the answers')
    .requiredOption('--requests <file>', '*.har, *.jsonl ({"method","target","headers"} a line), else an access log or a list of URLs')
    .requiredOption('--legacy <url>', 'the monolith', urlOf)
    .requiredOption('--extracted <url>', 'the extracted service', urlOf)
    .option('--rules <file>', "YAML or JSON with the keys of a context's parity: block")
    .option('--header <header>', "'NAME: VALUE', sent with every request; repeat for more", headerOf, [])
    .option('--include-commands', 'send POST, PUT, PATCH and DELETE too, one request at a time; loopback addresses only')
    .option('--rate <n>', 'requests per second to each side at most', numberOf(0.01, 100_000))
    .option('--concurrency <n>', 'requests under way at once', numberOf(1, 256), 8)
    .option('--timeout <seconds>', 'an answer is given up after this', numberOf(0.1, 3_600), 30)
    .option('--out <file>', 'the report: .json, .html or .xml (JUnit)')
    .option('--store <file.jsonl>', 'keep every pair, redacted, for `parity rejudge` and --resume')
    .option('--resume', 'go on where the run that wrote --store has stopped')
    .option(
      '--redact <place>',
      'header:NAME, query:NAME or JSONPath never to be written; repeat for more',
      (text: string, before: string[]) => [...before, text],
      [],
    )
    .option('--json', 'print the report as one JSON document')
    .action((flags: Flags) => known(() => runReplay(flags, io)));
  parity
    .command('rejudge')
    .description('judge the pairs that `parity replay --store` has kept anew, under other rules')
    .argument('<file>', 'the store')
    .option('--rules <file>', "YAML or JSON with the keys of a context's parity: block")
    .option('--out <file>', 'the report: .json, .html or .xml (JUnit)')
    .option('--json', 'print the report as one JSON document')
    .action((file: string, flags: Pick<Flags, 'rules' | 'out' | 'json'>) => known(() => runRejudge(file, flags, io)));
};
