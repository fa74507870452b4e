/**
 * An error that a client of the emulator sees. `type` is the bare exception name of the Kinesis API (`ResourceNotFoundException`), sent as
 * `__type` and as the header `x-amzn-errortype`; `status` is 400 for the caller's fault, 500 or 503 for ours.
 */
export class KinesisError extends Error {
  readonly type: string;
  readonly status: number;
  constructor(type: string, message: string, status = 400) {
    super(message);
    this.type = type;
    this.status = status;
  }
}

/** A start-up failure that a person can act on: busy port, a data file that is in use or is not ours. One line, no stack. */
export class StartError extends Error {}

/** Emulated streams belong to this account; real account ids have 12 digits too. */
export const ACCOUNT = '000000000000';

export const invalid = (message: string): KinesisError => new KinesisError('InvalidArgumentException', message);
export const inUse = (message: string): KinesisError => new KinesisError('ResourceInUseException', message);
export const notFound = (message: string): KinesisError => new KinesisError('ResourceNotFoundException', message);

/** `failures` are whole sentences such as `Value at 'records' failed to satisfy constraint: Member must not be null`. */
export const validation = (failures: readonly string[]): KinesisError =>
  new KinesisError(
    'ValidationException',
    `${failures.length} validation error${failures.length === 1 ? '' : 's'} detected: ${failures.join('; ')}`,
  );

/** The text that Kinesis gives for a throttled shard, in a failed entry of PutRecords as well as in an error answer. */
export const rateExceeded = (shardId: string, stream: string): string =>
  `Rate exceeded for shard ${shardId} in stream ${stream} under account ${ACCOUNT}.`;

export const throttled = (shardId: string, stream: string): KinesisError =>
  new KinesisError('ProvisionedThroughputExceededException', rateExceeded(shardId, stream));

/** DryRun asks whether a request would succeed; EC2's way of saying yes is an error, and the SDK lists it for the four data operations. */
export const refuseDryRun = (request: { DryRun?: boolean | null | undefined }): void => {
  if (request.DryRun) throw new KinesisError('DryRunOperationException', 'The request would have succeeded, but DryRun was set.');
};
