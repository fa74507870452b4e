import type { Command } from 'commander';
import { environment } from '../config.ts';

/** Where a command writes. Data goes to `out` (stdout), everything said to a person to `err` (stderr). */
export type Io = {
  /** Writes one line (or lines) of data. */
  readonly out: (text: string) => void;
  /** Writes one line (or lines) of talk. */
  readonly err: (text: string) => void;
  /** May colours be used on stdout? A terminal, and no NO_COLOR. */
  readonly color: boolean;
  /** May a question be asked? Never without a terminal on both sides. */
  readonly interactive: boolean;
};

/** What each command file exports: adds its command to the program. */
export type Register = (program: Command, io: Io) => void;

const line = (text: string): string => (text.endsWith('\n') ? text : `${text}\n`);

/** The process' own streams. A reader that left (`| head`) is no failure, and must not stop a gateway whose log nobody reads any more. */
export const processIo = (): Io => {
  for (const stream of [process.stdout, process.stderr]) stream.on('error', () => undefined);
  const noColor = (environment('NO_COLOR') ?? '') !== '';
  return {
    out: (text) => void process.stdout.write(line(text)),
    err: (text) => void process.stderr.write(line(text)),
    color: process.stdout.isTTY === true && !noColor && environment('TERM') !== 'dumb',
    interactive: process.stdin.isTTY === true && process.stdout.isTTY === true,
  };
};

/** One JSON document on stdout. */
export const printJson = (io: Io, document: unknown): void => io.out(JSON.stringify(document, null, 2));

// What a server or a file says must not be able to move the cursor or paint the terminal.
const plain = (text: string): string => text.replaceAll(/[\x00-\x1f\x7f-\x9f]+/g, ' ');

/** Words that somebody should see at a glance, wherever they stand alone in a cell: SGR 31 red, 33 yellow, 32 green. */
const STYLES: ReadonlyMap<string, number> = new Map([
  ...['killed', 'open', 'rolled-back', 'rollback', 'parked', 'mismatch', 'undone'].map((word) => [word, 31] as const),
  ...['half-open', 'paused', 'waiting-approval', 'aborted', 'unknown', 'compensating', 'freezing'].map((word) => [word, 33] as const),
  ...['done', 'promote', 'advance'].map((word) => [word, 32] as const),
]);
const BOLD = 1;

const styled = (text: string, code: number | undefined): string => (code === undefined ? text : `\x1b[${code}m${text}\x1b[0m`);

/** Columns padded to their widest cell, two spaces apart, the head first. @param color `Io.color`: a bold head, and words that matter in colour */
export const formatTable = (head: readonly string[], rows: readonly (readonly string[])[], color = false): string => {
  const cells = [head, ...rows].map((row) => row.map(plain));
  const widths = head.map((_, column) => Math.max(...cells.map((row) => (row[column] ?? '').length)));
  return cells
    .map((row, line) => {
      const last = row.findLastIndex((cell) => cell !== '');
      return row
        .slice(0, last + 1)
        .map((cell, column) => {
          const text = color ? styled(cell, line === 0 ? BOLD : STYLES.get(cell)) : cell;
          return column === last ? text : text + ' '.repeat((widths[column] ?? 0) - cell.length);
        })
        .join('  ');
    })
    .join('\n');
};

/** The command `name` of the program, made when it is not there yet: several files add to `parity`, `config`, `ledger`. */
export const groupOf = (program: Command, name: string, description: string): Command =>
  program.commands.find((command) => command.name() === name) ?? program.command(name).description(description);
