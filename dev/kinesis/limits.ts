/** Milliseconds since the epoch. Injected so that tests can move time. */
export type Clock = () => number;

/** What the emulator allows. Sizes in bytes, times in ms. The defaults are those of AWS where AWS has one. */
export type Limits = {
  /** false switches the four per-shard rates off, for load benches. */
  readonly throttle: boolean;
  readonly writeBytesPerSecond: number;
  readonly writeRecordsPerSecond: number;
  readonly readBytesPerSecond: number;
  readonly readsPerSecond: number;
  /** Age after which a shard iterator or a list token is refused. */
  readonly iteratorMs: number;
  /** Enhanced fan-out: how long a subscription lasts, how often it says something, when a second one may take it over, and its own bytes per second. */
  readonly subscriptionMs: number;
  readonly heartbeatMs: number;
  readonly takeoverMs: number;
  readonly subscriptionBytesPerSecond: number;
  /** How long a new stream stays CREATING. AWS takes seconds; 0 lets a stack start at once. */
  readonly createMs: number;
  /** Open shards of all streams together. */
  readonly maxShards: number;
  /** Records kept in memory, estimated with their overhead. Beyond it the oldest are trimmed before their retention ends, with a warning. */
  readonly memoryBytes: number;
  /** The data file is rewritten when it is larger than this and at least half of it is trimmed. */
  readonly compactMinBytes: number;
  /** One request's body: 10 MiB of data are 14 MB of base64. */
  readonly bodyBytes: number;
  /** Bodies being received or waiting for the disk, all requests together; beyond it requests get 503. */
  readonly inFlightBytes: number;
  readonly maxConnections: number;
};

const MIB = 1024 * 1024;

/** Sources: docs.aws.amazon.com/streams/latest/dev/service-sizes-and-limits.html for the rates and ages; the bounds of the process are ours. */
export const DEFAULT_LIMITS: Limits = {
  throttle: true,
  writeBytesPerSecond: MIB,
  writeRecordsPerSecond: 1000,
  readBytesPerSecond: 2 * MIB,
  readsPerSecond: 5,
  iteratorMs: 300_000,
  subscriptionMs: 300_000,
  heartbeatMs: 5000,
  takeoverMs: 5000,
  subscriptionBytesPerSecond: 2 * MIB,
  createMs: 0,
  maxShards: 1000,
  memoryBytes: 512 * MIB,
  compactMinBytes: 16 * MIB,
  bodyBytes: 16 * MIB,
  inFlightBytes: 256 * MIB,
  maxConnections: 1024,
};

/** PutRecords: data and keys of one request together. */
export const MAX_PUT_BYTES = 10 * MIB;
/** GetRecords: data and keys of one answer together. */
export const MAX_GET_BYTES = 10 * MIB;
