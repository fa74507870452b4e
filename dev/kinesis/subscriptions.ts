import { consumerOf } from './consumers.ts';
import { inUse, type KinesisError } from './errors.ts';
import { eventMessage, exceptionMessage } from './event-stream.ts';
import type { Faults } from './faults.ts';
import type { Limits } from './limits.ts';
import type { HttpResponse } from './protocol.ts';
import { childrenOf, recordOf, shardOf, startIndex, take } from './reads.ts';
import type { Request } from './requests.ts';
import type { Deps } from './stream-of.ts';

/** An answer that goes on: `send` writes messages until the subscription ends. */
export class Subscription {
  readonly send: (res: HttpResponse) => void;
  constructor(send: (res: HttpResponse) => void) {
    this.send = send;
  }
}

/** Records of one event: the first always fits. */
const EVENT_BYTES = 1024 * 1024;
const EVENT_RECORDS = 10_000;

type Open = { readonly since: number; end(reason: KinesisError | null): void };

export type Subscriptions = {
  readonly subscribe: (d: Deps, request: Request<'SubscribeToShard'>) => Subscription;
  /** Ends those of one consumer; without an ARN all of them. */
  readonly end: (consumerArn?: string) => void;
};

/** Enhanced fan-out: who reads which shard at the moment. Nothing of it outlives a restart, as on AWS a connection does not. */
export const createSubscriptions = (limits: Limits, faults: Faults): Subscriptions => {
  const open = new Map<string, Open>();

  const subscribe = (d: Deps, request: Request<'SubscribeToShard'>): Subscription => {
    const { stream, consumer } = consumerOf(d, request.ConsumerARN);
    const shard = shardOf(stream, request.ShardId);
    const { Type, SequenceNumber, Timestamp } = request.StartingPosition;
    let index = startIndex(d, stream, shard, { ShardIteratorType: Type, StartingSequenceNumber: SequenceNumber, Timestamp });
    const key = `${consumer.arn} ${shard.id}`;
    const before = open.get(key);
    if (before && d.clock() - before.since < limits.takeoverMs)
      throw inUse(`Another active subscription exists for this consumer: ${stream.name}:${shard.id}:${consumer.name}`);
    before?.end(inUse('Another subscription of this consumer has taken the shard over.'));

    return new Subscription((response) => {
      const res = response as import('node:http').ServerResponse;
      let ended = false;
      let blocked = false;
      let timer: NodeJS.Timeout | undefined;
      let heartbeat: NodeJS.Timeout | undefined;
      // bytes that may be sent now; refilled at the consumer's own rate
      let tokens = limits.subscriptionBytesPerSecond;
      let filledAt = performance.now();
      let lastAt = shard.createdMs;

      const finish = (): void => {
        if (ended) return;
        ended = true;
        clearTimeout(timer);
        clearTimeout(heartbeat);
        clearTimeout(expiry);
        unwatch();
        if (open.get(key) === mine) open.delete(key);
      };
      const end = (reason: KinesisError | null): void => {
        if (ended) return;
        finish();
        if (reason) res.write(exceptionMessage(reason.type, reason.message));
        res.end();
      };
      const write = (payload: object): void => {
        clearTimeout(heartbeat);
        heartbeat = setTimeout(() => pump(true), limits.heartbeatMs);
        if (!res.write(eventMessage('SubscribeToShardEvent', payload))) {
          blocked = true;
          res.once('drain', () => {
            blocked = false;
            pump(false);
          });
        }
      };
      /** Sends what there is, within the rate and what the reader takes; `always` sends an event without records too. */
      const pump = (always: boolean): void => {
        while (!ended && !blocked) {
          if (faults.frozen()) {
            clearTimeout(heartbeat);
            heartbeat = setTimeout(() => pump(false), limits.heartbeatMs);
            return;
          }
          d.store.expire(stream);
          const now = performance.now();
          tokens = Math.min(limits.subscriptionBytesPerSecond, tokens + ((now - filledAt) * limits.subscriptionBytesPerSecond) / 1000);
          filledAt = now;
          if (limits.throttle && tokens <= 0) {
            clearTimeout(timer);
            timer = setTimeout(() => pump(false), Math.ceil((-tokens * 1000) / limits.subscriptionBytesPerSecond) + 1);
            return;
          }
          const { page, bytes, next } = take(shard, index, EVENT_RECORDS, EVENT_BYTES);
          tokens -= bytes;
          const unread = shard.records[next];
          const last = page.at(-1);
          index = last ? last.index + 1 : Math.max(index, Math.min(index, shard.visibleIndex));
          lastAt = last?.at ?? lastAt;
          const over = shard.closed !== undefined && unread === undefined && shard.visibleIndex === shard.nextIndex;
          if (page.length === 0 && !over && !always) return;
          write({
            Records: page.map((record) => recordOf(stream, shard, record)),
            ...(over ? { ChildShards: childrenOf(stream, shard) } : { ContinuationSequenceNumber: shard.sequence(index - 1, lastAt) }),
            MillisBehindLatest: unread ? Math.max(1, d.clock() - unread.at) : 0,
          });
          if (over) end(null);
          else if (unread === undefined) return;
          always = false;
        }
      };

      const mine: Open = { since: d.clock(), end };
      open.set(key, mine);
      const unwatch = d.store.watch(stream.id, (gone) => (gone ? end(null) : pump(false)));
      // AWS ends a subscription after 5 minutes, without an error; the reader subscribes again
      const expiry = setTimeout(() => end(null), limits.subscriptionMs);
      res.on('close', finish);
      res.write(eventMessage('initial-response', {}));
      pump(true);
    });
  };

  return {
    subscribe,
    end: (consumerArn) => {
      for (const [key, subscription] of [...open])
        if (consumerArn === undefined || key.startsWith(`${consumerArn} `)) subscription.end(null);
    },
  };
};
