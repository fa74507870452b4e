import { CreateStreamCommand, type KinesisClient, PutRecordsCommand } from '@aws-sdk/client-kinesis';

const STREAM = 'puts';
const IN_FLIGHT = 4;
const BATCH = 500;
const BYTES = 200;

/** Records of 200 B through the SDK into the emulator, 500 a request, 4 requests under way. */
export const puts = async (kinesis: KinesisClient, records: number): Promise<{ records: number; seconds: number }> => {
  await kinesis.send(new CreateStreamCommand({ StreamName: STREAM, ShardCount: 4 }));
  const data = Buffer.alloc(BYTES, 'x');
  const batches = Array.from({ length: 8 }, (_, b) =>
    Array.from({ length: BATCH }, (_, i) => ({ PartitionKey: `key-${b}-${i}`, Data: data })),
  );
  let left = Math.ceil(records / BATCH);
  const total = left * BATCH;
  const startedAt = performance.now();
  await Promise.all(
    Array.from({ length: IN_FLIGHT }, async () => {
      while (left > 0) {
        left -= 1;
        const answer = await kinesis.send(new PutRecordsCommand({ StreamName: STREAM, Records: batches[left % batches.length]! }));
        if (answer.FailedRecordCount) throw new Error(`${answer.FailedRecordCount} records were refused`);
      }
    }),
  );
  return { records: total, seconds: (performance.now() - startedAt) / 1000 };
};
