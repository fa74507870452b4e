import {
  type _Record,
  DescribeStreamConsumerCommand,
  DescribeStreamSummaryCommand,
  type KinesisClient,
  RegisterStreamConsumerCommand,
  SubscribeToShardCommand,
} from '@aws-sdk/client-kinesis';
import { sleep } from './failures.ts';

/** What came over a subscription at once. `ended` = the shard is closed and read to its end. */
export type Delivery = { readonly records: readonly _Record[]; readonly behindMs: number; readonly ended: boolean };

/** A subscription said nothing for longer than its heartbeat allows: the connection is half-open, or the service hangs. */
class Silent extends Error {
  constructor(shardId: string, quietMs: number) {
    super(`the subscription to ${shardId} has said nothing for ${quietMs} ms`);
    this.name = 'Silent';
  }
}

/**
 * The ARN of the consumer `name` of the stream, registered when it is not yet; waits until it is ACTIVE.
 * @throws what the SDK throws, e.g. when the stream has its 20 consumers already
 */
export const registerFanOut = async (kinesis: KinesisClient, stream: string, name: string, signal: AbortSignal): Promise<string> => {
  const { StreamDescriptionSummary } = await kinesis.send(new DescribeStreamSummaryCommand({ StreamName: stream }), {
    abortSignal: signal,
  });
  const StreamARN = StreamDescriptionSummary!.StreamARN!;
  for (;;) {
    try {
      const { ConsumerDescription: found } = await kinesis.send(new DescribeStreamConsumerCommand({ StreamARN, ConsumerName: name }), {
        abortSignal: signal,
      });
      if (found?.ConsumerStatus === 'ACTIVE') return found.ConsumerARN!;
    } catch (error) {
      if ((error as Error).name !== 'ResourceNotFoundException') throw error;
      try {
        await kinesis.send(new RegisterStreamConsumerCommand({ StreamARN, ConsumerName: name }), { abortSignal: signal });
        continue;
      } catch (refused) {
        // another instance was faster
        if ((refused as Error).name !== 'ResourceInUseException') throw refused;
      }
    }
    await sleep(500, signal);
    signal.throwIfAborted();
  }
};

/** Stream records kept while a page is applied; the sender waits beyond it. */
const READ_AHEAD = 500;

export type SubscriptionOptions = {
  readonly arn: string;
  readonly shardId: string;
  /** The last record already applied; null starts at the oldest, or at `from`. */
  readonly after: string | null;
  readonly from: Date | null;
  /** Longest silence. A subscription says something every 5 s even when there is nothing to say. */
  readonly quietMs: number;
  readonly signal: AbortSignal;
};

/**
 * Records as they are pushed, until the subscription ends (5 minutes), the shard ends, or the caller leaves the loop. What comes while the caller works
 * is delivered together; a caller who is too slow for it slows the sender down.
 * @throws Silent; ResourceInUseException while another subscription has the shard; whatever else the SDK throws
 */
export async function* subscription(kinesis: KinesisClient, options: SubscriptionOptions): AsyncGenerator<Delivery> {
  const { arn, shardId, after, from, quietMs, signal } = options;
  const leaving = new AbortController();
  const abortSignal = AbortSignal.any([signal, leaving.signal]);
  let timer: NodeJS.Timeout | undefined;
  let giveUp: () => void = () => undefined;
  abortSignal.addEventListener('abort', () => giveUp(), { once: true });
  /** @throws Silent when `work` takes longer than the longest silence */
  const within = async <T>(work: Promise<T>): Promise<T> => {
    const silence = new Promise<never>((_resolve, reject) => {
      timer = setTimeout(() => reject(new Silent(shardId, quietMs)), quietMs);
      giveUp = () => reject(new Error('stopped'));
      if (abortSignal.aborted) giveUp();
    });
    silence.catch(() => undefined);
    work.catch(() => undefined);
    try {
      return await Promise.race([work, silence]);
    } finally {
      clearTimeout(timer);
    }
  };
  let close: (() => unknown) | undefined;
  try {
    const answer = await within(
      kinesis.send(
        new SubscribeToShardCommand({
          ConsumerARN: arn,
          ShardId: shardId,
          StartingPosition:
            after !== null
              ? { Type: 'AFTER_SEQUENCE_NUMBER', SequenceNumber: after }
              : from !== null
                ? { Type: 'AT_TIMESTAMP', Timestamp: from }
                : { Type: 'TRIM_HORIZON' },
        }),
        { abortSignal },
      ),
    );
    const events = answer.EventStream![Symbol.asyncIterator]();
    close = () => events.return?.(undefined);
    let buffer: _Record[] = [];
    let behindMs = 0;
    let over = false;
    let failed: unknown;
    let filled: () => void = () => undefined;
    let emptied: () => void = () => undefined;
    let news = new Promise<void>((resolve) => {
      filled = resolve;
    });
    /** Reads ahead while the caller works, so that what came meanwhile is applied together. */
    const readAhead = async (): Promise<void> => {
      try {
        while (!over) {
          if (buffer.length >= READ_AHEAD)
            await new Promise<void>((resolve) => {
              emptied = resolve;
            });
          if (abortSignal.aborted) return;
          const { value, done } = await within(events.next());
          const event = done ? undefined : value.SubscribeToShardEvent;
          if (event) {
            buffer.push(...(event.Records ?? []));
            behindMs = event.MillisBehindLatest ?? 0;
          }
          over = done === true || (event !== undefined && event.ContinuationSequenceNumber === undefined);
          if (over) ended = event !== undefined;
          filled();
        }
      } catch (error) {
        failed = error;
        over = true;
        filled();
      }
    };
    let ended = false;
    abortSignal.addEventListener('abort', () => emptied(), { once: true });
    void readAhead();
    for (;;) {
      await news;
      const last = over;
      const records = buffer;
      buffer = [];
      news = new Promise<void>((resolve) => {
        filled = resolve;
      });
      emptied();
      // what came before a failure is applied before it is told
      if (records.length > 0 || !last || ended) yield { records, behindMs, ended: last && ended };
      if (last && failed !== undefined) throw failed;
      if (last) return;
    }
  } finally {
    leaving.abort();
    // not awaited: on a half-open connection it never comes back
    if (close) void Promise.resolve(close()).catch(() => undefined);
  }
}
