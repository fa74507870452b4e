import { readFile } from 'node:fs/promises';
import { extname } from 'node:path';
import { AppError } from '@banyan/contracts/errors.ts';
import type { Command } from 'commander';
import { formatFault, loadParityRules } from '../config.ts';
import { compareObservations } from '../core/parity/compare.ts';
import { type Observation, type Verdict, verdictDocument } from '../core/parity/observation.ts';
import { type CompiledRules, compileRules } from '../core/parity/rules.ts';
import { decodePair } from '../parity/decode.ts';
import { parseHttpResponse } from '../parity/http-message.ts';

/** Larger files are refused: both have to fit in memory several times. */
const MAX_FILE_BYTES = 256 * 1024 * 1024;
/** Bodies are decoded up to this size; beyond it only digests are compared. */
const BODY_LIMIT_BYTES = 64 * 1024 * 1024;

/** Where a command writes and what time it is; tests pass their own. */
export type CompareIo = {
  readonly out: (text: string) => void;
  readonly err: (text: string) => void;
  readonly exit: (code: number) => void;
  readonly now: () => number;
};

const PROCESS_IO: CompareIo = {
  out: (text) => process.stdout.write(text),
  err: (text) => process.stderr.write(text),
  exit: (code) => {
    process.exitCode = code;
  },
  now: Date.now,
};

const read = async (file: string): Promise<Buffer> => {
  let bytes: Buffer;
  try {
    bytes = await readFile(file);
  } catch (error) {
    const code = (error as NodeJS.ErrnoException).code;
    throw new AppError(
      'not-found',
      `${file}: ${code === 'ENOENT' ? 'no such file' : code === 'EISDIR' ? 'is a folder' : `cannot be read (${code})`}`,
    );
  }
  if (bytes.length > MAX_FILE_BYTES) throw new AppError('payload-too-large', `${file}: larger than ${MAX_FILE_BYTES} bytes`);
  return bytes;
};

const within = <T>(file: string, run: () => T): T => {
  try {
    return run();
  } catch (error) {
    throw error instanceof AppError
      ? new AppError(error.code, `${file}: ${error.message}`)
      : new AppError('unprocessable', `${file}: ${(error as Error).message}`);
  }
};

const readAnswer = async (file: string): Promise<Observation> => {
  const bytes = await read(file);
  if (extname(file).toLowerCase() === '.json')
    return { status: 200, headers: [['content-type', 'application/json']], body: bytes, complete: true };
  return within(file, () => parseHttpResponse(bytes));
};

/** Rules of a file, compiled; none without one. @throws AppError that names every fault */
export const readRulesFile = async (file: string | undefined, now: number): Promise<CompiledRules> => {
  if (file === undefined) return compileRules({}, now);
  const loaded = loadParityRules({ file, text: (await read(file)).toString('utf8'), now: new Date(now) });
  if (!loaded.ok) throw new AppError('unprocessable', loaded.faults.map(formatFault).join('\nbanyan: '));
  return within(file, () => compileRules(loaded.rules, now));
};

const line = (
  sign: string,
  { path, kind, ...rest }: { path: string; kind: string; legacy?: unknown; extracted?: unknown; rule?: string },
): string => {
  const show = (side: 'legacy' | 'extracted'): string => (side in rest ? ` ${side} ${JSON.stringify(rest[side])}` : '');
  return `${sign} ${path} ${kind}${show('legacy')}${show('extracted')}${rest.rule === undefined ? '' : ` (${rest.rule})`}\n`;
};

const forPeople = (verdict: Verdict): string => {
  const { verdict: kind, differences, noise, why } = verdictDocument(verdict);
  return `${kind}${why === null ? '' : `: ${why}`}\n${differences.map((one) => line('-', one)).join('')}${noise.map((one) => line('~', one)).join('')}`;
};

/** Compares two files; A is legacy, B extracted. Exit codes: 0 match or noise, 1 mismatch or incomparable, 2 files or rules that cannot be read. */
export const runParityCompare = async (
  a: string,
  b: string,
  options: { rules?: string; json?: boolean },
  io: CompareIo = PROCESS_IO,
): Promise<void> => {
  try {
    const [legacy, extracted, rules] = [await readAnswer(a), await readAnswer(b), await readRulesFile(options.rules, io.now())];
    for (const { at, because, until } of rules.expired)
      io.err(`banyan: rule for ${at}${because ? ` (${because})` : ''} expired on ${until} and is not applied\n`);
    const verdict = compareObservations(...(await decodePair(legacy, extracted, BODY_LIMIT_BYTES)), rules);
    io.out(options.json ? `${JSON.stringify(verdictDocument(verdict))}\n` : forPeople(verdict));
    io.exit(verdict.kind === 'match' || verdict.kind === 'noise' ? 0 : 1);
  } catch (error) {
    if (!(error instanceof AppError)) throw error;
    io.err(`banyan: ${error.message}\n`);
    io.exit(2);
  }
};

/** Adds `compare A B` to `banyan parity`. */
export const registerParityCompare = (parity: Command, io: CompareIo = PROCESS_IO): void => {
  parity
    .command('compare')
    .description('compare two recorded answers: raw HTTP/1.1 responses, or bare JSON bodies in *.json files')
    .argument('<A>', 'what legacy answered')
    .argument('<B>', 'what the extracted service answered')
    .option('--rules <file>', "YAML or JSON with the keys of a context's parity: block")
    .option('--json', 'print one JSON document')
    .action((a: string, b: string, options: { rules?: string; json?: boolean }) => runParityCompare(a, b, options, io));
};
