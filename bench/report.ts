import { readFileSync } from 'node:fs';
import { availableParallelism, cpus, loadavg, release, totalmem } from 'node:os';

export type BenchOptions = {
  /** A smoke run: one short round of each. */
  readonly quick: boolean;
  /** May the bench install what it compares with? */
  readonly install: boolean;
  /** How many tunnels, or simulated services; null = the bench's own number. */
  readonly count: number | null;
  /** `simulate` only: what its random numbers begin with; null = the bench's own. */
  readonly seed: number | null;
  /** `shadow` only: the root of another checkout to measure beside this one; null = none. */
  readonly against: string | null;
  /** `dual-write`: these parts only; null = all. */
  readonly only: readonly string[] | null;
  /** Progress, for people. */
  readonly say: (line: string) => void;
};

export type Machine = {
  readonly cpu: string;
  readonly cores: number;
  readonly memoryGiB: number;
  readonly os: string;
  readonly node: string;
  /** One-minute load average when the bench began: above 0.5 somebody else was at work. */
  readonly loadBefore: number;
};

export type Row = Readonly<Record<string, string | number | null>>;

export type Report = {
  readonly name: string;
  readonly machine: Machine;
  readonly figures: Readonly<Record<string, number>>;
  readonly table: readonly Row[];
  /** What could not be measured, and why. */
  readonly missing: readonly string[];
  /** Of everything that was compared or used. */
  readonly versions: Readonly<Record<string, string>>;
};

const osName = (): string => {
  try {
    return /^PRETTY_NAME="?([^"\n]+)/m.exec(readFileSync('/etc/os-release', 'utf8'))?.[1] ?? process.platform;
  } catch {
    return process.platform;
  }
};

export const machine = (): Machine => ({
  cpu: cpus()[0]?.model ?? 'unknown',
  cores: availableParallelism(),
  memoryGiB: round(totalmem() / 2 ** 30, 1),
  os: `${osName()}, kernel ${release()}`,
  node: process.version,
  loadBefore: round(loadavg()[0] ?? 0, 2),
});

export const round = (value: number, digits: number): number => Math.round(value * 10 ** digits) / 10 ** digits;

/** Of an even number of values the mean of the middle two; NaN of none. */
export const median = (values: readonly number[]): number => {
  const sorted = [...values].sort((a, b) => a - b);
  const middle = sorted.length >> 1;
  return sorted.length % 2 === 1 ? sorted[middle]! : ((sorted[middle - 1] ?? Number.NaN) + (sorted[middle] ?? Number.NaN)) / 2;
};

/** `share` is 0..1; nearest rank. */
export const percentile = (values: readonly number[], share: number): number => {
  const sorted = [...values].sort((a, b) => a - b);
  return sorted[Math.max(0, Math.ceil(share * sorted.length) - 1)] ?? Number.NaN;
};

const cell = (value: Row[string] | undefined): string => (value === null || value === undefined ? '-' : String(value));

const tableOf = (rows: readonly Row[]): string => {
  const columns = [...new Set(rows.flatMap((row) => Object.keys(row)))];
  const numeric = (column: string): boolean => rows.every((row) => typeof row[column] !== 'string');
  const widths = columns.map((column) => Math.max(column.length, ...rows.map((row) => cell(row[column]).length)));
  const line = (cells: readonly string[]): string =>
    cells
      .map((text, i) => (numeric(columns[i]!) ? text.padStart(widths[i]!) : text.padEnd(widths[i]!)))
      .join('  ')
      .trimEnd();
  return [line(columns), ...rows.map((row) => line(columns.map((column) => cell(row[column]))))].join('\n');
};

/** For people: the table, the figures, the machine, and what is missing. */
export const render = (report: Report): string => {
  const { cpu, cores, memoryGiB, os, node, loadBefore } = report.machine;
  const figures = Object.entries(report.figures).map(([key, value]) => `${key.padEnd(28)} ${value}`);
  const versions = Object.entries(report.versions).map(([name, version]) => `${name} ${version}`);
  const missing = report.missing.map((line) => `missing: ${line}`);
  return `${[
    `${report.name} on ${cores} x ${cpu}, ${memoryGiB} GiB, ${os}, Node ${node}, load before ${loadBefore}`,
    '',
    tableOf(report.table),
    '',
    ...figures,
    ...missing,
    ...(versions.length > 0 ? [`with ${versions.join(', ')}`] : []),
  ].join('\n')}\n`;
};
