import type { Knex } from 'knex';
import { z } from 'zod';
import { type ApplyDeps, applyPage, type Counts } from './apply-page.ts';
import { type Entry, entriesOf } from './entries.ts';
import { Fenced, reasonOf } from './failures.ts';
import type { Handler } from './handlers.ts';
import { createInbox } from './inbox.ts';
import { identifier } from './schema.ts';

export type LambdaOptions = {
  readonly db: Knex;
  /** Where `migrateSchema` made the tables. */
  readonly schema: string;
  /** Names the reader in its tables, as for the process that polls: both may not run at once under one name. */
  readonly consumer: string;
  readonly handlers: readonly Handler[];
  readonly own?: string | undefined;
  /** Facts held or quarantined at once before batches fail. Default 10,000. */
  readonly heldLimit?: number;
  readonly onCounts?: (counts: Counts) => void;
  /** Told why a batch is handed back. */
  readonly onFailure?: (reason: string) => void;
};

/** What AWS Lambda passes to a function behind a Kinesis event source mapping. */
const eventSchema = z.object({
  Records: z.array(
    z.object({
      eventID: z.string(),
      kinesis: z.object({ sequenceNumber: z.string(), data: z.string(), approximateArrivalTimestamp: z.number().optional() }),
    }),
  ),
});

/** With `FunctionResponseTypes: [ReportBatchItemFailures]`: where Lambda shall go on; empty = the whole batch is done. */
export type BatchResponse = { readonly batchItemFailures: readonly { readonly itemIdentifier: string }[] };

/** A failed page is tried again as a whole, so it bounds what one bad moment costs. */
const PAGE_FACTS = 2000;

/**
 * The handlers of a service as a Lambda function. Effects, inbox and heads commit together as in the process that polls, so a batch that Lambda delivers again
 * changes nothing. A fact that can never be applied is quarantined with its key and does not fail the batch; what may heal (a database that is away) fails it from
 * the first record that is not applied. Invocations for one shard take turns. @throws ZodError for an event that is not Kinesis'
 */
export const createLambdaHandler = (options: LambdaOptions): ((event: unknown) => Promise<BatchResponse>) => {
  const { db, consumer, handlers, own, heldLimit = 10_000 } = options;
  const schema = identifier(options.schema);
  const inbox = createInbox({ schema, consumer, leaseMs: 0 });
  const deps: ApplyDeps = {
    db,
    handlers,
    own,
    heldLimit,
    inbox: {
      ...inbox,
      // Lambda keeps a shard to one invocation at a time; this holds it to that, also when one that timed out still runs
      fence: async (trx, hold) => {
        await trx.raw('select pg_advisory_xact_lock(hashtextextended(?, 0))', [`banyan.lambda:${schema}:${consumer}:${hold.shardId}`]);
      },
    },
  };
  return async (event) => {
    const { Records } = eventSchema.parse(event);
    const shards = new Map<string, Entry[][]>();
    for (const { eventID, kinesis } of Records) {
      const shardId = eventID.split(':')[0]!;
      const entries = entriesOf({ SequenceNumber: kinesis.sequenceNumber, Data: Buffer.from(kinesis.data, 'base64'), PartitionKey: '' });
      const pages = shards.get(shardId) ?? [];
      shards.set(shardId, pages);
      pages.push(entries);
    }
    const failures: { itemIdentifier: string }[] = [];
    for (const [shardId, records] of shards) {
      const hold = { shardId, owner: 'lambda', token: '0' };
      for (let at = 0; at < records.length; ) {
        const first = at;
        const entries: Entry[] = [];
        while (at < records.length && (entries.length === 0 || entries.length + records[at]!.length <= PAGE_FACTS)) {
          entries.push(...records[at]!);
          at += 1;
        }
        try {
          const counts = await applyPage(deps, { hold, entries, ended: false, replayUntil: null });
          options.onCounts?.(counts);
        } catch (error) {
          if (error instanceof Fenced) throw error;
          options.onFailure?.(reasonOf(error));
          failures.push({ itemIdentifier: records[first]![0]!.sequenceNumber });
          break;
        }
      }
    }
    return { batchItemFailures: failures };
  };
};
