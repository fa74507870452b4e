import { CreateStreamCommand, DescribeStreamSummaryCommand, type KinesisClient, PutRecordsCommand } from '@aws-sdk/client-kinesis';
import { type Envelope, formatSequence, sourceOf } from '@banyan/contracts/envelope.ts';
import { aggregate } from '@banyan/contracts/kpl.ts';
import { startKinesis } from '@banyan/dev-kinesis/emulator.ts';
import { readConfig, type ServiceConfig } from '@banyan/kit/config.ts';
import { createKinesis } from '@banyan/kit/kinesis.ts';
import knex, { type Knex } from 'knex';
import { pino } from 'pino';
import { until } from '../harness/wait.ts';

export const silent = pino({ level: 'silent' });

/** A stream of its own on an emulator of its own. */
export const startStream = async (shards = 2) => {
  const emulator = await startKinesis({ limits: { throttle: false } });
  const kinesis = createKinesis({ region: 'eu-west-1', endpoint: emulator.url });
  const stream = 'facts';
  await kinesis.send(new CreateStreamCommand({ StreamName: stream, ShardCount: shards }));
  await until(
    async () =>
      (await kinesis.send(new DescribeStreamSummaryCommand({ StreamName: stream }))).StreamDescriptionSummary?.StreamStatus === 'ACTIVE',
    { describe: 'the stream' },
  );
  return {
    url: emulator.url,
    stream,
    kinesis,
    stop: async () => {
      kinesis.destroy();
      await emulator.stop();
    },
  };
};

export const openStore = (url: string): Knex =>
  knex({ client: 'pg', connection: { connectionString: url, application_name: 'test' }, pool: { min: 0, max: 12 } });

export const configFor = (databaseUrl: string, stream: { url: string; stream: string }, env: Record<string, string> = {}): ServiceConfig =>
  readConfig(
    {
      PORT: '0',
      DATABASE_URL: databaseUrl,
      KINESIS_ENDPOINT: stream.url,
      BANYAN_STREAM: stream.stream,
      POLL_MS: '20',
      LOG_LEVEL: 'silent',
      ...env,
    },
    0,
  );

export type FactOptions = {
  readonly context?: string;
  readonly origin?: 'legacy' | 'extracted';
  readonly sequence?: number;
  readonly epoch?: number;
  readonly time?: string;
  readonly phase?: Envelope['phase'];
  readonly id?: string;
};

let made = 0;
/** A fact as `append_fact` would write it. */
export const fact = (type: string, subject: string, data: Record<string, unknown>, options: FactOptions = {}): Envelope => {
  const { context = type.split('.')[0]!, origin = 'legacy', sequence = 1, epoch = 1 } = options;
  made += 1;
  return {
    specversion: '1.0',
    id: options.id ?? `fact-${made}`,
    source: sourceOf(context, origin),
    type,
    subject,
    time: options.time ?? new Date().toISOString(),
    datacontenttype: 'application/json',
    data,
    partitionkey: subject,
    sequence: formatSequence(sequence),
    epoch,
    origin,
    ...(options.phase === undefined ? {} : { phase: options.phase }),
  };
};

const bytes = (envelope: Envelope | string): Buffer => Buffer.from(typeof envelope === 'string' ? envelope : JSON.stringify(envelope));

const put = async (kinesis: KinesisClient, stream: string, records: readonly { key: string; data: Uint8Array }[]): Promise<void> => {
  for (let at = 0; at < records.length; at += 500) {
    const answer = await kinesis.send(
      new PutRecordsCommand({
        StreamName: stream,
        Records: records.slice(at, at + 500).map(({ key, data }) => ({ PartitionKey: key, Data: data })),
      }),
    );
    if (answer.FailedRecordCount) throw new Error(`${answer.FailedRecordCount} records were refused`);
  }
};

/** Each envelope as a record of its own; a string goes as it is, under the key `garbage`. */
export const publish = (stream: { kinesis: KinesisClient; stream: string }, facts: readonly (Envelope | string)[]): Promise<void> =>
  put(
    stream.kinesis,
    stream.stream,
    facts.map((envelope) => ({ key: typeof envelope === 'string' ? 'garbage' : envelope.partitionkey, data: bytes(envelope) })),
  );

/** All of one subject in one aggregated record. */
export const publishAggregated = (stream: { kinesis: KinesisClient; stream: string }, facts: readonly Envelope[]): Promise<void> =>
  put(stream.kinesis, stream.stream, [
    {
      key: facts[0]!.partitionkey,
      data: aggregate(facts.map((envelope) => ({ partitionKey: envelope.partitionkey, data: bytes(envelope) }))),
    },
  ]);
