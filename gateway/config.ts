import { existsSync, readFileSync, statSync } from 'node:fs';
import { join, resolve } from 'node:path';
import { pathToFileURL } from 'node:url';
import type { Fault } from './config/faults.ts';
import { type LoadResult, type RulesResult, readConfig, readParityRules } from './config/read.ts';
import type { ConfigInput } from './config/schema.ts';

/** The only reader of `process.env`. Everything about configuration is imported from here; `config/` holds its parts. */

export { isLoopback, operationOf, unownedMethods } from './config/checks.ts';
export { type Fault, formatFault } from './config/faults.ts';
export { configJsonSchema, type LoadResult, type RulesResult } from './config/read.ts';
export type {
  AdapterConfig,
  AdminConfig,
  BreakerConfig,
  ClientConfig,
  Config,
  ConfigInput,
  ContextConfig,
  EventConfig,
  ExtractedConfig,
  LegacyConfig,
  ListenConfig,
  MappingConfig,
  MappingFunction,
  OverrideCondition,
  ParityConfig,
  ProviderFactory,
  RampConfig,
  ResolveConfig,
  RouteConfig,
  ShadowConfig,
  StickySelector,
  StreamsConfig,
  WritesConfig,
} from './config/schema.ts';
export { configSchema, paritySchema } from './config/schema.ts';
export { maskSecrets } from './config/secrets.ts';

/** Types a `banyan.config.ts`: `export default defineConfig({ version: 1, … })`. */
export const defineConfig = (config: ConfigInput): ConfigInput => config;

type Environment = Readonly<Record<string, string | undefined>>;

/** One variable of the process' environment, for the few that are no configuration (BANYAN_ADMIN_TOKEN, NO_COLOR). */
export const environment = (name: string): string | undefined => process.env[name];

/** `banyan.yaml`, `banyan.yml` or `banyan.config.ts` in a folder, in this order; undefined when there is none. */
export const findConfigFile = (folder = '.'): string | undefined =>
  ['banyan.yaml', 'banyan.yml', 'banyan.config.ts'].map((name) => join(folder, name)).find((path) => existsSync(path));

export type LoadOptions = {
  /** Path of a YAML, JSON or TypeScript file. Neither `file` nor `text` = nothing but overrides and defaults. */
  readonly file?: string | undefined;
  /** The text itself, read as YAML; `file` then only names it in faults. */
  readonly text?: string | undefined;
  /** What a configuration file would hold, as an object; mapping functions are allowed. */
  readonly object?: ConfigInput | undefined;
  /** By dotted path: `{ 'legacy.url': 'http://127.0.0.1:3000', listen: '127.0.0.1:0' }`. */
  readonly overrides?: Readonly<Record<string, unknown>> | undefined;
  /** Default `process.env`. */
  readonly env?: Environment | undefined;
  /** Default `readFileSync`; may throw. Relative paths are relative to the working directory. */
  readonly readFile?: ((path: string) => string) | undefined;
  /** `banyan dev`: monolith, store and streams may be absent, because it brings them. */
  readonly dev?: boolean | undefined;
  /** Default now; ends noise rules. */
  readonly now?: Date | undefined;
};

const MAX_FILE = 4 * 1_048_576;

const readText = (path: string): string => {
  // A device or an endless pipe would otherwise be read until memory ends.
  if (statSync(path).size > MAX_FILE) throw new Error('larger than 4 MiB');
  return readFileSync(path, 'utf8');
};

const refused = (file: string, message: string, expected: string): LoadResult => ({
  ok: false,
  faults: [{ file, line: 0, column: 0, path: '', message, expected }],
  warnings: [],
});

const reasonOf = (error: unknown): string =>
  error instanceof Error ? ((error as NodeJS.ErrnoException).code ?? error.message) : String(error);

/** Imports a TypeScript or JavaScript configuration; Node strips the types. A changed file is imported anew. */
const importObject = async (file: string): Promise<{ readonly object: unknown } | { readonly failure: Fault }> => {
  const url = pathToFileURL(resolve(file)).href;
  try {
    const module = (await import(`${url}?changed=${statSync(file).mtimeMs}`)) as { default?: unknown };
    return { object: module.default };
  } catch (error) {
    const stack = error instanceof Error ? (error.stack ?? '') : '';
    const after = stack.split(url)[1] ?? '';
    const place = /^[^:\s]*:(\d+)(?::(\d+))?/.exec(after);
    const message = `cannot be loaded: ${(error instanceof Error ? error.message : String(error)).split('\n')[0]}`;
    return {
      failure: {
        file,
        line: Number(place?.[1] ?? 0),
        column: Number(place?.[2] ?? (place === null ? 0 : 1)),
        path: '',
        message,
        expected: 'a module that loads',
      },
    };
  }
};

/** Loads the configuration of a process: file, variables, overrides, defaults, checks. All faults at once; never throws on what a file says. The result is deeply frozen. */
export const loadConfig = async (options: LoadOptions = {}): Promise<LoadResult> => {
  const env = options.env ?? process.env;
  const readFile = options.readFile ?? readText;
  const file = (path: string): string | undefined => {
    try {
      return readFile(path);
    } catch {
      return undefined;
    }
  };
  const common = {
    overrides: options.overrides ?? {},
    sources: { env, file },
    dev: options.dev ?? false,
    today: (options.now ?? new Date()).toISOString().slice(0, 10),
  };
  if (options.text !== undefined)
    return readConfig({ ...common, file: options.file ?? 'banyan.yaml', content: { text: options.text }, environmentDefaults: true });
  if (options.object !== undefined)
    return readConfig({ ...common, file: 'configuration', content: { object: options.object }, environmentDefaults: true });
  if (options.file === undefined)
    return readConfig({ ...common, file: 'command line', content: { object: { version: 1 } }, environmentDefaults: false });
  if (/\.[mc]?[jt]s$/.test(options.file)) {
    if (file(options.file) === undefined) return refused(options.file, 'cannot be read', 'a readable file');
    const imported = await importObject(options.file);
    if ('failure' in imported) return { ok: false, faults: [imported.failure], warnings: [] };
    if (typeof imported.object !== 'object' || imported.object === null)
      return refused(options.file, 'has no default export', 'export default defineConfig({ … })');
    return readConfig({ ...common, file: options.file, content: { object: imported.object }, environmentDefaults: true });
  }
  try {
    const text = readFile(options.file);
    return readConfig({ ...common, file: options.file, content: { text }, environmentDefaults: true });
  } catch (error) {
    return refused(options.file, `cannot be read (${reasonOf(error)})`, 'a readable YAML file');
  }
};

/** Rules for `banyan parity compare --rules FILE`: the keys of a context's `parity:` block. */
export const loadParityRules = (options: { readonly file: string; readonly text: string; readonly now?: Date }): RulesResult =>
  readParityRules(options.file, options.text, (options.now ?? new Date()).toISOString().slice(0, 10));
