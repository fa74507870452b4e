import { createHash } from 'node:crypto';
import { type KinesisClient, PutRecordsCommand } from '@aws-sdk/client-kinesis';
import { type Envelope, formatSequence, sourceOf } from '../../contracts/envelope.ts';
import { createAggregator } from '../../contracts/kpl.ts';

/** Hash slots, a power of two: a blob stays in one of them and so in one shard. */
const SLOTS = 64n;
const SLOT_WIDTH = 2n ** 128n / SLOTS;
const BLOB_BYTES = 25_600;

/** Fact `index` of a stream on which `subjects` orders change in turn. */
const factOf = (index: number, subjects: number): Envelope => {
  const subject = String(1000 + (index % subjects));
  return {
    specversion: '1.0',
    id: `019a0000-0000-7000-8000-${String(index).padStart(12, '0')}`,
    source: sourceOf('order', 'legacy'),
    type: 'order.changed.v1',
    subject,
    time: new Date(1_780_000_000_000 + index).toISOString(),
    datacontenttype: 'application/json',
    data: {
      id: Number(subject),
      userId: `user-${index % 500}`,
      items: [{ productId: 1 + (index % 20), quantity: 1, price: 12.5 }],
      total: 12.5,
      currency: 'EUR',
    },
    partitionkey: subject,
    sequence: formatSequence(Math.floor(index / subjects) + 1),
    epoch: 1,
    origin: 'legacy',
    traceparent: '00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01',
  };
};

const slotOf = (key: string): bigint => BigInt(`0x${createHash('md5').update(key).digest('hex')}`) / SLOT_WIDTH;

/** Puts `count` facts on the stream as the relay would: contract envelopes in blobs of at most 25,600 B. Gives the number of records. */
export const preload = async (kinesis: KinesisClient, stream: string, count: number, subjects: number): Promise<number> => {
  const slots = new Map<bigint, ReturnType<typeof createAggregator>>();
  const slotOfSubject = new Map<string, bigint>();
  let records: { PartitionKey: string; ExplicitHashKey: string; Data: Uint8Array }[] = [];
  let sent = 0;
  const flush = async (): Promise<void> => {
    if (records.length === 0) return;
    const answer = await kinesis.send(new PutRecordsCommand({ StreamName: stream, Records: records }));
    if (answer.FailedRecordCount) throw new Error(`${answer.FailedRecordCount} records were refused`);
    sent += records.length;
    records = [];
  };
  const close = (slot: bigint, blob: ReturnType<typeof createAggregator>): void => {
    records.push({ PartitionKey: 'a', ExplicitHashKey: String(slot * SLOT_WIDTH), Data: blob.finish() });
  };
  for (let index = 0; index < count; index += 1) {
    const fact = factOf(index, subjects);
    let slot = slotOfSubject.get(fact.subject);
    if (slot === undefined) {
      slot = slotOf(fact.subject);
      slotOfSubject.set(fact.subject, slot);
    }
    const record = { partitionKey: fact.subject, data: Buffer.from(JSON.stringify(fact)) };
    const open = slots.get(slot) ?? createAggregator(BLOB_BYTES);
    slots.set(slot, open);
    if (open.add(record)) continue;
    close(slot, open);
    const next = createAggregator(BLOB_BYTES);
    next.add(record);
    slots.set(slot, next);
    if (records.length >= 200) await flush();
  }
  for (const [slot, blob] of slots) close(slot, blob);
  while (records.length > 0) await flush();
  return sent;
};
