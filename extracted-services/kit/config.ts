import { z } from 'zod';

const url = (kind: RegExp, example: string) => z.string().regex(kind, `expected a URL such as ${example}`);
const empty = (value: unknown): unknown => (value === '' ? undefined : value);

const whole = (fallback: number, min: number, max: number) =>
  z.preprocess(
    (value) => (value === undefined || value === '' ? fallback : Number(value)),
    z.number(`expected a whole number from ${min} to ${max}`).int(`expected a whole number from ${min} to ${max}`).min(min).max(max),
  );

const schema = (defaultPort: number) =>
  z.object({
    HOST: z.preprocess(empty, z.string().default('127.0.0.1')),
    PORT: whole(defaultPort, 0, 65_535),
    DATABASE_URL: url(/^postgres(ql)?:\/\//, 'postgres://user@127.0.0.1:5433/banyan'),
    BANYAN_STREAM: z.preprocess(
      empty,
      z
        .string()
        .regex(/^[a-zA-Z0-9_.-]{1,128}$/, 'expected the name of a stream')
        .default('domain-events'),
    ),
    BANYAN_COMMANDS: z.preprocess(
      empty,
      z
        .string()
        .regex(/^[a-zA-Z0-9_.-]{1,128}$/, 'expected the name of a stream')
        .default('order-commands'),
    ),
    AWS_REGION: z.preprocess(empty, z.string().default('eu-west-1')),
    KINESIS_ENDPOINT: z.preprocess(empty, url(/^https?:\/\//, 'http://127.0.0.1:4567').optional()),
    ADAPTER_URL: z.preprocess(empty, url(/^https?:\/\//, 'http://127.0.0.1:8090').default('http://127.0.0.1:8090')),
    BANYAN_ADAPTER_TOKEN: z.preprocess(empty, z.string().optional()),
    BANYAN_SERVICE_TOKEN: z.preprocess(
      empty,
      z
        .string()
        .regex(/^[\x21-\x7e]{16,512}$/, 'expected 16 to 512 printable characters without blanks')
        .optional(),
    ),
    POLL_MS: whole(700, 10, 60_000),
    LEASE_MS: whole(5000, 500, 300_000),
    FAN_OUT: z.preprocess(empty, z.enum(['on', 'off']).default('off')),
    LOG_LEVEL: z.preprocess(empty, z.enum(['fatal', 'error', 'warn', 'info', 'debug', 'trace', 'silent']).default('info')),
  });

/** What a service is told from outside; `docs/interfaces.md` lists the variables. */
export type ServiceConfig = {
  readonly host: string;
  /** 0 takes a free one. */
  readonly port: number;
  /** The store's database: a service's own schema lies in it, so that a change and its fact commit together. */
  readonly databaseUrl: string;
  /** The stream of facts. */
  readonly stream: string;
  /** The stream of commands, for the service that takes them. */
  readonly commands: string;
  readonly region: string;
  /** Absent = AWS itself. */
  readonly endpoint: string | undefined;
  readonly adapterUrl: string;
  readonly adapterToken: string | undefined;
  /** What the gateway and the saga service show to be let in; absent = nobody is. */
  readonly serviceToken: string | undefined;
  /** How often an idle shard is asked for news. */
  readonly pollMs: number;
  /** How long a dead instance keeps its shards. */
  readonly leaseMs: number;
  /** Enhanced fan-out; AWS bills it per consumer and shard. Off = the shards are polled. */
  readonly fanOut: boolean;
  readonly logLevel: string;
};

/** Why a service cannot start; the message is one line for a person. */
export class StartError extends Error {}

/** Reads the environment. @throws StartError naming every variable that is wrong and what was expected */
export const readConfig = (env: Readonly<Record<string, string | undefined>>, defaultPort: number): ServiceConfig => {
  const read = schema(defaultPort).safeParse(env);
  if (!read.success) {
    const faults = read.error.issues.map((issue) => {
      const name = String(issue.path[0]);
      return env[name] === undefined ? `${name} is not set` : `${name}: ${issue.message}`;
    });
    throw new StartError(faults.join('; '));
  }
  const { data } = read;
  return Object.freeze({
    host: data.HOST,
    port: data.PORT,
    databaseUrl: data.DATABASE_URL,
    stream: data.BANYAN_STREAM,
    commands: data.BANYAN_COMMANDS,
    region: data.AWS_REGION,
    endpoint: data.KINESIS_ENDPOINT,
    adapterUrl: data.ADAPTER_URL.replace(/\/$/, ''),
    adapterToken: data.BANYAN_ADAPTER_TOKEN,
    serviceToken: data.BANYAN_SERVICE_TOKEN,
    pollMs: data.POLL_MS,
    leaseMs: data.LEASE_MS,
    fanOut: data.FAN_OUT === 'on',
    logLevel: data.LOG_LEVEL,
  });
};
