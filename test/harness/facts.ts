import { GetRecordsCommand, GetShardIteratorCommand, KinesisClient, ListShardsCommand } from '@aws-sdk/client-kinesis';
import { type Envelope, envelopeSchema } from '@banyan/contracts/envelope.ts';
import { deaggregate } from '@banyan/contracts/kpl.ts';
import { NodeHttpHandler } from '@smithy/node-http-handler';

/** Every fact on the stream, from its beginning, shard by shard in order; what stands in aggregated records included. */
export const readFacts = async (endpoint: string, stream = 'domain-events'): Promise<Envelope[]> => {
  const client = new KinesisClient({
    endpoint,
    region: 'eu-west-1',
    credentials: { accessKeyId: 'test', secretAccessKey: 'test' },
    requestHandler: new NodeHttpHandler(),
    maxAttempts: 10,
  });
  try {
    const facts: Envelope[] = [];
    const { Shards = [] } = await client.send(new ListShardsCommand({ StreamName: stream }));
    for (const { ShardId } of Shards) {
      let { ShardIterator } = await client.send(
        new GetShardIteratorCommand({ StreamName: stream, ShardId, ShardIteratorType: 'TRIM_HORIZON' }),
      );
      for (;;) {
        const page = await client.send(new GetRecordsCommand({ ShardIterator }));
        for (const record of page.Records ?? []) {
          const data = record.Data ?? new Uint8Array();
          for (const part of deaggregate(data) ?? [{ data }])
            facts.push(envelopeSchema.parse(JSON.parse(Buffer.from(part.data).toString('utf8'))));
        }
        if (!page.NextShardIterator || ((page.Records ?? []).length === 0 && (page.MillisBehindLatest ?? 0) === 0)) break;
        ShardIterator = page.NextShardIterator;
      }
    }
    return facts;
  } finally {
    client.destroy();
  }
};

/** Distinct facts by identity: the stream is at least once. */
export const distinct = (facts: readonly Envelope[]): Envelope[] => [
  ...new Map(facts.map((fact) => [`${fact.source} ${fact.id}`, fact])).values(),
];

/** What is wrong with the order of facts: per (source, subject, epoch) the first deliveries must count 1, 2, 3 … */
export const orderFaults = (facts: readonly Envelope[]): string[] => {
  const heads = new Map<string, number>();
  const faults: string[] = [];
  for (const fact of facts) {
    const key = `${fact.source} ${fact.subject} ${fact.epoch}`;
    const head = heads.get(key) ?? 0;
    const sequence = Number(fact.sequence);
    if (sequence <= head) continue; // a repeat
    if (sequence !== head + 1) faults.push(`${key}: ${sequence} after ${head}`);
    heads.set(key, sequence);
  }
  return faults;
};
