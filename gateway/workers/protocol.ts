import type { UpstreamView } from '@banyan/contracts/admin-api.ts';
import { BREAKER_STATES } from '@banyan/contracts/vocabulary.ts';
import { z } from 'zod';
import type { Config } from '../config.ts';
import type { FlagsSnapshot } from '../flags/flags.ts';
import type { Batch } from '../parity/evidence.ts';
import type { MetricsSnapshot } from '../telemetry/gathered.ts';

/**
 * What a primary and its workers say to each other over node:cluster's channel, serialised as `advanced` (structured clone: dates, maps and
 * undefined survive). Both ends are the same program: what it built itself and only hands on is checked for its shape from the outside.
 */

const built = <T extends object>(what: string): z.ZodType<T> =>
  z.custom<T>((value) => typeof value === 'object' && value !== null, { error: what });

const count = z.number().int().min(0);
const load = z.object({ requests: count, tunnels: count });
const metrics = built<MetricsSnapshot>('metrics');
const flags = built<FlagsSnapshot>('flags');
/** null = it holds functions, which cannot be sent: the worker reads the file itself. */
const config = built<Config>('a configuration').nullable();

/** Everything a worker needs to know before it listens. */
const helloSchema = z.object({
  type: z.literal('hello'),
  /** banyan.member.id of the worker. */
  member: z.string(),
  /** How many workers share the limits. */
  of: count.min(1),
  version: z.string(),
  config,
  configFile: z.string().nullable(),
  overrides: z.record(z.string(), z.unknown()),
  secret: z.string(),
  flags,
  backlogFull: z.boolean(),
});

const toWorker = z.discriminatedUnion('type', [
  helloSchema,
  /** A new configuration, found valid; answered by `taken`. */
  z.object({ type: z.literal('config'), seq: count, config }),
  /** What the primary serves now; answered by `taken`. */
  z.object({ type: z.literal('flags'), seq: count, flags }),
  /** Answered by `metrics`. */
  z.object({ type: z.literal('scrape'), seq: count }),
  z.object({ type: z.literal('backlog'), full: z.boolean() }),
  /** Drain, at most so long, and end. */
  z.object({ type: z.literal('stop'), ms: z.number().min(0) }),
]);

const toPrimary = z.discriminatedUnion('type', [
  z.object({ type: z.literal('listening'), url: z.string() }),
  /** It cannot start, in one line; it ends by itself. */
  z.object({ type: z.literal('failed'), why: z.string().max(4_000) }),
  z.object({ type: z.literal('taken'), seq: count, error: z.string().max(4_000).nullable() }),
  /** `seq` is that of the question; null = unasked. */
  z.object({ type: z.literal('metrics'), seq: count.nullable(), metrics }),
  /** Sent when it has changed. */
  z.object({
    type: z.literal('state'),
    load,
    breakers: z.record(z.string(), z.enum(BREAKER_STATES)),
    upstreams: z.array(built<UpstreamView>('an upstream')),
  }),
  z.object({ type: z.literal('evidence'), batch: built<Batch>('evidence') }),
  /** Facts are in the outbox. */
  z.object({ type: z.literal('wake') }),
  /** Somebody asked it to end; it takes no further connection. */
  z.object({ type: z.literal('leaving') }),
  /** Its last words. `cut` = requests that did not finish in time. */
  z.object({ type: z.literal('left'), cut: count, metrics }),
]);

export type Hello = z.output<typeof helloSchema>;
export type ToWorker = z.output<typeof toWorker>;
export type ToPrimary = z.output<typeof toPrimary>;

/** undefined = not a message of this protocol. */
export const parseToWorker = (message: unknown): ToWorker | undefined => toWorker.safeParse(message).data;
/** undefined = not a message of this protocol. */
export const parseToPrimary = (message: unknown): ToPrimary | undefined => toPrimary.safeParse(message).data;

/** The configuration if it can be sent, else null. */
export const sendable = (settings: Config): Config | null => {
  try {
    return structuredClone(settings);
  } catch {
    return null;
  }
};
