import type { z } from 'zod';
import type { Path } from './document.ts';

/** One thing that is wrong with a configuration. `line` and `column` are 1-based, 0 when there is no text to point into (a flag, a TypeScript file). */
export type Fault = {
  readonly file: string;
  readonly line: number;
  readonly column: number;
  /** Dotted, with list positions in brackets: `contexts.order.match[0].path`; empty = the whole document. */
  readonly path: string;
  readonly message: string;
  readonly expected?: string;
};

/** A fault before it is known where its path stands. */
export type PathFault = { readonly path: Path; readonly at: 'key' | 'value'; readonly message: string; readonly expected?: string };

export const showPath = (path: Path): string =>
  path.reduce<string>((text, step) => (typeof step === 'number' ? `${text}[${step}]` : text === '' ? step : `${text}.${step}`), '');

/** `banyan.yaml:12:5: contexts.order.pin: "10x" does not fit; expected a duration such as 5s`, on one line. */
export const formatFault = (fault: Fault): string => {
  const place = fault.line === 0 ? fault.file : `${fault.file}:${fault.line}:${fault.column}`;
  const line = `${place}: ${fault.path === '' ? '' : `${fault.path}: `}${fault.message}${fault.expected === undefined ? '' : `; expected ${fault.expected}`}`;
  return line.replaceAll(/[\x00-\x1f\x7f]+/g, ' ');
};

/** Keys whose values never appear in messages. */
const SECRET = /(^|\.)(token|key|auth|store|legacyDatabase)$/;

/** A rejected value, short and without secrets. */
const shown = (value: unknown, path: Path): string => {
  if (typeof value === 'function') return 'a function';
  if (Array.isArray(value)) return 'a list';
  if (typeof value === 'object' && value !== null) return 'a mapping';
  if (value === null) return 'an empty value';
  if (SECRET.test(showPath(path))) return 'the value';
  const text = typeof value === 'string' ? JSON.stringify(value.replace(/\/\/[^/@\s]*@/, '//***@')) : String(value);
  return text.length > 80 ? `${text.slice(0, 77)}...` : text;
};

/** Smallest number of edits (insert, delete, replace, swap neighbours) that turn one word into the other. */
const distance = (a: string, b: string): number => {
  const rows: number[][] = [Array.from({ length: b.length + 1 }, (_, column) => column)];
  for (let i = 1; i <= a.length; i += 1) {
    const row = [i];
    for (let j = 1; j <= b.length; j += 1) {
      const same = a[i - 1] === b[j - 1] ? 0 : 1;
      let best = Math.min((rows[i - 1]?.[j] ?? 0) + 1, (row[j - 1] ?? 0) + 1, (rows[i - 1]?.[j - 1] ?? 0) + same);
      if (i > 1 && j > 1 && a[i - 1] === b[j - 2] && a[i - 2] === b[j - 1]) best = Math.min(best, (rows[i - 2]?.[j - 2] ?? 0) + 1);
      row.push(best);
    }
    rows.push(row);
  }
  return rows[a.length]?.[b.length] ?? 0;
};

/** The candidate that was probably meant, if one is near. */
const nearest = (word: string, candidates: readonly string[]): string | undefined => {
  if (word.length > 64) return undefined;
  const ranked = candidates
    .map((candidate) => ({ candidate, edits: distance(word.toLowerCase(), candidate.toLowerCase()) }))
    .filter(({ candidate, edits }) => edits <= Math.max(1, Math.floor(candidate.length / 3)))
    .sort((a, b) => a.edits - b.edits);
  return ranked[0]?.candidate;
};

/** Keys that the schema knows at a path. */
const knownKeys = (schema: z.core.$ZodType, path: Path): readonly string[] => {
  const def = (schema as z.core.$ZodTypes)._zod.def;
  switch (def.type) {
    case 'prefault':
    case 'default':
    case 'nullable':
    case 'optional':
      return knownKeys(def.innerType, path);
    case 'pipe':
      return knownKeys(def.in, path);
    case 'union':
      return def.options.map((option) => knownKeys(option, path)).find((keys) => keys.length > 0) ?? [];
    case 'array':
      return path.length === 0 ? [] : knownKeys(def.element, path.slice(1));
    case 'record':
      return path.length === 0 ? [] : knownKeys(def.valueType, path.slice(1));
    case 'object': {
      if (path.length === 0) return Object.keys(def.shape);
      const key = String(path[0]);
      const next = Object.hasOwn(def.shape, key) ? def.shape[key] : undefined;
      return next === undefined ? [] : knownKeys(next, path.slice(1));
    }
    default:
      return [];
  }
};

/** The value at a path of a plain document; undefined when it is not there. */
export const valueAt = (root: unknown, path: Path): unknown =>
  path.reduce<unknown>(
    (node, step) =>
      typeof node === 'object' && node !== null && Object.hasOwn(node, step) ? (node as Record<string | number, unknown>)[step] : undefined,
    root,
  );

/** What to take out of a document so that the rest can still be looked at. */
export type Culprit = { readonly path: Path; readonly kind: 'unknown' | 'missing' | 'wrong' };

type Found = { readonly faults: readonly PathFault[]; readonly culprits: readonly Culprit[] };

/** Turns zod's issues into faults, one per unknown key, and into the paths that carry them. */
export const readIssues = (schema: z.core.$ZodType, issues: readonly z.core.$ZodIssue[], raw: unknown): Found => {
  const faults: PathFault[] = [];
  const culprits: Culprit[] = [];
  const read = (issue: z.core.$ZodIssue, base: Path): void => {
    const path: Path = [...base, ...issue.path.map((step) => (typeof step === 'number' ? step : String(step)))];
    if (issue.code === 'unrecognized_keys') {
      const known = knownKeys(schema, path);
      for (const key of issue.keys) {
        const near = nearest(key, known);
        const hint = near === undefined ? '' : `; did you mean "${near}"?`;
        const expected = near === undefined && known.length > 0 ? { expected: `one of ${known.join(', ')}` } : {};
        faults.push({ path: [...path, key], at: 'key', message: `unknown key "${key.slice(0, 64)}"${hint}`, ...expected });
        culprits.push({ path: [...path, key], kind: 'unknown' });
      }
      return;
    }
    if (issue.code === 'invalid_key') {
      faults.push({ path, at: 'key', message: 'the name does not fit', expected: issue.issues[0]?.message ?? 'another name' });
      culprits.push({ path, kind: 'unknown' });
      return;
    }
    if (issue.code === 'invalid_union') {
      // The branch that fits the value's outer shape knows best what is wrong inside.
      const inner = issue.errors.find(
        (branch) =>
          branch.length > 0 && branch.every((one) => one.path.length > 0 || one.code === 'custom' || one.code === 'unrecognized_keys'),
      );
      if (inner !== undefined) {
        for (const one of inner) read(one, path);
        return;
      }
    }
    const value = valueAt(raw, path);
    const stated = issue.code === 'custom' && typeof issue.params?.expected === 'string' ? issue.params.expected : issue.message;
    if (value === undefined) {
      faults.push({ path, at: 'key', message: 'missing', expected: stated });
      culprits.push({ path, kind: 'missing' });
    } else {
      faults.push({ path, at: 'value', message: `${shown(value, path)} does not fit`, expected: stated });
      culprits.push({ path, kind: 'wrong' });
    }
  };
  for (const issue of issues) read(issue, []);
  return { faults, culprits };
};
