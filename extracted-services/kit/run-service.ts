import { parseArgs } from 'node:util';
import { readConfig, type ServiceConfig, StartError } from './config.ts';
import { reasonOf } from './failures.ts';
import { type Service, type ServiceSpec, startService } from './service.ts';

const help = (spec: ServiceSpec): string => `The ${spec.name} service: HTTP API and consumer of the stream of facts.

  npm run service -- ${spec.name} [--replay] [--replay-from TIME]

  --replay             read the stream again from its oldest record; nobody reacts to what was read before
  --replay-from TIME   the same from what arrived at TIME (RFC 3339)
  --help

environment: HOST (127.0.0.1), PORT (${spec.defaultPort}), DATABASE_URL, BANYAN_STREAM (domain-events), BANYAN_COMMANDS (order-commands), AWS_REGION (eu-west-1),
             KINESIS_ENDPOINT (absent = AWS), ADAPTER_URL (http://127.0.0.1:8090), BANYAN_ADAPTER_TOKEN,
             BANYAN_SERVICE_TOKEN (absent = nobody may send saga commands or see the dead letters), POLL_MS (700), LEASE_MS (5000),
             FAN_OUT (off | on: enhanced fan-out), LOG_LEVEL (info)
`;

/** A stop that takes longer (a database that hangs, a page that does not end) is broken off; what was not finished is done again, once, at the next start. */
const STOP_LIMIT_MS = 10_000;

const readFlags = (): { replay: boolean | Date; help: boolean } => {
  try {
    const { values } = parseArgs({
      options: {
        replay: { type: 'boolean', default: false },
        'replay-from': { type: 'string' },
        help: { type: 'boolean', short: 'h', default: false },
      },
    });
    const from = values['replay-from'];
    const at = from === undefined ? null : new Date(from);
    if (at !== null && Number.isNaN(at.getTime())) throw new Error(`--replay-from ${from}: expected a time such as 2026-01-02T03:04:05Z`);
    return { help: values.help, replay: at ?? values.replay };
  } catch (error) {
    throw new StartError(`${reasonOf(error)} (see --help)`);
  }
};

/** The whole life of a service's process: flags, environment, ready message, drain on SIGTERM and SIGINT; one line and exit code 2 when it cannot start. */
export const runService = async (spec: ServiceSpec): Promise<void> => {
  // whoever read the log may be gone; the service goes on, or ends, without it
  for (const stream of [process.stdout, process.stderr]) stream.on('error', () => undefined);
  const leaving = new AbortController();
  let service: Service | undefined;
  const end = (code: number, error?: unknown): never => {
    if (error !== undefined) process.stderr.write(`${spec.name}: ${reasonOf(error)}\n`);
    process.exit(code);
  };
  const leave = (): void => {
    if (leaving.signal.aborted) return;
    leaving.abort();
    setTimeout(() => end(1, new Error(`not stopped after ${STOP_LIMIT_MS / 1000} s: broken off`)), STOP_LIMIT_MS).unref();
    // before it serves, the start itself ends and cleans up
    service?.stop().then(
      () => end(0),
      (error: unknown) => end(1, error),
    );
  };
  for (const signal of ['SIGTERM', 'SIGINT'] as const) process.on(signal, leave);
  process.on('disconnect', leave);
  try {
    const flags = readFlags();
    if (flags.help) {
      process.stdout.write(help(spec));
      end(0);
    }
    const config: ServiceConfig = readConfig(process.env, spec.defaultPort);
    service = await startService(spec, config, { replay: flags.replay, signal: leaving.signal });
    if (leaving.signal.aborted) {
      await service.stop();
      end(0);
    }
    process.stdout.write(`${spec.name}: listening on ${service.url}\n`);
    process.send?.({ type: 'ready', urls: { [spec.name]: service.url } });
  } catch (error) {
    if (leaving.signal.aborted) end(0);
    end(2, error);
  }
};
