import { expandScalars, type Sources } from '@banyan/contracts/config-values.ts';
import { z } from 'zod';
import { type Checked, check, checkRules } from './checks.ts';
import { NOWHERE, type Path, readDocument, type SourceDocument } from './document.ts';
import { type Culprit, type Fault, type PathFault, readIssues, showPath, valueAt } from './faults.ts';
import { type Config, configSchema, mapping, type ParityConfig, paritySchema } from './schema.ts';
import { provider } from './who.ts';

export type ConfigSource = {
  /** Shown in faults. */
  readonly file: string;
  /** YAML or JSON text, or the object that a TypeScript file exports. */
  readonly content: { readonly text: string } | { readonly object: unknown };
  /** Values by dotted path (`legacy.url`), laid over the document; from flags. */
  readonly overrides: Readonly<Record<string, unknown>>;
  readonly sources: Sources;
  /** Read DATABASE_URL, LEGACY_DATABASE_URL and BANYAN_SEAL_KEY where the document is silent. */
  readonly environmentDefaults: boolean;
  readonly dev: boolean;
  /** UTC, `YYYY-MM-DD`. */
  readonly today: string;
};

export type LoadResult =
  | { readonly ok: true; readonly config: Config; readonly warnings: readonly Fault[] }
  | { readonly ok: false; readonly faults: readonly Fault[]; readonly warnings: readonly Fault[] };

const FROM_ENVIRONMENT: readonly (readonly [Path, string])[] = [
  [['store'], 'DATABASE_URL'],
  [['adapter', 'legacyDatabase'], 'LEGACY_DATABASE_URL'],
  [['seal', 'key'], 'BANYAN_SEAL_KEY'],
];

type Mutable = Record<string | number, unknown>;
const isTree = (value: unknown): value is Mutable => typeof value === 'object' && value !== null;

const setAt = (root: Mutable, path: Path, value: unknown): void => {
  let node = root;
  for (const step of path.slice(0, -1)) {
    if (!Object.hasOwn(node, step) || !isTree(node[step]))
      Object.defineProperty(node, step, { value: {}, enumerable: true, writable: true, configurable: true });
    node = node[step] as Mutable;
  }
  Object.defineProperty(node, path.at(-1) ?? '', { value, enumerable: true, writable: true, configurable: true });
};

/** Takes faulty places out so that the rest can be checked; remembers where list items stood. */
const prune = (root: Mutable, culprits: readonly Culprit[], moved: WeakMap<object, number[]>): void => {
  const targets = culprits
    .map(({ path, kind }) => (kind === 'missing' ? path.slice(0, -1) : path))
    .filter((path) => path.length > 0)
    // Deepest and last first, so that taking one out does not move the next.
    .sort((a, b) => b.length - a.length || Number(b.at(-1)) - Number(a.at(-1)) || 0);
  for (const path of targets) {
    const parent = valueAt(root, path.slice(0, -1));
    const step = path.at(-1) ?? '';
    if (Array.isArray(parent)) {
      const original = moved.get(parent) ?? parent.map((_, index) => index);
      parent.splice(Number(step), 1);
      original.splice(Number(step), 1);
      moved.set(parent, original);
    } else if (isTree(parent)) delete parent[step];
  }
  if (culprits.some(({ path }) => path.length === 1 && path[0] === 'version')) root.version = 1;
};

/** The path in the document of a path in what was left of it. */
const originalPath = (root: unknown, path: Path, moved: WeakMap<object, number[]>): Path => {
  let node = root;
  return path.map((step) => {
    const original = Array.isArray(node) ? (moved.get(node)?.[Number(step)] ?? step) : step;
    node = valueAt(node, [step]);
    return original;
  });
};

const deepFreeze = <T>(value: T): T => {
  if (typeof value !== 'object' || value === null || Object.isFrozen(value)) return value;
  for (const item of Object.values(value)) deepFreeze(item);
  return Object.freeze(value);
};

/** 30 s above the slower response time-out: an upstream that late has given up (DESIGN.md section 6, rule 2). */
const SETTLE_MARGIN = 30_000;

const complete = (parsed: z.output<typeof configSchema>): Config => {
  const contexts = Object.entries(parsed.contexts).map(([name, context]) => {
    const slowest = Math.max(parsed.legacy.timeouts.response, context.extracted?.timeouts.response ?? 0);
    const match = context.match.map((route) => ({
      ...route,
      writes: { ...route.writes, settle: route.writes.settle ?? slowest + SETTLE_MARGIN },
    }));
    return [name, { ...context, match }] as const;
  });
  return deepFreeze({ ...parsed, contexts: Object.fromEntries(contexts) });
};

type Reading<S extends z.ZodType> = {
  readonly faults: readonly PathFault[];
  readonly rest: z.output<S> | undefined;
  readonly back: (path: Path) => Path;
};

/** A list entry that lost a faulty part may now look incomplete: that is a consequence, not a second fault. */
const standing = (checked: readonly PathFault[], { faults, back }: Pick<Reading<z.ZodType>, 'faults' | 'back'>): readonly PathFault[] =>
  checked
    .map((fault) => ({ ...fault, path: back(fault.path) }))
    .filter(
      ({ path }) => typeof path.at(-1) !== 'number' || !faults.some((other) => showPath(other.path).startsWith(`${showPath(path)}.`)),
    );

/** How often the rest is tried again: taking out one fault can uncover a list that is now too short. */
const ROUNDS = 8;

const readSchema = <S extends z.ZodType>(schema: S, raw: unknown): Reading<S> => {
  const first = schema.safeParse(raw);
  if (first.success) return { faults: [], rest: first.data, back: (path) => path };
  const { faults, culprits } = readIssues(schema, first.error.issues, raw);
  const rest = structuredCloneTree(raw);
  const moved = new WeakMap<object, number[]>();
  const back = (path: Path): Path => originalPath(rest, path, moved);
  if (!isTree(rest)) return { faults, rest: undefined, back };
  prune(rest, culprits, moved);
  for (let round = 0; round < ROUNDS; round += 1) {
    const again = schema.safeParse(rest);
    if (again.success) return { faults, rest: again.data, back };
    prune(rest, readIssues(schema, again.error.issues, rest).culprits, moved);
  }
  return { faults, rest: undefined, back };
};

/** A copy whose functions stay; `structuredClone` refuses them. */
const structuredCloneTree = (value: unknown): unknown =>
  isTree(value) ? (Array.isArray(value) ? value.map(structuredCloneTree) : cloneObject(value)) : value;
const cloneObject = (value: Mutable): Mutable => {
  const copy: Mutable = {};
  for (const [key, item] of Object.entries(value))
    Object.defineProperty(copy, key, { value: structuredCloneTree(item), enumerable: true, writable: true, configurable: true });
  return copy;
};

type Opened = { readonly document: SourceDocument; readonly faults: readonly Fault[] };

const open = (file: string, content: ConfigSource['content']): Opened => {
  if ('object' in content) return { document: { value: content.object, faults: [], locate: () => NOWHERE }, faults: [] };
  const document = readDocument(content.text);
  return { document, faults: document.faults.map(({ line, column, message }) => ({ file, line, column, path: '', message })) };
};

const inOrder = (faults: readonly Fault[]): readonly Fault[] => [...faults].sort((a, b) => a.line - b.line || a.column - b.column);

/** Reads, expands, checks and freezes one configuration; every fault at once. Never throws on what the document says. */
export const readConfig = (source: ConfigSource): LoadResult => {
  const { document, faults: syntax } = open(source.file, source.content);
  if (document.faults.some(({ fatal }) => fatal)) return { ok: false, faults: inOrder(syntax), warnings: [] };

  const origins = new Map<string, string>();
  const originOf = (path: Path): string | undefined =>
    path.map((_, index) => origins.get(showPath(path.slice(0, index + 1)))).find((origin) => origin !== undefined);
  const placed = (fault: PathFault): Fault => {
    const origin = originOf(fault.path);
    const place = origin === undefined ? document.locate(fault.path, fault.at) : NOWHERE;
    const expected = fault.expected === undefined ? {} : { expected: fault.expected };
    return { file: origin ?? source.file, ...place, path: showPath(fault.path), message: fault.message, ...expected };
  };

  const expanded = expandScalars(document.value ?? {}, source.sources);
  const raw = expanded.value;
  const unset = expanded.faults.map((fault): PathFault => ({ ...fault, at: 'value' }));
  if (isTree(raw) && !Array.isArray(raw)) {
    if (source.environmentDefaults)
      for (const [path, name] of FROM_ENVIRONMENT) {
        const value = source.sources.env[name];
        const parent = valueAt(raw, path.slice(0, -1));
        if (
          value === undefined ||
          value === '' ||
          valueAt(raw, path) !== undefined ||
          (path.length > 1 && parent !== undefined && !isTree(parent))
        )
          continue;
        setAt(raw, path, value);
        origins.set(showPath(path), `environment ${name}`);
      }
    for (const [key, value] of Object.entries(source.overrides)) {
      const path = key.split('.');
      if (key === 'legacy.url' && isTree(raw.legacy)) delete raw.legacy.urls;
      setAt(raw, path, value);
      origins.set(key, 'command line');
    }
    if (source.dev && raw.streams === undefined) raw.streams = {};
  }

  const reading = readSchema(configSchema, raw);
  // A place that could not be expanded holds an empty text: what the schema says about it is a consequence, not a second fault.
  const unsetPaths = new Set(unset.map(({ path }) => showPath(path)));
  const shape = reading.faults.filter(({ path }) => !unsetPaths.has(showPath(path)));
  const config = reading.rest === undefined ? undefined : complete(reading.rest);
  const says = (path: Path): boolean => {
    const value = valueAt(raw, path);
    return value !== undefined && (value !== '' || unsetPaths.has(showPath(path))) && value !== null;
  };
  const checked: Checked =
    config === undefined
      ? { faults: [], warnings: [] }
      : check({ config, says, dev: source.dev, file: source.sources.file, today: source.today });
  const found = [...unset, ...shape, ...standing(checked.faults, reading)];
  const warnings = inOrder(checked.warnings.map((warning) => placed({ ...warning, path: reading.back(warning.path) })));
  const faults = inOrder([...syntax, ...found.map(placed)]);
  return faults.length > 0 || config === undefined ? { ok: false, faults, warnings } : { ok: true, config, warnings };
};

export type RulesResult = { readonly ok: true; readonly rules: ParityConfig } | { readonly ok: false; readonly faults: readonly Fault[] };

/** Reads the keys of a `parity:` block from a file of its own (`banyan parity compare --rules`); YAML or JSON, variables are not expanded. */
export const readParityRules = (file: string, text: string, today: string): RulesResult => {
  const { document, faults: syntax } = open(file, { text });
  if (document.faults.some(({ fatal }) => fatal)) return { ok: false, faults: inOrder(syntax) };
  const raw = document.value ?? {};
  const reading = readSchema(paritySchema, raw);
  const checked = reading.rest === undefined ? { faults: [] } : checkRules(reading.rest, today);
  const faults = [...reading.faults, ...standing(checked.faults, reading)].map(
    (fault): Fault => ({
      file,
      ...document.locate(fault.path, fault.at),
      path: showPath(fault.path),
      message: fault.message,
      ...(fault.expected === undefined ? {} : { expected: fault.expected }),
    }),
  );
  const all = inOrder([...syntax, ...faults]);
  return all.length > 0 || reading.rest === undefined ? { ok: false, faults: all } : { ok: true, rules: deepFreeze(reading.rest) };
};

/** JSON Schema (draft-07) of the file, as editors' YAML servers read it. */
export const configJsonSchema = (): Readonly<Record<string, unknown>> => ({
  ...z.toJSONSchema(configSchema, {
    target: 'draft-7',
    io: 'input',
    unrepresentable: 'any',
    override: ({ zodSchema, jsonSchema }) => {
      // Functions exist only in banyan.config.ts; in YAML the value is text.
      if (zodSchema !== (mapping as z.core.$ZodType) && zodSchema !== (provider as z.core.$ZodType)) return;
      delete jsonSchema.anyOf;
      jsonSchema.type = 'string';
    },
  }),
  title: 'Banyan configuration',
});
