import { Agent as HttpAgent } from 'node:http';
import { Agent as HttpsAgent } from 'node:https';
import { DescribeStreamSummaryCommand, KinesisClient, PutRecordsCommand } from '@aws-sdk/client-kinesis';
import { NodeHttpHandler } from '@smithy/node-http-handler';

export type StreamRecord = { readonly partitionKey: string; readonly explicitHashKey: string; readonly data: Buffer };

export type PutResult =
  | { readonly ok: true; readonly shardId: string; readonly sequenceNumber: string }
  | { readonly ok: false; readonly code: string; readonly throttled: boolean };

/** A stream that takes records. */
export type EventStream = {
  /**
   * At most 500 records and 5 MiB. One result per record, in order; any subset may fail.
   * Rejects when it is not known what became of the whole request.
   */
  readonly put: (records: readonly StreamRecord[]) => Promise<PutResult[]>;
  /** `ready`, or what is wrong, in one line. */
  readonly check: () => Promise<string>;
  readonly close: () => void;
};

export type StreamOptions = {
  readonly stream: string;
  readonly region: string;
  /** null = AWS. */
  readonly endpoint: string | null;
  /** Absent = the SDK's own chain. Emulators take any. */
  readonly credentials?: { readonly accessKeyId: string; readonly secretAccessKey: string } | undefined;
};

const SOCKETS = 50;

const nameOf = (error: unknown): string => (error instanceof Error ? error.name : 'Error');

/**
 * Kinesis through the AWS SDK. HTTP/1.1 with keep-alive, also against AWS: the SDK's default opens an HTTP/2 session per request
 * (https://github.com/aws/aws-sdk-js-v3/issues/8279).
 */
export const createKinesisStream = (options: StreamOptions): EventStream => {
  const agents = { keepAlive: true, maxSockets: SOCKETS };
  const client = new KinesisClient({
    region: options.region,
    ...(options.endpoint === null ? {} : { endpoint: options.endpoint }),
    ...(options.credentials === undefined ? {} : { credentials: options.credentials }),
    maxAttempts: 3,
    retryMode: 'adaptive',
    requestHandler: new NodeHttpHandler({
      httpAgent: new HttpAgent(agents),
      httpsAgent: new HttpsAgent(agents),
      connectionTimeout: 2_000,
      requestTimeout: 10_000,
      throwOnRequestTimeout: true,
    }),
  });
  return {
    put: async (records) => {
      const answer = await client.send(
        new PutRecordsCommand({
          StreamName: options.stream,
          Records: records.map((record) => ({
            Data: record.data,
            PartitionKey: record.partitionKey,
            ExplicitHashKey: record.explicitHashKey,
          })),
        }),
      );
      if (answer.Records?.length !== records.length)
        throw new Error(`PutRecords answered ${answer.Records?.length ?? 0} results for ${records.length} records`);
      return answer.Records.map((result) =>
        result.ErrorCode === undefined && result.ShardId !== undefined && result.SequenceNumber !== undefined
          ? { ok: true, shardId: result.ShardId, sequenceNumber: result.SequenceNumber }
          : { ok: false, code: result.ErrorCode ?? 'unknown', throttled: result.ErrorCode === 'ProvisionedThroughputExceededException' },
      );
    },
    check: async () => {
      try {
        const answer = await client.send(new DescribeStreamSummaryCommand({ StreamName: options.stream }));
        const status = answer.StreamDescriptionSummary?.StreamStatus;
        return status === 'ACTIVE' || status === 'UPDATING' ? 'ready' : `stream ${options.stream} is ${status ?? 'in an unknown state'}`;
      } catch (error) {
        if (nameOf(error) === 'ResourceNotFoundException') return `stream ${options.stream} does not exist`;
        return `stream ${options.stream} cannot be reached: ${error instanceof Error ? error.message || error.name : String(error)}`;
      }
    },
    close: () => client.destroy(),
  };
};
