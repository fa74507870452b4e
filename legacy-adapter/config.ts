import { existsSync, readFileSync } from 'node:fs';
import { isIP } from 'node:net';
import { expandScalars } from '@banyan/contracts/config-values.ts';
import { AppError } from '@banyan/contracts/errors.ts';
import { parse } from 'yaml';
import { z } from 'zod';

/** Who publishes what legacy executed. */
export type Publisher = 'ledger' | 'capture';

export type Config = {
  readonly host: string;
  /** 0 lets the system choose. */
  readonly port: number;
  /** The store, postgres://…. */
  readonly storeUrl: string;
  /** The monolith's database, postgres://…. */
  readonly legacyUrl: string;
  /** Bearer token that `/v1` asks for; null = none, and only loopback may be listened on. */
  readonly token: string | null;
  /** Contexts that are captured and written back, with their publisher; null = all that the translation knows, publisher `ledger`. */
  readonly contexts: ReadonlyMap<string, Publisher> | null;
  /** Install the triggers and take the snapshot on start. */
  readonly install: boolean;
};

type Environment = Readonly<Record<string, string | undefined>>;

/** What the adapter reads of `banyan.yaml`; the gateway checks the rest (`banyan validate`). */
const fileSchema = z.object({
  adapter: z.object({ url: z.string().optional(), legacyDatabase: z.string().optional(), capture: z.string().optional() }).nullish(),
  store: z.string().nullish(),
  contexts: z.record(z.string(), z.object({ publisher: z.enum(['ledger', 'capture']).default('ledger') }).nullable()).nullish(),
});

const HELP = `banyan adapter [--config FILE] [--no-install]

The anti-corruption layer: turns changes of the legacy tables into facts, and facts of extracted services into legacy rows.

  --config FILE   banyan.yaml; it reads adapter, store and contexts.*.publisher. Without it the environment is read,
                  and where that lacks a database, ./banyan.yaml
  --no-install    do not install triggers in the legacy database and take no snapshot on start
  --help          this text

Environment, where the file says nothing: HOST (127.0.0.1), PORT (8090), DATABASE_URL (the store),
LEGACY_DATABASE_URL (the monolith's database), BANYAN_ADAPTER_TOKEN (asked for as bearer token on /v1), LOG_LEVEL (info)
`;

const fail = (message: string): never => {
  throw new AppError('bad-request', message);
};

const readFile = (file: string, env: Environment): z.infer<typeof fileSchema> => {
  const text = ((): string => {
    try {
      return readFileSync(file, 'utf8');
    } catch (error) {
      return fail(`${file} cannot be read: ${(error as Error).message}`);
    }
  })();
  const document = ((): unknown => {
    try {
      return parse(text) ?? {};
    } catch (error) {
      return fail(`${file}: ${(error as Error).message.split('\n')[0]}`);
    }
  })();
  // Only our own keys: a variable that another process needs may well be unknown here.
  const picked =
    typeof document === 'object' && document !== null && !Array.isArray(document)
      ? Object.fromEntries(Object.entries(document).filter(([key]) => ['adapter', 'store'].includes(key)))
      : fail(`${file}: the document must be a mapping`);
  const expanded = expandScalars(picked, {
    env,
    file: (path) => {
      try {
        return readFileSync(path, 'utf8');
      } catch {
        return undefined;
      }
    },
  });
  const faults = expanded.faults.map((fault) => `${fault.path.join('.')}: ${fault.message}, expected ${fault.expected}`);
  const contexts = (document as { contexts?: unknown }).contexts;
  const result = fileSchema.safeParse({ ...(expanded.value as object), contexts });
  if (!result.success) faults.push(...result.error.issues.map((issue) => `${issue.path.join('.') || '(root)'}: ${issue.message}`));
  if (faults.length > 0) fail(`${file}: ${faults.join('; ')}`);
  return result.data!;
};

const databaseUrl = (value: string, name: string): string =>
  /^postgres(ql)?:\/\/./.test(value) ? value : fail(`${name} must be a postgres:// URL${value === '' ? ', but it is not set' : ''}`);

const listenOn = (url: string | undefined, env: Environment): { host: string; port: number } => {
  if (url) {
    const parsed = URL.canParse(url) ? new URL(url) : fail(`adapter.url "${url}" is no URL such as http://127.0.0.1:8090`);
    if (parsed.protocol !== 'http:') fail(`adapter.url "${url}" must begin with http://`);
    return { host: parsed.hostname.replace(/^\[(.*)\]$/, '$1'), port: parsed.port === '' ? 80 : Number(parsed.port) };
  }
  const text = env.PORT || '8090';
  const port = /^\d{1,5}$/.test(text) ? Number(text) : Number.NaN;
  return { host: env.HOST || '127.0.0.1', port: port <= 65_535 ? port : fail(`PORT must be a number from 0 to 65535, not "${text}"`) };
};

const isLoopback = (host: string): boolean => host === 'localhost' || host === '::1' || (isIP(host) === 4 && host.startsWith('127.'));

type Options = { file: string | undefined; install: boolean; help: boolean };

const readArguments = (args: readonly string[]): Options => {
  const options: Options = { file: undefined, install: true, help: false };
  for (let index = 0; index < args.length; index += 1) {
    const argument = args[index]!;
    if (argument === '--help' || argument === '-h') options.help = true;
    else if (argument === '--no-install') options.install = false;
    else if (argument.startsWith('--config=')) options.file = argument.slice(9);
    else if (argument === '--config') {
      index += 1;
      options.file = args[index] ?? fail('--config needs the name of a file');
    } else fail(`unknown argument "${argument}"; --help lists what there is`);
  }
  return options;
};

/**
 * Reads command line, file and environment. The only reader of `process.env`. What the file says wins over the environment.
 * @returns the help text when it was asked for
 * @throws AppError `bad-request` with every fault of the first source that has any
 */
export const loadConfig = (args: readonly string[], env: Environment = process.env): Config | { readonly help: string } => {
  const options = readArguments(args);
  if (options.help) return { help: HELP };
  const found = options.file ?? ((!env.DATABASE_URL || !env.LEGACY_DATABASE_URL) && existsSync('banyan.yaml') ? 'banyan.yaml' : undefined);
  const file = found === undefined ? {} : readFile(found, env);
  const mode = file.adapter?.capture || 'trigger';
  if (mode !== 'trigger')
    fail(
      mode === 'wal' || mode === 'outbox'
        ? `adapter.capture: ${mode} is not supported yet, use trigger`
        : `adapter.capture must be trigger, not "${mode}"`,
    );
  const { host, port } = listenOn(file.adapter?.url, env);
  const token = env.BANYAN_ADAPTER_TOKEN || null;
  if (token === null && !isLoopback(host)) fail(`without BANYAN_ADAPTER_TOKEN only a loopback address may be listened on, not ${host}`);
  return {
    host,
    port,
    storeUrl: databaseUrl(file.store || env.DATABASE_URL || '', 'store (or DATABASE_URL)'),
    legacyUrl: databaseUrl(
      file.adapter?.legacyDatabase || env.LEGACY_DATABASE_URL || '',
      'adapter.legacyDatabase (or LEGACY_DATABASE_URL)',
    ),
    token,
    contexts:
      found === undefined
        ? null
        : new Map(Object.entries(file.contexts ?? {}).map(([name, context]) => [name, context?.publisher ?? 'ledger'])),
    install: options.install,
  };
};

/** `LOG_LEVEL`, for pino. */
export const logLevel = (env: Environment = process.env): string =>
  /^(trace|debug|info|warn|error|fatal|silent)$/.test(env.LOG_LEVEL ?? '') ? env.LOG_LEVEL! : 'info';
