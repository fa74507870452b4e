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
   * At most 500 records and 5 MiB; their data is the caller's again once it has settled. One result per record, in order; any subset may fail.
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

/** Of a request as JSON: 5 MiB in base64, and some. Larger memory is not kept. */
const MAX_SPARE_BYTES = 16 * 1_048_576;

/**
 * The body of PutRecords (AWS JSON 1.1). The SDK writes base64 byte by byte in JavaScript and doubles fresh memory until it is enough; that was a quarter of
 * what a fact cost. @param memory written into if it is large enough
 */
const writeBody = (head: string, records: readonly StreamRecord[], memory: Buffer): Buffer => {
  const tails = records.map(
    (record) => `","PartitionKey":${JSON.stringify(record.partitionKey)},"ExplicitHashKey":${JSON.stringify(record.explicitHashKey)}}`,
  );
  let most = Buffer.byteLength(head) + 2;
  for (const [index, { data }] of records.entries()) most += 11 + Math.ceil(data.length / 3) * 4 + tails[index]!.length * 3;
  const body = memory.length >= most ? memory : Buffer.allocUnsafeSlow(Math.max(most, 65_536));
  let at = body.write(head, 0);
  for (const [index, { data }] of records.entries()) {
    at += body.write(index === 0 ? '{"Data":"' : ',{"Data":"', at, 'latin1');
    at += body.write(data.toString('base64'), at, 'latin1');
    at += body.write(tails[index]!, at);
  }
  at += body.write(']}', at, 'latin1');
  return body.subarray(0, at);
};

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
  const head = `{"StreamName":${JSON.stringify(options.stream)},"Records":[`;
  let spare: Buffer | null = null;
  return {
    put: async (records) => {
      const memory = spare ?? Buffer.alloc(0);
      // one request at a time has it; another one, or one after a failure (a dead socket may still hold it), gets memory of its own
      spare = null;
      const body = writeBody(head, records, memory);
      const command = new PutRecordsCommand({ StreamName: options.stream, Records: [] });
      command.middlewareStack.add(
        (next) => (args) => {
          const request = args.request as { body: unknown; headers: Record<string, string> };
          request.body = body;
          request.headers['content-length'] = String(body.length);
          return next(args);
        },
        { step: 'build', name: 'body', priority: 'high' },
      );
      const answer = await client.send(command);
      if (body.buffer.byteLength <= MAX_SPARE_BYTES) spare = Buffer.from(body.buffer);
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
